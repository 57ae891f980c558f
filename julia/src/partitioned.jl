# Methods for Hamiltonian and second-order problems. The state is positions and then momenta, (q, p)
# with q' = ∂H/∂p and p' = -∂H/∂q, or positions and velocities with p = q'.

"""
    PartitionedTableau

What one step of a symplectic or a Nyström method computes, from `q` and `p` at time `t`: either
`p'` (where `kick[i]`) or `q'` by turns,

    kᵢ = f(q + αᵢ dt p + dtˢ Σⱼ qᵢⱼ kⱼ, p + dt Σⱼ pᵢⱼ kⱼ, t + cᵢ dt)

of which the last row, without a `k`, is the end of the step. For Nyström's methods, which take `q'`
for `p` itself, `s` is 2 and every evaluation is of `p'`; for the others it is 1 and `α` is zero
(Hairer, Lubich and Wanner, Geometric Numerical Integration, II.2).
"""
struct PartitionedTableau
    kick::Vector{Bool}
    q::Vector{Vector{Float64}}
    p::Vector{Vector{Float64}}
    α::Vector{Float64}
    c::Vector{Float64}
    s::Int
end

# By method, whether it takes `q'` for `p` itself.
const PARTITIONED = Dict{String,Bool}()
const PARTITIONED_TABLEAUS = Dict{String,PartitionedTableau}()

partitioned_tableau(method::String) =
    get!(() -> read_partitioned(method, PARTITIONED[method]), PARTITIONED_TABLEAUS, method)

# As `Probe`: the i-th evaluation gives the unit vector after the i-th. The first is `p` at the
# start for Nyström's methods.
struct PartitionedProbe
    second::Bool
    kick::Vector{Bool}
    q::Vector{Vector{Float64}}
    p::Vector{Vector{Float64}}
    times::Vector{Float64}
end

function note!(probe::PartitionedProbe, kick, out, v, u, t)
    push!(probe.kick, kick)
    push!(probe.q, copy(u))
    push!(probe.p, copy(v))
    push!(probe.times, t)
    fill!(out, 0)
    out[length(probe.times) + 1] = 1
    return nothing
end

function read_partitioned(method::String, second::Bool)
    probe = PartitionedProbe(second, Bool[], Vector{Float64}[], Vector{Float64}[], Float64[])
    force(dv, v, u, p, t) = note!(probe, true, dv, v, u, t)
    velocity(du, v, u, p, t) = second ? (du .= v; nothing) : note!(probe, false, du, v, u, t)
    start = zeros(4 * MOST_EVALUATIONS)
    momentum = copy(start)
    momentum[1] = second
    problem = partitioned_problem(force, velocity, start, momentum, (0.0, 4.0), nothing)
    integrator = init(problem, EXPLICIT[method](); adaptive=false, dt=1.0, verbose=QUIET)
    step!(integrator)
    momentum, position = integrator.u.x
    rows(arguments, last) = [[x[2:(length(probe.times) + 1)] for x in arguments]; [last]]
    n = length(probe.times)
    q, p = rows(probe.q, position[2:(n + 1)]), rows(probe.p, momentum[2:(n + 1)])
    # Evaluations that the end of the step does not rest on serve the next step, or nothing.
    used = falses(n + 1)
    used[n + 1] = true
    for i in (n + 1):-1:1, j in 1:n
        used[i] && (q[i][j] != 0 || p[i][j] != 0) && (used[j] = true)
    end
    stages = findall(used[1:n])
    select(x) = [row[stages] for row in x[used]]
    α = [[x[1] for x in probe.q]; position[1]][used]
    c = [probe.times; 1.0][used]
    return PartitionedTableau(probe.kick[stages], select(q), select(p), α, c, second ? 2 : 1)
end

function partitioned_problem(force, velocity, q, p, span, parameters)
    f = SciMLBase.DynamicalODEFunction{true,SciMLBase.FullSpecialize}(force, velocity)
    return ODEProblem(f, SciMLBase.ArrayPartition(p, q), span, parameters)
end

# One half of the model's derivative, as SciML asks for it.
struct Half{T} <: Function
    model::Model{T}
    kick::Bool
    second::Bool
    state::Vector{T}
    value::Vector{T}
end
Half(model::Model{T}, kick, second) where {T} =
    Half{T}(model, kick, second, zeros(T, model.states), zeros(T, model.states))

function (f::Half)(out, v, u, p, t)
    f.second && !f.kick && (copyto!(out, v); return nothing)
    n = length(u)
    copyto!(f.state, 1, u, 1, n)
    copyto!(f.state, n + 1, v, 1, n)
    f.model.value(f.value, f.state, p, Float64(t))
    copyto!(out, 1, f.value, f.kick ? n + 1 : 1, n)
    return nothing
end

"""
    PartitionedTape{T}

The accepted steps of a method for partitioned problems, with fields as those of [`Tape`](@ref); all
save points are ends of steps. `states` is empty where there will be no gradient.
"""
struct PartitionedTape{T} <: AbstractTape{T}
    model::Model{T}
    p::Vector{T}
    t::Vector{Float64}
    dt::Vector{Float64}
    upto::Vector{Int}
    states::Vector{Vector{T}}
end

# Called after each step: writes the state at a save point, and notes the step.
mutable struct PartitionedRecorder{T} <: Function
    const tape::PartitionedTape{T}
    const keep::Bool
    const ts::Vector{Float64}
    const out::Vector{T}
    saved::Int
end

function (r::PartitionedRecorder)(integrator)
    SciMLBase.derivative_discontinuity!(integrator, false)
    (; tape, ts) = r
    own_length!(integrator)
    n = tape.model.states
    if r.saved < length(ts) && integrator.t == ts[r.saved + 1]
        copy_state!(r.out, r.saved * n, integrator.u)
        r.saved += 1
    end
    if r.keep
        push!(tape.t, integrator.tprev)
        push!(tape.dt, integrator.t - integrator.tprev)
        push!(tape.upto, r.saved)
        push!(tape.states, copy_state!(similar(tape.p, n), 0, integrator.uprev))
    end
    return nothing
end

function copy_state!(out, offset, u)
    p, q = u.x
    copyto!(out, offset + 1, q, 1, length(q))
    copyto!(out, offset + length(q) + 1, p, 1, length(p))
    return out
end

function partitioned_integrator(model::Model{T}, settings, u0, p, ts, recorder) where {T}
    n, second = model.states ÷ 2, PARTITIONED[settings.method]
    problem = partitioned_problem(
        Half(model, true, second), Half(model, false, second), u0[1:n], u0[(n + 1):end],
        (ts[1], ts[end]), p,
    )
    integrator = init(
        problem, EXPLICIT[settings.method](); solver_options(settings, ts, problem)..., tstops=ts,
        callback=DiscreteCallback(always, recorder; save_positions=(false, false)),
        dense=false, save_everystep=false, save_start=false, save_end=false,
    )
    retune!(integrator.controller_cache, settings)
    return integrator
end

# `forward` for these methods.
function forward_partitioned(
    model::Model{T}, settings::Settings, u0::Vector{T}, p::Vector{T}, ts, out, info, keep
) where {T}
    tape = PartitionedTape{T}(model, p, Float64[], Float64[], Int[], Vector{T}[])
    recorder = PartitionedRecorder(tape, keep == "steps", ts, out, 1)
    copyto!(out, u0)
    integrator = partitioned_integrator(model, settings, u0, p, ts, recorder)
    solution = solve!(integrator)
    report!(info, solution, Float64(integrator.t))
    info[3] = solution.stats.nf + solution.stats.nf2
    info[8] = count_finite(out, model.states, recorder.saved)
    info[8] == length(ts) || (info[1] = 0)
    return Solved(model, p, copy(model.constants), ts, settings, solution, tape)
end

function last_state!(last, solved::Solved{T,S,PartitionedTape{T}}, watched) where {T,S}
    (; settings, ts, p, solution, tape) = solved
    recorder = PartitionedRecorder(tape, false, Float64[], T[], 0)
    u0 = copy_state!(similar(last), 0, solution.prob.u0)
    integrator = partitioned_integrator(watched, settings, u0, p, ts, recorder)
    solve!(integrator)
    return copy_state!(last, 0, integrator.u)
end
