# Solvers by name.

const EXPLICIT = Dict{String,Any}(
    "Euler" => Euler, "Midpoint" => Midpoint, "Heun" => Heun, "RK4" => RK4, "BS3" => BS3,
    "DP5" => DP5, "Tsit5" => Tsit5, "Vern6" => Vern6, "Vern7" => Vern7, "Vern8" => Vern8,
    "Vern9" => Vern9,
)
const IMPLICIT = Dict{String,Any}(
    "Rosenbrock23" => Rosenbrock23, "Rodas4" => Rodas4, "Rodas5P" => Rodas5P,
)

# Loaded when they are asked for: their packages take a second or two.
const BDF = ("OrdinaryDiffEqBDF", "6ad6398a-0878-4a85-9266-38940aa047c8")
const SDIRK = ("OrdinaryDiffEqSDIRK", "2d112036-d095-4a1e-ab9a-08536f3ecdbf")
const ON_DEMAND = Dict(
    "FBDF" => BDF, "QNDF" => BDF, "KenCarp4" => SDIRK, "Kvaerno5" => SDIRK, "TRBDF2" => SDIRK,
)

"""
    load(method)

Load the package of a method that is not there from the start. It must be a call of its own: a
function that runs already does not see methods that were loaded after it began.
"""
function load(method)
    name = String(method)
    (haskey(ON_DEMAND, name) && !haskey(IMPLICIT, name)) || return nothing
    package, uuid = ON_DEMAND[name]
    loaded = Base.require(Base.PkgId(Base.UUID(uuid), package))
    IMPLICIT[name] = getglobal(loaded, Symbol(name))
    return nothing
end

is_implicit(method::String) = haskey(IMPLICIT, method) || haskey(ON_DEMAND, method)

# Jacobians are supplied, but for the backsolve adjoint's, whose equation is not linear: finite
# differences there, as functions behind a FunctionWrapper take no dual numbers.
function algorithm(method::String, problem=nothing)
    is_implicit(method) || return EXPLICIT[method]()
    sparse = problem !== nothing && problem.f.jac_prototype isa SparseMatrixCSC
    sparse || return IMPLICIT[method](; autodiff=AutoFiniteDiff())
    return IMPLICIT[method](; autodiff=AutoFiniteDiff(), linsolve=KLUFactorization())
end

# Gradients of an implicit method's solve come from Rodas5P, forward and backward. The adjoint of a
# stiff problem jumps at every save point, and the fast part of a jump dies within one step.
# Gradients are made from interpolations of such steps, and those of the SDIRK methods, Hermite's,
# can be wrong by orders of magnitude where every step is right; the multistep methods restart at
# every save point. Rodas5P has an interpolation of its own for stiff problems.
backward_method(method::String) = is_implicit(method) ? "Rodas5P" : method
