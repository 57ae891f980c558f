# Consistent initial states of differential-algebraic equations. `f(u, p, t)` has no component along
# the algebraic equations, and the parts of `u` that have derivatives are as given: what SciML
# calls BrownFullBasicInit. OrdinaryDiffEq's own has finite differences for its Jacobian, and no
# gradients.

"""
    Start{T}

A consistent state `u` at `t`, with what its gradient needs. `residual` is what `f` had along the
algebraic equations before, and `message` is empty, or says why there is no such state.
"""
struct Start{T}
    model::Model{T}
    u::Vector{T}
    p::Vector{T}
    t::Float64
    constants::Vector{T}
    residual::Vector{T}
    message::String
end

const NO_UNIQUE_SOLUTION = "singular"
const NOT_CONVERGED = "not converged"

"""
    initialize(model, u, p, t, rtol, atol, correct) -> Start

Solve the algebraic equations for the algebraic variables; or without `correct` leave `u` as it is
and only look.
"""
function initialize(model::Model{T}, u, p, t, rtol, atol, correct) where {T}
    u, p = copy(plain(u)), copy(plain(p))
    isempty(p) && (p = zeros(T, 1))
    return initialize(model, u, p, Float64(t), Float64(rtol), Float64(atol), Bool(correct))
end

function initialize(
    model::Model{T}, u::Vector{T}, p::Vector{T}, t::Float64, rtol, atol, correct::Bool
) where {T}
    (; equations, variables) = model.mass
    value = similar(u)
    residual(u) = (model.value(value, u, p, t); equations' * value)
    r = residual(u)
    before = equations * r
    start(message) = Start(model, u, p, t, copy(model.constants), before, message)
    all(isfinite, value) || return start("not finite")
    size(equations, 2) == 0 && return start("")
    for _ in 1:100
        factors = algebraic_jacobian(model, u, p, t)
        issuccess(factors) || return start(NO_UNIQUE_SOLUTION)
        correct || return start("")
        change = variables * (factors \ r)
        within(relative, absolute) =
            all(i -> abs(change[i]) <= relative * abs(u[i]) + absolute, eachindex(u))
        part, before_it = one(T), norm(r)
        r = residual(u - change)
        while !(norm(r) < before_it) && part > 1e-6
            part /= 2
            r = residual(u - part * change)
        end
        # As near as rounding lets it come, the residual does not get smaller any more.
        norm(r) < before_it || return start(within(rtol, atol) ? "" : NOT_CONVERGED)
        u .-= part .* change
        part == 1 && within(max(1e-10, 10eps(T)), 1e-6 * atol) && return start("")
    end
    return start(NOT_CONVERGED)
end

# The derivatives of the algebraic equations by the algebraic variables, factorized.
function algebraic_jacobian(model::Model, u, p, t)
    (; jac, jac_prototype) = ode_function(model, true)
    jac(jac_prototype, u, p, t)
    return lu(model.mass.equations' * jac_prototype * model.mass.variables; check=false)
end

"""
    initialize_back!(start, λ, g, g_p, g_t)

The gradients of `λᵀ u` for the consistent `u` with respect to the state given, the parameters and
time, by the implicit function theorem: its algebraic variables are functions of all these.
"""
function initialize_back!(start::Start, arrays::PyArray...)
    return initialize_back!(start, map(plain, arrays)...)
end

function initialize_back!(
    start::Start{T}, λ::Vector{T}, g::Vector{T}, g_p::Vector{T}, g_t::Vector{T}
) where {T}
    (; model, u, p, t) = start
    (; equations, variables) = model.mass
    copyto!(g, λ)
    fill!(g_p, zero(T))
    fill!(g_t, zero(T))
    size(equations, 2) == 0 && return nothing
    with_constants(model, start.constants) do
        v = -(equations * (algebraic_jacobian(model, u, p, t)' \ (variables' * λ)))
        pulled, pulled_p, pulled_t = zero(u), zeros(T, max(model.parameters, 1)), zeros(T, 1)
        model.vjp_both(pulled, pulled_p, v, u, p, t)
        model.vjp_t(pulled_t, v, u, p, t)
        g .+= pulled
        g_p .+= @view pulled_p[eachindex(g_p)]
        g_t .+= pulled_t
    end
    return nothing
end

# The steps of these methods have no reverse mode. Their problem is solved again by Rodas5P.
function backward(
    solved::Solved{T,S,Nothing}, sensealg::DiscreteAdjoint, settings::Settings,
    cotangent::Vector{T}, gradient_u::Vector{T}, gradient_p::Vector{T}, gradient_t::Vector{T},
    info::Vector{Float64},
) where {T,S}
    (; model, p, ts, solution) = solved
    again = forward(
        model, with_method(solved.settings, "Rodas5P"), copy(solution.prob.u0), p, ts,
        similar(cotangent), info, "steps",
    )
    info[1] == 1 || throw(BackwardFailure(retcode(again), info[2]))
    return backward(
        again, sensealg, with_method(settings, "Rodas5P"), cotangent, gradient_u, gradient_p,
        gradient_t, info,
    )
end
