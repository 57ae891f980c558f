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
function in_blocks(M::AbstractMatrix{T}, blocks::Int, pattern::Pattern) where {T}
    every(x) = kron(sparse(one(T) * I, blocks, blocks), sparse(x))
    is_sparse(pattern, T) && (pattern = with_entries(pattern, every(M)))
    matrix = is_sparse(pattern, T) ? every(M) : Matrix(every(M))
    return Mass{T}(matrix, map(every, null_spaces(M))...), pattern
end

# Above this size a singular value decomposition takes longer than all the rest.
const MOST_DENSE = 100

# Of zero rows and columns the unit vectors, which are sparse and tell equations by number.
function null_spaces(M::AbstractMatrix{T}) where {T}
    rows, columns = zero_rows(M), zero_rows(copy(transpose(M)))
    units(places) = sparse(one(T) * I, size(M)...)[:, places]
    if length(rows) == length(columns)
        rest(places) = setdiff(axes(M, 1), places)
        size(M, 1) > MOST_DENSE &&
            is_regular(sparse(M)[rest(rows), rest(columns)]) &&
            return units(rows), units(columns)
    end
    (; U, S, V) = svd(Matrix(M))
    null = findall(<=(size(M, 1) * eps(T) * maximum(S)), S)
    length(rows) == length(columns) == length(null) || return U[:, null], V[:, null]
    return units(rows), units(columns)
end

zero_rows(M::Matrix) = findall(iszero, eachrow(M))
zero_rows(M::SparseMatrixCSC) = setdiff(axes(M, 1), rowvals(M)[findall(!iszero, nonzeros(M))])

# Whether a sparse matrix has an inverse, by the pivots of its factorization.
function is_regular(M::SparseMatrixCSC)
    isempty(M) && return true
    factors = lu(SparseMatrixCSC{Float64,Int}(M); check=false)
    issuccess(factors) || return false
    least, most = extrema(abs, diag(factors.U))
    return least > size(M, 1) * eps() * most
end

# y += M x, and y = Mᵀ x.
add_product!(y, mass::Mass, x) = mul!(y, mass.matrix, x, true, true)
transposed_product!(y, mass::Mass, x) = mul!(y, transpose(mass.matrix), x)
