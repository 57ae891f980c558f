# The backward solve. SciMLSensitivity's `adjoint_sensitivities` does not hand back the return code
# of the solve it makes, and gradients from a solve that stopped early look like any others (its
# issue 1012). So its problems are built and solved here, and every return code is looked at.

"A backward solve that did not reach the initial time."
struct BackwardFailure <: Exception
    retcode::String
    time::Float64
end

function Base.showerror(io::IO, e::BackwardFailure)
    return print(io, "the backward solve stopped at t = ", e.time, " (", e.retcode, ")")
end

"""
    sensitivity(name, rtol, atol, checkpointing)

A sensitivity algorithm by its short name. All use the supplied vector-Jacobian product:
`ZygoteVJP()` is the choice that goes straight to it, without probing other tools.
"""
function sensitivity(name, rtol, atol, checkpointing)
    autojacvec = ZygoteVJP()
    name == "gauss" && return GaussAdjoint(; autojacvec, checkpointing=Bool(checkpointing))
    name == "interpolating" &&
        return InterpolatingAdjoint(; autojacvec, checkpointing=Bool(checkpointing))
    name == "backsolve" && return BacksolveAdjoint(; autojacvec, checkpointing=Bool(checkpointing))
    name == "quadrature" &&
        return QuadratureAdjoint(; autojacvec, abstol=Float64(atol), reltol=Float64(rtol))
    throw(ArgumentError("unknown sensitivity algorithm $name"))
end

"""
    backward(solved, sensealg, settings, cotangent, gradient_u, gradient_p, gradient_t, info)

Gradients of `sum(cotangent .* states)` with respect to the initial state, the parameters and the
times. Returns `nothing`, or the return code of a backward solve that failed; `info` gets its
report, as in [`forward`](@ref).
"""
function backward(
    solved::Solved{T}, sensealg, settings::Settings, cotangent::PyArray{T},
    gradient_u::PyArray{T}, gradient_p::PyArray{T}, gradient_t::PyArray{T},
    info::PyArray{Float64},
) where {T}
    model = solved.model
    current = copy(model.constants)
    copyto!(model.constants, solved.constants)
    report = plain(info)
    try
        backward(
            solved, sensealg, settings, plain(cotangent), plain(gradient_u), plain(gradient_p),
            plain(gradient_t), report,
        )
        return nothing
    catch failure
        failure isa BackwardFailure || rethrow()
        report[2] = failure.time
        return failure.retcode
    finally
        copyto!(model.constants, current)
    end
end

function backward(
    solved::Solved{T}, sensealg, settings::Settings, cotangent::Vector{T}, gradient_u::Vector{T},
    gradient_p::Vector{T}, gradient_t::Vector{T}, info::Vector{Float64},
) where {T}
    n, ts = solved.model.states, solved.ts
    fill!(gradient_t, zero(T))
    if length(ts) > 1 && ts[1] != ts[end]
        loss = CotangentAt{T}(cotangent, n)
        λ, dp = adjoint_solve(solved.solution, sensealg, settings, ts[2:end], loss, info)
        copyto!(gradient_u, λ)
        copyto!(gradient_p, 1, dp, 1, length(gradient_p))
        isempty(gradient_t) || time_gradients!(gradient_t, solved, cotangent, λ)
    else
        fill!(gradient_u, zero(T))
        fill!(gradient_p, zero(T))
        info[1] = 1
    end
    for i in 1:n
        gradient_u[i] += cotangent[i]
    end
    finite = all(isfinite, gradient_u) && all(isfinite, gradient_p)
    finite || throw(BackwardFailure("Unstable", ts[1]))
    return nothing
end

# The loss's derivative at save point `i + 1`, for SciMLSensitivity's discrete costs.
struct CotangentAt{T} <: Function
    values::Vector{T}
    n::Int
end
(c::CotangentAt)(out, u, p, t, i) = (copyto!(out, 1, c.values, i * c.n + 1, c.n); nothing)

function time_gradients!(gradient, solved::Solved{T}, cotangent, λ) where {T}
    (; model, p, ts) = solved
    n = model.states
    du = zeros(T, n)
    for i in eachindex(ts)
        u = Vector{T}(solved.solution(ts[i]))
        model.value(du, u, p, ts[i])
        weight = i == 1 ? -λ : view(cotangent, ((i - 1) * n + 1):(i * n))
        gradient[i] = dot(weight, du)
    end
    return nothing
end

function solve_adjoint(problem, settings::Settings, info; options...)
    span = abs(problem.tspan[2] - problem.tspan[1])
    solution = solve(problem, algorithm(settings.method); keywords(settings, span)..., options...)
    report!(info, solution)
    reached = solution.t[end] == problem.tspan[2]
    info[1] == 1 && reached ||
        throw(BackwardFailure(string(solution.retcode), Float64(solution.t[end])))
    return solution
end

const LAST_ONLY = (; save_everystep=false, save_start=false, save_end=true)

function adjoint_solve(
    solution, sensealg::Union{InterpolatingAdjoint,BacksolveAdjoint}, settings, ts, loss, info
)
    method = algorithm(settings.method)
    tolerances = (; abstol=settings.atol, reltol=settings.rtol)
    problem, _ = ODEAdjointProblem(
        solution, sensealg, method, ts, loss, nothing, nothing, nothing, nothing, Val(true);
        checkpoints=ts, tolerances...,
    )
    adjoint = solve_adjoint(problem, settings, info; LAST_ONLY..., tstops=ts)
    n = length(solution.prob.u0)
    z = adjoint.u[end]
    return z[1:n], z[(n + 1):(n + length(solution.prob.p))]
end

function adjoint_solve(solution, sensealg::GaussAdjoint, settings, ts, loss, info)
    method = algorithm(settings.method)
    p = solution.prob.p
    integrand = SciMLSensitivity.GaussIntegrand(solution, sensealg, ts, nothing)
    total = IntegrandValuesSum(zero(p))
    integrate = IntegratingSumCallback(
        (out, λ, t, integrator) -> integrand(out, t, λ), total, zero(p)
    )
    problem, jumps, _ = ODEAdjointProblem(
        solution, sensealg, method, integrand, integrate, ts, loss, nothing, nothing, nothing,
        nothing, Val(true); checkpoints=ts, abstol=settings.atol, reltol=settings.rtol,
    )
    adjoint = solve_adjoint(
        problem, settings, info; LAST_ONLY..., tstops=ts, callback=CallbackSet(integrate, jumps)
    )
    return adjoint.u[end], total.integrand
end

function adjoint_solve(solution, sensealg::QuadratureAdjoint, settings, ts, loss, info)
    method = algorithm(settings.method)
    problem, _ = ODEAdjointProblem(
        solution, sensealg, method, ts, loss, nothing, nothing, nothing, nothing, Val(true)
    )
    adjoint = solve_adjoint(
        problem, settings, info; save_everystep=true, save_start=true, tstops=ts
    )
    integrand = SciMLSensitivity.AdjointSensitivityIntegrand(solution, adjoint, sensealg, nothing)
    dp = zero(solution.prob.p)
    times = [solution.prob.tspan[1]; ts]
    for i in 1:(length(times) - 1)
        times[i] == times[i + 1] && continue
        part, _ = quadgk(
            integrand, times[i], times[i + 1]; atol=sensealg.abstol, rtol=sensealg.reltol
        )
        dp .+= vec(part)
    end
    return adjoint.u[end], dp
end
