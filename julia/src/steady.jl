# Steady states, f(u, p) = 0.

const STEADY = Dict{String,Any}()

"""
    load_steady(method)

Load the package of a method for steady states, in a call of its own as [`load`](@ref) does:
`"DynamicSS"` follows the equation until it rests, `"TrustRegion"` and `"NewtonRaphson"` solve
f = 0.
"""
function load_steady(method)
    name = String(method)
    haskey(STEADY, name) && return nothing
    package = name == "DynamicSS" ? "SteadyStateDiffEq" : "NonlinearSolve"
    STEADY[name] = getglobal(Base.require(Base.identify_package(Pyjlode, package)), Symbol(name))
    return nothing
end

const MOVED_AWAY = "moved away"

"""
    steady_state(model, method, u0, p, rtol, atol, maxiters, info) -> Start

The steady state that `method` finds from `u0`, to the tolerances, and then Newton's method to
rounding: as gradients are those of the exact one. `info` gets the counts as in [`forward`](@ref).
"""
function steady_state(
    model::Model{T}, method, u0::PyArray{T}, p::PyArray{T}, rtol, atol, maxiters, info
) where {T}
    return steady_state(
        model, String(method), copy(plain(u0)), copy(plain(p)), Float64(rtol), Float64(atol),
        Int(maxiters), plain(info),
    )
end

function steady_state(
    model::Model{T}, method::String, u0::Vector{T}, p::Vector{T}, rtol::Float64, atol::Float64,
    maxiters::Int, info::Vector{Float64},
) where {T}
    isempty(p) && (p = zeros(T, 1))
    algebraic = with_mass(model, zeros(T, 1, 1)) # no equation has a derivative
    f = ode_function(model, true)
    solution = beside_python(() -> rest(method, f, u0, p; rtol, atol, maxiters), model)
    info[3], info[4] = solution.stats.nf, solution.stats.njacs
    u = Vector{T}(solution.u)
    failed(why) = Start(algebraic, u, p, 0.0, copy(model.constants), zero(u), why)
    successful_retcode(solution) || return failed(string(solution.retcode))
    found = initialize(algebraic, copy(u), p, 0.0, rtol, atol, true)
    isempty(found.message) || return found
    # Where the equation is slow, "at rest" is not yet near a steady state.
    moved = maximum(abs, found.u - u)
    return moved <= 1e-2 * maximum(abs, u) + 1e2 * atol ? found : failed(MOVED_AWAY)
end

function rest(method, f, u0, p; rtol, atol, maxiters)
    if method == "DynamicSS"
        problem = SciMLBase.SteadyStateProblem(f, u0, p)
        return SciMLBase.solve(
            problem, STEADY[method](algorithm("Rodas5P", (; f))); abstol=atol, reltol=rtol,
            odesolve_kwargs=(; maxiters, verbose=QUIET),
        )
    end
    g = SciMLBase.NonlinearFunction{true,SciMLBase.FullSpecialize}(
        (du, u, p) -> f(du, u, p, 0.0); jac=(J, u, p) -> f.jac(J, u, p, 0.0), f.jac_prototype
    )
    solver = STEADY[method](; autodiff=AutoFiniteDiff())
    problem = SciMLBase.NonlinearProblem(g, u0, p)
    return SciMLBase.solve(problem, solver; abstol=atol, reltol=rtol, maxiters, verbose=QUIET)
end
