using SparseArrays: nnz, sparse
using LinearAlgebra: Tridiagonal

# Of a tridiagonal pattern three products show all, whichever storage it is put in.
@testset "pattern" begin
    n = 9
    structure = sparse(Tridiagonal(trues(n - 1), trues(n), trues(n - 1)))
    colors = [mod1(i, 3) for i in 1:n]
    pattern = Pyjlode.compressed_pattern(
        structure.colptr .- 1, structure.rowval .- 1, colors .- 1
    )
    @test length(pattern.seeds) == 3
    @test sum(length, pattern.entries) == nnz(structure)
    exact = Matrix(Tridiagonal(rand(n - 1), rand(n), rand(n - 1)))
    for J in (zeros(n, n), Float64.(structure))
        for entry in Iterators.flatten(pattern.entries)
            Pyjlode.put!(J, entry, exact[entry[1], entry[2]])
        end
        @test J == exact
    end
    for J in (zeros(n, n), sparse(transpose(Float64.(structure))))
        for entry in Iterators.flatten(pattern.entries)
            Pyjlode.put_adjoint!(J, entry, exact[entry[1], entry[2]])
        end
        @test J == -transpose(exact)
    end
    full = Pyjlode.Pattern(4)
    @test length(full.seeds) == 4 && sum(length, full.entries) == 16
end
