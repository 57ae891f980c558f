# What Python calls in every training step. An array argument of juliacall takes as long as some
# dozen evaluations of a small model, so the addresses of arrays are handed over in a table that both
# languages see. Python keeps the arrays alive during the call.

const ADDRESSES = zeros(Int, 16)

"The address of the table: for each array its address and its length."
address_table() = Int(pointer(ADDRESSES))

handed(::Type{T}, i::Int) where {T} =
    unsafe_wrap(Vector{T}, Ptr{T}(ADDRESSES[2i - 1]), ADDRESSES[2i])

"""
    forward_handed(model, settings, keep, checkpoints) -> Solved

[`forward`](@ref) of the arrays in the table: `u0`, `p`, `ts`, `out` and `info`.
"""
function forward_handed(model::Model{T}, settings::Settings, keep, checkpoints) where {T}
    return forward(
        model, settings, copy(handed(T, 1)), copy(handed(T, 2)), copy(handed(Float64, 3)),
        handed(T, 4), handed(Float64, 5), String(keep), Int(checkpoints),
    )
end

"""
    backward_handed(solved, sensealg, settings)

[`backward`](@ref) of the arrays in the table: `cotangent`, `gradient_u`, `gradient_p`, `gradient_t`
and `info`.
"""
function backward_handed(solved::Solved{T}, sensealg, settings::Settings) where {T}
    return backward_reported(
        solved, sensealg, settings, handed(T, 1), handed(T, 2), handed(T, 3), handed(T, 4),
        handed(Float64, 5),
    )
end
