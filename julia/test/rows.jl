using Pyjlode: in_threads, lanes, load_rows!, rows_contract!, rows_multiply!, rows_product!
using Pyjlode: DiscreteAdjoint, MOST_PARTS, Settings, Sweep, backward, forward, generate, parts
using Pyjlode: steps_back!, store_rows!

# Blocks of rows as arrays: the rows first, then the matrix's own dimensions.
in_rows(x) = vec(permutedims(x, (1, ndims(x):-1:2...)))

@testset "rows of a block, $T" for T in (Float64, Float32)
    rows(n) = cld(n, lanes(T)) * lanes(T)
    tolerance = 100eps(T)

    @testset "there and back, $width numbers" for width in (1, 2, 3, 4, 5, 8, 19)
        x, block, n = T.(reshape(1:(width * 30), width, 30)), rows(17), 17
        w, back = fill(T(NaN), 3 + block * width), zeros(T, 7 + width * 30)
        load_rows!(w, 3, [zeros(T, 2); vec(x)], 2, 5, width, n, block)
        found = reshape(w[4:end], block, width)
        @test found[1:n, :] == x[:, 6:22]'
        @test all(found[(n + 1):end, :] .== found[n:n, :])
        store_rows!(w, 3, back, 7, 5, width, n, block)
        @test reshape(back[8:end], width, 30)[:, 6:22] == x[:, 6:22]
        @test count(!iszero, back) == count(!iszero, x[:, 6:22])
    end

    shapes = Iterators.product((1, 3), (1, 6), (1, 2, 7))
    @testset "product, $outer × $terms × $units" for (outer, terms, units) in shapes
        batch = 2
        for block in (rows(1), rows(50))
            X, W = randn(T, block, batch, outer, terms), randn(T, batch, terms, units)
            expected = zeros(T, block, batch, outer, units)
            for b in 1:batch, o in 1:outer
                expected[:, b, o, :] = X[:, b, o, :] * W[b, :, :]
            end
            C = fill(T(NaN), 5 + length(expected))
            rows_product!(
                C, 5, in_rows(X), 0, [T(NaN); vec(permutedims(W, (3, 2, 1)))], 1,
                batch, outer, units, terms, block * outer * units, block * units, block, block * outer * terms,
                block * terms, block, terms * units, units, 1, block,
            )
            @test C[6:end] ≈ in_rows(expected) rtol = tolerance
        end
    end

    shapes = Iterators.product((1, 9, 32), (1, 3, 12, 17), (1, 2, 12, 21))
    @testset "sum over $n rows, $m × $k" for (n, m, k) in shapes
        batch, repeat, block = 2, 2, rows(32)
        A, B = randn(T, block, batch, m, repeat), randn(T, block, batch, repeat, k)
        before = randn(T, batch, m, k)
        expected = copy(before)
        for b in 1:batch, l in 1:repeat
            expected[b, :, :] += A[1:n, b, :, l]' * B[1:n, b, l, :]
        end
        C, S = vec(permutedims(before, (3, 2, 1))), zeros(T, block * (k + 16))
        rows_contract!(
            C, 0, in_rows(A), 0, in_rows(B), 0, S, 0, batch, m, k, repeat, m * k, k, 1,
            block * m * repeat, block * repeat, block, block * repeat * k, block * k, block,
            n, block,
        )
        @test C ≈ vec(permutedims(expected, (3, 2, 1))) rtol = tolerance
    end

    @testset "product of rows with rows" begin
        batch, m, n, k, block = 2, 3, 4, 5, rows(9)
        A, B = randn(T, block, batch, m, k), randn(T, block, batch, k, n)
        expected = zeros(T, block, batch, m, n)
        for r in 1:block, b in 1:batch
            expected[r, b, :, :] = A[r, b, :, :] * B[r, b, :, :]
        end
        C = fill(T(NaN), length(expected))
        rows_multiply!(
            C, 0, in_rows(A), 0, in_rows(B), 0, batch, m, n, k, block * m * n, block * n, block,
            block * m * k, block * k, block, block * k * n, block * n, block, block,
        )
        @test C ≈ in_rows(expected) rtol = tolerance
    end
end

@testset "threads take each part once" begin
    taken = [Threads.Atomic{Int}(0) for _ in 1:100]
    in_threads(i -> Threads.atomic_add!(taken[i], 1), 100)
    @test all(x -> x[] == 1, taken)
end

# du = p u of 300 rows of one number.
const SCALED = """
function value(du, u, p, time, c, w, offset, first, rows)
    for i in (offset + 1):(offset + rows)
        du[i] = p[1] * u[i]
    end
    return nothing
end
function vjp(g, v, u, p, time, c, w, offset, first, rows)
    for i in (offset + 1):(offset + rows)
        g[i] = p[1] * v[i]
    end
    return nothing
end
function vjp_p(g, v, u, p, time, c, w, offset, first, rows)
    g[1] = 0
    for i in (offset + 1):(offset + rows)
        g[1] += v[i] * u[i]
    end
    return nothing
end
function vjp_both(g, gp, v, u, p, time, c, w, offset, first, rows)
    gp[1] = 0
    for i in (offset + 1):(offset + rows)
        g[i] = p[1] * v[i]
        gp[1] += v[i] * u[i]
    end
    return nothing
end
function vjp_t(g, v, u, p, time, c, w, offset, first, rows)
    g[1] = 0
    return nothing
end
"""

@testset "a batch in parts" begin
    model = generate(Float64, SCALED, 300, 1, 0, 0, false, nothing, (300, 8, 1))
    @test parts(model.batch) == 13 <= MOST_PARTS
    settings = Settings("Tsit5", 1e-6, 1e-6, 1000, 0.0, false, 0.0, 0.0)
    u, p, ts = collect(range(1, 2, 300)), [-0.5], collect(range(0, 3, 50))
    out, info = zeros(300 * 50), zeros(8)
    solved = forward(model, settings, u, p, ts, out, info, "steps", 0)
    @test out[(end - 299):end] ≈ u .* exp(-1.5) rtol = 1e-5
    du, dp = zeros(300), zeros(1)
    backward(solved, DiscreteAdjoint(), settings, ones(300 * 50), du, dp, Float64[], info)
    @test all(≈(sum(exp.(-0.5 .* ts)); rtol=1e-5), du)
    @test dp[1] ≈ sum(u) * sum(ts .* exp.(-0.5 .* ts)) rtol = 1e-5

    # No vector is allocated in a step.
    sweep = Sweep(solved.tape, 1, ts, ones(300 * 50), true, false)
    (; t, states, stages) = solved.tape
    steps_back!(sweep, eachindex(t), states, stages)
    @test @allocated(steps_back!(sweep, eachindex(t), states, stages)) <= 64
    du, u = zeros(300), ones(300)
    model.value(du, u, p, 0.0)
    @test @allocated(model.value(du, u, p, 0.0)) <= 128
end
