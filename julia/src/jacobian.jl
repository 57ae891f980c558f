# Jacobians for the implicit methods, from vector-Jacobian products: exact, and as few products as
# the colours of the pattern's rows. No finite differences, and no dual numbers through BLAS.

jacobian_pattern(model::Model) = @something model.pattern Pattern(model.states)

"`jac!(J, u, p, t)` of a model's right-hand side."
struct Jacobian{T} <: Function
    model::Model{T}
    pattern::Pattern
    seed::Vector{T}
    row::Vector{T}
end
Jacobian(m::Model{T}, pattern) where {T} =
    Jacobian{T}(m, pattern, zeros(T, m.states), zeros(T, m.states))

function (j::Jacobian)(J, u, p, t)
    clear!(J)
    products(j, u, p, t) do entry, value
        put!(J, entry, value)
    end
    return nothing
end

# One product for each colour; `found` gets each element.
function products(found::F, j::Jacobian{T}, u, p, t) where {F,T}
    (; model, pattern, seed, row) = j
    u, p, t = vector(T, u), vector(T, p), Float64(t)
    for (seeds, entries) in zip(pattern.seeds, pattern.entries)
        for i in seeds
            seed[i] = one(T)
        end
        model.vjp(row, seed, u, p, t)
        for i in seeds
            seed[i] = zero(T)
        end
        for entry in entries
            found(entry, row[entry[2]])
        end
    end
    return nothing
end

# The adjoint equations are linear: λ' = -(∂f/∂u)ᵀ λ, and with the parameter gradients as further
# states μ' = -(∂f/∂p)ᵀ λ. So their Jacobian is that of f at the interpolated state, exact, where a
# finite difference would be a noisy one.
struct AdjointJacobian{T,S} <: Function
    jacobian::Jacobian{T}
    trajectory::S
    row_p::Vector{T}
end

function (j::AdjointJacobian{T})(J, z, p, t) where {T}
    y = j.trajectory(t)
    clear!(J)
    products(j.jacobian, y, p, t) do entry, value
        put_adjoint!(J, entry, value)
    end
    (; model, seed) = j.jacobian
    n = model.states
    size(J, 1) > n || return nothing
    for i in 1:n
        seed[i] = one(T)
        model.vjp_p(j.row_p, seed, vector(T, y), vector(T, p), Float64(t))
        seed[i] = zero(T)
        for k in (n + 1):size(J, 1)
            J[k, i] = -j.row_p[k - n]
        end
    end
    return nothing
end

"""
    evaluate_jacobian(model, J, dT, u, p, t)

The Jacobian, column-major in a flat vector, and the derivative with respect to time at one point,
for checks.
"""
function evaluate_jacobian(model::Model{T}, J, dT, u, p, t) where {T}
    n = model.states
    f = ode_function(model, true)
    matrix = f.jac_prototype
    f.jac(matrix, plain(u), plain(p), Float64(t))
    f.tgrad(plain(dT), plain(u), plain(p), Float64(t))
    copyto!(plain(J), vec(Matrix(matrix)))
    return nothing
end
