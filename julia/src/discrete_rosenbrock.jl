# The discrete adjoint of a Rosenbrock method's step. Its matrix is a function of the step's start,
# so second derivatives come in.

stage_matrices(::RosenbrockTableau) = 1

# Factorize the matrix of step `n` and compute its stages from its start.
function stages!(s::ImplicitSweep{T,RosenbrockTableau}, n, u) where {T}
    (; tape, k, argument, rates) = s
    (; model, p, tableau) = tape
    matrix, t, dt = s.matrices[1], tape.t[n], tape.dt[n]
    factorize!(matrix, s.jacobian, 1 / (tableau.γ * dt), u, p, t)
    model.depends_on_time && model.tgrad(rates, u, p, t)
    for i in eachindex(k)
        combine!(argument, u, k, tableau.a[i], 1.0)
        model.value(k[i], argument, p, t + tableau.c[i] * dt)
        add_earlier!(s, i, dt)
        model.depends_on_time && add_scaled!(k[i], rates, tableau.d[i] * dt)
        solve_forward!(matrix, k[i])
    end
    return nothing
end

# kᵢ += M Σⱼ Cᵢⱼ kⱼ / dt
function add_earlier!(s::ImplicitSweep{T}, i, dt) where {T}
    (; tape, k, base) = s
    (; model, tableau) = tape
    model.mass === nothing && return combine!(k[i], k[i], k, tableau.C[i], 1 / dt)
    fill!(base, zero(T))
    return add_product!(k[i], model.mass, combine!(base, base, k, tableau.C[i], 1 / dt))
end

function transposed_mass(s::ImplicitSweep, v)
    (; mass) = s.tape.model
    return mass === nothing ? v : transposed_product!(s.base, mass, v)
end

# Backwards through the stages; returns the derivative with respect to the step's start in time.
function stages_back!(s::ImplicitSweep{T,RosenbrockTableau}, n, u) where {T}
    (; tape, k, μ, argument, pulled, direction, second) = s
    (; model, p, tableau) = tape
    t, dt, δt = tape.t[n], tape.dt[n], 0.0
    for i in reverse(eachindex(k))
        v = μ[i]
        solve_transposed!(s.matrices[1], v)
        combine!(argument, u, k, tableau.a[i], 1.0)
        δt += pull!(s, v, argument, t + tableau.c[i] * dt, 1.0)
        add!(s.λ_start, pulled, 0)
        spread!(μ, tableau.a[i], 1.0, pulled, 0)
        spread!(μ, tableau.C[i], 1 / dt, transposed_mass(s, v), 0)
        # v times (J kᵢ + dᵢ dt ∂f/∂t)
        copyto!(direction, k[i])
        direction[end] = T(tableau.d[i] * dt)
        model.vjp_jvp(second, s.pulled_p, v, direction, u, p, t)
        add!(s.λ_start, second, 0)
        add!(s.dp, s.pulled_p, 0)
        δt += second[end]
    end
    return δt
end
