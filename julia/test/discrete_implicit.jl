using Pyjlode: Pattern, ROSENBROCK, RosenbrockTableau, SDIRKTableau, implicit_tableau, load
using LinearAlgebra: I

# The equation of discrete.jl, with what implicit methods need besides.
const TIMED_TWICE = TIMED * """
function tgrad(du, u, p, time, c, w)
    du[1] = cos(time) * u[2]
    du[2] = 0
    return nothing
end
function vjp_jvp(g, gp, v, k, u, p, time, c, w)
    s = k[3]
    g[1] = p[2] * v[2] * k[2]
    g[2] = v[1] * s * cos(time) + p[2] * v[2] * k[1]
    g[3] = v[1] * (cos(time) * k[2] - s * sin(time) * u[2])
    gp[1] = -v[1] * k[1]
    gp[2] = v[2] * (u[2] * k[1] + u[1] * k[2])
    return nothing
end
"""
timed_jacobian(u, p, t) = [-p[1] sin(t); p[2]*u[2] p[2]*u[1]]
timed_rate(u, p, t) = [cos(t) * u[2], zero(t)]

# The shortest and the longest: each takes a while to compile.
const SDIRK_METHODS = ("TRBDF2", "Kvaerno5")
foreach(m -> load(m, "OrdinaryDiffEqSDIRK", "Rodas5P", true), SDIRK_METHODS)

function one_step(tableau::RosenbrockTableau, u, p, t, dt)
    (; a, C, c, d, γ) = tableau
    W = I / (γ * dt) - timed_jacobian(u, p, t)
    k = typeof(u)[]
    for i in eachindex(c)
        from = u + sum(a[i][1:(i - 1)] .* k; init=zero(u))
        right = timed(from, p, t + c[i] * dt) + dt * d[i] * timed_rate(u, p, t)
        push!(k, W \ (right + sum(C[i][1:(i - 1)] .* k; init=zero(u)) / dt))
    end
    return k
end

function one_step(tableau::SDIRKTableau, u, p, t, dt)
    (; a, c, γ) = tableau
    k = [dt * timed(u, p, t)]
    for i in 2:length(c)
        base, z, time = u + sum(a[i][1:(i - 1)] .* k), k[end], t + c[i] * dt
        for _ in 1:40
            residual = z - dt * timed(base + γ * z, p, time)
            z -= (I - γ * dt * timed_jacobian(base + γ * z, p, time)) \ residual
        end
        push!(k, z)
    end
    return k
end

# The same steps by another hand, as `replay` is for the explicit methods.
function replay_implicit(tape, u0, p, ts)
    (; tableau) = tape
    T = eltype(u0)
    u, t, passed, states = u0, T(ts[1]), 1, [u0]
    for n in eachindex(tape.t)
        dt = T(tape.dt[n])
        k = one_step(tableau, u, p, t, dt)
        weight(w, θ) = sum(w[j] * θ^j for j in eachindex(w))
        between(θ) = u + sum(weight(w, θ) * x for (w, x) in zip(tableau.weights, k))
        append!(states, [between((ts[i] - t) / dt) for i in (passed + 1):tape.inside[n]])
        next, stop = u + sum(tableau.b .* k), t + dt
        if tape.upto[n] > tape.inside[n]
            push!(states, next + (ts[tape.upto[n]] - stop) * timed(next, p, stop))
        end
        u, t, passed = next, stop, tape.upto[n]
    end
    return reduce(vcat, states)
end

function recorded_implicit(
    ::Type{T}, method; ts=[0.1, 0.13, 0.15, 0.5, 0.9, 1.2], checkpoints=0, tolerance=1e-6
) where {T}
    model = generate(T, TIMED_TWICE, 2, 2, 0, 0, true, Pattern(2))
    settings = Settings(method, tolerance, tolerance, 100_000, 0.0, false, 0.0, 0.0)
    u0, p = T[1.0, 0.5], T[0.7, 0.9]
    out, info = zeros(T, 2 * length(ts)), zeros(8)
    solved = forward(model, settings, u0, p, ts, out, info, "steps", checkpoints)
    @test info[1] == 1
    du, dp, dts = zeros(T, 2), zeros(T, 2), zeros(T, length(ts))
    backward(
        solved, sensitivity("discrete", 0, 0, false), settings, T.(weights_of(out)), du, dp, dts,
        info,
    )
    return (; solved, out, u0, p, ts, du, dp, dts, info, settings)
end

exact_implicit(r) = exact(r, (u, p, ts) -> replay_implicit(r.solved.tape, u, p, ts))

# SDIRK's states are those of an iteration that stopped at the solver's tolerance.
closeness(method, T, tolerance) = method in ROSENBROCK ? 2000eps(T) : 0.2tolerance + 200eps(T)

@testset "tableau of $method" for method in (ROSENBROCK..., SDIRK_METHODS...)
    (; a, b, c, weights) = implicit_tableau(method)
    @test all(i -> all(iszero, a[i][i:end]), eachindex(a))
    for θ in (0.0, 0.3, 1.0)
        # Where the solution is a constant slope, and so where it is a step's end.
        @test weights!(zeros(length(c)), implicit_tableau(method), 1.0) ≈ b rtol = 1e-12
        method in ROSENBROCK && continue
        @test sum(weights!(zeros(length(c)), implicit_tableau(method), θ)) ≈ θ atol = 1e-12
    end
    @test method in ROSENBROCK || sum(b) ≈ 1
end

# tests/test_discrete_implicit.py has the other methods: compiling each takes half a minute.
const CASES = [("Rodas5P", Float64, 1e-7), ("Rodas5P", Float32, 1e-4)]

@testset "discrete adjoint of $method, $T" for (method, T, tolerance) in CASES
    for checkpoints in (T === Float64 ? (0, 1, 3) : (0,))
        r = with_budget(Pyjlode.PART_BUDGET, 0) do
            recorded_implicit(T, method; checkpoints, tolerance)
        end
        (; tape) = r.solved
        @test length(tape.t) > 5
        checkpoints == 0 || @test length(tape.states) <= checkpoints
        close = closeness(method, T, tolerance)
        expected = replay_implicit(tape, big.(r.u0), big.(r.p), big.(r.ts))
        @test relative(r.out, expected) < close
        du, dp, dts = exact_implicit(r)
        @test relative(r.du, du) < 10close
        @test relative(r.dp, dp) < 10close
        @test relative(r.dts, dts) < 100close
        plain = zero(r.out)
        forward(r.solved.model, r.settings, r.u0, r.p, r.ts, plain, zeros(8), "nothing")
        @test plain ≈ r.out rtol = 100eps(T)
    end
end
