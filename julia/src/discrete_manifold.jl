# The discrete adjoint of projections: the nearest point moves with the point that it is nearest to,
# and with the manifold, by the implicit function theorem.

"""
    project_back!(manifold, λ, dq, u, t)

From the derivative `λ` with respect to the projection of `u` to that with respect to `u`, and add
that with respect to the parameters of the manifold's `tangent` to `dq`. With the multipliers `m` of
the projection `y`, `y + Jᵀm = u` and `g(y) = 0`, it is `w` of

    (1 + Σ mⱼ ∇²gⱼ) w + Jᵀν = λ,    J w = 0

for which the second derivatives, small as `m` is small, are iterated.
"""
function project_back!(m::Manifold{T}, λ::Vector{T}, dq::Vector{T}, u::Vector{T}, t) where {T}
    (; state, argument, pulled, tangent, tangent_p) = m
    n, count = length(state), m.rows * m.conditions
    copyto!(state, u)
    first(project!(m, state, t)) || throw(BackwardFailure("ConvergenceFailure", Float64(t)))
    copyto!(argument, state)
    each_row(m) do slopes, b
        argument[(n + 1 + (b - 1) * m.conditions):(n + b * m.conditions)] .=
            multipliers(slopes, part(m, u, b) .- part(m, state, b))
    end
    v, w, last = zeros(T, n + count), zeros(T, n), zeros(T, n)
    along_manifold!(w, m, λ)
    bound = 4 * eps(T) * maximum(abs, λ; init=zero(T))
    for iteration in 1:50
        copyto!(v, w)
        tangent.vjp(pulled, v, argument, tangent_p, Float64(t))
        copyto!(last, w)
        along_manifold!(w, m, λ .- view(pulled, 1:n))
        maximum(abs, w .- last; init=zero(T)) <= bound && break
        iteration < 50 || throw(BackwardFailure("ConvergenceFailure", Float64(t)))
    end
    if tangent.parameters > 0
        rest = λ .- view(pulled, 1:n) .- w
        copyto!(v, w)
        each_row(m) do slopes, b
            v[(n + 1 + (b - 1) * m.conditions):(n + b * m.conditions)] .=
                multipliers(slopes, part(m, rest, b))
        end
        gradient = zeros(T, tangent.parameters)
        tangent.vjp_p(gradient, v, argument, tangent_p, Float64(t))
        dq .-= gradient
    end
    copyto!(λ, w)
    return nothing
end

each_row(f::F, m::Manifold) where {F} = foreach(b -> f(conditions(m, b)[1], b), 1:(m.rows))

# The part of `x` that is tangent to the manifold, row by row.
function along_manifold!(w, m::Manifold, x)
    each_row(m) do slopes, b
        row = part(m, x, b)
        part(m, w, b) .= row .- along_normals(slopes, slopes' * row)
    end
    return w
end

# At the end of step n: λ is that of the projected state, at which the next step's k₁ was evaluated,
# and becomes that of the state before it was projected.
function end_back!(s::Sweep, n)
    (; tape) = s
    (; manifold, tableau) = tape
    manifold === nothing && return nothing
    t = tape.t[n] + tape.dt[n]
    if tableau.last > 0 && s.live[tableau.last]
        copyto!(s.argument, s.end_state)
        project!(manifold, s.argument, t)
        pull!(s, tableau.last, s.argument, t, 1.0)
        add!(s.λ, s.pulled, 0)
    end
    project_back!(manifold, s.λ, s.dq, s.end_state, t)
    return nothing
end

# The cotangent of a save point within a step, and where in it the state begins: with a manifold,
# that of the interpolated state before it was projected.
function inside_back(s::Sweep{T}, i, u, weights, dt) where {T}
    (; manifold) = s.tape
    offset = place(s, i)
    manifold === nothing && return s.cotangent, offset
    combine!(s.argument, u, s.k, weights, dt)
    λ = s.cotangent[(offset + 1):(offset + length(u))]
    project_back!(manifold, λ, s.dq, s.argument, s.ts[i])
    return λ, 0
end

"""
    backward_projected(solved, cotangent, gradient_u, gradient_p, gradient_q, info)

As [`backward`](@ref) of what [`forward_projected`](@ref) gave; `gradient_q` is with respect to the
parameters of the manifold.
"""
function backward_projected(
    solved::Solved{T}, cotangent::PyArray{T}, gradient_u::PyArray{T}, gradient_p::PyArray{T},
    gradient_q::PyArray{T}, info::PyArray{Float64},
) where {T}
    return backward_projected(
        solved, copy(plain(cotangent)), plain(gradient_u), plain(gradient_p), plain(gradient_q),
        plain(info),
    )
end

function backward_projected(
    solved::Solved{T}, cotangent::Vector{T}, gradient_u::Vector{T}, gradient_p::Vector{T},
    gradient_q::Vector{T}, info::Vector{Float64},
) where {T}
    (; tape, ts, settings) = solved
    (; manifold) = tape
    sweep = Sweep(tape, 1, ts, cotangent, false, settings.fixed)
    models = [manifold.model, manifold.tangent]
    current = [copy(m.constants) for m in models]
    try
        foreach((m, c) -> copyto!(m.constants, c), models, manifold.constants)
        beside_python(solved.model, models...) do
            with_constants(() -> sweep_back!([sweep]), solved.model, solved.constants)
        end
        collect_gradients!(gradient_u, gradient_p, T[], [sweep])
        copyto!(gradient_q, sweep.dq)
        report_backward!(info, ts[1], sweep.products)
        return check_finite(ts[1], gradient_u, gradient_p, gradient_q)
    catch failure
        failure isa BackwardFailure || rethrow()
        info[2] = failure.time
        return failure.retcode
    finally
        foreach((m, c) -> copyto!(m.constants, c), models, current)
    end
end
