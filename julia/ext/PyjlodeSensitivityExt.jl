"""
The continuous adjoints: what of the Julia half of pyjlode needs SciMLSensitivity. That and what it
needs take longer to load than all the rest, so it is loaded with the first of them.
"""
module PyjlodeSensitivityExt

using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: Pyjlode, AdjointJacobian, BackwardFailure, Jacobian, Model, Pattern, SPARSE, Settings,
    Solved, algorithm, backward_method, check_finite, diagonal, example, exercise, is_implicit,
    jacobian_pattern, keywords, ode_function, precompile_entry_points, prototype, report!, retune!,
    run_solver, time_gradients!, transposed, with_method
using SciMLBase: SciMLBase, CallbackSet, DiscreteCallback, ODEFunction, ODEProblem, init, solve!
using SciMLSensitivity: SciMLSensitivity, BacksolveAdjoint, GaussAdjoint, InterpolatingAdjoint,
    ODEAdjointProblem, QuadratureAdjoint, ZygoteVJP

include("quadrature.jl")
include("continuous_adjoint.jl")

# With SciMLSensitivity there some of what is called and what solves is compiled anew; so that is
# here, too.
precompile_entry_points()

@setup_workload begin
    @compile_workload begin
        names = ("discrete", "gauss", "interpolating", "quadrature", "backsolve")
        for T in (Float64, Float32)
            exercise(example(T, 2, Pattern(2)), "Tsit5", names)
            exercise(example(T, 2, Pattern(2)), "Rosenbrock23", ("gauss",))
        end
        exercise(example(Float64, 2, Pattern(2)), "Rodas5P", names)
        exercise(example(Float32, 2, Pattern(2)), "Rodas5P", ("discrete", "gauss"))
        exercise(example(Float64, SPARSE, diagonal(SPARSE)), "Rodas5P", ("gauss",))
    end
end

end
