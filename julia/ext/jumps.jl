# Every row of a batch a trajectory of its own, in threads.

# Those whose types do not depend on the number of kinds: the jumps are vectors, their rates behind
# wrappers. As every rate is of one model, which gives all at once, any jump may change all of them.
const METHODS = Dict{String,Any}("Direct" => DirectFW(), "FRM" => FRMFW(), "NRM" => NRM())

"""
    Process{T}

A jump process: the models of its rates and of what happens between jumps, which is `nothing` where
nothing does, with their parameters; and what each kind of jump adds, one a column.
"""
struct Process{T}
    rate::Model{T}
    p_rate::Vector{T}
    drift::Union{Nothing,Model{T}}
    p_drift::Vector{T}
    change::Matrix{Float64}
    most::Int
end

function process(rate::Model{T}, p_rate, drift, p_drift, change, states, most) where {T}
    p_drift = drift === nothing ? T[] : copy(vector(p_drift))
    change = reshape(copy(vector(change)), Int(states), :)
    return Process{T}(rate, copy(vector(p_rate)), drift, p_drift, change, Int(most))
end

# How a thread has it: with memory of its own.
function of_thread(process::Process{T}, rate, drift) where {T}
    return Process{T}(
        rate, process.p_rate, drift, process.p_drift, process.change, process.most
    )
end

# Steps between jumps where rates change between them; `nothing` where they do not.
struct BetweenJumps
    method::String
    rtol::Float64
    atol::Float64
    dtmax::Float64
    maxiters::Int
end

between_jumps(method, rtol, atol, dtmax, maxiters) =
    BetweenJumps(String(method), Float64(rtol), Float64(atol), Float64(dtmax), Int(maxiters))

"""
    solve_jumps(process, method, between, u0, ts, seed, out)

Trajectories from the states `u0`, one after the other, each with a random generator of its own that
only the seed and its number decide. Their states at the times `ts` go into `out`. Returns `nothing`,
or of the first that failed its number from 0 and the [`JumpFailure`](@ref)'s fields.
"""
function solve_jumps(process::Process{T}, method, between, u0, ts, seed, out) where {T}
    u0, ts, out = vector(u0), copy(vector(ts)), vector(out)
    count = length(u0) ÷ size(process.change, 1)
    failures = Vector{Union{Nothing,JumpFailure}}(nothing, count)
    failed = Threads.Atomic{Int}(count + 1)
    workers = of_threads(process, count)
    how = between === nothing ? METHODS[String(method)] : between
    beside_python(process.rate, process.drift) do
        Pyjlode.in_threads(length(workers)) do i
            mine = i:length(workers):count
            solve_rows!(out, failures, failed, workers[i], how, u0, ts, seed, mine)
        end
    end
    first_failed = failed[]
    first_failed > count && return nothing
    (; code, kind, value, t, state) = failures[first_failed]
    return first_failed - 1, code, kind - 1, value, t, state
end

# A function of Python's is called from one thread alone.
function of_threads(process::Process, count)
    most = Pyjlode.WORKERS[] > 0 ? Pyjlode.WORKERS[] : Threads.nthreads()
    rates = replicas(process.rate, min(most, count))
    process.drift === nothing && return [of_thread(process, rate, nothing) for rate in rates]
    drifts = replicas(process.drift, length(rates))
    return [of_thread(process, rate, drift) for (rate, drift) in zip(rates, drifts)]
end

function solve_rows!(
    out, failures, failed, process::Process{T}, how::H, u0, ts, seed, mine
) where {T,H}
    n, count = size(process.change, 1), length(failures)
    for row in mine
        row < failed[] || return nothing
        rng = Xoshiro([UInt64(seed), UInt64(row)])
        rates = Rates(process.rate, process.p_rate, process.change, rng, process.most)
        start = Float64.(view(u0, ((row - 1) * n + 1):(row * n)))
        try
            states = trajectory(process, rates, how, start, ts)
            for i in eachindex(ts)
                copyto!(out, ((i - 1) * count + row - 1) * n + 1, states[i], 1, n)
            end
        catch failure
            failure isa JumpFailure || rethrow()
            failures[row] = failure
            Threads.atomic_min!(failed, row)
            return nothing
        end
    end
    return nothing
end

# Rates that are constant between jumps: the states at the times.
function trajectory(process::Process, rates::Rates, aggregator, u0, ts)
    kinds = 1:size(process.change, 2)
    jumps = [ConstantRateJump(RateOf(rates, kind), Jump(rates, kind)) for kind in kinds]
    problem = JumpProblem(
        DiscreteProblem(u0, (ts[1], ts[end])), aggregator, JumpSet((), jumps, nothing, nothing);
        save_positions=(false, false), rng=rates.rng, graph(aggregator, kinds)...,
    )
    # Without `alias_jump` all would be copied in threads, the models too.
    integrator = init(problem, SSAStepper(); saveat=ts, alias_jump=true)
    solve!(integrator)
    return checked(integrator.sol.u, ts)
end

graph(::Union{DirectFW,FRMFW}, kinds) = (;)
graph(::NRM, kinds) = (; dep_graph=[collect(kinds) for _ in kinds])

# Rates that change between jumps. The solver integrates their sum along with the state and finds where
# the integral reaches a number that was drawn exponentially. (VR_Direct of JumpProcesses 9.29 sums it
# up over steps that know nothing of it, and from the time 0, wherever the solve starts. VR_FRM with
# more than one jump does not draw from the generator that it is given.)
function trajectory(process::Process, rates::Rates, between::BetweenJumps, u0, ts)
    drift = Drift(process.drift, process.p_drift, length(u0))
    evaluate_on_path!(rates, u0, ts[1])
    rates.stale = false
    ode = ODEProblem{true,SciMLBase.FullSpecialize}(drift, u0, (ts[1], ts[end]))
    jump = VariableRateJump(
        TotalRate(rates), AnyJump(rates); save_positions=(false, false), interp_points=0
    )
    problem = JumpProblem(
        ode, Direct(), JumpSet((jump,), (), nothing, nothing); vr_aggregator=VR_FRM(),
        rng=rates.rng, save_positions=(false, false),
    )
    integrator = init(
        problem, Pyjlode.algorithm(between.method); saveat=ts, save_everystep=false, dense=false,
        reltol=between.rtol, abstol=between.atol, dtmax=min(between.dtmax, ts[end] - ts[1]),
        maxiters=between.maxiters, internalnorm=largest, verbose=Pyjlode.QUIET, alias_jump=true,
        callback=DiscreteCallback(always, OnPath(rates); save_positions=(false, false)),
    )
    solution = solve!(integrator)
    successful_retcode(solution) || failed_between(rates, integrator, string(solution.retcode))
    return checked([u.u for u in solution.u], ts)
end

# The integral of the rates counts as much as all of the state.
largest(x::Number, t) = abs(x)
largest(x, t) = maximum(abs, x)

# Rates that are not finite make the steps too short before any of them is accepted.
function failed_between(rates::Rates, integrator, code)
    t, state = Float64(integrator.t), copy(integrator.u.u)
    if code == "Unstable" || code == "DtLessThanMin" || code == "DtNaN"
        kind = findfirst(!isfinite, rates.values)
        kind === nothing || throw(JumpFailure("Rate", kind, rates.values[kind], t, state))
    end
    throw(JumpFailure(code, 1, 0.0, t, state))
end

function checked(states, ts)
    length(states) == length(ts) || error("$(length(states)) states were saved")
    return states
end
