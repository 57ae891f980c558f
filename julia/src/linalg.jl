# Linear algebra on batches of row-major matrices in flat vectors, at offsets counted from zero.
# The factorisations are written out: those in right-hand sides are small, and LAPACK would take
# more time to be called, and memory at each call. A singular matrix gives NaN, where torch raises:
# a solver recovers from NaN by taking a smaller step.

"""
    lu_factor!(F, f, A, a, batch, n)

`P A = L U` by rows with the largest pivot: the factors of all matrices, then, for each, the row
(counted from one) that each row was exchanged with.
"""
function lu_factor!(
    F::Vector{T}, f::Int, A::Vector{T}, a::Int, batch::Int, n::Int,
) where {T}
    copyto!(F, f + 1, A, a + 1, batch * n * n)
    pivots = f + batch * n * n
    @inbounds for i in 0:(batch - 1), k in 0:(n - 1)
        start = f + i * n * n + 1
        row = largest_below(F, start, n, k)
        F[pivots + i * n + k + 1] = row + 1
        row == k || exchange_rows!(F, start + k * n, start + row * n, n)
        pivot = F[start + k * n + k]
        iszero(pivot) && continue
        for r in (k + 1):(n - 1)
            factor = F[start + r * n + k] / pivot
            F[start + r * n + k] = factor
            @simd ivdep for c in (k + 1):(n - 1)
                F[start + r * n + c] -= factor * F[start + k * n + c]
            end
        end
    end
    return nothing
end

function largest_below(F, start, n, k)
    row = k
    @inbounds for r in (k + 1):(n - 1)
        abs(F[start + r * n + k]) > abs(F[start + row * n + k]) && (row = r)
    end
    return row
end

function exchange_rows!(X, first, second, n)
    @inbounds for c in 0:(n - 1)
        X[first + c], X[second + c] = X[second + c], X[first + c]
    end
    return nothing
end

"""
    lu_solve!(X, x, F, f, P, p, B, b, batch, n, m, transposed)

`A X = B`, or `Aᵀ X = B`, for `n × m` matrices `B` and the factors and pivots of `lu_factor!`.
"""
function lu_solve!(
    X::Vector{T}, x::Int, F::Vector{T}, f::Int, P::Vector{T}, p::Int, B::Vector{T}, b::Int,
    batch::Int, n::Int, m::Int, transposed::Int,
) where {T}
    copyto!(X, x + 1, B, b + 1, batch * n * m)
    for i in 0:(batch - 1)
        factors, right, pivots = f + i * n * n, x + i * n * m, p + i * n
        if any(k -> iszero(F[factors + k * n + k + 1]), 0:(n - 1))
            fill_range!(X, right + 1, n * m, T(NaN))
            continue
        end
        if transposed == 0
            exchange!(X, right, P, pivots, n, m, 0:(n - 1))
            substitute!(X, right, F, factors, n, m, n, 1, false, true)
            substitute!(X, right, F, factors, n, m, n, 1, true, false)
        else
            substitute!(X, right, F, factors, n, m, 1, n, false, false)
            substitute!(X, right, F, factors, n, m, 1, n, true, true)
            exchange!(X, right, P, pivots, n, m, (n - 1):-1:0)
        end
    end
    return nothing
end

function exchange!(X, x, P, p, n, m, order)
    for k in order
        row = Int(P[p + k + 1]) - 1
        row == k || exchange_rows!(X, x + 1 + k * m, x + 1 + row * m, m)
    end
    return nothing
end

# Solve in place with a triangular matrix of given strides, from the first row on or, where it is
# `upper`, from the last; `unit` takes its diagonal as ones.
function substitute!(X::Vector{T}, x, A, a, n, m, A_row, A_column, upper, unit) where {T}
    @inbounds for step in 0:(n - 1)
        k = upper ? n - 1 - step : step
        row = x + 1 + k * m
        for l in (upper ? ((k + 1):(n - 1)) : (0:(k - 1)))
            factor = A[a + 1 + k * A_row + l * A_column]
            other = x + 1 + l * m
            @simd ivdep for c in 0:(m - 1)
                X[row + c] -= factor * X[other + c]
            end
        end
        unit && continue
        diagonal = A[a + 1 + k * (A_row + A_column)]
        for c in 0:(m - 1)
            X[row + c] /= diagonal
        end
    end
    return nothing
end

"""
    triangular_solve!(X, x, A, a, B, b, batch, n, m, upper, unit)

`A X = B` for triangular `A`, of which only one triangle is read.
"""
function triangular_solve!(
    X::Vector{T}, x::Int, A::Vector{T}, a::Int, B::Vector{T}, b::Int, batch::Int, n::Int,
    m::Int, upper::Int, unit::Int,
) where {T}
    copyto!(X, x + 1, B, b + 1, batch * n * m)
    for i in 0:(batch - 1)
        substitute!(X, x + i * n * m, A, a + i * n * n, n, m, n, 1, upper != 0, unit != 0)
    end
    return nothing
end

"""
    cholesky!(L, l, A, a, batch, n)

`A = L Lᵀ` from the lower triangle of `A`; NaN where that is not positive definite.
"""
function cholesky!(L::Vector{T}, l::Int, A::Vector{T}, a::Int, batch::Int, n::Int) where {T}
    fill_range!(L, l + 1, batch * n * n, zero(T))
    @inbounds for i in 0:(batch - 1)
        from, to = a + i * n * n + 1, l + i * n * n + 1
        for r in 0:(n - 1), c in 0:r
            s = A[from + r * n + c]
            @simd for k in 0:(c - 1)
                s -= L[to + r * n + k] * L[to + c * n + k]
            end
            # The root of a negative number is NaN, and so is all that follows it.
            L[to + r * n + c] = r == c ? nsqrt(s > 0 ? s : T(NaN)) : s / L[to + c * n + c]
        end
        isnan(L[to + n * n - 1]) && fill_range!(L, to, n * n, T(NaN))
    end
    return nothing
end

# What follows is LAPACK's work. It sees the transposed matrix and throws on NaN.

matrix(A::Vector, a::Int, rows::Int, columns::Int) =
    permutedims(reshape(A[(a + 1):(a + rows * columns)], columns, rows))

function store!(X::Vector, x::Int, M::AbstractMatrix)
    rows, columns = size(M)
    for r in 1:rows, c in 1:columns
        X[x + (r - 1) * columns + c] = M[r, c]
    end
    return nothing
end

"""
    matrix_exponential!(X, x, A, a, batch, n)
"""
function matrix_exponential!(
    X::Vector{T}, x::Int, A::Vector{T}, a::Int, batch::Int, n::Int,
) where {T}
    for i in 0:(batch - 1)
        M = matrix(A, a + i * n * n, n, n)
        store!(X, x + i * n * n, all(isfinite, M) ? exp!(M) : fill!(M, T(NaN)))
    end
    return nothing
end

"""
    symmetric_eigen!(X, x, A, a, batch, n, upper)

The eigenvalues of all matrices in ascending order, then the eigenvectors as columns. One triangle
of each matrix is read.
"""
function symmetric_eigen!(
    X::Vector{T}, x::Int, A::Vector{T}, a::Int, batch::Int, n::Int, upper::Int,
) where {T}
    vectors = x + batch * n
    for i in 0:(batch - 1)
        M = matrix(A, a + i * n * n, n, n)
        if all(isfinite, M)
            values, V = LAPACK.syev!('V', upper != 0 ? 'U' : 'L', M)
            copyto!(X, x + i * n + 1, values, 1, n)
            store!(X, vectors + i * n * n, V)
        else
            fill_range!(X, x + i * n + 1, n, T(NaN))
            fill_range!(X, vectors + i * n * n + 1, n * n, T(NaN))
        end
    end
    return nothing
end

"""
    qr!(X, x, A, a, batch, m, n)

`A = Q R`: all `m × min(m, n)` matrices `Q`, then all `R`.
"""
function qr!(
    X::Vector{T}, x::Int, A::Vector{T}, a::Int, batch::Int, m::Int, n::Int,
) where {T}
    k = min(m, n)
    triangles = x + batch * m * k
    for i in 0:(batch - 1)
        M = matrix(A, a + i * m * n, m, n)
        Q, R = fill(T(NaN), m, k), fill(T(NaN), k, n)
        if all(isfinite, M)
            M, tau = LAPACK.geqrf!(M)
            R = [r <= c ? M[r, c] : zero(T) for r in 1:k, c in 1:n]
            Q = LAPACK.orgqr!(M[:, 1:k], tau)
        end
        store!(X, x + i * m * k, Q)
        store!(X, triangles + i * k * n, R)
    end
    return nothing
end

"""
    svd!(X, x, A, a, batch, m, n)

`A = U diag(s) Vᵀ`: all `U`, then all `s`, then all `Vᵀ`, for the `min(m, n)` singular values.
"""
function svd!(
    X::Vector{T}, x::Int, A::Vector{T}, a::Int, batch::Int, m::Int, n::Int,
) where {T}
    k = min(m, n)
    values = x + batch * m * k
    right = values + batch * k
    for i in 0:(batch - 1)
        M = matrix(A, a + i * m * n, m, n)
        U, s, V = fill(T(NaN), m, k), fill(T(NaN), k), fill(T(NaN), k, n)
        all(isfinite, M) && ((U, s, V) = LAPACK.gesdd!('S', M))
        store!(X, x + i * m * k, U)
        copyto!(X, values + i * k + 1, s, 1, k)
        store!(X, right + i * k * n, V)
    end
    return nothing
end
