# What the discrete adjoint needs of a solve, noted while OrdinaryDiffEq makes it.

# Stages of more than this many bytes are not kept but evaluated again. Keeping them saves a fifth
# of a gradient's time.
const STAGES_BUDGET = Ref(2^30)

"Where a solve's accepted steps are noted: [`Tape`](@ref), [`ImplicitTape`](@ref)."
abstract type AbstractTape{T} end

"""
    Tape{T}

The accepted steps of an explicit method. Either the state at the start of every step is kept, and
all stages (`keeps`); or states at every so many steps (`every`), from which the steps between are
computed again ([`back_in_parts!`](@ref)). With a `limit` on their number, every second one goes
whenever there are more.

# Fields
- `t`, `dt`: start and length of each step
- `inside`, `upto`: after each step, how many save points lie before its end, and up to it
- `states[j]`: the state at the start of step `1 + (j - 1) * every`
- `stages[n][i]`: stage `i` of step `n`
- `current`, `count`: the stages of the step under way, and how many evaluations it has made
- `budget`: how many bytes of stages to keep
- `start`: room for `k₁` of the first of some steps, where every other step's is the one's before
- `spare`, `spare_states`: room of the steps of an earlier solve
- `manifold`: what the state is projected onto at the end of each step, or `nothing`
- `moved`: whether the next evaluation is the `k₁` of a state that was projected
- `first_stage`: that `k₁`, where it is not the last stage of the step before
"""
mutable struct Tape{T} <: AbstractTape{T}
    const model::Model{T}
    const p::Vector{T}
    const tableau::Tableau
    const limit::Int
    const t::Vector{Float64}
    const dt::Vector{Float64}
    const inside::Vector{Int}
    const upto::Vector{Int}
    states::Vector{Vector{T}}
    every::Int
    const stages::Vector{Vector{Vector{T}}}
    keeps::Bool
    current::Vector{Vector{T}}
    count::Int
    const budget::Int
    const start::Vector{T}
    const spare::Vector{Vector{Vector{T}}}
    const spare_states::Vector{Vector{T}}
    const manifold::Union{Nothing,Manifold{T}}
    moved::Bool
    first_stage::Vector{T}
end

function Tape(
    model::Model{T}, p::Vector{T}, tableau::Tableau, checkpoints::Int,
    budget::Int=STAGES_BUDGET[]; manifold::Union{Nothing,Manifold{T}}=nothing,
) where {T}
    keeps = checkpoints == 0
    current = keeps ? new_stages(model, tableau, tableau.first) : Vector{T}[]
    return Tape{T}(
        model, p, tableau, checkpoints, Float64[], Float64[], Int[], Int[], Vector{T}[], 1,
        Vector{Vector{T}}[], keeps, current, 0, budget, Vector{T}(undef, model.states),
        Vector{Vector{T}}[], Vector{T}[], manifold, false, T[],
    )
end

manifold_of(::AbstractTape) = nothing
manifold_of(tape::Tape) = tape.manifold

"Take the steps off a tape, for another solve in the same memory."
function restart!(tape::Tape)
    append!(tape.spare, tape.stages)
    append!(tape.spare_states, tape.states)
    foreach(empty!, (tape.t, tape.dt))
    foreach(empty!, (tape.inside, tape.upto))
    empty!(tape.stages)
    empty!(tape.states)
    # With a limit of one only the first state stays.
    tape.every = tape.limit == 1 ? typemax(Int) : 1
    tape.keeps, tape.count = tape.limit == 0, 0
    return nothing
end

# Room for the stages of a step from number `from`; those before are another step's.
function new_stages(model::Model{T}, tableau::Tableau, from::Int) where {T}
    return [Vector{T}(undef, i < from ? 0 : model.states) for i in 1:(tableau.stages)]
end

function room_for_stages(tape::Tape)
    isempty(tape.spare) || return pop!(tape.spare)
    return new_stages(tape.model, tape.tableau, tape.tableau.first)
end

room_for_state(tape::AbstractTape{T}) where {T} = Vector{T}(undef, tape.model.states)

function room_for_state(tape::Tape{T}) where {T}
    isempty(tape.spare_states) || return pop!(tape.spare_states)
    return Vector{T}(undef, tape.model.states)
end

# Room of a state that nothing needs any more.
give_back!(::AbstractTape, _) = nothing
give_back!(tape::Tape, u) = (push!(tape.spare_states, u); nothing)

# The right-hand side as the solver calls it, its values noted.
struct Taped{T} <: Function
    tape::Tape{T}
end

function (f::Taped{T})(du::Vector{T}, u::Vector{T}, p::Vector{T}, t) where {T}
    (; tape) = f
    tape.model.value(du, u, p, Float64(t))
    if tape.moved
        tape.moved, tape.first_stage = false, copy(du)
    elseif tape.keeps
        (; first, stages) = tape.tableau
        # A rejected attempt is written over by the next.
        copyto!(tape.current[first + tape.count % (stages - first + 1)], du)
        tape.count += 1
    end
    return nothing
end

# Called by the solver after each accepted step: writes the states at the save points passed, and
# notes the step. The states lie `stride` apart in `out`, after the first `offset` numbers.
mutable struct Recorder{T,P<:AbstractTape{T}} <: Function
    const tape::P
    const ts::Vector{Float64}
    const out::Vector{T}
    const state::Vector{T}
    const stride::Int
    offset::Int
end

function (r::Recorder)(integrator)
    SciMLBase.derivative_discontinuity!(integrator, false)
    (; tape, ts, out, state, stride, offset) = r
    push!(tape.t, integrator.tprev)
    push!(tape.dt, own_length!(integrator))
    note_step!(tape, integrator)
    # Only now the save points: to interpolate, Verner's methods evaluate further stages.
    n = length(state)
    saved = last_saved(tape)
    while saved < length(ts) && ts[saved + 1] < integrator.t
        integrator(state, ts[saved + 1])
        onto_manifold!(tape, state, integrator, ts[saved + 1])
        copyto!(out, offset + saved * stride + 1, state, 1, n)
        saved += 1
    end
    push!(tape.inside, saved)
    if onto_manifold!(tape, integrator.u, integrator, integrator.t)
        SciMLBase.derivative_discontinuity!(integrator, true)
        # Only then, and only by these methods, is k₁ evaluated by itself.
        tape.moved = OrdinaryDiffEqCore.isfsal(integrator.alg)
    end
    if saved < length(ts) && ts[saved + 1] == integrator.t
        copyto!(out, offset + saved * stride + 1, integrator.u, 1, n)
        saved += 1
    end
    push!(tape.upto, saved)
    end_step!(tape)
    forget_interpolation!(integrator)
    return nothing
end

# How many save points have been passed.
last_saved(tape::AbstractTape) = isempty(tape.upto) ? 1 : tape.upto[end]

function note_step!(tape::Tape, integrator)
    keep_state!(tape, integrator.uprev)
    tape.keeps && keep_stages!(tape, integrator.uprev)
    return nothing
end

end_step!(tape::Tape) = (tape.count = 0; nothing)

function keep_state!(tape::AbstractTape, u)
    rem(length(tape.t) - 1, tape.every) == 0 || return nothing
    push!(tape.states, copyto!(room_for_state(tape), u))
    if 0 < tape.limit < length(tape.states)
        foreach(x -> give_back!(tape, x), @view tape.states[2:2:end])
        tape.states = tape.states[1:2:end]
        tape.every *= 2
    end
    return nothing
end

function keep_stages!(tape::Tape{T}, u) where {T}
    (; model, tableau, current, stages) = tape
    n = length(tape.t)
    if tableau.first == 2
        current[1] = n > 1 ? stages[n - 1][tableau.last] : tape.start
        isempty(tape.first_stage) || (current[1] = tape.first_stage)
        tape.first_stage = T[]
    end
    if tape.count == 0
        # OrdinaryDiffEq makes no step at all of one shorter than the time's rounding.
        stages!(current, tape, n, u, n > 1 ? stages[n - 1] : nothing)
    elseif tableau.first == 2 && n == 1
        model.value(current[1], u, tape.p, tape.t[1])
    end
    push!(stages, current)
    if n * tableau.stages * model.states * sizeof(T) > tape.budget
        tape.keeps = false
        empty!(stages)
    else
        tape.current = room_for_stages(tape)
    end
    return nothing
end

# Compute the stages of step `n` from its start; `before` has those of the step before.
function stages!(k, tape::Tape, n, u, before)
    (; model, p, tableau) = tape
    t, dt = tape.t[n], tape.dt[n]
    argument = similar(u)
    if before !== nothing && tableau.first == 2
        k[1] = before[tableau.last]
    end
    for i in (before === nothing ? 1 : tableau.first):(tableau.stages)
        combine!(argument, u, k, tableau.a[i], dt)
        model.value(k[i], argument, p, t + tableau.c[i] * dt)
    end
    return k
end

# out = base + scale Σⱼ row[j] k[j], four terms in a pass.
function combine!(out::Vector{T}, base::Vector{T}, k, row::Vector{Float64}, scale) where {T}
    from, j = base, next_term(row, 0)
    j > length(row) && copyto!(out, base)
    while j <= length(row)
        a, x = T(scale * row[j]), k[j]
        j = next_term(row, j)
        b, y = j <= length(row) ? (T(scale * row[j]), k[j]) : (zero(T), x)
        j = next_term(row, j)
        c, z = j <= length(row) ? (T(scale * row[j]), k[j]) : (zero(T), x)
        j = next_term(row, j)
        d, w = j <= length(row) ? (T(scale * row[j]), k[j]) : (zero(T), x)
        j = next_term(row, j)
        @inbounds @simd ivdep for i in eachindex(out, from, x, y, z, w)
            out[i] = from[i] + (a * x[i] + b * y[i] + c * z[i] + d * w[i])
        end
        from = out
    end
    return out
end

# The next index after `j` whose term is not zero.
function next_term(row, j)
    j += 1
    while j <= length(row) && row[j] == 0
        j += 1
    end
    return j
end
