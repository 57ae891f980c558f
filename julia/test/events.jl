using Pyjlode: Watch, examine, follow, hits, interpolate, steps

# A pendulum's small swings, and where they pass two heights.
const SWING = """
function value(du, u, p, time, c, w)
    du[1] = u[2]
    du[2] = -p[1]^2 * u[1]
    return nothing
end
"""
const HEIGHTS = """
function value(du, u, p, time, c, w)
    du[1] = u[1] - p[1]
    du[2] = u[1] + p[1]
    return nothing
end
"""
# Zero from a time on; and a sign.
const FLAT = """
function value(du, u, p, time, c, w)
    du[1] = max(p[1] - time, zero(eltype(u)))
    du[2] = sign(p[1] - time)
    return nothing
end
"""
# Not a number from time 1 on.
const ENDING = """
function value(du, u, p, time, c, w)
    du[1] = time < 1 ? u[1] : convert(eltype(u), NaN)
    du[2] = zero(eltype(u))
    return nothing
end
"""

swing(T) = generate(T, SWING, 2, 1, 0, 0, true), generate(T, HEIGHTS, 2, 1, 0, 0, true)

@testset "events" begin
    model, heights = swing(Float64)
    info = zeros(8)
    from(watch, t; u=[0.0, 1.0]) = follow(model, settings("Vern9"), u, [1.0], 0.0, t, watch, info)

    @testset "times, directions and counts" begin
        watch = Watch(heights, [0.5], [0, -1], [0, 0])
        found = from(watch, 12.0)
        times, which, columns = hits(found)
        rise, fall = asin(0.5), π - asin(0.5)
        expected = [rise, fall, π + rise, 2π + rise, 2π + fall, 3π + rise]
        @test which == [1, 1, 2, 1, 1, 2]
        @test times ≈ expected atol = 1e-9
        @test columns[1, :] ≈ sin.(times) atol = 1e-9
        @test columns[2, :] ≈ cos.(times) atol = 1e-9
        @test isnan(watch.stop) && retcode(found) == "Success"
    end

    @testset "the end" begin
        watch = Watch(heights, [0.5], [1, 0], [2, 0])
        found = from(watch, Inf)
        @test retcode(found) == "Terminated"
        @test watch.stop ≈ 2π + asin(0.5) atol = 1e-9
        times, columns = steps(found)
        @test times[end] == watch.stop && issorted(times)
        @test columns[1, :] ≈ sin.(times) atol = 1e-9
        @test size(columns) == (2, length(times))
    end

    @testset "steps are those of a solve without events" begin
        none = Watch(heights, [0.5], Int[], Int[])
        times, columns = steps(from(none, 12.0))
        @test times == steps(from(Watch(heights, [0.5], [0, 0], [0, 0]), 12.0))[1]
        @test size(hits(from(none, 1.0))[3]) == (2, 0)
    end

    @testset "zero at the start" begin
        for (direction, count) in ((0, 1), (1, 1), (-1, 0))
            watch = Watch(heights, [0.0], [direction, 0], [0, 0])
            found = from(watch, 1.0)
            @test length(filter(==(1), hits(found)[2])) == count
        end
    end

    @testset "zero at the start, left" begin
        for (height, start) in ((0.0, 1), (1e-17, 2), (-1e-17, 2))
            watch = Watch(heights, [height], [0, 0], [1, 1], [start, start])
            times, which, _ = hits(from(watch, Inf))
            @test times ≈ [π] atol = 1e-9
        end
    end

    @testset "values that jump or are flat beside zero" begin
        flat = generate(Float64, FLAT, 2, 1, 0, 0, true)
        for end_of_step in (0.3, 3.0)
            watch = Watch(flat, [end_of_step / 2], [0, 0], [0, 0])
            times, which, _ = hits(from(watch, end_of_step))
            @test times ≈ [end_of_step / 2, end_of_step / 2] rtol = 2e-15
            @test sort(which) == [1, 2]
        end
    end

    @testset "interpolation in both precisions" begin
        for T in (Float64, Float32)
            single, events = swing(T)
            none = Watch(events, T[0.5], Int[], Int[])
            s = Settings("Tsit5", 1e-6, 1e-6, 10_000, 0.0, false, 0.0, 0.0)
            found = follow(single, s, T[0, 1], T[1], 0.0, 3.0, none, info)
            out = zeros(T, 4)
            interpolate(found.solved, [0.3, 2.9], out, 0)
            @test out ≈ [sin(0.3), cos(0.3), sin(2.9), cos(2.9)] atol = 1e-4
            interpolate(found.solved, [0.3, 2.9], out, 1)
            @test out ≈ [cos(0.3), -sin(0.3), cos(2.9), -sin(2.9)] atol = 1e-3
        end
    end
end

@testset "a failed solve" begin
    model = generate(Float64, ENDING, 2, 1, 0, 0, true)
    for keep in ("nothing", "dense", "steps")
        ts, out, info = [0.0, 0.5, 0.9, 2.0], fill(NaN, 8), zeros(8)
        solved = forward(model, settings("Tsit5"), [1.0, 3.0], [1.0], ts, out, info, keep)
        @test info[1] == 0 && info[8] == 3
        @test 0.9 < info[2] < 1.1
        @test out[1:6] ≈ [1, 3, exp(0.5), 3, exp(0.9), 3]
        last, nonfinite = zeros(2), zeros(2)
        time = examine(solved, last, nonfinite)
        @test 1 <= time < 2
        @test last[2] == 3
        @test nonfinite[2] == 3 && all(isfinite, nonfinite)
    end
end
