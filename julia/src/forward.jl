# The forward solve.

"""
    Solved{T}

A forward solve, with what its gradient needs: the model, the parameters and constants at the time
of the solve, the settings, SciML's solution, and for the discrete adjoint the steps.
"""
struct Solved{T,S,P<:Union{Nothing,AbstractTape{T}}}
    model::Model{T}
    p::Vector{T}
    constants::Vector{T}
    ts::Vector{Float64}
    settings::Settings
    solution::S
    tape::P
end

# The memory of a numpy array as an ordinary vector; Python keeps it alive during the call.
plain(x::PyArray{T,1}) where {T} = unsafe_wrap(Vector{T}, pointer(x), length(x))

"""
    forward(model, settings, u0, p, ts, out, info, keep, checkpoints, watch, dense) -> Solved

Solve from `ts[1]` to `ts[end]` and write the states at `ts`, one after the other, into `out`.
`info` gets 1 for success, the time reached, and the counts of right-hand-side evaluations,
Jacobians, accepted and rejected steps; at 8, how many of the states were reached. `keep` says
what the gradient will need: `"nothing"`, `"dense"` output, for the adjoints that interpolate, or
the `"steps"`, for the discrete one, which keeps at most `checkpoints` states of them, or all if
that is 0. `watch` is a Python function that is called at each step, or `nothing`; see
[`watched!`](@ref). With `dense` the solution can be interpolated whatever `keep` says.
"""
function forward(
    model::Model{T}, settings::Settings, u0::Vector{T}, p::Vector{T}, ts::Vector{Float64},
    out::Vector{T}, info::Vector{Float64}, keep::String, checkpoints::Int=0,
    watch::Union{Nothing,Py}=nothing, dense::Bool=false,
) where {T}
    isempty(p) && (p = zeros(T, 1)) # the adjoints want at least one parameter
    haskey(PARTITIONED, settings.method) &&
        return forward_partitioned(model, settings, u0, p, ts, out, info, keep)
    solution, reached, tape = if keep == "steps"
        record(model, settings, u0, p, ts, out, checkpoints, watch, dense)
    else
        # Where another method makes the gradient, it makes a dense solution of its own.
        adjoints = keep == "dense" && backward_method(settings.method) == settings.method
        save(model, settings, u0, p, ts, out, dense || adjoints, watch)
    end
    report!(info, solution, reached)
    saved = tape === nothing ? count_saved(solution, ts, info[1] == 1) : last_saved(tape)
    info[8] = count_finite(out, model.states, saved)
    info[8] == length(ts) || (info[1] = 0)
    return Solved(model, p, copy(model.constants), ts, settings, solution, tape)
end

# A solve of which SciML keeps the save points, or all for dense output.
function save(model, settings, u0, p, ts, out, dense, watch)
    implicit = is_implicit(settings.method)
    problem = split_or_whole(model, implicit, u0, (ts[1], ts[end]), p)
    solution, reached = run_solver(
        problem, algorithm(settings.method, problem), settings, ts, dense, watch
    )
    for i in 1:count_saved(solution, ts, successful_retcode(solution))
        copyto!(out, (i - 1) * model.states + 1, state_at(solution, ts, i), 1, model.states)
    end
    return solution, reached, nothing
end

# How many of the save points a solve reached: with dense output, those before its last step.
function count_saved(solution, ts, success)
    success && return length(ts)
    dense = solution.dense && length(solution.t) > 1
    dense && return count(<=(solution.t[end]), ts)
    differs = findfirst(i -> i > length(solution.t) || solution.t[i] != ts[i], eachindex(ts))
    return something(differs, length(ts) + 1) - 1
end

# The states before the first one that is not finite.
function count_finite(out, n, saved)
    bad = findfirst(i -> !isfinite(out[i]), 1:(saved * n))
    return bad === nothing ? saved : div(bad - 1, n)
end

# A solve whose steps are noted on a tape.
function record(model::Model{T}, settings, u0, p, ts, out, checkpoints, watch, dense) where {T}
    if is_implicit(settings.method)
        tape = ImplicitTape(model, p, implicit_tableau(settings.method), checkpoints)
        f = ode_function(model, true)
    else
        tape = Tape(model, p, tableau(settings.method, !settings.fixed), checkpoints)
        f = ODEFunction{true,SciMLBase.FullSpecialize}(Taped(tape))
    end
    return record(tape, f, settings, u0, ts, out, watch, dense)
end

function record(tape::AbstractTape{T}, f, settings, u0::Vector{T}, ts, out, watch, dense) where {T}
    integrator, _ = recording(tape, f, settings, u0, ts, out, length(u0), dense)
    copyto!(out, u0)
    end_step!(tape) # the choice of the first step evaluates too
    return run!(integrator, watch), Float64(integrator.t), tape
end

# An integrator that notes its steps on a tape, with the callback that does it.
function recording(tape::AbstractTape{T}, f, settings, u0, ts, out, stride, dense=false) where {T}
    problem = ode_problem(f, u0, (ts[1], ts[end]), tape.p)
    recorder = Recorder(tape, ts, out, similar(u0), stride, 0)
    integrator = started(
        problem, algorithm(settings.method, problem); solver_options(settings, ts, problem)...,
        callback=DiscreteCallback(always, recorder; save_positions=(false, false)),
        dense, save_everystep=dense, save_start=dense, save_end=dense,
    )
    retune!(integrator.controller_cache, settings)
    return integrator, recorder
end

# A first step that is too long would be cut to end at the first stop; see `own_length!`.
function first_step_up_to(options, distance)
    return haskey(options, :dt) ? (; options..., dt=min(options.dt, distance)) : options
end

# A step that ends at a stop may have been cut to end there, and OrdinaryDiffEq has put back the length
# that it would have had, for its controller, before it calls anyone. But the interpolation divides
# by the length, and so do tapes. The next step's is set already.
function own_length!(integrator)
    (; t, tprev) = integrator
    made = t - tprev
    abs(made - integrator.dt) > 200 * eps(max(abs(t), abs(tprev))) && (integrator.dt = made)
    return integrator.dt
end

always(u, t, integrator) = true

# A solve that keeps only the save points has no interpolation to ask.
function state_at(solution, ts, i)
    saved = i <= length(solution.t) && solution.t[i] == ts[i]
    return saved ? solution.u[i] : solution(ts[i])
end

# The solution, and the time that the solve reached, which a failed solve does not save.
function run_solver(problem, method, settings, ts, dense, watch=nothing)
    options = solver_options(settings, ts, problem)
    integrator = if dense
        started(problem, method; options..., dense=true, save_everystep=true)
    else
        started(problem, method; options..., saveat=ts, dense=false, save_everystep=false)
    end
    retune!(integrator.controller_cache, settings)
    return run!(integrator, watch), Float64(integrator.t)
end

function solver_options(settings::Settings, ts, problem)
    options = keywords(settings, maximum(abs, diff(ts); init=0.0))
    if !settings.fixed
        onto = settings.method in STEPS_ONTO_SAVE_POINTS || is_algebraic(problem)
        first_stop = onto ? ts[min(2, end)] : ts[end]
        options = first_step_up_to(options, first_stop - ts[1])
        return onto ? (; options..., tstops=ts) : options
    end
    if needs_even_steps(settings.method)
        span = ts[end] - ts[1]
        return (; options..., dt=span / ceil(span / options.dt * (1 - 1e-12)))
    end
    # A fixed-step method steps onto every save point, as torchdiffeq's do.
    return (; options..., tstops=ts)
end

# Steps satisfy algebraic equations, and interpolations only as far as they are near, which is not far
# where an input has a kink.
is_algebraic(problem) =
    problem.f isa ODEFunction && !(problem.f.mass_matrix isa UniformScaling)

function report!(info::Vector{Float64}, solution, reached)
    stats = solution.stats
    info[1] = successful_retcode(solution)
    info[2] = reached
    info[3] = stats.nf
    info[4] = stats.njacs
    info[5] = stats.naccept
    info[6] = stats.nreject
    return nothing
end

"The solver's return code in words."
retcode(solved::Solved) = string(solved.solution.retcode)

"""
    evaluate(model, du, u, p, t)

The right-hand side at one point, for checks.
"""
function evaluate(model::Model{T}, du, u, p, t) where {T}
    model.value(plain(du), plain(u), plain(p), Float64(t))
    return nothing
end

"""
    evaluate_vjp(model, gu, gp, gt, v, u, p, t)

The vector-Jacobian products at one point, with respect to the state, the parameters and the
time, for checks.
"""
function evaluate_vjp(model::Model{T}, gu, gp, gt, v, u, p, t) where {T}
    state = (plain(v), plain(u), plain(p), Float64(t))
    model.vjp(plain(gu), state...)
    model.vjp_p(plain(gp), state...)
    model.vjp_t(plain(gt), state...)
    return nothing
end

"""
    evaluate_vjp_jvp(model, g, gp, v, k, u, p, t)

The second derivatives at one point, for checks.
"""
function evaluate_vjp_jvp(model::Model{T}, g, gp, v, k, u, p, t) where {T}
    model.vjp_jvp(plain(g), plain(gp), plain(v), plain(k), plain(u), plain(p), Float64(t))
    return nothing
end
