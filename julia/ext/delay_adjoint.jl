# The discrete adjoint: reverse mode through the steps, with delayed states read from earlier ones.

# The loss's derivatives with respect to the state at a step's start, as far as it is interpolated,
# and to the step's stages, where `live`.
struct Cotangents{T}
    start::Vector{T}
    μ::Vector{Vector{T}}
    live::Vector{Bool}
end

"""
    Sweep{T}

The state of the backward sweep. `λ` is the loss's derivative with respect to the state at the end
of the step under way, then at its start. What later steps read of an earlier one is gathered in
`waiting` until its turn comes. `du`, `dp`, `dp_history`, `dlags` and `dts` are the derivatives with
respect to the constant past, the parameters, the lags and the save points, and `dstart` with respect
to the start, with which all steps move. `slopes` says whether times and lags are wanted.
"""
mutable struct Sweep{T}
    const steps::Steps{T}
    const cotangent::Vector{T}
    const slopes::Bool
    λ::Vector{T}
    λ_start::Vector{T}
    const waiting::Dict{Int,Cotangents{T}}
    const spare::Vector{Cotangents{T}}
    const argument::Vector{T}
    const end_state::Vector{T}
    const pulled::Vector{T}
    const v::Vector{T}
    const pulled_z::Vector{T}
    const pulled_p::Vector{T}
    const pulled_history::Vector{T}
    const unused::Vector{T}
    const pulled_t::Vector{T}
    const du::Vector{T}
    const dp::Vector{T}
    const dp_history::Vector{T}
    const dlags::Vector{Float64}
    const dts::Vector{Float64}
    dstart::Float64
    const weights::Vector{Float64}
    products::Int
end

function Sweep(steps::Steps{T}, cotangent::Vector{T}, slopes::Bool) where {T}
    (; u0, joined, p, p_history, lags) = steps.equation
    state() = zeros(T, length(u0))
    return Sweep{T}(
        steps, cotangent, slopes, state(), state(), Dict{Int,Cotangents{T}}(), Cotangents{T}[],
        state(), state(), state(), zero(joined), zero(joined), zero(p), zero(p_history),
        state(), zeros(T, 1), state(), zero(p), zero(p_history), zero(lags), zero(steps.ts), 0.0,
        zeros(length(steps.tableau)), 0,
    )
end

"""
    backward(steps, cotangent, gradients..., slopes, info)

The gradients with respect to the initial state, or the constant past, the parameters of the
function and of the past, the lags, and the save points, from those with respect to the states at
these. The lags' and the save points' are right only with `slopes`. `info` gets the count of
products.
"""
function backward(
    steps::Steps{T}, cotangent, gradient_u, gradient_p, gradient_history, gradient_lags,
    gradient_t, slopes, info,
) where {T}
    (; model, history) = steps.equation
    sweep = Sweep(steps, copy(vector(cotangent)), Bool(slopes))
    beside_python(model, history) do
        with_constants(model, steps.constants) do
            history === nothing && return sweep_back!(sweep)
            return with_constants(() -> sweep_back!(sweep), history, steps.constants_history)
        end
    end
    gradients = (gradient_u, gradient_p, gradient_history, gradient_lags, gradient_t)
    found = (sweep.λ, sweep.dp, sweep.dp_history, sweep.dlags, sweep.dts)
    foreach((to, from) -> copyto!(vector(to), from), gradients, found)
    vector(info)[1] = sweep.products
    return nothing
end

function sweep_back!(s::Sweep{T}) where {T}
    compute_stages!(s.steps)
    for n in length(s.steps):-1:1
        step_back!(s, n)
    end
    # The first save point is the initial state, and the constant past has it too.
    add!(s.λ, s.cotangent, 0)
    add!(s.λ, s.du, 0)
    # Steps move with the start and keep their lengths.
    s.dts[1] += s.dstart - sum(@view s.dts[2:end])
    return nothing
end

# What is gathered for a step; nothing of it is live at first.
function cotangents!(s::Sweep{T}, n::Int) where {T}
    return get!(s.waiting, n) do
        if !isempty(s.spare)
            found = pop!(s.spare)
            fill!(found.start, zero(T))
            fill!(found.live, false)
            return found
        end
        stages = length(s.steps.tableau)
        return Cotangents{T}(zero(s.λ), [zero(s.λ) for _ in 1:stages], fill(false, stages))
    end
end

# From the derivative with respect to the state at the end of step `n` to that at its start.
function step_back!(s::Sweep{T}, n::Int) where {T}
    (; steps) = s
    (; tableau) = steps
    k, u, dt = steps.stages[n], steps.states[n], step_length(steps, n)
    combine!(s.end_state, u, k, tableau.b, dt)
    add_save_points!(s, n)
    own = cotangents!(s, n)
    copyto!(s.λ_start, own.start)
    for i in length(tableau):-1:(tableau.stages + 1)
        own.live[i] && stage_back!(s, own, n, i)
    end
    if tableau.last > 0 && own.live[tableau.last]
        pull!(s, own, n, tableau.last, s.end_state)
        add!(s.λ, s.pulled, 0)
    end
    add!(s.λ_start, s.λ, 0)
    spread!(own.μ, own.live, tableau.b, dt, s.λ, 0)
    for i in (tableau.stages):-1:(shares_first(steps, n) ? 2 : 1)
        own.live[i] && stage_back!(s, own, n, i)
    end
    if own.live[1]
        # k₁ is the last stage of the step before: one product serves both.
        before = cotangents!(s, n - 1)
        spread!(before.μ, before.live, unit(tableau.last, length(tableau)), 1.0, own.μ[1], 0)
    end
    delete!(s.waiting, n)
    push!(s.spare, own)
    s.λ, s.λ_start = s.λ_start, s.λ
    return nothing
end

unit(i, n) = [j == i ? 1.0 : 0.0 for j in 1:n]

# Whether one product serves the last stage of the step before and the first of this one. They see
# different slopes of a delayed state where that is the one at the start.
function shares_first(steps::Steps, n::Int)
    n > 1 && steps.tableau.first == 2 || return false
    (; t) = steps
    return !any(lag -> same_time(t[n] - lag, t[1], t[n]), steps.equation.lags)
end

function stage_back!(s::Sweep, own::Cotangents, n::Int, i::Int)
    (; steps, argument) = s
    (; tableau) = steps
    dt = step_length(steps, n)
    combine!(argument, steps.states[n], steps.stages[n], tableau.a[i], dt)
    pull!(s, own, n, i, argument)
    add!(s.λ_start, s.pulled, 0)
    spread!(own.μ, own.live, tableau.a[i], dt, s.pulled, 0)
    return nothing
end

# The vector-Jacobian products of stage `i`, which is then done with: with respect to its argument,
# in `pulled`, and to all else.
function pull!(s::Sweep, own::Cotangents, n::Int, i::Int, u)
    (; steps, v, pulled_z, pulled_p, pulled_t, pulled) = s
    (; model, p, rows, lags) = steps.equation
    time = stage_time(steps, n, i)
    z = join_states!(steps, n, i, u, s.weights)
    put_part!(v, 0, own.μ[i], rows)
    model.has_derivatives && model.vjp_both(pulled_z, pulled_p, v, z, p, time)
    model.parameters > 0 && add!(s.dp, pulled_p, 0)
    if s.slopes && model.depends_on_time
        model.vjp_t(pulled_t, v, z, p, time)
        s.dstart += pulled_t[1]
    end
    for (j, lag) in enumerate(lags)
        get_part!(pulled, pulled_z, j, rows)
        give_back!(s, n, i, j, lag)
    end
    get_part!(pulled, pulled_z, 0, rows)
    own.live[i] = false
    s.products += 1
    return nothing
end

# What the delayed state `j` of a stage has, which is in `pulled`, goes to where it was read.
function give_back!(s::Sweep, n::Int, i::Int, j::Int, lag::Float64)
    (; steps, weights, pulled) = s
    m, time = locate(steps, n, i, lag)
    if m == 0
        slope = give_to_past!(s, time)
        # All steps move with the start, and the past does not.
        s.dstart += slope
        s.dlags[j] -= slope
        return nothing
    end
    into, dt = cotangents!(s, m), step_length(steps, m)
    θ = (time - steps.t[m]) / dt
    add!(into.start, pulled, 0)
    spread!(into.μ, into.live, weights!(weights, steps.tableau, θ), dt, pulled, 0)
    s.slopes && (s.dlags[j] -= slope_dot(s, m, θ, pulled, 0))
    return nothing
end

# To the past at a time; gives how the loss changes with that time.
function give_to_past!(s::Sweep, time)
    (; history, p_history, u0) = s.steps.equation
    (; pulled, pulled_t, pulled_history) = s
    if history === nothing
        add!(s.du, pulled, 0)
        return 0.0
    end
    history.has_derivatives || return 0.0
    # What it gives for the state is zero: the past is a function of time alone.
    history.vjp_both(s.unused, pulled_history, pulled, u0, p_history, time)
    history.parameters > 0 && add!(s.dp_history, pulled_history, 0)
    s.slopes && history.depends_on_time || return 0.0
    history.vjp_t(pulled_t, pulled, u0, p_history, time)
    return Float64(pulled_t[1])
end

# The interpolation's derivative at `θ` in step `m`, times what lies in `x` after `offset` numbers.
function slope_dot(s::Sweep, m::Int, θ, x, offset::Int)
    (; steps, weights) = s
    slopes!(weights, steps.tableau, θ)
    total = 0.0
    for (w, k) in zip(weights, steps.stages[m])
        w == 0 || (total += w * dot_at(k, x, offset))
    end
    return total
end

# What the loss has of the states at the save points inside and at the end of step `n`.
function add_save_points!(s::Sweep, n::Int)
    (; steps, cotangent, weights) = s
    (; ts, t) = steps
    states, dt = length(s.λ), step_length(steps, n)
    stop = n == length(steps) ? Inf : t[n + 1]
    i = searchsortedlast(ts, stop)
    while i > 1 && ts[i] > t[n]
        offset = (i - 1) * states
        if ts[i] >= t[n + 1]
            θ = 1.0
            add!(s.λ, cotangent, offset)
        else
            θ = (ts[i] - t[n]) / dt
            into = cotangents!(s, n)
            add!(into.start, cotangent, offset)
            spread!(into.μ, into.live, weights!(weights, steps.tableau, θ), dt, cotangent, offset)
        end
        s.slopes && (s.dts[i] = slope_dot(s, n, θ, cotangent, offset))
        i -= 1
    end
    return nothing
end
