# The discrete adjoint of symplectic and Nyström methods. It is symplectic where they are, so
# gradients over many steps neither grow nor fade by themselves.

# The state of the backward sweep: `λq` and `λp` are the loss's derivatives with respect to the
# state at the step's end, `μ[i]` with respect to evaluation `i`; `δt` and `δdt` with respect to
# the step's start and length.
mutable struct PartitionedSweep{T}
    const tape::PartitionedTape{T}
    const tableau::PartitionedTableau
    const with_t::Bool
    const k::Vector{Vector{T}}
    const μ::Vector{Vector{T}}
    const λq::Vector{T}
    const λp::Vector{T}
    const state::Vector{T}
    const value::Vector{T}
    const seed::Vector{T}
    const pulled::Vector{T}
    const pulled_p::Vector{T}
    const pulled_t::Vector{T}
    const dp::Vector{T}
    δt::Float64
    δdt::Float64
    products::Int
end

function PartitionedSweep(tape::PartitionedTape{T}, tableau, with_t) where {T}
    n, m, s = tape.model.states, tape.model.parameters, length(tableau.kick)
    half() = zeros(T, n ÷ 2)
    whole() = zeros(T, n)
    return PartitionedSweep{T}(
        tape, tableau, with_t, [half() for _ in 1:s], [half() for _ in 1:s], half(), half(),
        whole(), whole(), whole(), whole(), zeros(T, max(m, 1)), zeros(T, 1), zeros(T, max(m, 1)),
        0.0, 0.0, 0,
    )
end

function backward(
    solved::Solved{T,S,PartitionedTape{T}}, ::DiscreteAdjoint, settings::Settings,
    cotangent::Vector{T}, gradient_u::Vector{T}, gradient_p::Vector{T}, gradient_t::Vector{T},
    info::Vector{Float64},
) where {T,S}
    (; tape, ts) = solved
    n = tape.model.states
    half = n ÷ 2
    s = PartitionedSweep(tape, partitioned_tableau(solved.settings.method), !isempty(gradient_t))
    dts = zeros(length(ts))
    for i in reverse(eachindex(tape.t))
        passed = i == 1 ? 1 : tape.upto[i - 1]
        stages!(s, i)
        i < length(tape.t) && check_end(s, tape.states[i + 1], tape.t[i])
        for j in (passed + 1):(tape.upto[i])
            offset = (j - 1) * n
            add!(s.λq, cotangent, offset)
            add!(s.λp, cotangent, offset + half)
            s.with_t && !settings.fixed || continue
            tape.model.value(s.value, s.state, tape.p, tape.t[i] + tape.dt[i])
            dts[j] = dot_at(s.value, cotangent, offset)
        end
        step_back!(s, i)
        s.with_t && time_of_step!(dts, s, settings.fixed, i)
    end
    settings.fixed || (dts[1] -= sum(@view dts[2:end]))
    for i in 1:half
        gradient_u[i] = s.λq[i] + cotangent[i]
        gradient_u[half + i] = s.λp[i] + cotangent[half + i]
    end
    copyto!(gradient_p, 1, s.dp, 1, length(gradient_p))
    copyto!(gradient_t, 1, dts, 1, length(gradient_t))
    report_backward!(info, ts[1], s.products)
    return check_finite(ts[1], gradient_u, gradient_p, gradient_t)
end

# The argument of evaluation `i` of a step, or its end, into `s.state`.
function argument!(s::PartitionedSweep{T}, start, i, dt) where {T}
    (; tableau, state, k) = s
    half = length(state) ÷ 2
    copyto!(state, start)
    @inbounds for m in 1:half
        state[m] += T(tableau.α[i] * dt) * start[half + m]
    end
    for j in eachindex(k)
        a, b = T(tableau.q[i][j] * dt^tableau.s), T(tableau.p[i][j] * dt)
        a == 0 && b == 0 && continue
        x = k[j]
        @inbounds @simd for m in 1:half
            state[m] += a * x[m]
            state[half + m] += b * x[m]
        end
    end
    return state
end

# The evaluations of step `n` from its start, and its end in `s.state`.
function stages!(s::PartitionedSweep, n)
    (; tape, tableau, value, k) = s
    start, dt = tape.states[n], tape.dt[n]
    half = length(start) ÷ 2
    for i in eachindex(k)
        tape.model.value(value, argument!(s, start, i, dt), tape.p, tape.t[n] + tableau.c[i] * dt)
        copyto!(k[i], 1, value, tableau.kick[i] ? half + 1 : 1, half)
    end
    argument!(s, start, length(k) + 1, dt)
    return nothing
end

# The tableau is read off one step; that the solver's other steps are of it is looked at here.
function check_end(s::PartitionedSweep{T}, expected, t) where {T}
    scale = maximum(abs, expected)
    near = all(i -> abs(s.state[i] - expected[i]) <= cbrt(eps(T))^2 * scale, eachindex(expected))
    near || throw(BackwardFailure("its steps are not those of its tableau", t))
    return nothing
end

# From the derivatives with respect to the end of step `n`, computed by `stages!`, to its start.
function step_back!(s::PartitionedSweep{T}, n) where {T}
    (; tape, tableau, k, μ, λq, λp, pulled) = s
    (; model, p) = tape
    start, t, dt = tape.states[n], tape.t[n], tape.dt[n]
    half = length(λq)
    s.δt = s.δdt = 0.0
    foreach(x -> fill!(x, zero(T)), μ)
    copyto!(pulled, 1, λq, 1, half)
    copyto!(pulled, half + 1, λp, 1, half)
    fill!(λq, zero(T))
    fill!(λp, zero(T))
    spread_argument!(s, start, length(k) + 1, dt)
    for i in reverse(eachindex(k))
        fill!(s.seed, zero(T))
        copyto!(s.seed, tableau.kick[i] ? half + 1 : 1, μ[i], 1, half)
        argument!(s, start, i, dt)
        time = t + tableau.c[i] * dt
        model.vjp_both(pulled, s.pulled_p, s.seed, s.state, p, time)
        s.products += 1
        model.parameters == 0 || add!(s.dp, s.pulled_p, 0)
        if s.with_t && model.depends_on_time
            model.vjp_t(s.pulled_t, s.seed, s.state, p, time)
            s.δt += s.pulled_t[1]
            s.δdt += tableau.c[i] * s.pulled_t[1]
        end
        spread_argument!(s, start, i, dt)
    end
    return nothing
end

# `s.pulled` is the derivative with respect to the argument `i` of a step, which is in `s.state`: to
# what that is made of.
function spread_argument!(s::PartitionedSweep{T}, start, i, dt) where {T}
    (; tableau, k, μ, λq, λp, pulled, state) = s
    half = length(λq)
    α = T(tableau.α[i] * dt)
    @inbounds for m in 1:half
        λq[m] += pulled[m]
        λp[m] += pulled[half + m] + α * pulled[m]
    end
    for j in eachindex(k)
        a, b = T(tableau.q[i][j] * dt^tableau.s), T(tableau.p[i][j] * dt)
        a == 0 && b == 0 && continue
        x = μ[j]
        @inbounds @simd for m in 1:half
            x[m] += a * pulled[m] + b * pulled[half + m]
        end
    end
    s.with_t || return nothing
    for m in 1:half
        drift = tableau.α[i] * start[half + m]
        rest = state[m] - start[m] - dt * drift
        s.δdt += pulled[m] * (drift + tableau.s * rest / dt)
        s.δdt += pulled[half + m] * (state[half + m] - start[half + m]) / dt
    end
    return nothing
end
