# What the discrete adjoint needs of an implicit method's solve.

"""
    ImplicitTape{T,M}

The accepted steps of an implicit one-step method with tableau `M`, with fields as those of
[`Tape`](@ref). The stages of Rosenbrock methods are not kept: their matrix is needed again anyway.
Those of SDIRK methods are, within the same limits, for Newton's iteration to start from.
"""
mutable struct ImplicitTape{T,M<:ImplicitTableau} <: AbstractTape{T}
    const model::Model{T}
    const p::Vector{T}
    const tableau::M
    const limit::Int
    const t::Vector{Float64}
    const dt::Vector{Float64}
    const inside::Vector{Int}
    const upto::Vector{Int}
    states::Vector{Vector{T}}
    every::Int
    const stages::Vector{Vector{Vector{T}}}
    keeps::Bool
end

function ImplicitTape(model::Model{T}, p, tableau::M, checkpoints) where {T,M}
    keeps = checkpoints == 0 && tableau isa SDIRKTableau
    return ImplicitTape{T,M}(
        model, p, tableau, checkpoints, Float64[], Float64[], Int[], Int[], Vector{T}[], 1,
        Vector{Vector{T}}[], keeps,
    )
end

end_step!(::ImplicitTape) = nothing

function note_step!(tape::ImplicitTape{T}, integrator) where {T}
    keep_state!(tape, integrator.uprev)
    tape.keeps || return nothing
    push!(tape.stages, [copy(z) for z in integrator.cache.zs])
    if length(tape.t) * length(tape.tableau) * tape.model.states * sizeof(T) > STAGES_BUDGET[]
        tape.keeps = false
        empty!(tape.stages)
    end
    return nothing
end
