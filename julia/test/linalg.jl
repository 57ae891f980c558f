using LinearAlgebra: LowerTriangular, Symmetric, Diagonal, UpperTriangular, I
using Pyjlode: cholesky!, lu_factor!, lu_solve!, matrix_exponential!, qr!, svd!, symmetric_eigen!,
    triangular_solve!

flat(A) = vec(permutedims(A)) # row-major
square(x, n) = permutedims(reshape(x, n, :))

@testset "linear algebra $T $n" for T in (Float32, Float64), n in (1, 2, 5, 12)
    A, C = randn(T, n, n), randn(T, n, n)
    B = randn(T, n, 3)
    tolerance = 1000 * sqrt(T(n)) * eps(T)
    two = [flat(A); flat(C)]

    factors = zeros(T, 1 + 2 * n * n + 2 * n)
    lu_factor!(factors, 1, [zeros(T, 2); two], 2, 2, n)
    X = zeros(T, 2 * n * 3)
    for transposed in (0, 1)
        lu_solve!(
            X, 0, factors, 1, factors, 1 + 2 * n * n, [flat(B); flat(B)], 0, 2, n, 3, transposed
        )
        for (i, M) in enumerate((A, C))
            x = square(X[((i - 1) * 3n + 1):(i * 3n)], 3)
            @test (transposed == 1 ? M' : M) * x ≈ B rtol = 1e3 * tolerance
        end
    end

    definite = A * A' + I
    L = zeros(T, n * n)
    cholesky!(L, 0, flat(definite), 0, 1, n)
    @test square(L, n) ≈ LowerTriangular(square(L, n))
    @test square(L, n) * square(L, n)' ≈ definite rtol = tolerance

    for (upper, M) in ((0, LowerTriangular(A + n * I)), (1, UpperTriangular(A + n * I)))
        triangular_solve!(X, 0, flat(A + n * I), 0, flat(B), 0, 1, n, 3, upper, 0)
        @test M * square(X[1:(3n)], 3) ≈ B rtol = tolerance
    end

    E = zeros(T, n * n)
    matrix_exponential!(E, 0, flat(A), 0, 1, n)
    @test square(E, n) ≈ exp(A) rtol = tolerance

    S = zeros(T, n + n * n)
    symmetric_eigen!(S, 0, flat(A), 0, 1, n, 0)
    V = square(S[(n + 1):end], n)
    @test V * Diagonal(S[1:n]) * V' ≈ Symmetric(A, :L) rtol = tolerance

    Q = zeros(T, 3n + 9)
    if n >= 3
        qr!(Q, 0, flat(B), 0, 1, n, 3)
        @test square(Q[1:(3n)], 3) * square(Q[(3n + 1):end], 3) ≈ B rtol = tolerance
        U = zeros(T, 3n + 3 + 9)
        svd!(U, 0, flat(B), 0, 1, n, 3)
        s, V = Diagonal(U[(3n + 1):(3n + 3)]), square(U[(3n + 4):end], 3)
        @test square(U[1:(3n)], 3) * s * V ≈ B rtol = tolerance
    end
end

@testset "a singular matrix gives NaN" begin
    A = [1.0, 2, 2, 4]
    factors, X = zeros(6), zeros(2)
    lu_factor!(factors, 0, A, 0, 1, 2)
    lu_solve!(X, 0, factors, 0, factors, 4, [1.0, 1], 0, 1, 2, 1, 0)
    @test all(isnan, X)
    L = zeros(4)
    cholesky!(L, 0, [1.0, 2, 2, 1], 0, 1, 2)
    @test all(isnan, L)
    E = zeros(4)
    matrix_exponential!(E, 0, [1.0, NaN, 2, 1], 0, 1, 2)
    @test all(isnan, E)
end
