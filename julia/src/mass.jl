# Mass matrices: M u' = f(u, p, t). Where M is singular, some of the equations are algebraic.

"""
    Mass{T}

A constant mass matrix.

# Fields
- `matrix`: `M`, sparse where the Jacobian is
- `equations`: a basis of the vectors `v` with `vᵀ M = 0`, one a column: `vᵀ f = 0` are the
  algebraic equations
- `variables`: a basis of those with `M v = 0`, the directions of the algebraic variables
"""
struct Mass{T}
    matrix::Union{Matrix{T},SparseMatrixCSC{T,Int}}
    equations::SparseMatrixCSC{T,Int}
    variables::SparseMatrixCSC{T,Int}
end

# `M` for each of `blocks` parts of the state, sparse where the Jacobian is; the pattern of both.
function in_blocks(M::Matrix{T}, blocks::Int, pattern::Pattern) where {T}
    every(x) = kron(sparse(one(T) * I, blocks, blocks), sparse(x))
    is_sparse(pattern, T) && (pattern = with_entries(pattern, every(M)))
    matrix = is_sparse(pattern, T) ? every(M) : Matrix(every(M))
    return Mass{T}(matrix, map(every, null_spaces(M))...), pattern
end

# Of zero rows and columns the unit vectors, which are sparse and tell equations by number.
function null_spaces(M::Matrix{T}) where {T}
    (; U, S, V) = svd(M)
    null = findall(<=(size(M, 1) * eps(T) * maximum(S)), S)
    rows, columns = findall(iszero, eachrow(M)), findall(iszero, eachcol(M))
    length(rows) == length(columns) == length(null) || return U[:, null], V[:, null]
    units = Matrix{T}(I, size(M))
    return units[:, rows], units[:, columns]
end

# y += M x, and y = Mᵀ x.
add_product!(y, mass::Mass, x) = mul!(y, mass.matrix, x, true, true)
transposed_product!(y, mass::Mass, x) = mul!(y, transpose(mass.matrix), x)
