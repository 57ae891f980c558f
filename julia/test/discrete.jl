using Pyjlode: Settings, backward, forward, generate, sensitivity
using Pyjlode: EXPLICIT, Tableau, Tape, recompute, tableau, weights!

# du₁ = -p₁ u₁ + sin(t) u₂, du₂ = p₂ u₁ u₂, and the same in any arithmetic.
const TIMED = """
function value(du, u, p, time, c, w)
    du[1] = -p[1] * u[1] + sin(time) * u[2]
    du[2] = p[2] * u[1] * u[2]
    return nothing
end
function vjp(g, v, u, p, time, c, w)
    g[1] = -p[1] * v[1] + p[2] * u[2] * v[2]
    g[2] = sin(time) * v[1] + p[2] * u[1] * v[2]
    return nothing
end
function vjp_p(g, v, u, p, time, c, w)
    g[1] = -u[1] * v[1]
    g[2] = u[1] * u[2] * v[2]
    return nothing
end
function vjp_both(g, gp, v, u, p, time, c, w)
    g[1] = -p[1] * v[1] + p[2] * u[2] * v[2]
    g[2] = sin(time) * v[1] + p[2] * u[1] * v[2]
    gp[1] = -u[1] * v[1]
    gp[2] = u[1] * u[2] * v[2]
    return nothing
end
function vjp_t(g, v, u, p, time, c, w)
    g[1] = cos(time) * u[2] * v[1]
    return nothing
end
"""
timed(u, p, t) = [-p[1] * u[1] + sin(t) * u[2], p[2] * u[1] * u[2]]

# The same steps by another hand: what the solve gives for other inputs if its steps keep their
# lengths, or with fixed steps, if those keep theirs that end at no save point.
function replay(tape::Tape, fixed, u0, p, ts)
    (; c, a, b, weights) = tape.tableau
    T = eltype(u0)
    u, t, passed, states = u0, T(ts[1]), 1, [u0]
    for n in eachindex(tape.t)
        dt = T(tape.dt[n])
        fixed && tape.upto[n] > passed && (dt = ts[tape.upto[n]] - t)
        k = Vector{T}[]
        for i in eachindex(c)
            push!(k, timed(u + dt * sum(a[i][1:(i - 1)] .* k; init=zero(u)), p, t + c[i] * dt))
        end
        weight(w, θ) = sum(w[j] * θ^j for j in eachindex(w))
        between(θ) = u + dt * sum(weight(w, θ) * x for (w, x) in zip(weights, k))
        append!(states, [between((ts[i] - t) / dt) for i in (passed + 1):tape.inside[n]])
        next = u + dt * sum(b .* k)
        if tape.upto[n] > tape.inside[n]
            # Where a step ends at a save point, that one moves along the slope at the step's end.
            end_time = t + dt
            push!(states, next + (ts[tape.upto[n]] - end_time) * timed(next, p, end_time))
        end
        u, t, passed = next, t + dt, tape.upto[n]
    end
    return reduce(vcat, states)
end

recorded(method; options...) = recorded(Float64, method; options...)
function recorded(
    ::Type{T}, method; ts=[0.1, 0.13, 0.15, 0.5, 0.9, 1.2], fixed=false, dt=0.0, checkpoints=0,
    tolerance=1e-6, maxiters=100_000,
) where {T}
    model = generate(T, TIMED, 2, 2, 0, 0, true)
    settings = Settings(method, tolerance, tolerance, maxiters, dt, fixed, 0.0, 0.0)
    u0, p = T[1.0, 0.5], T[0.7, 0.9]
    out, info = zeros(T, 2 * length(ts)), zeros(8)
    solved = forward(model, settings, u0, p, ts, out, info, "steps", checkpoints)
    @test info[1] == 1
    du, dp, dts = zeros(T, 2), zeros(T, 2), zeros(T, length(ts))
    backward(
        solved, sensitivity("discrete", 0, 0, false), settings, T.(weights_of(out)), du, dp, dts,
        info,
    )
    return (; solved, out, u0, p, ts, du, dp, dts, fixed, info, settings)
end
weights_of(out) = [sin(i) + 1 for i in eachindex(out)]

function with_budget(f, budget, bytes)
    before = budget[]
    budget[] = bytes
    try
        return f()
    finally
        budget[] = before
    end
end

# Finite differences in 256 bits, exact to many more digits than are compared, of the states that
# `replay_steps(u, p, ts)` gives.
function exact(r, replay_steps=(u, p, ts) -> replay(r.solved.tape, r.fixed, u, p, ts))
    h = big"1e-30"
    loss(u, p, ts) = sum(weights_of(r.out) .* replay_steps(u, p, ts))
    inputs = [BigFloat.(r.u0), BigFloat.(r.p), BigFloat.(r.ts)]
    return map(1:3) do j
        map(eachindex(inputs[j])) do i
            above, below = deepcopy(inputs), deepcopy(inputs)
            above[j][i] += h
            below[j][i] -= h
            Float64((loss(above...) - loss(below...)) / 2h)
        end
    end
end

relative(x, y) = maximum(abs, x .- y) / maximum(abs, y)

# How much rounding grows in one step: Verner's methods have large coefficients, his
# interpolations very large ones.
growth(rows) = max(1.0, maximum(row -> sum(abs, row), rows))
growth(t::Tableau) = max(growth(t.a), growth(eachrow(reduce(hcat, t.weights))))

function test_exact(r)
    tolerance = 20eps(eltype(r.out)) * growth(r.solved.tape.tableau)
    du, dp, dts = exact(r)
    @test relative(r.du, du) < tolerance
    @test relative(r.dp, dp) < tolerance
    @test relative(r.dts, dts) < 20tolerance
end

@testset "tableaus" begin
    @testset "$method" for method in keys(EXPLICIT)
        t = tableau(method, false)
        for i in eachindex(t.c)
            @test sum(t.a[i]) ≈ t.c[i] atol = 1e-12
            @test all(iszero, t.a[i][i:end])
        end
        @test sum(t.b) ≈ 1
        for θ in (0.0, 0.3, 1.0)
            @test sum(weights!(zeros(length(t)), t, θ)) ≈ θ atol = 1e-9
        end
        @test weights!(zeros(length(t)), t, 1.0) ≈ t.b rtol = 1e-9
        @test t.last == 0 || t.a[t.last] == t.b
    end
    # Tsitouras 2011, tables 1 and 2; Kutta 1901.
    @test tableau("Tsit5", true).a[2][1] ≈ 0.161
    @test tableau("Tsit5", true).b[1:2] ≈ [0.09646076681806523, 0.01]
    @test tableau("RK4", false).b ≈ [1 / 6, 1 / 3, 1 / 3, 1 / 6, 0]
end

# Of each kind one: fixed steps, an interpolation of Hermite's, one of its own, first same as last or
# not, further stages for the interpolation. tests/test_discrete.py has the other methods, and
# compiling each takes ten seconds.
const METHODS = ("Euler", "RK4", "BS3", "Tsit5", "Vern7")
const RECORDED = [
    [(method, Float64) for method in METHODS]; ("Tsit5", Float32); ("Vern7", Float32)
]

@testset "the steps of $method are known, $T" for (method, T) in RECORDED
    fixed = method == "Euler"
    (; solved, out) = r = recorded(T, method; fixed, dt=fixed ? 0.01 : 0.0, tolerance=1e-4)
    (; tape) = solved
    tolerance = 20eps(T) * growth(tape.tableau.a)
    states, stages = recompute(tape, tape.states[1], eachindex(tape.t))
    for n in eachindex(tape.t)
        @test relative(states[n], tape.states[n]) < tolerance
        for i in 1:(tape.tableau.stages)
            @test relative(stages[n][i], tape.stages[n][i]) < 5tolerance
        end
    end
    expected = replay(tape, fixed, big.(r.u0), big.(r.p), big.(r.ts))
    @test relative(out, expected) < 20eps(T) * growth(tape.tableau)
    if method in ("Tsit5", "Vern7")
        plain = zero(out)
        forward(solved.model, r.settings, r.u0, r.p, r.ts, plain, zeros(8), "nothing")
        @test plain == out
    end
end

@testset "discrete adjoint" begin
    @testset "$method, adaptive" for method in METHODS[2:end]
        for checkpoints in (0, 1, 3)
            # With no budget parts are cut again and again.
            r = with_budget(Pyjlode.PART_BUDGET, 0) do
                recorded(method; checkpoints, tolerance=1e-4)
            end
            test_exact(r)
            checkpoints == 0 || @test length(r.solved.tape.states) <= checkpoints
        end
    end

    @testset "$method, fixed steps of $dt" for method in METHODS, dt in (0.0, 0.07)
        r = recorded(method; fixed=true, dt)
        @test length(r.solved.tape.t) == (dt == 0 ? 5 : 1 + 1 + 5 + 6 + 5)
        test_exact(r)
    end

    @testset "Float32" begin
        r = recorded(Float32, "Tsit5"; tolerance=1e-4)
        test_exact(r)
    end

    @testset "many save points in a step, and the state at the end alone" begin
        for ts in (collect(range(0.1, 1.2; length=300)), [0.1, 1.2], [-3.0, -2.9999, 4.0])
            r = recorded("Tsit5"; ts)
            test_exact(r)
        end
    end

    @testset "stages beyond the budget are computed again" begin
        with_budget(Pyjlode.STAGES_BUDGET, 1000) do
            r = recorded("Tsit5")
            @test isempty(r.solved.tape.stages)
            @test length(r.solved.tape.states) == length(r.solved.tape.t) > 9
            test_exact(r)
        end
    end

    @testset "states and stages held grow with the logarithm of the number of steps" begin
        held = map((100, 10_000)) do steps
            (; tape) = with_budget(Pyjlode.PART_BUDGET, 0) do
                recorded("RK4"; ts=[0.0, 1.0], fixed=true, dt=1 / steps, checkpoints=8).solved
            end
            @test length(tape.t) >= steps
            # What was in use at once is spare now, or still the tape's.
            length(tape.states) + length(tape.spare_states) + length(tape.spare)
        end
        @test held[1] <= 2 * 8 + 8 + 4
        @test held[2] <= 5 * 8 + 8 + 6
    end

    @testset "a gradient that is not finite throws" begin
        (; solved, settings, out) = recorded("Tsit5")
        @test_throws Pyjlode.BackwardFailure backward(
            solved, sensitivity("discrete", 0, 0, false), settings, fill(NaN, length(out)),
            zeros(2), zeros(2), zeros(0), zeros(8),
        )
    end
end
