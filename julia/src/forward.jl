# The forward solve.

"""
    Solved{T}

A forward solve, with what its gradient needs: the model, the parameters and constants at the time
of the solve, the settings, SciML's solution, and for the discrete adjoint the steps.
"""
struct Solved{T,S}
    model::Model{T}
    p::Vector{T}
    constants::Vector{T}
    ts::Vector{Float64}
    settings::Settings
    solution::S
    tape::Union{Nothing,Tape{T}}
end

"""
    forward(model, settings, u0, p, ts, out, info, keep, checkpoints, watch) -> Solved

Solve from `ts[1]` to `ts[end]` and write the states at `ts`, one after the other, into `out`.
`info` gets 1 for success, the time reached, and the counts of right-hand-side evaluations,
Jacobians, accepted and rejected steps. `keep` says what the gradient will need: `"nothing"`,
`"dense"` output, for the adjoints that interpolate, or the `"steps"`, for the discrete one, which
keeps at most `checkpoints` states of them, or all if that is 0. `watch` is a Python function that
is called at each step, or `nothing`; see [`watched!`](@ref).
"""
function forward(
    model::Model{T}, settings::Settings, u0::PyArray{T}, p::PyArray{T}, ts::PyArray{Float64},
    out::PyArray{T}, info::PyArray{Float64}, keep::String, checkpoints::Int,
    watch::Union{Nothing,Py},
) where {T}
    return forward(
        model, settings, copy(plain(u0)), copy(plain(p)), copy(plain(ts)), plain(out),
        plain(info), keep, checkpoints, watch,
    )
end

# The memory of a numpy array as an ordinary vector; Python keeps it alive during the call.
plain(x::PyArray{T,1}) where {T} = unsafe_wrap(Vector{T}, pointer(x), length(x))

function forward(
    model::Model{T}, settings::Settings, u0::Vector{T}, p::Vector{T}, ts::Vector{Float64},
    out::Vector{T}, info::Vector{Float64}, keep::String, checkpoints::Int=0,
    watch::Union{Nothing,Py}=nothing,
) where {T}
    isempty(p) && (p = zeros(T, 1)) # the adjoints want at least one parameter
    solution, reached, tape = if keep == "steps"
        record(model, settings, u0, p, ts, out, checkpoints, watch)
    else
        save(model, settings, u0, p, ts, out, keep == "dense", watch)
    end
    report!(info, solution, reached)
    info[1] == 1 && !all(isfinite, out) && (info[1] = 0)
    return Solved(model, p, copy(model.constants), ts, settings, solution, tape)
end

# A solve of which SciML keeps the save points, or all for dense output.
function save(model, settings, u0, p, ts, out, dense, watch)
    implicit = is_implicit(settings.method)
    problem = ODEProblem{true,SciMLBase.FullSpecialize}(
        ode_function(model, implicit), u0, (ts[1], ts[end]), p
    )
    # Where another method makes the gradient, it makes a dense solution of its own.
    dense &= backward_method(settings.method) == settings.method
    solution, reached = run_solver(
        problem, algorithm(settings.method, problem), settings, ts, dense, watch
    )
    if successful_retcode(solution)
        for i in eachindex(ts)
            copyto!(
                out, (i - 1) * model.states + 1, state_at(solution, ts, i), 1, model.states
            )
        end
    end
    return solution, reached, nothing
end

# A solve whose steps are noted on a tape.
function record(model::Model{T}, settings, u0, p, ts, out, checkpoints, watch) where {T}
    tape = Tape(model, p, tableau(settings.method, !settings.fixed), checkpoints)
    problem = ODEProblem{true,SciMLBase.FullSpecialize}(
        ODEFunction{true,SciMLBase.FullSpecialize}(Taped(tape)), u0, (ts[1], ts[end]), p
    )
    copyto!(out, u0)
    recorder = DiscreteCallback(
        always, Recorder(tape, ts, out, similar(u0)); save_positions=(false, false)
    )
    integrator = init(
        problem, algorithm(settings.method); solver_options(settings, ts)..., callback=recorder,
        dense=false, save_everystep=false, save_start=false, save_end=false,
    )
    tape.count = 0 # the choice of the first step evaluates too
    retune!(integrator.controller_cache, settings)
    return run!(integrator, watch), Float64(integrator.t), tape
end

always(u, t, integrator) = true

# A solve that keeps only the save points has no interpolation to ask.
function state_at(solution, ts, i)
    saved = length(solution.t) == length(ts) && solution.t[i] == ts[i]
    return saved ? solution.u[i] : solution(ts[i])
end

# The solution, and the time that the solve reached, which a failed solve does not save.
function run_solver(problem, method, settings, ts, dense, watch=nothing)
    options = solver_options(settings, ts)
    integrator = if dense
        init(problem, method; options..., dense=true, save_everystep=true)
    else
        init(problem, method; options..., saveat=ts, dense=false, save_everystep=false)
    end
    retune!(integrator.controller_cache, settings)
    return run!(integrator, watch), Float64(integrator.t)
end

function solver_options(settings::Settings, ts)
    options = keywords(settings, maximum(abs, diff(ts); init=0.0))
    if !settings.fixed
        onto = settings.method in STEPS_ONTO_SAVE_POINTS
        return onto ? (; options..., tstops=ts) : options
    end
    if needs_even_steps(settings.method)
        span = ts[end] - ts[1]
        return (; options..., dt=span / ceil(span / options.dt * (1 - 1e-12)))
    end
    # A fixed-step method steps onto every save point, as torchdiffeq's do.
    return (; options..., tstops=ts)
end

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
