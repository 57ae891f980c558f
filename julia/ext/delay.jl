# The equation, and its forward solve.

"""
    DDE{T}

`u'(t) = f(t, u(t), u(t - lags[1]), …)`, where `u(t)` for `t ≤ start` is the past.

# Fields
- `model`, `p`: `f` as a function of states side by side: each of `rows` rows has the state's
  numbers and then those of each delayed state; of the result only the first are used
- `history`, `p_history`: the past as a function of time alone; `nothing` where it is constant, `u0`
- `joined`, `derivative`, `delayed`: memory to work in
"""
struct DDE{T}
    model::Model{T}
    p::Vector{T}
    history::Union{Nothing,Model{T}}
    p_history::Vector{T}
    lags::Vector{Float64}
    rows::Int
    start::Float64
    u0::Vector{T}
    joined::Vector{T}
    derivative::Vector{T}
    delayed::Vector{T}
end

function dde(model::Model{T}, p, history, p_history, lags, rows, start, u0) where {T}
    u0, lags = copy(vector(u0)), copy(vector(lags))
    n = length(u0) * (1 + length(lags))
    n == model.states || error("$n numbers side by side, and the function has $(model.states)")
    return DDE{T}(
        model, copy(vector(p)), history, copy(vector(p_history)), lags, Int(rows), Float64(start),
        u0, zeros(T, n), zeros(T, n), zeros(T, length(u0)),
    )
end

# Part `j` of what lies side by side, the state's being 0: written, read, and added to.
function put_part!(joined, j::Int, x, rows::Int)
    width, stride = length(x) ÷ rows, length(joined) ÷ rows
    for row in 0:(rows - 1)
        copyto!(joined, row * stride + j * width + 1, x, row * width + 1, width)
    end
    return joined
end

function get_part!(x, joined, j::Int, rows::Int)
    width, stride = length(x) ÷ rows, length(joined) ÷ rows
    for row in 0:(rows - 1)
        copyto!(x, row * width + 1, joined, row * stride + j * width + 1, width)
    end
    return x
end

# The past, at a time that is not after the start.
function past!(out, equation::DDE, t)
    (; history, p_history, u0) = equation
    history === nothing ? copyto!(out, u0) : history.value(out, u0, p_history, Float64(t))
    return out
end

# The right-hand side as DelayDiffEq calls it. Rates may be of another type than states.
struct Delayed{T} <: Function
    equation::DDE{T}
end

function (f::Delayed{T})(du, u::Vector{T}, h, _, t) where {T}
    (; model, p, lags, rows, start, joined, derivative, delayed) = f.equation
    put_part!(joined, 0, u, rows)
    for (j, lag) in enumerate(lags)
        # No step is longer than a lag: later than the last step's end can only be rounding, of
        # which DelayDiffEq would make a fixed-point iteration.
        s = min(t - lag, last(h.integrator.sol.t))
        s <= start ? past!(delayed, f.equation, s) : h(delayed, nothing, s)
        put_part!(joined, j, delayed, rows)
    end
    model.value(derivative, joined, p, Float64(t))
    get_part!(du, derivative, 0, rows)
    return nothing
end

# The past as DelayDiffEq has it; what is before the start `Delayed` asks for itself.
struct Past{T} <: Function
    equation::DDE{T}
end
(h::Past)(out, p, t; idxs=nothing) = past!(out, h.equation, t)

function delay_problem(equation::DDE, stop::Float64)
    (; u0, start, lags) = equation
    f = DDEFunction{true,SciMLBase.FullSpecialize}(Delayed(equation))
    # The past goes into u0 without a jump, so what jumps there is the first derivative.
    return DDEProblem{true}(
        f, u0, Past(equation), (start, stop), nothing;
        constant_lags=lags, order_discontinuity_t0=1,
    )
end

"""
    solve_delayed(equation, settings, ts, out, last, info, keep) -> (Steps or nothing, return code)

Solve by the method of steps and write the states at `ts`, one after the other, into `out`, and the
last one reached into `last`. `info` gets 1 for success, the time reached, the counts of
right-hand-side evaluations, accepted and rejected steps, and how many of the states at `ts` were
reached. The [`Steps`](@ref) are given where they are to be kept.
"""
function solve_delayed(equation::DDE{T}, settings::Settings, ts, out, last, info, keep) where {T}
    Pyjlode.collect_when_due()
    ts, out, last, info = copy(vector(ts)), vector(out), vector(last), vector(info)
    stepper = MethodOfSteps(Pyjlode.algorithm(settings.method); constrained=true)
    options = Pyjlode.keywords(settings, minimum(equation.lags))
    integrator = init(
        delay_problem(equation, ts[end]), stepper;
        Pyjlode.first_step_up_to(options, ts[end] - ts[1])...,
        tstops=settings.fixed ? ts[2:end] : Float64[], save_everystep=false, save_start=false,
        save_end=false, dense=false, calck=true,
    )
    Pyjlode.retune!(integrator.controller_cache, settings)
    # It gives the solution as it was before, without a return code, where it fails.
    beside_python(() -> solve!(integrator), equation.model, equation.history, settings)
    solution = integrator.sol
    copyto!(last, integrator.u)
    # All steps, which DelayDiffEq keeps for the delayed states.
    made = integrator.integrator.sol
    saved = write_states!(out, made, equation.u0, ts, successful_retcode(solution))
    stats, success = integrator.stats, saved == length(ts)
    info[1:6] .= (success, integrator.t, stats.nf, stats.naccept, stats.nreject, saved)
    code = successful_retcode(solution) && !success ? "Unstable" : string(solution.retcode)
    success && Bool(keep) || return nothing, code
    (; method, fixed) = settings
    return Steps(equation, method, tableau(method, !fixed), ts, made), code
end

# The states at the save points; gives how many there are before one that was not reached.
function write_states!(out, made, u0, ts, success)
    n, state = length(u0), similar(u0)
    copyto!(out, u0)
    for i in 2:length(ts)
        success || ts[i] <= made.t[end] || return i - 1
        made.interp(state, min(ts[i], made.t[end]), nothing, Val{0}, nothing)
        all(isfinite, state) || return i - 1
        copyto!(out, (i - 1) * n + 1, state, 1, n)
    end
    return length(ts)
end
