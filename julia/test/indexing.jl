using Pyjlode: gather!, nonzero!, put_rows!, repeats!, scatter!, searchsorted!, sort_order!,
    take_rows!

@testset "indices out of bounds, $T" for T in (Float32, Float64)
    # The tensors are the middle of their vectors; what lies around them must neither show nor change.
    around(x) = T[-7; x; -7]
    for bad in T[-1, 3, 1e30, NaN, Inf]
        out = fill(T(5), 4)
        take_rows!(out, 1, around([10, 20, 30]), 1, T[bad, 2], 0, 1, 3, 2, 1)
        @test isequal(out, T[5, NaN, 30, 5])
        gather!(out, 1, around([10, 20, 30]), 1, T[bad, 2], 0, 1, 3, 2, 1)
        @test isequal(out, T[5, NaN, 30, 5])
        for write! in (put_rows!, scatter!)
            out = around([1, 2, 3])
            write!(out, 1, T[10, 20], 0, T[1, bad], 0, 1, 3, 2, 1, 1)
            @test isequal(out, T[-7, NaN, NaN, NaN, -7])
        end
    end
    out = around([0, 0])
    nonzero!(out, 1, T[0, 1, 1, 1], 0, 4, 2)
    @test isequal(out, T[-7, NaN, NaN, -7])
    repeats!(out, 1, T[1, 2], 0, 2, 2)
    @test isequal(out, T[-7, NaN, NaN, -7])
    repeats!(out, 1, T[2, 0], 0, 2, 2)
    @test out == T[-7, 0, 0, -7]
end

@testset "sorted order, $T" for T in (Float32, Float64)
    out = zeros(T, 6)
    sort_order!(out, 0, T[2, NaN, 1, 2, 1, NaN], 0, 1, 6, 1, 0)
    @test out == [2, 4, 0, 3, 1, 5]
    sort_order!(out, 0, T[2, NaN, 1, 2, 1, NaN], 0, 1, 6, 1, 1)
    @test out == [1, 5, 0, 3, 2, 4]
    found = zeros(T, 4)
    searchsorted!(found, 0, T[1, 2, 2, 3], 0, T[2, 0, 9, NaN], 0, 1, 4, 1, 4, 0)
    @test found == [1, 0, 4, 4]
    searchsorted!(found, 0, T[1, 2, 2, 3], 0, T[2, 0, 9, NaN], 0, 1, 4, 1, 4, 1)
    @test found == [3, 0, 4, 4]
end
