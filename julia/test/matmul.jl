using Pyjlode: matmul!

# Row-major matrices in flat vectors, at an offset, as generated code has them.
rowmajor(A) = vec(permutedims(A))

@testset "matmul! $T $m×$k×$n" for T in (Float32, Float64),
    (m, k, n) in ((1, 1, 1), (3, 2, 5), (1, 50, 2), (40, 1, 40), (17, 33, 29), (4, 0, 3),
    (1, 300, 40), (300, 1, 30), (300, 30, 1))

    A, B = randn(T, m, k), randn(T, k, n)
    for transposed_A in (false, true), transposed_B in (false, true)
        a = transposed_A ? vec(A) : rowmajor(A)
        b = transposed_B ? vec(B) : rowmajor(B)
        A_row, A_column = transposed_A ? (1, m) : (k, 1)
        B_row, B_column = transposed_B ? (1, k) : (n, 1)
        for batch in (1, 3)
            C = fill(T(NaN), 2 + batch * m * n)
            matmul!(
                C, 2, [zeros(T, 1); repeat(a, batch)], 1, [zeros(T, 3); repeat(b, batch)], 3,
                batch, m, n, k, m * k, A_row, A_column, k * n, B_row, B_column,
            )
            for i in 0:(batch - 1)
                @test C[(3 + i * m * n):(2 + (i + 1) * m * n)] ≈ rowmajor(A * B)
            end
            @test all(isnan, C[1:2])
        end
    end
end
