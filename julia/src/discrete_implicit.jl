# The discrete adjoint of the implicit one-step methods: what they have in common. From the state at
# a step's start the stages are computed again, and then their equations are solved transposed.

"""
    ImplicitSweep{T,M,W}

The state of the backward sweep, with fields as those of [`Sweep`](@ref). `matrices` are those of
the stages, one for all with Rosenbrock's methods; `direction` and `second` serve second derivatives
and have an element for time at their end.
"""
mutable struct ImplicitSweep{T,M,W}
    const tape::ImplicitTape{T,M}
    const ts::Vector{Float64}
    const cotangent::Vector{T}
    const with_t::Bool
    const scale::Float64
    const jacobian::Jacobian{T}
    const matrices::Vector{W}
    const k::Vector{Vector{T}}
    const μ::Vector{Vector{T}}
    λ::Vector{T}
    λ_start::Vector{T}
    const argument::Vector{T}
    const base::Vector{T}
    const end_state::Vector{T}
    const rates::Vector{T}
    const pulled::Vector{T}
    const pulled_p::Vector{T}
    const pulled_t::Vector{T}
    const direction::Vector{T}
    const second::Vector{T}
    const dp::Vector{T}
    const dts::Vector{Float64}
    const weights::Vector{Float64}
    products::Int
end

function ImplicitSweep(
    tape::ImplicitTape{T,M}, ts::Vector{Float64}, cotangent::Vector{T}, with_t::Bool,
    settings::Settings,
) where {T,M}
    (; model, tableau) = tape
    n, m, s = model.states, model.parameters, length(tableau)
    pattern = jacobian_pattern(model)
    matrices = [stage_matrix(model) for _ in 1:stage_matrices(tableau)]
    state() = zeros(T, n)
    scale = settings.rtol > 0 ? settings.atol / settings.rtol : 1.0
    return ImplicitSweep{T,M,eltype(matrices)}(
        tape, ts, cotangent, with_t, scale, Jacobian(model, pattern), matrices,
        [state() for _ in 1:s], [state() for _ in 1:s], state(), state(), state(), state(),
        state(), state(), state(), zeros(T, m), zeros(T, 1), zeros(T, n + 1), zeros(T, n + 1),
        zeros(T, m), zeros(length(ts)), zeros(s), 0,
    )
end

function backward(
    solved::Solved{T,S,<:ImplicitTape}, ::DiscreteAdjoint, settings::Settings,
    cotangent::Vector{T}, gradient_u::Vector{T}, gradient_p::Vector{T}, gradient_t::Vector{T},
    info::Vector{Float64},
) where {T,S}
    tape, ts = solved.tape, solved.ts
    sweep = ImplicitSweep(tape, ts, cotangent, !isempty(gradient_t), settings)
    sweep_back!(sweep)
    for i in eachindex(gradient_u)
        gradient_u[i] = sweep.λ[i] + cotangent[i]
    end
    copyto!(gradient_p, sweep.dp)
    copyto!(gradient_t, 1, sweep.dts, 1, length(gradient_t))
    report_backward!(info, ts[1], sweep.products)
    return check_finite(ts[1], gradient_u, gradient_p, gradient_t)
end

# A function of its own: the kind of matrix is known only at run time.
function sweep_back!(s::ImplicitSweep{T}) where {T}
    (; tape, dts) = s
    longest = steps_at_once(tape, tape.model.states * sizeof(T))
    back_in_parts!((u, parts) -> states_between(s, u, parts), tape, longest) do range, u
        # Every step a part of its own, but that their starts are found together.
        starts = pushfirst!(states_between(s, u, [n:n for n in range]), u)
        for n in reverse(range)
            step_back!(s, n, starts[n - first(range) + 1])
        end
    end
    dts[1] -= sum(@view dts[2:end])
    return nothing
end

# The states between some parts, from that at the first one's start.
function states_between(s::ImplicitSweep{T}, u::Vector{T}, parts) where {T}
    states, v = Vector{T}[], copy(u)
    for part in parts[1:(end - 1)]
        for n in part
            stages!(s, n, v)
            combine!(v, v, s.k, s.tape.tableau.b, 1.0)
        end
        push!(states, copy(v))
    end
    return states
end

"""
    step_back!(sweep, n, u)

From the derivative with respect to the state at the end of step `n` to that at its start, `u`.
"""
function step_back!(s::ImplicitSweep{T}, n, u) where {T}
    (; tape, k, μ, dts) = s
    stages!(s, n, u)
    combine!(s.end_state, u, k, tape.tableau.b, 1.0)
    fill!(s.λ_start, zero(T))
    foreach(x -> fill!(x, zero(T)), μ)
    add_save_points!(s, n)
    add!(s.λ_start, s.λ, 0)
    spread!(μ, tape.tableau.b, 1.0, s.λ, 0)
    dts[1] += stages_back!(s, n, u)
    s.λ, s.λ_start = s.λ_start, s.λ
    return nothing
end

# What the loss has of the states at the save points inside and at the end of step n.
function add_save_points!(s::ImplicitSweep, n)
    (; tape, k, cotangent, weights, dts) = s
    t, dt, states = tape.t[n], tape.dt[n], tape.model.states
    passed, inside = n == 1 ? 1 : tape.upto[n - 1], tape.inside[n]
    for i in (inside + 1):(tape.upto[n])
        add!(s.λ, cotangent, (i - 1) * states)
        s.with_t || continue
        dts[i] = dot_at(end_slope!(s, n), cotangent, (i - 1) * states)
    end
    for i in (passed + 1):inside
        θ, offset = (s.ts[i] - t) / dt, (i - 1) * states
        add!(s.λ_start, cotangent, offset)
        spread!(s.μ, weights!(weights, tape.tableau, θ), 1.0, cotangent, offset)
        s.with_t || continue
        slopes!(weights, tape.tableau, θ)
        dts[i] = sum(weights[j] * dot_at(k[j], cotangent, offset) for j in eachindex(k)) / dt
    end
    return nothing
end

# The derivative by time at the end of step n. With a mass matrix it is not f, nor is there one that
# f says of algebraic variables; then it is the interpolation's.
function end_slope!(s::ImplicitSweep{T}, n) where {T}
    (; tape, argument, weights) = s
    if tape.model.mass === nothing
        tape.model.value(argument, s.end_state, tape.p, tape.t[n] + tape.dt[n])
        return argument
    end
    slopes!(weights, tape.tableau, 1.0)
    fill!(argument, zero(T))
    return combine!(argument, argument, s.k, weights, 1 / tape.dt[n])
end

# The products of `v` with the derivatives of `scale` f at a stage; the one by time is returned.
function pull!(s::ImplicitSweep{T}, v, u, t, scale) where {T}
    (; model, p) = s.tape
    model.vjp_both(s.pulled, s.pulled_p, v, u, p, t)
    add_scaled!(s.dp, s.pulled_p, scale)
    s.products += 1
    s.with_t && model.depends_on_time || return 0.0
    model.vjp_t(s.pulled_t, v, u, p, t)
    return scale * s.pulled_t[1]
end

function add_scaled!(y::Vector{T}, x::Vector{T}, scale) where {T}
    factor = T(scale)
    @inbounds @simd ivdep for i in eachindex(y, x)
        y[i] += factor * x[i]
    end
    return nothing
end

# μⱼ += scale row[j] x.
function spread!(μ, row::Vector{Float64}, scale, x::Vector{T}, offset::Int) where {T}
    for j in eachindex(row)
        row[j] == 0 && continue
        target, factor = μ[j], T(scale * row[j])
        @inbounds @simd ivdep for i in eachindex(target)
            target[i] += factor * x[offset + i]
        end
    end
    return nothing
end
