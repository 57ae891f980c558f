# What Python calls in every training step. An array argument of juliacall takes as long as some
# dozen evaluations of a small model, so the addresses of arrays are handed over in a table that both
# languages see. Python keeps the arrays alive during the call.

const ADDRESSES = zeros(Int, 16)

"The address of the table: for each array its address and its length."
address_table() = Int(pointer(ADDRESSES))

handed(::Type{T}, i::Int) where {T} =
    unsafe_wrap(Vector{T}, Ptr{T}(ADDRESSES[2i - 1]), ADDRESSES[2i])

# One vector of arrays whose addresses and lengths lie in a table of their own, the i-th in the first
# table; and the way back.
pieces(i::Int) = reshape(handed(Int, i), 2, :)

function gather_pieces(::Type{T}, table::Matrix{Int}) where {T}
    whole = Vector{T}(undef, sum(@view table[2, :]))
    at = 1
    GC.@preserve whole for (address, length) in eachcol(table)
        unsafe_copyto!(pointer(whole, at), Ptr{T}(address), length)
        at += length
    end
    return whole
end

function scatter_pieces!(table::Matrix{Int}, whole::Vector{T}) where {T}
    at = 1
    GC.@preserve whole for (address, length) in eachcol(table)
        unsafe_copyto!(Ptr{T}(address), pointer(whole, at), length)
        at += length
    end
    return nothing
end

"""
    forward_handed(model, settings, keep, checkpoints, watch, dense) -> Solved

[`forward`](@ref) of the arrays in the table: `u0`, the table of the parameters, `ts`, `out` and
`info`.
"""
function forward_handed(
    model::Model, settings::Settings, keep, checkpoints, watch=nothing, dense=false
)
    collect_when_due()
    inputs = handed_inputs(model)
    how = (String(keep), Int(checkpoints), watch, Bool(dense))
    return beside_python(() -> forward(model, settings, inputs..., how...), model, settings, watch)
end

"[`forward_rows`](@ref) of the same arrays."
function forward_rows_handed(model::Model, settings::Settings, keep, checkpoints)
    collect_when_due()
    inputs = handed_inputs(model)
    how = (String(keep), Int(checkpoints))
    return beside_python(() -> forward_rows(model, settings, inputs..., how...), model, settings)
end

function handed_inputs(::Model{T}) where {T}
    return copy(handed(T, 1)), gather_pieces(T, pieces(2)), copy(handed(Float64, 3)),
        handed(T, 4), handed(Float64, 5)
end

"""
    backward_handed(solved, sensealg, settings)

[`backward`](@ref) of the arrays in the table: `cotangent`, `gradient_u`, the table of the
parameters' gradients, `gradient_t` and `info`. Returns `nothing`, or the return code of a backward
solve that failed; `info` gets its report, as in [`forward`](@ref).
"""
function backward_handed(solved, sensealg, settings::Settings)
    collect_when_due()
    T = eltype(solved.p)
    table = pieces(3)
    gradient_p = zeros(T, solved.model.parameters)
    arrays = handed(T, 1), handed(T, 2), gradient_p, handed(T, 4), handed(Float64, 5)
    message = beside_python(solved.model, settings) do
        backward_reported(solved, sensealg, settings, arrays...)
    end
    scatter_pieces!(table, gradient_p)
    return message
end
