# The matrices of implicit stages, α I - ∂f/∂u, factorized once and solved both ways round.

"A dense matrix of implicit stages."
mutable struct DenseStageMatrix{T}
    const W::Matrix{T}
    factors::LU{T,Matrix{T},Vector{BLAS.BlasInt}}
end

# LinearSolve's own copy of the wrapper of SuiteSparse's KLU: its interface has no transposed solve.
const KLU = Base.get_extension(LinearSolve, :LinearSolveSparseArraysExt).KLU

"""
A sparse matrix of implicit stages.

# Fields
- `places`: for each nonzero of the Jacobian, its place among those of `W`
- `diagonal`: the places of the diagonal
"""
mutable struct SparseStageMatrix
    const W::SparseMatrixCSC{Float64,Int}
    const places::Vector{Int}
    const diagonal::Vector{Int}
    factors::KLU.KLUFactorization{Float64,Int}
end

function stage_matrix(pattern::Pattern, ::Type{T}) where {T}
    n = size(pattern.structure, 1)
    if !is_sparse(pattern, T)
        W = Matrix{T}(I, n, n)
        return DenseStageMatrix{T}(W, lu!(W))
    end
    W = SparseMatrixCSC{Float64,Int}(pattern.structure) + I
    numbered = SparseMatrixCSC(n, n, W.colptr, W.rowval, collect(1:nnz(W)))
    rows, columns, _ = findnz(pattern.structure)
    places = [numbered[i, j] for (i, j) in zip(rows, columns)]
    return SparseStageMatrix(W, places, [numbered[i, i] for i in 1:n], KLU.klu(copy(W)))
end

"""
    factorize!(m, jacobian, α, u, p, t)

Make `m` the matrix `α I - ∂f/∂u` at a point, and factorize it.
"""
function factorize!(m::DenseStageMatrix{T}, jacobian::Jacobian{T}, α, u, p, t) where {T}
    (; W) = m
    fill!(W, zero(T))
    products(jacobian, u, p, t) do entry, value
        W[entry[1], entry[2]] = -value
    end
    for i in axes(W, 1)
        W[i, i] += T(α)
    end
    m.factors = lu!(W; check=false)
    issuccess(m.factors) || throw(BackwardFailure("SingularMatrix", t))
    return nothing
end

function factorize!(m::SparseStageMatrix, jacobian::Jacobian{Float64}, α, u, p, t)
    (; W, places, diagonal) = m
    values = nonzeros(W)
    fill!(values, 0.0)
    products(jacobian, u, p, t) do entry, value
        values[places[entry[3]]] = -value
    end
    for place in diagonal
        values[place] += α
    end
    # The pivots of the last factorization may be zero now; then new ones are chosen.
    KLU.klu!(m.factors, values; check=false)
    m.factors.common.status == KLU.KLU_OK && return nothing
    m.factors = KLU.klu(W; check=false)
    m.factors.common.status == KLU.KLU_OK || throw(BackwardFailure("SingularMatrix", t))
    return nothing
end

solve_forward!(m::DenseStageMatrix, x) = ldiv!(m.factors, x)
solve_forward!(m::SparseStageMatrix, x) = KLU.solve!(m.factors, x)
solve_transposed!(m::DenseStageMatrix, x) = ldiv!(transpose(m.factors), x)
solve_transposed!(m::SparseStageMatrix, x) = KLU.solve!(transpose(m.factors), x)
