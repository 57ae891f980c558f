using Pyjlode: Settings, WORKERS, backward, forward, forward_rows, generate, sensitivity

# TIMED is the model of discrete.jl.
const STARTS = [1.0, 0.5, 0.2, 0.1, 3.0, 2.0, 0.9, 0.4, 1.5, 0.3]
const SAVED = [0.1, 0.13, 0.15, 0.5, 0.9, 1.2]

function with_workers(f, count)
    WORKERS[] = count
    try
        return f()
    finally
        WORKERS[] = 0
    end
end

# All rows in one call, and with `alone` row after row.
function solved_rows(
    ::Type{T}, method; alone=false, fixed=false, dt=0.0, keep="steps", algorithm="discrete",
    checkpoints=0,
) where {T}
    model = generate(T, TIMED, 2, 2, 0, 0, true)
    settings = Settings(method, 1e-6, 1e-6, 100_000, dt, fixed, 0.0, 0.0)
    u0, p, n = T.(STARTS), T[0.7, 0.9], length(STARTS)
    points, rows = length(SAVED), n ÷ 2
    out, info = zeros(T, n * points), zeros(8 * rows)
    du, dp, dts = zeros(T, n), zeros(T, 2), zeros(T, points)
    weights = T[sin(i) + 1 for i in 1:(n * points)]
    sensealg = sensitivity(algorithm, 1e-6, 1e-6, false)
    if !alone
        solved = forward_rows(model, settings, u0, p, SAVED, out, info, keep, checkpoints)
        backward(solved, sensealg, settings, weights, du, dp, dts, zeros(8))
        return (; out, info, du, dp, dts)
    end
    for row in 1:rows
        at = [(i - 1) * n + 2 * (row - 1) + j for i in 1:points for j in 1:2]
        y, report = zeros(T, 2 * points), zeros(8)
        gu, gp, gt = zeros(T, 2), zeros(T, 2), zeros(T, points)
        here = (2 * row - 1):(2 * row)
        solved = forward(model, settings, u0[here], p, SAVED, y, report, keep, checkpoints)
        backward(solved, sensealg, settings, weights[at], gu, gp, gt, zeros(8))
        out[at], info[(8 * row - 7):(8 * row)], du[here] = y, report, gu
        dp += gp
        dts += gt
    end
    return (; out, info, du, dp, dts)
end

@testset "independent rows" begin
    # Success, time reached and counts of each row.
    counts(info) = reshape(info, 8, :)[1:6, :]
    close_to(a, b) = isapprox(a, b; rtol=100 * eps(eltype(b)))

    function same(together, alone)
        @test counts(together.info) == counts(alone.info)
        @test together.out == alone.out
        @test together.du == alone.du
        @test close_to(together.dp, alone.dp)
        @test close_to(together.dts, alone.dts)
        return nothing
    end

    @testset "as each alone: $method" for method in METHODS
        fixed = method == "Euler" ? (true,) : (false, true)
        for fixed in fixed, T in (Float64, Float32)
            T === Float32 && method != "Tsit5" && continue
            options = (; fixed, dt=fixed ? 0.07 : 0.0)
            same(
                with_workers(() -> solved_rows(T, method; options...), 2),
                solved_rows(T, method; alone=true, options...),
            )
        end
    end

    @testset "first step, checkpoints, budget" begin
        for options in ((; dt=0.01), (; checkpoints=3))
            same(
                solved_rows(Float64, "Tsit5"; options...),
                solved_rows(Float64, "Tsit5"; alone=true, options...),
            )
        end
        with_budget(Pyjlode.STAGES_BUDGET, 1000) do
            sparing, all = solved_rows(Float64, "Tsit5"), solved_rows(Float64, "Tsit5"; alone=true)
            @test sparing.out == all.out
            @test close_to(sparing.du, all.du) && close_to(sparing.dp, all.dp)
        end
    end

    @testset "other adjoints" begin
        for (algorithm, keep) in (("gauss", "dense"), ("backsolve", "nothing"))
            options = (; algorithm, keep)
            same(
                with_workers(() -> solved_rows(Float64, "Tsit5"; options...), 2),
                solved_rows(Float64, "Tsit5"; alone=true, options...),
            )
        end
        exact = solved_rows(Float64, "Vern9")
        stiff = solved_rows(Float64, "Rodas5P"; algorithm="gauss", keep="dense")
        @test isapprox(stiff.du, exact.du; rtol=1e-4) && isapprox(stiff.dp, exact.dp; rtol=1e-4)
    end

    @testset "the number of workers does not show" begin
        runs = [with_workers(() -> solved_rows(Float64, "Tsit5"), n) for n in (1, 2, 3, 20)]
        @test all(run == runs[1] for run in runs)
    end

    @testset "no memory for each step" begin
        model = generate(Float64, TIMED, 2, 2, 0, 0, true)
        settings = Settings("Tsit5", 1e-6, 1e-6, 100_000, 0.0, false, 0.0, 0.0)
        rows = 400
        u0, out, info = repeat(STARTS[1:2], rows), zeros(4 * rows), zeros(8 * rows)
        solve(keep, ts) = with_workers(1) do
            forward_rows(model, settings, u0, [0.7, 0.9], ts, out, info, keep)
        end
        spent(ts) = (solve("values", ts); @allocated solve("values", ts))
        short, steps = spent([0.0, 0.5]), sum(info[5:8:end])
        long, more = spent([0.0, 50.0]), sum(info[5:8:end])
        @test more > steps + 20 * rows
        @test long - short < 8 * (more - steps)
    end

    @testset "the first row that fails" begin
        source = "function value(du, u, p, time, c, w); du[1] = u[1]^2; end"
        model = generate(Float64, source, 1, 0, 0, 0, false)
        settings = Settings("Tsit5", 1e-6, 1e-6, 100_000, 0.0, false, 0.0, 0.0)
        for workers in (1, 2, 4)
            # 1 / (1 - t) blows up at 1.
            u0 = [0.1, 0.2, 0.3, 1.0, 0.1, 1.1, 0.2, 0.1]
            out, info = zeros(16), zeros(64)
            solved = with_workers(workers) do
                forward_rows(model, settings, u0, Float64[], [0.0, 2.0], out, info, "values")
            end
            @test info[1:8:end][1:4] == [1, 1, 1, 0]
            @test solved.retcode in ("DtLessThanMin", "Unstable", "MaxIters")
            @test isapprox(info[26], 1; atol=1e-2)
        end
    end
end
