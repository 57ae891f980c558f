# The matrices of implicit stages, α M - ∂f/∂u with the mass matrix M or I, factorized once and
# solved both ways round.

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
- `mass_places`, `mass`: the places of the mass matrix's nonzeros, and these
"""
mutable struct SparseStageMatrix
    const W::SparseMatrixCSC{Float64,Int}
    const places::Vector{Int}
    const mass_places::Vector{Int}
    const mass::Vector{Float64}
    factors::KLU.KLUFactorization{Float64,Int}
end

function stage_matrix(model::Model{T}) where {T}
    pattern, n = jacobian_pattern(model), model.states
    if !is_sparse(pattern, T)
        W = Matrix{T}(I, n, n)
        return DenseStageMatrix{T}(W, lu!(W))
    end
    W = SparseMatrixCSC{Float64,Int}(pattern.structure) + I
    numbered = SparseMatrixCSC(n, n, W.colptr, W.rowval, collect(1:nnz(W)))
    places(matrix) = [numbered[i, j] for (i, j) in zip(findnz(matrix)...)]
    mass = model.mass === nothing ? sparse(1.0I, n, n) : model.mass.matrix
    return SparseStageMatrix(
        W, places(pattern.structure), places(mass), nonzeros(mass), KLU.klu(copy(W))
    )
end

"""
    factorize!(m, jacobian, α, u, p, t)

Make `m` the matrix `α M - ∂f/∂u` at a point, and factorize it.
"""
function factorize!(m::DenseStageMatrix{T}, jacobian::Jacobian{T}, α, u, p, t) where {T}
    (; W) = m
    fill!(W, zero(T))
    products(jacobian, u, p, t) do entry, value
        W[entry[1], entry[2]] = -value
    end
    add_mass!(W, jacobian.model.mass, T(α))
    m.factors = lu!(W; check=false)
    issuccess(m.factors) || throw(BackwardFailure("SingularMatrix", t))
    return nothing
end

function factorize!(m::SparseStageMatrix, jacobian::Jacobian{Float64}, α, u, p, t)
    (; W, places) = m
    values = nonzeros(W)
    fill!(values, 0.0)
    products(jacobian, u, p, t) do entry, value
        values[places[entry[3]]] = -value
    end
    for (place, value) in zip(m.mass_places, m.mass)
        values[place] += α * value
    end
    # The pivots of the last factorization may be zero now; then new ones are chosen.
    KLU.klu!(m.factors, values; check=false)
    m.factors.common.status == KLU.KLU_OK && return nothing
    m.factors = KLU.klu(W; check=false)
    m.factors.common.status == KLU.KLU_OK || throw(BackwardFailure("SingularMatrix", t))
    return nothing
end

function add_mass!(W::Matrix, ::Nothing, α)
    for i in axes(W, 1)
        W[i, i] += α
    end
    return nothing
end
add_mass!(W::Matrix, mass::Mass, α) = (W .+= α .* mass.matrix; nothing)

solve_forward!(m::DenseStageMatrix, x) = ldiv!(m.factors, x)
solve_forward!(m::SparseStageMatrix, x) = KLU.solve!(m.factors, x)
solve_transposed!(m::DenseStageMatrix, x) = ldiv!(transpose(m.factors), x)
solve_transposed!(m::SparseStageMatrix, x) = KLU.solve!(transpose(m.factors), x)
