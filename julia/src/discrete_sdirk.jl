# The discrete adjoint of an SDIRK method's step: of the solutions of its stages' equations, not of
# the iterations that found them.

stage_matrices(tableau::SDIRKTableau) = length(tableau) - 1

const NEWTON_TOLERANCE = 1e-9
const NEWTON_ITERATIONS = 20

# Solve the stages of step `n`, with the matrices of the last iterations factorized.
function stages!(s::ImplicitSweep{T,SDIRKTableau}, n, u) where {T}
    (; tape, k, base) = s
    (; model, p, tableau) = tape
    t, dt = tape.t[n], tape.dt[n]
    model.value(k[1], u, p, t)
    k[1] .*= T(dt)
    for i in 2:length(k)
        copyto!(k[i], tape.keeps ? tape.stages[n][i] : k[i - 1])
        combine!(base, u, k, tableau.a[i], 1.0)
        newton!(s, s.matrices[i - 1], k[i], t + tableau.c[i] * dt, dt)
    end
    return nothing
end

# Solve z = dt f(base + γ z, t), beyond the solver's own tolerance: the matrix is then that of the
# solution, and the gradient as near.
function newton!(s::ImplicitSweep{T}, matrix, z, t, dt) where {T}
    (; tape, base, argument, rates) = s
    γ, tolerance = T(tape.tableau.γ), max(NEWTON_TOLERANCE, 100 * eps(T))
    for _ in 1:NEWTON_ITERATIONS
        argument .= base .+ γ .* z
        factorize!(matrix, s.jacobian, 1 / (γ * dt), argument, tape.p, t)
        tape.model.value(rates, argument, tape.p, t)
        rates .= (T(dt) .* rates .- z) ./ (γ * T(dt))
        solve_forward!(matrix, rates)
        z .+= rates
        all(isfinite, z) || break
        error = 0.0
        for i in eachindex(rates)
            error = max(error, abs(γ * rates[i]) / (abs(argument[i]) + s.scale))
        end
        error < tolerance && return nothing
    end
    throw(BackwardFailure("ConvergenceFailure", t))
end

# Backwards through the stages; returns the derivative with respect to the step's start in time.
function stages_back!(s::ImplicitSweep{T,SDIRKTableau}, n, u) where {T}
    (; tape, k, μ, argument, pulled) = s
    (; tableau) = tape
    t, dt, δt = tape.t[n], tape.dt[n], 0.0
    α = 1 / (tableau.γ * dt)
    for i in length(k):-1:2
        v = μ[i]
        solve_transposed!(s.matrices[i - 1], v)
        v .*= T(α)
        combine!(argument, u, k, tableau.a[i], 1.0)
        add_scaled!(argument, k[i], tableau.γ)
        δt += pull!(s, v, argument, t + tableau.c[i] * dt, dt)
        add_scaled!(s.λ_start, pulled, dt)
        spread!(μ, tableau.a[i], dt, pulled, 0)
    end
    δt += pull!(s, μ[1], u, t, dt)
    add_scaled!(s.λ_start, pulled, dt)
    return δt
end
