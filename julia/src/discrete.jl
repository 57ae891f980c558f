# The discrete adjoint: reverse mode through the steps that a solve accepted.

"""
    DiscreteAdjoint()

Gradients of the very numbers that an explicit Runge-Kutta method computed: the transposed steps,
last to first (Hager, Runge-Kutta methods in optimal control and the transformed adjoint system,
Numerische Mathematik 87, 2000). Lengths of adaptive steps count as constants.
"""
struct DiscreteAdjoint end

"""
    Sweep{T}

The state of the backward sweep, over all of the state or over part `part` of a batch's rows, which
is a slice of every state from the number after `from`: for `u` the state at the end of the step
under way and then at its start, `λ` is the loss's derivative with respect to it, and `μ[i]` with
respect to stage `i`, where `live[i]`; `dp` and `dts` are those with respect to the parameters and
the save points, and `δt` and `δdt` those with respect to the step's start and length. `pulled` is
what a product gave. `dq` is the derivative with respect to the manifold's parameters.
"""
mutable struct Sweep{T}
    const tape::Tape{T}
    const part::Int
    const from::Int
    const ts::Vector{Float64}
    const cotangent::Vector{T}
    const with_t::Bool
    const fixed::Bool
    const start_state::Vector{T}
    const k::Vector{Vector{T}}
    const μ::Vector{Vector{T}}
    const live::Vector{Bool}
    λ::Vector{T}
    λ_start::Vector{T}
    const argument::Vector{T}
    const end_state::Vector{T}
    const pulled::Vector{T}
    const pulled_p::Vector{T}
    const pulled_t::Vector{T}
    const dp::Vector{T}
    const dq::Vector{T}
    const dts::Vector{Float64}
    const weights::Vector{Float64}
    δt::Float64
    δdt::Float64
    products::Int
end

function Sweep(
    tape::Tape{T}, part::Int, ts::Vector{Float64}, cotangent::Vector{T}, with_t::Bool, fixed::Bool
) where {T}
    (; model, tableau) = tape
    (; batch) = model
    m, s = model.parameters, length(tableau)
    from, n = 0, model.states
    if batch !== nothing
        from, n = first_row(batch, part) * batch.width, count_rows(batch, part) * batch.width
    end
    state() = zeros(T, n)
    return Sweep{T}(
        tape, part, from, ts, cotangent, with_t, fixed, state(), [state() for _ in 1:s],
        [state() for _ in 1:s], fill(false, s), state(), state(), state(), state(), state(),
        zeros(T, m), zeros(T, 1), zeros(T, m), zeros(T, manifold_parameters(tape)),
        zeros(length(ts)), zeros(s), 0.0, 0.0, 0,
    )
end

manifold_parameters(tape::Tape) =
    tape.manifold === nothing || tape.manifold.tangent === nothing ? 0 :
    tape.manifold.tangent.parameters

function backward(
    solved::Solved{T}, ::DiscreteAdjoint, settings::Settings, cotangent::Vector{T},
    gradient_u::Vector{T}, gradient_p::Vector{T}, gradient_t::Vector{T}, info::Vector{Float64},
) where {T}
    tape, ts = solved.tape, solved.ts
    (; batch) = tape.model
    with_t = !isempty(gradient_t)
    sweeps = [
        Sweep(tape, i, ts, cotangent, with_t, settings.fixed) for
        i in 1:(batch === nothing ? 1 : parts(batch))
    ]
    sweep_back!(sweeps)
    collect_gradients!(gradient_u, gradient_p, gradient_t, sweeps)
    report_backward!(info, ts[1], sweeps[1].products)
    return check_finite(ts[1], gradient_u, gradient_p, gradient_t)
end

report_backward!(info, start, products) = (info[1:3] .= (1, start, products); nothing)

# Through all steps of the tape, from the last to the first.
function sweep_back!(sweeps::Vector{<:Sweep{T}}) where {T}
    (; tape) = sweeps[1]
    if tape.keeps
        each_sweep(s -> steps_back!(s, eachindex(tape.t), tape.states, tape.stages), sweeps)
    else
        longest = steps_at_once(tape, (tape.tableau.stages + 1) * tape.model.states * sizeof(T))
        back_in_parts!((u, parts) -> states_between(tape, u, parts), tape, longest) do range, u
            states, stages = recompute(tape, u, range)
            each_sweep(s -> steps_back!(s, range, states, stages), sweeps)
            append!(tape.spare_states, @view states[2:end])
            append!(tape.spare, stages)
            nothing
        end
    end
    foreach(start_back!, sweeps)
    return nothing
end

# For another solve's tape and cotangent in the same memory.
function restart!(s::Sweep{T}) where {T}
    fill!(s.live, false)
    fill!(s.λ, zero(T))
    fill!(s.dp, zero(T))
    fill!(s.dts, 0.0)
    return nothing
end

# In threads where the steps are worth it.
function each_sweep(f::F, sweeps::Vector{<:Sweep}) where {F}
    (; model, tableau, t) = sweeps[1].tape
    (; batch) = model
    if batch === nothing || batch.work * batch.rows * tableau.stages * length(t) < THREADED_SWEEP[]
        foreach(f, sweeps)
    else
        in_threads(i -> f(sweeps[i]), length(sweeps))
    end
    return nothing
end

# Sums over the parts go from the first to the last, whichever was ready first.
function collect_gradients!(gradient_u, gradient_p, gradient_t, sweeps)
    fill!(gradient_p, 0)
    fill!(gradient_t, 0)
    for s in sweeps
        for i in eachindex(s.λ)
            gradient_u[s.from + i] = s.λ[i] + s.cotangent[s.from + i]
        end
        gradient_p .+= @view s.dp[eachindex(gradient_p)]
        gradient_t .+= @view s.dts[eachindex(gradient_t)]
    end
    return nothing
end

# Back through some steps, of which the starts and stages are given.
function steps_back!(s::Sweep, range, states, stages)
    for n in reverse(range)
        i = n - first(range) + 1
        load_state!(s.start_state, s, states[i])
        for (k, stage) in zip(s.k, stages[i])
            load_state!(k, s, stage)
        end
        step_back!(s, n)
    end
    return nothing
end

load_state!(x::Vector, s::Sweep, whole::Vector) = copyto!(x, 1, whole, s.from + 1, length(x))

# Where in the cotangent the sweep's part of save point i begins.
place(s::Sweep, i) = (i - 1) * s.tape.model.states + s.from

# The starts and stages of some steps, from the state at the first one's start.
function recompute(tape::Tape{T}, u::Vector{T}, range) where {T}
    states, stages = [u], Vector{Vector{T}}[]
    for n in range
        before = n > first(range) && shares_stages(tape) ? stages[end] : nothing
        k = again!(room_for_stages(tape), tape, n, states[end], before)
        push!(stages, k)
        n == last(range) && break
        push!(states, step_end!(room_for_state(tape), tape, n, states[end], k))
    end
    return states, stages
end

# The states between some parts, from that at the first one's start.
function states_between(tape::Tape{T}, u::Vector{T}, parts) where {T}
    rooms = (room_for_stages(tape), room_for_stages(tape))
    states, v, before = Vector{T}[], copyto!(room_for_state(tape), u), nothing
    for part in parts[1:(end - 1)]
        for n in part
            k = again!(rooms[1 + n % 2], tape, n, v, before)
            step_end!(v, tape, n, v, k)
            before = shares_stages(tape) ? k : nothing
        end
        push!(states, copyto!(room_for_state(tape), v))
    end
    give_back!(tape, v)
    append!(tape.spare, rooms)
    return states
end

# The stages of step `n`; where there are none `before`, k₁ wants room.
function again!(k, tape::Tape, n, u, before)
    if before === nothing && tape.tableau.first == 2
        k[1] = shares_stages(tape) ? tape.start : similar(u)
    end
    return stages!(k, tape, n, u, before)
end

# Whether the last stage of a step may be the next one's first: not that of a state that is projected.
shares_stages(tape::Tape) = tape.manifold === nothing

# The state at the end of step `n`, from that at its start.
function step_end!(out, tape::Tape, n, u, k)
    combine!(out, u, k, tape.tableau.b, tape.dt[n])
    tape.manifold === nothing || project!(tape.manifold, out, tape.t[n + 1])
    return out
end

"""
    step_back!(sweep, n)

From the derivative with respect to the state at the end of step `n` to that at its start.
"""
function step_back!(s::Sweep{T}, n) where {T}
    (; tape, k, μ, live) = s
    (; tableau) = tape
    t, dt, u = tape.t[n], tape.dt[n], s.start_state
    combine!(s.end_state, u, k, tableau.b, dt)
    fill!(s.λ_start, zero(T))
    s.δt = s.δdt = 0.0
    add_end_points!(s, n)
    end_back!(s, n)
    add_inside_points!(s, n, u)
    for i in length(tableau):-1:(tableau.stages + 1)
        live[i] && stage_back!(s, n, i, u)
    end
    if tableau.last > 0 && live[tableau.last]
        pull!(s, tableau.last, s.end_state, t + dt, 1.0)
        add!(s.λ, s.pulled, 0)
    end
    add!(s.λ_start, s.λ, 0)
    spread!(μ, live, tableau.b, dt, s.λ, 0)
    s.with_t && (s.δdt += difference_dot(s.λ, s.end_state, u) / dt)
    for i in (tableau.stages):-1:(tableau.first)
        live[i] && stage_back!(s, n, i, u)
    end
    if tableau.first == 2
        # k₁ is the last stage of the step before: one product serves both.
        μ[1], μ[tableau.last] = μ[tableau.last], μ[1]
        live[1], live[tableau.last] = false, live[1]
    end
    s.λ, s.λ_start = s.λ_start, s.λ
    s.with_t && time_of_step!(s.dts, s, s.fixed, n)
    return nothing
end

function stage_back!(s::Sweep, n, i, u)
    (; tape, k, argument, pulled) = s
    (; tableau) = tape
    dt = tape.dt[n]
    combine!(argument, u, k, tableau.a[i], dt)
    pull!(s, i, argument, tape.t[n] + tableau.c[i] * dt, tableau.c[i])
    add!(s.λ_start, pulled, 0)
    spread!(s.μ, s.live, tableau.a[i], dt, pulled, 0)
    s.with_t && (s.δdt += difference_dot(pulled, argument, u) / dt)
    return nothing
end

# The vector-Jacobian products of stage i, which is then done with.
function pull!(s::Sweep, i, u, t, c)
    (; model, p) = s.tape
    v = s.μ[i]
    if model.parameters == 0
        vjp!(s, s.pulled, v, u, p, t)
    else
        vjp_both!(s, s.pulled, s.pulled_p, v, u, p, t)
        add!(s.dp, s.pulled_p, 0)
    end
    if s.with_t && model.depends_on_time
        vjp_t!(s, s.pulled_t, v, u, p, t)
        s.δt += s.pulled_t[1]
        s.δdt += c * s.pulled_t[1]
    end
    s.live[i] = false
    s.products += 1
    return nothing
end

# The model's functions, of the sweep's rows where the state has rows.
for (name, field, results) in (
    (:value!, :value, (:du,)), (:vjp!, :vjp, (:g, :v)), (:vjp_both!, :vjp_both, (:g, :gp, :v)),
    (:vjp_t!, :vjp_t, (:g, :v)),
)
    @eval function $name(s::Sweep, $(results...), u, p, t)
        (; model) = s.tape
        (; batch) = model
        if batch === nothing
            model.$field($(results...), u, p, t)
        else
            first, rows = first_row(batch, s.part), count_rows(batch, s.part)
            batch.$field($(results...), u, p, t, batch.memory[s.part], 0, first, rows)
        end
        return nothing
    end
end

# What the loss has of the states at the save points at the end of step n.
function add_end_points!(s::Sweep, n)
    (; tape, cotangent) = s
    for i in (tape.inside[n] + 1):(tape.upto[n])
        add!(s.λ, cotangent, place(s, i))
        s.with_t && !s.fixed && (s.dts[i] = dot_at(end_slope!(s, n), cotangent, place(s, i)))
    end
    return nothing
end

# What it has of those inside.
function add_inside_points!(s::Sweep, n, u)
    (; tape, k, weights) = s
    (; tableau) = tape
    t, dt = tape.t[n], tape.dt[n]
    passed, inside = n == 1 ? 1 : tape.upto[n - 1], tape.inside[n]
    passed < inside || return nothing
    for i in (tableau.stages + 1):length(tableau)
        combine!(s.argument, u, k, tableau.a[i], dt)
        value!(s, k[i], s.argument, tape.p, t + tableau.c[i] * dt)
    end
    for i in (passed + 1):inside
        θ = (s.ts[i] - t) / dt
        cotangent, offset = inside_back(s, i, u, weights!(weights, tableau, θ), dt)
        add!(s.λ_start, cotangent, offset)
        spread!(s.μ, s.live, weights, dt, cotangent, offset)
        s.with_t || continue
        slopes!(weights, tableau, θ)
        for j in eachindex(weights)
            weights[j] == 0 || (s.dts[i] += weights[j] * dot_at(k[j], cotangent, offset))
        end
    end
    return nothing
end

# f at the end of step n.
function end_slope!(s::Sweep, n)
    (; tape) = s
    tape.tableau.last > 0 && return s.k[tape.tableau.last]
    value!(s, s.argument, s.end_state, tape.p, tape.t[n] + tape.dt[n])
    return s.argument
end

# Adaptive steps move with ts[1] and keep their lengths, so that a save point moves within its
# step; steps of a fixed length start anew at each save point, and the last one before the next is
# as long as what is left.
function time_of_step!(dts, s, fixed, n)
    from, to = fixed && n > 1 ? s.tape.upto[n - 1] : 1, s.tape.upto[n]
    dts[from] += s.δt
    if fixed && to > from
        dts[from] -= s.δdt
        dts[to] += s.δdt
    end
    return nothing
end

# What is left at the start: k₁ of the first step, and the time there.
function start_back!(s::Sweep)
    (; tape, dts) = s
    (; last) = tape.tableau
    if last > 0 && s.live[last]
        s.δt = 0.0
        # The sweep's start is still that of the first step.
        pull!(s, last, s.start_state, tape.t[1], 0.0)
        add!(s.λ, s.pulled, 0)
        dts[1] += s.δt
    end
    s.fixed || (dts[1] -= sum(@view dts[2:end]))
    return nothing
end

# Sums over states of the flat vectors; `offset` is where in `x` the state begins.
function add!(y::Vector{T}, x::Vector{T}, offset::Int) where {T}
    @inbounds @simd ivdep for i in eachindex(y)
        y[i] += x[offset + i]
    end
    return nothing
end

function dot_at(y::Vector{T}, x::Vector{T}, offset::Int) where {T}
    total = zero(T)
    @inbounds @simd for i in eachindex(y)
        total += y[i] * x[offset + i]
    end
    return total
end

function difference_dot(v::Vector{T}, x::Vector{T}, y::Vector{T}) where {T}
    total = zero(T)
    @inbounds @simd for i in eachindex(v, x, y)
        total += v[i] * (x[i] - y[i])
    end
    return total
end

# μⱼ += scale row[j] x; what was not live before counts as zero.
function spread!(μ, live, row::Vector{Float64}, scale, x::Vector{T}, offset::Int) where {T}
    for j in eachindex(row)
        row[j] == 0 && continue
        target, factor = μ[j], T(scale * row[j])
        if live[j]
            @inbounds @simd ivdep for i in eachindex(target)
                target[i] += factor * x[offset + i]
            end
        else
            @inbounds @simd ivdep for i in eachindex(target)
                target[i] = factor * x[offset + i]
            end
            live[j] = true
        end
    end
    return nothing
end
