# The rates of all kinds of jumps, which a model gives at once, as JumpProcesses asks for them.

# Rates that are negative or not finite, or a process that jumps without end.
struct JumpFailure <: Exception
    code::String # "Rate", "MaxJumps", or SciML's return code
    kind::Int
    value::Float64
    t::Float64
    state::Vector{Float64}
end

"""
    Rates{T}

The rates at the present state of one trajectory. States are counted in double precision, whatever
the precision `T` of the model is.

# Fields
- `change`: what each kind of jump adds to the state, one a column
- `state`: the state as the model takes it
- `values`: the rates there
- `stale`: whether they are of another state than the present one
- `below`: a time since the last step's end at which a stage of the solver had a negative rate, or NaN
- `jumps`, `most`: how many there have been, and may be
"""
mutable struct Rates{T}
    const model::Model{T}
    const p::Vector{T}
    const change::Matrix{Float64}
    const rng::Xoshiro
    const state::Vector{T}
    const values::Vector{T}
    const between::Vector{Float64}
    stale::Bool
    below::Float64
    jumps::Int
    const most::Int
end

function Rates(model::Model{T}, p::Vector{T}, change::Matrix{Float64}, rng, most) where {T}
    n, kinds = size(change)
    return Rates{T}(
        model, p, change, rng, zeros(T, n), zeros(T, kinds), zeros(n), true, NaN, 0, most
    )
end

function evaluate!(rates::Rates, u, t)
    copyto!(rates.state, u)
    rates.model.value(rates.values, rates.state, rates.p, Float64(t))
    return rates.values
end

# As `evaluate!`, where the path goes through this state.
function evaluate_on_path!(rates::Rates, u, t)
    values = evaluate!(rates, u, t)
    total = 0.0
    for (kind, value) in enumerate(values)
        isfinite(value) && value >= 0 || throw(JumpFailure("Rate", kind, value, t, copy(u)))
        total += value
    end
    isfinite(total) || throw(JumpFailure("Rate", argmax(values), maximum(values), t, copy(u)))
    return total
end

function jump!(rates::Rates, u, kind, t)
    rates.jumps += 1
    rates.jumps <= rates.most || throw(JumpFailure("MaxJumps", kind, rates.jumps, t, copy(u)))
    for i in eachindex(u)
        u[i] += rates.change[i, kind]
    end
    rates.stale = true
    return nothing
end

# Rates that are constant between jumps: one of each kind, the first of which evaluates all.

struct RateOf{T} <: Function
    rates::Rates{T}
    kind::Int
end

function (r::RateOf)(u, p, t)
    (; rates) = r
    if rates.stale
        evaluate_on_path!(rates, u, t)
        rates.stale = false
    end
    return Float64(rates.values[r.kind])
end

struct Jump{T} <: Function
    rates::Rates{T}
    kind::Int
end
(j::Jump)(integrator) = jump!(j.rates, integrator.u, j.kind, integrator.t)

# Rates that change between jumps: their sum, of which the solver makes the integral, and a jump whose
# kind is drawn by their proportions. Stages of a step are no states of the path: where they lie
# outside the domain of the rates, this is looked at again when the step is accepted.

struct TotalRate{T} <: Function
    rates::Rates{T}
end

function (r::TotalRate)(u, p, t)
    (; rates) = r
    total = 0.0
    for value in evaluate!(rates, u, t)
        value < 0 && (rates.below = t)
        total += max(Float64(value), 0.0)
    end
    return total
end

struct AnyJump{T} <: Function
    rates::Rates{T}
end

function (j::AnyJump)(integrator)
    (; rates) = j
    (; u, t) = integrator
    look_between!(rates, integrator)
    total = evaluate_on_path!(rates, u.u, t)
    # They may have just become zero, by a jump of their own: the last that were not decide.
    total > 0 || (total = evaluate_on_path!(rates, integrator.uprev.u, integrator.tprev))
    left, kind = rand(rates.rng) * total, 0
    for (i, value) in enumerate(rates.values)
        value > 0 || continue
        kind = i
        left -= value
        left < 0 && break
    end
    kind > 0 || throw(JumpFailure("Rate", 1, 0.0, t, copy(u.u)))
    return jump!(rates, u.u, kind, t)
end

# Called after each accepted step.
struct OnPath{T} <: Function
    rates::Rates{T}
end

function (c::OnPath)(integrator)
    SciMLBase.derivative_discontinuity!(integrator, false)
    (; rates) = c
    # After a jump the interpolation is that of the step before it, which was looked at then.
    rates.stale ? (rates.stale = false) : look_between!(rates, integrator)
    evaluate_on_path!(rates, integrator.u.u, integrator.t)
    rates.below = NaN
    return nothing
end

# Within a step: where a stage of it had a negative rate, else in the middle.
function look_between!(rates::Rates, integrator)
    (; tprev, t) = integrator
    tprev < t || return nothing
    t = tprev < rates.below < t ? rates.below : (tprev + t) / 2
    copyto!(rates.between, integrator(t).u)
    evaluate_on_path!(rates, rates.between, t)
    rates.below = NaN
    return nothing
end

always(u, t, integrator) = true

# What happens between jumps.
struct Drift{T} <: Function
    model::Union{Nothing,Model{T}}
    p::Vector{T}
    state::Vector{T}
    value::Vector{T}
end

Drift(model::Union{Nothing,Model{T}}, p::Vector{T}, n::Int) where {T} =
    Drift{T}(model, p, zeros(T, n), zeros(T, n))

function (f::Drift)(du, u, p, t)
    if f.model === nothing
        fill!(du, 0.0)
    else
        copyto!(f.state, u)
        f.model.value(f.value, f.state, f.p, Float64(t))
        copyto!(du, f.value)
    end
    return nothing
end
