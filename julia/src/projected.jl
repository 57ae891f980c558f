# Solves whose states are projected onto a manifold.

"""
    forward_projected(model, settings, u0, p, ts, out, info, values, q, tangent, tangent_q, rows,
        conditions, abstol, maxiters, keep, checkpoints) -> Solved

As [`forward`](@ref), by an explicit method, with every accepted step and every state at a save point
projected onto a manifold, see [`Manifold`](@ref). `info` gets at 7 the residual where a projection
failed, which the return code ConvergenceFailure says.
"""
function forward_projected(
    model::Model{T}, settings::Settings, u0::PyArray{T}, p::PyArray{T}, ts::PyArray{Float64},
    out::PyArray{T}, info::PyArray{Float64}, values::Model{T}, q::PyArray{T}, tangent,
    tangent_q::PyArray{T}, rows, conditions, abstol, maxiters, keep, checkpoints,
) where {T}
    manifold = Manifold(
        values, copy(plain(q)), tangent, copy(plain(tangent_q)), model.states, Int(rows),
        Int(conditions), abstol, maxiters,
    )
    return forward_projected(
        model, settings, copy(plain(u0)), copy(plain(p)), copy(plain(ts)), plain(out), plain(info),
        manifold, Bool(keep) ? Int(checkpoints) : 1,
    )
end

function forward_projected(
    model::Model{T}, settings::Settings, u0::Vector{T}, p::Vector{T}, ts::Vector{Float64},
    out::Vector{T}, info::Vector{Float64}, manifold::Manifold{T}, checkpoints::Int,
) where {T}
    # The projection is of all rows at once, and so are the steps.
    tape = Tape(
        changed(model; batch=nothing), p, tableau(settings.method, !settings.fixed), checkpoints;
        manifold,
    )
    f = ODEFunction{true,SciMLBase.FullSpecialize}(Taped(tape))
    solution, reached, _ = beside_python(model, manifold.model, manifold.tangent, settings) do
        record(tape, f, settings, u0, ts, out, nothing, false)
    end
    report!(info, solution, reached)
    info[7] = manifold.residual
    info[8] = count_finite(out, model.states, last_saved(tape))
    info[8] == length(ts) || (info[1] = 0)
    return Solved(model, p, copy(model.constants), ts, settings, solution, tape)
end

# Whether the state changed. A failure ends the solve.
function onto_manifold!(tape::AbstractTape, u, integrator, t)
    manifold = manifold_of(tape)
    failed = integrator.sol.retcode == SciMLBase.ReturnCode.ConvergenceFailure
    (manifold === nothing || failed) && return false
    success, changes = project!(manifold, u, t)
    success || SciMLBase.terminate!(integrator, SciMLBase.ReturnCode.ConvergenceFailure)
    return changes
end
