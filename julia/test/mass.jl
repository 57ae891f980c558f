using Pyjlode: Pattern, null_spaces, with_entries
using LinearAlgebra: Diagonal, I, SymTridiagonal, norm
using SparseArrays: sparse

@testset "null spaces of mass matrices" begin
    # Zero rows and columns: the unit vectors, in order.
    equations, variables = null_spaces([0.0 0 0; 0 1 0; 0 0 0])
    @test equations == variables == Matrix(I, 3, 3)[:, [1, 3]]
    # No zero row or column.
    M = [1.0 2 1; 0 1 3; 2 0 1] * Diagonal([1, 1, 0]) / [1.0 0 1; 0 1 0; -1 0 1]
    equations, variables = null_spaces(M)
    @test size(equations) == size(variables) == (3, 1)
    @test norm(equations' * M) < 1e-14
    @test norm(M * variables) < 1e-14
    @test all(isempty, null_spaces([1.0 2; 0 1]))
    @test null_spaces(zeros(1, 1)) == ([1;;], [1;;])
    # Large ones are factorized as sparse ones, and decomposed where that does not tell.
    n = 120
    M = sparse(SymTridiagonal(fill(2 / 3, n), fill(1 / 6, n - 1)))
    @test all(isempty, null_spaces(M))
    M[n, :] .= 0
    M[:, n] .= 0
    last = sparse(I, n, n)[:, [n]]
    @test null_spaces(M) == null_spaces(Matrix(M)) == (last, last)
    laplacian = sparse(SymTridiagonal([1.0; fill(2.0, n - 2); 1.0], fill(-1.0, n - 1)))
    equations, variables = null_spaces(laplacian)
    @test abs.(equations) ≈ abs.(variables) ≈ fill(1 / sqrt(n), n, 1)
end

@testset "patterns with another matrix's entries" begin
    pattern = Pattern(sparse(Bool[1 0 0; 0 1 0; 1 0 1]), [1, 1, 2])
    whole = with_entries(pattern, sparse([0.0 0 2; 0 0 0; 0 0 1]))
    @test Matrix(whole.structure) == Bool[1 0 1; 0 1 0; 1 0 1]
    @test whole.seeds == pattern.seeds
    @test [[e[1:2] for e in c] for c in whole.entries] ==
        [[e[1:2] for e in c] for c in pattern.entries]
    rows, columns = [1, 3, 2, 1, 3], [1, 1, 2, 3, 3] # the nonzeros in their order
    flipped = sortperm(collect(zip(rows, columns)))
    for e in Iterators.flatten(whole.entries)
        @test (rows[e[3]], columns[e[3]]) == e[1:2]
        @test flipped[e[4]] == e[3]
    end
end
