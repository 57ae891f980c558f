using Pyjlode: OnVectors, Settings, backward, forward, generate, retcode, sensitivity

# du₁ = -p₁ u₁ + sin(t), du₂ = p₂ u₁ u₂
const SOURCE = """
function value(du, u, p, time, c, w)
    du[1] = -p[1] * u[1] + sin(time)
    du[2] = p[2] * u[1] * u[2]
    return nothing
end
function vjp(g, v, u, p, time, c, w)
    g[1] = -p[1] * v[1] + p[2] * u[2] * v[2]
    g[2] = p[2] * u[1] * v[2]
    return nothing
end
function vjp_p(g, v, u, p, time, c, w)
    g[1] = -u[1] * v[1]
    g[2] = u[1] * u[2] * v[2]
    return nothing
end
function vjp_both(g, gp, v, u, p, time, c, w)
    g[1] = -p[1] * v[1] + p[2] * u[2] * v[2]
    g[2] = p[2] * u[1] * v[2]
    gp[1] = -u[1] * v[1]
    gp[2] = u[1] * u[2] * v[2]
    return nothing
end
function vjp_t(g, v, u, p, time, c, w)
    g[1] = cos(time) * v[1]
    return nothing
end
"""
const TS = [0.1, 0.5, 1.2]

settings(method; tolerance=1e-10, maxiters=100_000) =
    Settings(method, tolerance, tolerance, maxiters, 0.0, false, 0.0, 0.0)

function states(model, method, u0, p, ts, keep="dense")
    out, info = zeros(2 * length(ts)), zeros(8)
    solved = forward(model, settings(method), u0, p, ts, out, info, keep)
    return out, info, solved
end

weights(out) = [sin(i) for i in eachindex(out)]
loss(out) = sum(weights(out) .* out)

function central(f, x; h=1e-6)
    return map(eachindex(x)) do i
        step = [j == i ? h : 0.0 for j in eachindex(x)]
        (f(x .+ step) - f(x .- step)) / 2h
    end
end

@testset "forward and backward" begin
    model = generate(Float64, SOURCE, 2, 2, 0, 0, true)
    u0, p = [1.0, 0.5], [0.7, 0.3]

    @testset "first state in closed form" begin
        out, info, _ = states(model, "Vern7", u0, p, TS)
        k = p[1]
        particular(t) = (k * sin(t) - cos(t)) / (k^2 + 1)
        exact = [particular(t) + (1 - particular(0.1)) * exp(-k * (t - 0.1)) for t in TS]
        @test info[1] == 1
        @test out[1:2:end] ≈ exact rtol = 1e-8
    end

    @testset "$method with $name" for (method, names) in
        (
            ("Tsit5", ("discrete", "gauss", "interpolating", "quadrature", "backsolve")),
            ("Rodas5P", ("gauss", "interpolating")),
        ),
        name in names

        keep = name == "discrete" ? "steps" : "dense"
        out, info, solved = states(model, method, u0, p, TS, keep)
        du, dp, dt = zeros(2), zeros(2), zeros(3)
        backward(
            solved, sensitivity(name, 1e-10, 1e-10, name == "backsolve"), settings(method),
            weights(out), du, dp, dt, info,
        )
        @test du ≈ central(u -> loss(states(model, method, u, p, TS)[1]), u0) rtol = 1e-6
        @test dp ≈ central(q -> loss(states(model, method, u0, q, TS)[1]), p) rtol = 1e-6
        @test dt ≈ central(s -> loss(states(model, method, u0, p, s)[1]), TS) rtol = 1e-5
    end

    @testset "a solve that fails says so" begin
        blowing = replace(SOURCE, "p[2] * u[1] * u[2]" => "u[2]^2 * 10")
        model = generate(Float64, blowing, 2, 2, 0, 0, true)
        info = zeros(8)
        solved = forward(
            model, settings("Tsit5"), u0, p, TS, zeros(6), info, "nothing"
        )
        @test info[1] == 0
        @test 0.1 < info[2] < 0.5
        @test retcode(solved) != "Success"
    end

    @testset "a backward solve that fails throws" begin
        out, info, solved = states(model, "Tsit5", u0, p, TS)
        @test_throws Pyjlode.BackwardFailure backward(
            solved, sensitivity("gauss", 1e-10, 1e-10, false), settings("Tsit5"; maxiters=2),
            weights(out), zeros(2), zeros(2), zeros(3), info,
        )
    end
end

@testset "views of a state" begin
    model = generate(Float64, SOURCE, 2, 2, 0, 0, true)
    p, z = [0.7, 0.3], [1.0, 9.0, 0.5, 9.0, -2.0, 9.0]
    f, vjp = OnVectors{Float64}(model.value), OnVectors{Float64}(model.vjp)
    expected, expected_vjp = zeros(2), zeros(2)
    model.value(expected, [1.0, 0.5], p, 0.2)
    model.vjp(expected_vjp, [0.5, -2.0], [1.0, 0.5], p, 0.2)
    # Side by side, and not.
    for (places, y, λ) in ((1:2, [1.0, 0.5, 0.5, -2.0], 3:4), (1:2:3, z, 3:2:5))
        out = fill(7.0, 5)
        f(view(out, places), view(y, places), p, 0.2)
        @test out[places] == expected
        @test all(==(7.0), out[setdiff(1:5, places)])
        vjp(view(out, places), view(y, λ), view(y, places), view(p, 1:2), 0.2)
        @test out[places] == expected_vjp
        @test all(==(7.0), out[setdiff(1:5, places)])
    end
end
