# Events: where functions of the state cross zero, found on the interpolation of each step.
#
# SciML's own continuous callbacks end a step at every event. Here a step is looked at when it has
# been made, so that a solve with events that do not end it makes the very steps of one without.

# A step is searched in so many pieces, as SciML's callbacks do by default: a function that crosses
# zero twice within a step has the same sign at both its ends.
const PIECES = 10

# What an event's value at the start means. A zero is an event, as for SciPy; or it is left, so that
# a solve may start from the state that the last one found; or the value is zero but for rounding,
# and left. The sign is then the one a part of the first step later, as in SciML's callbacks.
const COUNT, LEAVE, LEAVE_NEAR = 0, 1, 2
const NUDGE = 1 / 100

"""
    Watch{T}

The events of a solve and what was found of them; called by the solver after each accepted step.

# Fields
- `model`, `p`: the function whose elements are the events' values, and its parameters
- `direction`: of each event, the sign that its value must change to; 0 for either
- `most`: of each event, how many of them end the solve; 0 for none
- `start`: of each event, what its value at the start means: `COUNT`, `LEAVE`, `LEAVE_NEAR`
- `times`, `which`, `states`: each event found, in the order of time
- `stop`: the time of the one that ended the solve, NaN where none did
- `before`, `after`: the events' values at the ends of the piece under way
"""
mutable struct Watch{T} <: Function
    const model::Model{T}
    const p::Vector{T}
    const direction::Vector{Int}
    const most::Vector{Int}
    const start::Vector{Int}
    const counts::Vector{Int}
    const times::Vector{Float64}
    const which::Vector{Int}
    const states::Vector{Vector{T}}
    stop::Float64
    started::Bool
    before::Vector{T}
    after::Vector{T}
    const value::Vector{T}
    const state::Vector{T}
end

function Watch(
    model::Model{T}, p::Vector{T}, direction::Vector{Int}, most::Vector{Int},
    start::Vector{Int}=fill(COUNT, length(direction)),
) where {T}
    values() = zeros(T, length(direction))
    return Watch{T}(
        model, p, direction, most, start, zeros(Int, length(direction)), Float64[], Int[],
        Vector{T}[], NaN, false, values(), values(), values(), zeros(T, model.states),
    )
end

function (w::Watch)(integrator)
    SciMLBase.derivative_discontinuity!(integrator, false)
    isempty(w.direction) && return nothing
    own_length!(integrator)
    found = search!(w, integrator)
    sort!(found)
    for (t, i) in found
        integrator(w.state, t)
        push!(w.times, t)
        push!(w.which, i)
        push!(w.states, copy(w.state))
        w.counts[i] += 1
        if w.most[i] > 0 && w.counts[i] >= w.most[i]
            w.stop = t
            SciMLBase.terminate!(integrator)
            break
        end
    end
    forget_interpolation!(integrator)
    return nothing
end

# Verner's methods interpolate with further stages, which the solution would keep wrong ones of when
# a callback has made them. Without them it makes its own when it is asked.
function forget_interpolation!(integrator)
    lazy = integrator.alg isa Union{Vern6,Vern7,Vern8,Vern9}
    lazy && resize!(integrator.k, integrator.kshortsize)
    return nothing
end

# The events of the step just made, in no order.
function search!(w::Watch, integrator)
    found = Tuple{Float64,Int}[]
    from, to = Float64(integrator.tprev), Float64(integrator.t)
    starts = !w.started
    if starts
        w.model.value(w.before, integrator.uprev, w.p, from)
        w.before[w.start .== LEAVE_NEAR] .= 0
        w.started = true
    end
    a = from
    for piece in (starts ? 0 : 1):PIECES
        part = piece == 0 ? NUDGE : piece / PIECES
        b = piece == PIECES ? to : from + (to - from) * part
        values!(w.after, w, integrator, b)
        for i in eachindex(w.direction)
            if crosses(w.before[i], w.after[i], w.direction[i])
                push!(found, (root(w, integrator, i, a, b), i))
            elseif piece == 0 && w.before[i] == 0 && counts_at_start(w, i)
                push!(found, (a, i))
            end
        end
        w.before, w.after = w.after, w.before
        a = b
    end
    return found
end

counts_at_start(w::Watch, i) = w.start[i] == COUNT && w.direction[i] * w.after[i] >= 0

# A zero at the end of a piece counts there, and not again at the start of the next.
function crosses(before, after, direction)
    up, down = before < 0 <= after, before > 0 >= after
    return direction > 0 ? up : direction < 0 ? down : up || down
end

function values!(out, w::Watch{T}, integrator, t) where {T}
    if t == integrator.t
        copyto!(w.state, integrator.u)
    else
        integrator(w.state, t)
    end
    w.model.value(out, w.state, w.p, t)
    return nothing
end

# Where value `i` has no longer the sign that it has at `a`, to the last digits: the Illinois method
# (Dowell and Jarratt 1971), and bisection where that is slow or the value is flat: zero from the
# event on, or jumping.
function root(w::Watch, integrator, i, a, b)
    ga, gb = w.before[i], w.after[i]
    side = sign(ga)
    probed = false
    for n in 1:200
        close = 4 * eps(max(abs(a), abs(b)))
        b - a <= close && break
        if gb != 0 && n < 20
            c = b - gb / (gb - ga) * (b - a)
        elseif gb == 0 && !probed
            c, probed = b - close, true  # is this the zero, or one of many?
        else
            c = (a + b) / 2
        end
        a < c < b || (c = (a + b) / 2)
        values!(w.value, w, integrator, c)
        gc = w.value[i]
        if sign(gc) == side
            a, ga, gb = c, gc, gb / 2
        else
            b, gb, ga = c, gc, ga / 2
        end
    end
    return b
end

"""
    Trajectory{T}

A solve of which every step is kept, with the events found on the way.
"""
struct Trajectory{T,S}
    solved::Solved{T,S}
    watch::Watch{T}
end

"""
    follow(model, settings, u0, p, from, to, events, events_p, direction, most, start, info)

Solve and keep every step. `events` is the model of the events' values, each with its `direction`,
`most` and `start` as in [`Watch`](@ref). `info` gets a report as in [`forward`](@ref), and at 7 the number
of factorizations. Returns a [`Trajectory`](@ref).
"""
function follow(
    model::Model{T}, settings::Settings, u0::PyArray{T}, p::PyArray{T}, from::Float64,
    to::Float64, events::Model{T}, events_p::PyArray{T}, direction::PyArray{Int},
    most::PyArray{Int}, start::PyArray{Int}, info::PyArray{Float64},
) where {T}
    watch = Watch(
        events, copy(plain(events_p)), copy(plain(direction)), copy(plain(most)),
        copy(plain(start)),
    )
    return follow(model, settings, copy(plain(u0)), copy(plain(p)), from, to, watch, plain(info))
end

function follow(
    model::Model{T}, settings::Settings, u0::Vector{T}, p::Vector{T}, from::Float64,
    to::Float64, watch::Watch{T}, info::Vector{Float64},
) where {T}
    isempty(p) && (p = zeros(T, 1))
    problem = ODEProblem{true,SciMLBase.FullSpecialize}(
        ode_function(model, is_implicit(settings.method)), u0, (from, to), p
    )
    integrator = started(
        problem, algorithm(settings.method, problem);
        first_step_up_to(keywords(settings, 1.0), to - from)...,
        callback=DiscreteCallback(always, watch; save_positions=(false, false)),
        dense=true, save_everystep=true,
    )
    solution = beside_python(() -> solve!(integrator), model, watch.model, settings)
    report!(info, solution, Float64(integrator.t))
    info[7] = solution.stats.nw
    constants = copy(model.constants)
    return Trajectory(
        Solved(model, p, constants, [from, to], settings, solution, nothing), watch
    )
end

retcode(trajectory::Trajectory) = retcode(trajectory.solved)

"""
    steps(trajectory) -> times, states

The times of the steps and the states there, one a column, up to the event that ended the solve.
"""
function steps(trajectory::Trajectory{T}) where {T}
    (; solution, model) = trajectory.solved
    (; stop, states) = trajectory.watch
    ended = !isnan(stop)
    kept = ended ? findall(<(stop), solution.t) : eachindex(solution.t)
    times, columns = Float64.(solution.t[kept]), Vector{T}[solution.u[i] for i in kept]
    if ended
        push!(times, stop)
        push!(columns, states[end])
    end
    return times, side_by_side(columns, model.states)
end

"""
    hits(trajectory) -> times, which, states

The events found: their times, the number of each (from 1), and the states, one a column.
"""
function hits(trajectory::Trajectory{T}) where {T}
    (; times, which, states) = trajectory.watch
    return times, which, side_by_side(states, trajectory.solved.model.states)
end

# Vectors of length `n` as the columns of a matrix, of which there may be none.
function side_by_side(columns::Vector{Vector{T}}, n::Int) where {T}
    matrix = Matrix{T}(undef, n, length(columns))
    foreach((i, x) -> copyto!(matrix, (i - 1) * n + 1, x, 1, n), eachindex(columns), columns)
    return matrix
end

"""
    interpolate(solved, times, out, order)

Write the states at `times` into `out`, or for `order` 1 their derivatives with respect to time,
from the dense output of a solve.
"""
function interpolate(
    solved::Solved{T}, times::PyArray{Float64}, out::PyArray{T}, order::Int
) where {T}
    return interpolate(solved, plain(times), plain(out), order)
end

function interpolate(
    solved::Solved{T}, times::Vector{Float64}, out::Vector{T}, order::Int
) where {T}
    (; model, solution) = solved
    n = model.states
    # Some interpolations evaluate the right-hand side once more.
    with_constants(model, solved.constants) do
        for (i, t) in enumerate(times)
            u = order == 0 ? solution(t) : slope(solved, t)
            copyto!(out, (i - 1) * n + 1, u, 1, n)
        end
    end
    return nothing
end

# QNDF's interpolation knows only states. The error of its Newton iteration over a first step's length, 1e-10
# over 1e-9, is a derivative that is 16% off. Where both differ by no more than errors that the
# tolerances allow, over the step, the right-hand side is nearer.
function slope(solved::Solved, t)
    (; model, settings, solution) = solved
    found = solution(t, Val{1})
    settings.method == "QNDF" && model.mass === nothing || return found
    i = clamp(searchsortedlast(solution.t, t), 1, length(solution.t) - 1)
    step = solution.t[i + 1] - solution.t[i]
    u = solution(t)
    du = zero(u)
    solution.prob.f(du, u, solved.p, t)
    near = @. abs(du - found) * step <= 10 * (settings.atol + settings.rtol * abs(u))
    return all(near) ? du : found
end
