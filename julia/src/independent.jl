# Every row of a batch a solve of its own, with its own steps, in threads.

# How many solve at once; 0 for as many as Julia has threads. No result depends on it.
const WORKERS = Ref(0)

# The rows are solved in so many parts, whatever the number of threads. Each part adds up the
# parameter gradients of its rows, and the sums of the parts are added in their order, so that
# a result can be had again to the last bit. Large gradients have fewer parts, for the memory.
const PARTS = 64
const FEWEST_PARTS = 8
const SUMS_BUDGET = 2^26

function partition(rows::Int, model::Model{T}) where {T}
    most = SUMS_BUDGET ÷ max(1, model.parameters * sizeof(T))
    parts = min(rows, clamp(most, FEWEST_PARTS, PARTS))
    return [((i - 1) * rows ÷ parts + 1):(i * rows ÷ parts) for i in 1:parts]
end

"""
    in_threads(work, model, parts)

Call `work(replica, mine)` for every replica of a model, in threads, with the numbers of the parts
that are the replica's: the same ones whenever this is called.
"""
function in_threads(work::F, model::Model, parts::Int) where {F}
    count = WORKERS[] > 0 ? WORKERS[] : Threads.nthreads()
    models = replicas(model, min(count, parts))
    return in_threads(i -> work(models[i], i:length(models):parts), length(models))
end

"""
    SolvedRows{T}

A forward solve of many rows, with what its gradient needs: as [`Solved`](@ref), but for each of
`parts`, which are ranges of rows, the steps or the solutions of its rows. `retcode` is that of the
first row that failed.
"""
struct SolvedRows{T}
    model::Model{T}
    p::Vector{T}
    constants::Vector{T}
    ts::Vector{Float64}
    settings::Settings
    checkpoints::Int
    parts::Vector{UnitRange{Int}}
    solved::Union{Vector{Steps{T}},Vector{Vector{Any}}}
    retcode::String
end

retcode(solved::SolvedRows) = solved.retcode

# What the threads of a forward solve share.
struct Rows{T}
    settings::Settings
    count::Int
    states::Int
    u0::Vector{T}
    p::Vector{T}
    ts::Vector{Float64}
    out::Vector{T}
    info::Vector{Float64}
    keep::String
    checkpoints::Int
    parts::Vector{UnitRange{Int}}
    retcodes::Vector{String}
    failed::Threads.Atomic{Int}
end

"""
    forward_rows(model, settings, u0, p, ts, out, info, keep, checkpoints) -> SolvedRows

As [`forward`](@ref), for many rows: `u0` has their states, one after the other, and `out` at each
save point those of all rows. `info` has eight numbers for each row. Of several rows that fail the
first is sure to be reported; those after it may be left out. `keep` may also be `"values"`, if
there will be no gradient.
"""
function forward_rows(
    model::Model{T}, settings::Settings, u0::Vector{T}, p::Vector{T}, ts::Vector{Float64},
    out::Vector{T}, info::Vector{Float64}, keep::String, checkpoints::Int=0,
) where {T}
    isempty(p) && (p = zeros(T, 1))
    count = length(u0) ÷ model.states
    parts = partition(count, model)
    rows = Rows{T}(
        settings, count, model.states, u0, p, ts, out, info, keep, checkpoints, parts,
        fill("", length(parts)), Threads.Atomic{Int}(count + 1),
    )
    copyto!(out, u0)
    # Without a gradient, methods that have no tableau may come here too.
    has_tableau = keep == "steps" || backward_method(settings.method) == settings.method
    tapes = keep in ("steps", "values") && !is_implicit(settings.method) && has_tableau
    solved = if tapes
        tableau(settings.method, !settings.fixed) # for the first time not in a thread
        [Steps{T}() for _ in parts]
    else
        [Any[] for _ in parts]
    end
    in_threads(model, length(parts)) do replica, mine
        solve_parts!(solved, row_solver(rows, replica, tapes), rows, mine)
    end
    first_failed = findfirst(!isempty, rows.retcodes)
    code = first_failed === nothing ? "Success" : rows.retcodes[first_failed]
    return SolvedRows{T}(
        model, p, copy(model.constants), ts, settings, checkpoints, parts, solved, code
    )
end

function row_solver(rows::Rows, model::Model, tapes::Bool)
    return tapes ? TapedRow(rows, model) : WholeRow(rows, model)
end

function solve_parts!(solved, solver, rows::Rows, mine)
    for part in mine
        part > first(mine) && reserve!(solved[part], solved[part - step(mine)])
        for row in rows.parts[part]
            row < rows.failed[] || return nothing
            code = solve_row!(solved[part], solver, rows, row)
            (; report) = solver
            if report[1] == 1 && !finite_row(rows, row)
                report[1], code = 0, "Unstable"
            end
            copyto!(rows.info, 8 * (row - 1) + 1, report, 1, 8)
            if report[1] != 1
                rows.retcodes[part] = string(code)
                Threads.atomic_min!(rows.failed, row)
                return nothing
            end
        end
    end
    return nothing
end

function finite_row(rows::Rows, row::Int)
    (; out, states, count, ts) = rows
    for i in eachindex(ts), j in 1:states
        isfinite(out[((i - 1) * count + row - 1) * states + j]) || return false
    end
    return true
end

# An explicit method: one integrator for all rows of a thread, its steps taped.
struct TapedRow{T,I}
    tape::Tape{T}
    recorder::Recorder{T,Tape{T}}
    integrator::I
    u0::Vector{T}
    report::Vector{Float64}
end

function TapedRow(rows::Rows, model::Model)
    (; settings, keep, checkpoints) = rows
    tape = Tape(
        model, rows.p, tableau(settings.method, !settings.fixed),
        keep == "values" ? 1 : checkpoints, STAGES_BUDGET[] ÷ rows.count,
    )
    u0 = rows.u0[1:(rows.states)]
    stride = rows.count * rows.states
    f = ODEFunction{true,SciMLBase.FullSpecialize}(Taped(tape))
    integrator, recorder = recording(tape, f, settings, u0, rows.ts, rows.out, stride)
    return TapedRow(tape, recorder, integrator, u0, zeros(8))
end

function solve_row!(steps::Steps, solver::TapedRow, rows::Rows, row::Int)
    (; tape, recorder, integrator, u0, report) = solver
    n = rows.states
    copyto!(u0, 1, rows.u0, (row - 1) * n + 1, n)
    restart!(tape)
    recorder.offset = (row - 1) * n
    restart!(integrator, u0)
    tape.count = 0
    solution = solve!(integrator)
    report!(report, solution, Float64(integrator.t))
    rows.keep == "steps" && store!(steps, tape)
    return solution.retcode
end

# `reinit!`, with the counts at zero, and the step that was asked for, if one was.
function restart!(integrator, u0)
    (; stats) = integrator
    stats.nf = stats.naccept = stats.nreject = 0
    iszero(integrator.dtcache) || (integrator.dt = integrator.dtpropose = integrator.dtcache)
    reinit!(integrator, u0)
    return nothing
end

# Any method: each row a whole solution of SciML's.
struct WholeRow{T}
    model::Model{T}
    out::Vector{T}
    report::Vector{Float64}
end
WholeRow(rows::Rows{T}, model) where {T} =
    WholeRow{T}(model, zeros(T, rows.states * length(rows.ts)), zeros(8))

function solve_row!(solutions::Vector{Any}, solver::WholeRow, rows::Rows, row::Int)
    (; model, out, report) = solver
    (; settings, states, count, p, ts) = rows
    u0 = rows.u0[((row - 1) * states + 1):(row * states)]
    solution, reached, tape = if rows.keep == "steps"
        record(model, settings, u0, p, ts, out, rows.checkpoints, nothing, false)
    else
        save(model, settings, u0, p, ts, out, rows.keep == "dense", nothing)
    end
    report!(report, solution, reached)
    for i in eachindex(ts)
        to = ((i - 1) * count + row - 1) * states + 1
        copyto!(rows.out, to, out, (i - 1) * states + 1, states)
    end
    if rows.keep != "values"
        # The constants are those of all rows.
        push!(solutions, Solved(model, p, model.constants, ts, settings, solution, tape))
    end
    return solution.retcode
end

# What the threads of a backward solve share, and the sums of each part.
struct Cotangents{T}
    values::Vector{T}
    gradient_u::Vector{T}
    dps::Vector{Vector{T}}
    dts::Vector{Vector{Float64}}
    products::Vector{Int}
    failures::Vector{Union{Nothing,BackwardFailure}}
    first_failed::Vector{Int}
end

function backward(
    solved::SolvedRows{T}, sensealg, settings::Settings, cotangent::Vector{T},
    gradient_u::Vector{T}, gradient_p::Vector{T}, gradient_t::Vector{T}, info::Vector{Float64},
) where {T}
    parts, count = length(solved.parts), length(gradient_u) ÷ solved.model.states
    shared = Cotangents{T}(
        cotangent, gradient_u, [zeros(T, length(gradient_p)) for _ in 1:parts],
        [zeros(length(gradient_t)) for _ in 1:parts], zeros(Int, parts),
        fill(nothing, parts), fill(count + 1, parts),
    )
    in_threads(solved.model, parts) do replica, mine
        adjoint = row_adjoint(solved, sensealg, settings, replica, !isempty(gradient_t))
        back_parts!(shared, adjoint, solved, mine)
    end
    first_failed = argmin(shared.first_failed)
    failure = shared.failures[first_failed]
    if failure !== nothing
        info[4] = shared.first_failed[first_failed] - 1
        throw(failure)
    end
    fill!(gradient_p, zero(T))
    foreach(dp -> gradient_p .+= dp, shared.dps)
    total_t = zeros(length(gradient_t))
    foreach(dt -> total_t .+= dt, shared.dts)
    copyto!(gradient_t, total_t)
    info[1], info[2], info[3] = 1, solved.ts[1], sum(shared.products)
    return nothing
end

function row_adjoint(solved::SolvedRows, sensealg, settings, replica, with_t)
    solved.solved isa Vector{<:Steps} && return TapedAdjoint(solved, replica, with_t)
    return WholeAdjoint(solved, sensealg, settings, with_t)
end

function back_parts!(shared::Cotangents, adjoint, solved::SolvedRows, mine)
    n = solved.model.states
    count = length(shared.gradient_u) ÷ n
    for part in mine, (j, row) in enumerate(solved.parts[part])
        for i in eachindex(solved.ts)
            from = ((i - 1) * count + row - 1) * n + 1
            copyto!(adjoint.cotangent, (i - 1) * n + 1, shared.values, from, n)
        end
        try
            shared.products[part] += back_row!(adjoint, solved.solved[part], j)
            (; du, dp, dt) = adjoint
            all(isfinite, du) && all(isfinite, dp) && all(isfinite, dt) ||
                throw(BackwardFailure("Unstable", solved.ts[1]))
            copyto!(shared.gradient_u, (row - 1) * n + 1, du, 1, n)
            shared.dps[part] .+= dp
            shared.dts[part] .+= dt
        catch failure
            failure isa BackwardFailure || rethrow()
            shared.failures[part], shared.first_failed[part] = failure, row
            break
        end
    end
    return nothing
end

# The discrete adjoint: one sweep's memory for all rows of a thread.
struct TapedAdjoint{T}
    sweep::Sweep{T}
    cotangent::Vector{T}
    du::Vector{T}
    dp::Vector{T}
    dt::Vector{Float64}
end

function TapedAdjoint(solved::SolvedRows{T}, model::Model{T}, with_t::Bool) where {T}
    (; settings, ts, p) = solved
    tape = Tape(model, p, tableau(settings.method, !settings.fixed), 0)
    cotangent = zeros(T, model.states * length(ts))
    sweep = Sweep(tape, 1, ts, cotangent, with_t, settings.fixed)
    du = zeros(T, model.states)
    return TapedAdjoint{T}(sweep, cotangent, du, sweep.dp, with_t ? sweep.dts : Float64[])
end

function back_row!(adjoint::TapedAdjoint, steps::Steps, j)
    (; sweep, cotangent, du) = adjoint
    load!(sweep.tape, steps, steps.rows[j])
    restart!(sweep)
    before = sweep.products
    sweep_back!([sweep])
    for i in eachindex(du)
        du[i] = sweep.λ[i] + cotangent[i]
    end
    return sweep.products - before
end

# Any other algorithm, on each row's solution.
struct WholeAdjoint{T,S}
    sensealg::S
    settings::Settings
    cotangent::Vector{T}
    du::Vector{T}
    dp::Vector{T}
    dt::Vector{T}
    report::Vector{Float64}
end

function WholeAdjoint(solved::SolvedRows{T}, sensealg::S, settings, with_t) where {T,S}
    (; model, ts) = solved
    return WholeAdjoint{T,S}(
        sensealg, settings, zeros(T, model.states * length(ts)), zeros(T, model.states),
        zeros(T, model.parameters), zeros(T, with_t ? length(ts) : 0), zeros(8),
    )
end

function back_row!(adjoint::WholeAdjoint, solutions::Vector{Any}, j)
    (; sensealg, settings, cotangent, du, dp, dt, report) = adjoint
    backward(solutions[j], sensealg, settings, cotangent, du, dp, dt, report)
    return Int(report[3])
end
