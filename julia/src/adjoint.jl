# Gradients: what all sensitivity algorithms have in common.

"A backward solve that did not reach the initial time."
struct BackwardFailure <: Exception
    retcode::String
    time::Float64
end

function Base.showerror(io::IO, e::BackwardFailure)
    return print(io, "the backward solve stopped at t = ", e.time, " (", e.retcode, ")")
end

function check_finite(start, gradients...)
    all(g -> all(isfinite, g), gradients) || throw(BackwardFailure("Unstable", start))
    return nothing
end

"""
    sensitivity(name, rtol, atol, checkpointing)

A sensitivity algorithm by its short name; the continuous adjoints are SciMLSensitivity's, and there
when that is loaded.
"""
function sensitivity(name, rtol, atol, checkpointing)
    name == "discrete" && return DiscreteAdjoint()
    name == "forward" && return ForwardSensitivity()
    return continuous_adjoint(name, rtol, atol, checkpointing)
end

"`sensitivity` of a continuous adjoint."
function continuous_adjoint end

# `backward`, with a failure told by its return code; the constants are those of the solve.
function backward_reported(
    solved, sensealg, settings::Settings, cotangent::Vector{T}, gradient_u::Vector{T},
    gradient_p::Vector{T}, gradient_t::Vector{T}, report::Vector{Float64},
) where {T}
    try
        with_constants(solved.model, solved.constants) do
            backward(
                solved, sensealg, settings, cotangent, gradient_u, gradient_p, gradient_t, report
            )
        end
        return nothing
    catch failure
        failure isa BackwardFailure || rethrow()
        report[2] = failure.time
        return failure.retcode
    end
end

"""
    backward(solved, sensealg, settings, cotangent, gradient_u, gradient_p, gradient_t, info)

Gradients of `sum(cotangent .* states)` with respect to the initial state, the parameters and the
times; `solved` is what [`forward`](@ref) or [`forward_rows`](@ref) gave. Throws a
`BackwardFailure` where a backward solve fails; `info` gets its report, as in [`forward`](@ref).
"""
function backward end

function time_gradients!(gradient, solved::Solved{T}, cotangent, λ) where {T}
    (; model, p, ts) = solved
    n = model.states
    du = zeros(T, n)
    for i in eachindex(ts)
        u = vector(T, state_at(solved.solution, ts, i))
        model.value(du, u, p, ts[i])
        weight = i == 1 ? -λ : view(cotangent, ((i - 1) * n + 1):(i * n))
        gradient[i] = dot(weight, du)
    end
    return nothing
end
