Base.require(Base.PkgId(Base.UUID("bcd4f6db-9728-5f36-b5f7-82caef46ccdb"), "DelayDiffEq"))
const Delay = Base.get_extension(Pyjlode, :PyjlodeDelayExt)

# u' = k u(t - τ) from u₀ with the past 1 + q t, at k = -1, τ = 1, q = 0 and u₀ = 1, by the method
# of steps: u and the sums of its derivatives at 0, 1.5 and 2.5.
@testset "gradients of the example, $T" for (T, tolerance) in ((Float64, 1e-4), (Float32, 1e-3))
    out, (du, dk, dq, dlag, dts) = Delay.exercise(T, "Tsit5", Delay.example_history(T))
    after(x) = max(x, 0)
    u(t) = 1 - t + after(t - 1)^2 / 2 - after(t - 2)^3 / 6
    slope(t) = -1 + after(t - 1) - after(t - 2)^2 / 2
    @test out ≈ u.([0, 1.5, 2.5]) rtol = tolerance
    total(f) = sum(f, (1.5, 2.5))
    @test du[1] ≈ 1 + total(t -> 1 - (t - 1) + after(t - 2)^2 / 2) rtol = tolerance
    @test dk[1] ≈ total(t -> t - (t - 1)^2 + after(t - 2)^3 / 2) rtol = tolerance
    from_past = 1 / 2 - 0.5^2 / 2 + 0.5^3 / 6, 1 / 6 - 0.5 / 2 + 0.5^3 / 6 - 0.5^4 / 24
    @test dq[1] ≈ sum(from_past) rtol = tolerance
    @test dlag[1] ≈ total(t -> -(t - 1) + after(t - 2)^2) rtol = tolerance
    @test dts ≈ [-total(slope), slope(1.5), slope(2.5)] rtol = 10 * tolerance
end

@testset "a stage reads where its own step does" begin
    tableau = Delay.tableau("Tsit5", true)
    equation = Delay.dde(Delay.example(Float64), [-1.0], nothing, [0.0], [1.0], 1, 0.0, [1.0])
    t = [0.0, 0.3, 1.0, 1.3, 2.0]
    steps = Delay.Steps{Float64}(
        equation, Float64[], Float64[], tableau, [0.0, 2.0], t, [[1.0] for _ in t], []
    )
    @test Delay.locate(steps, 2, 7, 1.0) == (0, 0.0) # the past's end
    @test Delay.locate(steps, 3, 1, 1.0) == (1, 0.0) # the first step's start
    @test Delay.locate(steps, 3, 7, 1.0)[1] == 1
    @test Delay.locate(steps, 4, 1, 1.0)[1] == 2
    @test !Delay.shares_first(steps, 1) && !Delay.shares_first(steps, 3)
    @test Delay.shares_first(steps, 2) && Delay.shares_first(steps, 4)
end
