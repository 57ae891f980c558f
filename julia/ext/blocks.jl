# The diffusion of a batch where it is a matrix for each row: these matrices along the diagonal.

"""
    Blocks{T}(data, rows, columns)

A matrix with blocks of `rows` by `columns` along its diagonal, which lie one after the other in
`data`, each column by column; its other elements are zero.
"""
struct Blocks{T} <: AbstractMatrix{T}
    data::Vector{T}
    rows::Int
    columns::Int
end

count_blocks(A::Blocks) = length(A.data) ÷ (A.rows * A.columns)
Base.size(A::Blocks) = (A.rows * count_blocks(A), A.columns * count_blocks(A))
Base.similar(A::Blocks{T}) where {T} = Blocks{T}(similar(A.data), A.rows, A.columns)
Base.copy(A::Blocks{T}) where {T} = Blocks{T}(copy(A.data), A.rows, A.columns)
Base.zero(A::Blocks{T}) where {T} = Blocks{T}(zero(A.data), A.rows, A.columns)
LinearAlgebra.norm(A::Blocks, p::Real=2) = norm(A.data, p)

# Where an element lies in `data`; 0 outside the blocks.
function place(A::Blocks, i::Int, j::Int)
    (b, row), (c, column) = divrem(i - 1, A.rows), divrem(j - 1, A.columns)
    return b == c ? (b * A.columns + column) * A.rows + row + 1 : 0
end

Base.@propagate_inbounds function Base.getindex(A::Blocks{T}, i::Int, j::Int) where {T}
    @boundscheck checkbounds(A, i, j)
    k = place(A, i, j)
    return k == 0 ? zero(T) : A.data[k]
end

Base.@propagate_inbounds function Base.setindex!(A::Blocks, value, i::Int, j::Int)
    @boundscheck checkbounds(A, i, j)
    k = place(A, i, j)
    k == 0 || return A.data[k] = value
    iszero(value) || error("an element outside the blocks cannot be $value")
    return value
end

function LinearAlgebra.mul!(y::Vector{T}, A::Blocks{T}, x::Vector{T}, α::Number, β::Number) where {T}
    (; rows, columns) = A
    size(A) == (length(y), length(x)) || throw(DimensionMismatch("Blocks times a vector"))
    for b in 0:(count_blocks(A) - 1), i in 1:rows
        total = zero(T)
        for j in 1:columns
            total += A.data[(b * columns + j - 1) * rows + i] * x[b * columns + j]
        end
        k = b * rows + i
        y[k] = iszero(β) ? T(α * total) : T(α * total + β * y[k])
    end
    return y
end
LinearAlgebra.mul!(y::Vector{T}, A::Blocks{T}, x::Vector{T}) where {T} = mul!(y, A, x, true, false)

# Methods combine such matrices linearly, so the blocks are all that changes.
struct BlocksStyle <: Broadcast.AbstractArrayStyle{2} end
BlocksStyle(::Val) = BlocksStyle()
Base.BroadcastStyle(::Type{<:Blocks}) = BlocksStyle()
on_data(A::Blocks) = A.data
on_data(x::Number) = x
on_data(x::Broadcast.Broadcasted) = Broadcast.Broadcasted(x.f, map(on_data, x.args))
function Base.copyto!(A::Blocks, x::Broadcast.Broadcasted{BlocksStyle})
    Broadcast.materialize!(A.data, on_data(x))
    return A
end
