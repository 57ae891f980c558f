"""
Has the SDIRK methods' Newton iteration measure its rate, and compiles, when their package is
installed, what the first solve and gradient with one would.
"""
module PyjlodeSDIRKExt

using OrdinaryDiffEqSDIRK: NLNewton, OrdinaryDiffEqSDIRK
using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: MeasuredRate, Pattern, Pyjlode, SPARSE, example, exercise_loaded, exercise_rows,
    exercise_split
using Pyjlode.SciMLBase: DEIntegrator

const NonlinearSolvers = parentmodule(NLNewton)

# Called at each iteration, between its change and the look at its rate.
function NonlinearSolvers.relax!(
    dz, newton::NonlinearSolvers.AbstractNLSolver, ::DEIntegrator, f::F, ::MeasuredRate
) where {F}
    Pyjlode.measure_rate!(newton)
    return dz
end

@setup_workload begin
    @compile_workload begin
        for method in ("TRBDF2", "KenCarp4", "Kvaerno5")
            exercise_loaded(method, "OrdinaryDiffEqSDIRK", ("discrete",))
        end
        for method in ("TRBDF2", "KenCarp4")
            exercise_loaded(method, "OrdinaryDiffEqSDIRK", (); T=Float32)
        end
        exercise_loaded("KenCarp4", "OrdinaryDiffEqSDIRK", (); states=SPARSE)
        for keep in ("nothing", "steps")
            exercise_split("KenCarp4", keep)
        end
        for keep in ("values", "steps")
            exercise_rows(example(Float64, 2, Pattern(2)), "Kvaerno5", keep, "discrete")
        end
    end
end

end
