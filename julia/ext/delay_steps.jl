# The steps that a solve made, as the discrete adjoint needs them.

"""
    Steps{T}

The accepted steps of a solve.

# Fields
- `equation`, `constants`, `constants_history`: what was solved, with the models' constants then
- `tableau`: of the method; its stages after the last that a step evaluates serve to interpolate
- `ts`: the save points
- `t`: where steps start, and where the last one ends
- `states[n]`, `stages[n]`: the state at the start of step `n`, and its stages
"""
struct Steps{T}
    equation::DDE{T}
    constants::Vector{T}
    constants_history::Vector{T}
    tableau::Tableau
    ts::Vector{Float64}
    t::Vector{Float64}
    states::Vector{Vector{T}}
    stages::Vector{Vector{Vector{T}}}
end

# Methods whose stages DelayDiffEq keeps, in their order; those of the others are computed again.
const KEPT = ("Tsit5",)

function Steps(equation::DDE{T}, method::String, tableau::Tableau, ts, made) where {T}
    # After a jump at the very end DelayDiffEq has one more point, the next floating-point number.
    points = 1:min(searchsortedfirst(made.t, ts[end]), length(made.t))
    t, states = made.t[points], made.u[points]
    (; model, history) = equation
    constants = (copy(model.constants), history === nothing ? T[] : copy(history.constants))
    stages = Vector{Vector{T}}[]
    if method in KEPT
        append!(stages, ([Vector{T}(k) for k in made.k[n]] for n in points[2:end]))
    end
    return Steps{T}(equation, constants..., tableau, ts, t, states, stages)
end

Base.length(steps::Steps) = length(steps.t) - 1
step_length(steps::Steps, n::Int) = steps.t[n + 1] - steps.t[n]
stage_time(steps::Steps, n::Int, i::Int) = steps.t[n] + steps.tableau.c[i] * step_length(steps, n)

# Whether two times are the same but for rounding.
same_time(a, b, scale) = abs(a - b) <= 200 * eps(max(abs(a), abs(b), abs(scale)))

"""
    locate(steps, n, i, lag) -> (m, s)

Where stage `i` of step `n` reads a delayed state: at time `s` in step `m`, or in the past, where
`m` is 0. A time between two steps, or at the start, belongs to the later one if the stage is at its
own step's start, and to the earlier one if it is at its end: there slopes can jump, and the stage
must see the one within the stretch of time that its step reads.
"""
function locate(steps::Steps, n::Int, i::Int, lag::Float64)
    (; t) = steps
    time, late = stage_time(steps, n, i), steps.tableau.c[i] > 0.5
    s = time - lag
    m = min(searchsortedlast(t, s), n - 1)
    if late && m >= 1 && same_time(s, t[m], time)
        m -= 1
    elseif !late && m < n - 1 && same_time(s, t[m + 1], time)
        m += 1
    end
    # What was taken for another step's time is rounded to where that step begins or ends.
    return m, m == 0 ? min(s, t[1]) : clamp(s, t[m], t[m + 1])
end

# The state that stage `i` of step `n` reads.
function delayed_state!(out, steps::Steps, n::Int, i::Int, lag::Float64, weights)
    m, s = locate(steps, n, i, lag)
    m == 0 && return past!(out, steps.equation, s)
    dt = step_length(steps, m)
    weights!(weights, steps.tableau, (s - steps.t[m]) / dt)
    return combine!(out, steps.states[m], steps.stages[m], weights, dt)
end

# The argument `u` of stage `i` of step `n` and the delayed states side by side.
function join_states!(steps::Steps, n::Int, i::Int, u, weights)
    (; joined, delayed, lags, rows) = steps.equation
    put_part!(joined, 0, u, rows)
    for (j, lag) in enumerate(lags)
        put_part!(joined, j, delayed_state!(delayed, steps, n, i, lag, weights), rows)
    end
    return joined
end

# Compute the stages that were not kept, from the states at the starts of the steps.
function compute_stages!(steps::Steps{T}) where {T}
    (; equation, tableau, states, stages) = steps
    (; model, p, rows, u0, derivative) = equation
    argument, weights = similar(u0), zeros(length(tableau))
    for n in (length(stages) + 1):length(steps)
        k = [similar(u0) for _ in 1:length(tableau)]
        for i in 1:length(tableau)
            if i == 1 && n > 1 && tableau.first == 2
                copyto!(k[1], stages[n - 1][tableau.last])
                continue
            end
            combine!(argument, states[n], k, tableau.a[i], step_length(steps, n))
            z = join_states!(steps, n, i, argument, weights)
            model.value(derivative, z, p, stage_time(steps, n, i))
            get_part!(k[i], derivative, 0, rows)
        end
        push!(stages, k)
    end
    return nothing
end
