# Solvers by name.

const EXPLICIT = Dict{String,Any}(
    "Euler" => Euler, "Midpoint" => Midpoint, "Heun" => Heun, "RK4" => RK4, "BS3" => BS3,
    "DP5" => DP5, "Tsit5" => Tsit5, "Vern6" => Vern6, "Vern7" => Vern7, "Vern8" => Vern8,
    "Vern9" => Vern9,
)
const IMPLICIT = Dict{String,Any}(
    "Rosenbrock23" => Rosenbrock23, "Rodas4" => Rodas4, "Rodas5P" => Rodas5P,
    "TRBDF2" => TRBDF2, "KenCarp4" => KenCarp4, "Kvaerno5" => Kvaerno5, "FBDF" => FBDF,
    "QNDF" => QNDF,
)

is_implicit(method::String) = haskey(IMPLICIT, method)

# Jacobians are supplied for the forward problem. The adjoint problem has none of its own for some
# adjoints, and functions behind a FunctionWrapper take no dual numbers: finite differences of a
# function that is linear in its argument.
function algorithm(method::String)
    is_implicit(method) && return IMPLICIT[method](; autodiff=AutoFiniteDiff())
    return EXPLICIT[method]()
end

# Gradients of an implicit method's solve come from Rodas5P, forward and backward. The adjoint of a
# stiff problem jumps at every save point, and the fast part of a jump dies within one step.
# Gradients are made from interpolations of such steps, and those of the SDIRK methods, Hermite's,
# can be wrong by orders of magnitude where every step is right; the multistep methods restart at
# every save point. Rodas5P has an interpolation of its own for stiff problems.
backward_method(method::String) = is_implicit(method) ? "Rodas5P" : method
