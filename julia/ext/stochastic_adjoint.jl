# Reverse mode through the steps that were taken, with the increments that they had.

# What a method's reverse step works with.
struct Reverse{T}
    steps::Steps{T}
    gradients::NTuple{2,Vector{T}} # with respect to the parameters of drift and diffusion
    memory::Dict{Symbol,Vector{T}}
end

memory(r::Reverse{T}, name::Symbol, n::Int=length(r.steps.states[1])) where {T} =
    get!(() -> zeros(T, n), r.memory, name)

"""
    backward(steps, cotangent, places, gradient_u, gradient_f, gradient_g)

The gradient with respect to the initial state and the parameters of drift and diffusion, from that
with respect to the states at the steps `places`.
"""
function backward(
    steps::Steps{T}, cotangent, places, gradient_u, gradient_f, gradient_g
) where {T}
    drift, diffusion = coefficients(steps.sde)
    gradients = (vector(gradient_f), vector(gradient_g))
    fill!.(gradients, zero(T))
    r = Reverse{T}(steps, gradients, Dict{Symbol,Vector{T}}())
    arrays = vector(gradient_u), r, vector(cotangent), vector(places)
    beside_python(drift.model, diffusion.model) do
        with_constants(drift.model, steps.constants[1]) do
            with_constants(() -> sweep!(arrays...), diffusion.model, steps.constants[2])
        end
    end
    return nothing
end

function sweep!(λ, r::Reverse, cotangent, places)
    n, t = length(λ), r.steps.t
    fill!(λ, 0)
    i = length(places)
    for k in length(t):-1:1
        if i >= 1 && places[i] + 1 == k
            λ .+= view(cotangent, ((i - 1) * n + 1):(i * n))
            i -= 1
        end
        k == 1 || reverse_step!(λ, r, k - 1)
    end
    return nothing
end

function reverse_step!(λ, r::Reverse, k::Int)
    (; method, ito, t, W, states) = r.steps
    arguments = (λ, r, states[k], t[k], t[k + 1] - t[k], W[:, k])
    method == "EM" && return reverse_em!(arguments...)
    method == "EulerHeun" && return reverse_euler_heun!(arguments...)
    method == "RKMil" && return reverse_milstein!(arguments..., ito)
    return error("$method has no reverse step")
end

# u + h f(u) + g(u) dW
function reverse_em!(λ::Vector{T}, r::Reverse{T}, u, t, h, dW) where {T}
    v, new = memory(r, :v), memory(r, :new)
    copyto!(new, λ)
    pull_drift!(new, r, v .= T(h) .* λ, u, t)
    pull_noise!(new, r, λ, u, dW, t)
    copyto!(λ, new)
    return nothing
end

# ũ = u + h f(u) + g(u) dW; u + h/2 (f(u) + f(ũ)) + 1/2 (g(u) + g(ũ)) dW
function reverse_euler_heun!(λ::Vector{T}, r::Reverse{T}, u, t, h, dW) where {T}
    v, new, middle, predicted = (memory(r, x) for x in (:v, :new, :middle, :predicted))
    add_noise!(predicted, r, u, dW, t)
    drift!(v, r, u, t)
    predicted .+= u .+ T(h) .* v
    fill!(middle, 0)
    pull_drift!(middle, r, v .= T(h / 2) .* λ, predicted, t + h)
    pull_noise!(middle, r, v .= λ ./ 2, predicted, dW, t + h)
    new .= λ .+ middle
    pull_drift!(new, r, v .= T(h) .* (λ ./ 2 .+ middle), u, t)
    pull_noise!(new, r, v .= λ ./ 2 .+ middle, u, dW, t)
    copyto!(λ, new)
    return nothing
end

# With c = (dW² - h)/(2√h), ũ = u + h f(u) + √h g(u): u + h f(u) + g(u) dW + (g(ũ) - g(u)) c.
# Stratonovich's has c = dW²/(2√h) and ũ = u + √h g(u).
function reverse_milstein!(λ::Vector{T}, r::Reverse{T}, u, t, h, dW, ito) where {T}
    v, new, middle, shifted, c = (memory(r, x) for x in (:v, :new, :middle, :shifted, :c))
    root = sqrt(h)
    c .= (dW .^ 2 .- T(ito ? h : 0)) ./ T(2root)
    diffusion!(v, r, u, t)
    shifted .= u .+ T(root) .* v
    if ito
        drift!(v, r, u, t)
        shifted .+= T(h) .* v
    end
    fill!(middle, 0)
    pull_diffusion!(middle, r, v .= c .* λ, shifted, t)
    new .= λ .+ middle
    pull_drift!(new, r, v .= T(h) .* (ito ? new : λ), u, t)
    pull_diffusion!(new, r, v .= λ .* (dW .- c) .+ T(root) .* middle, u, t)
    copyto!(λ, new)
    return nothing
end

drift!(out, r::Reverse, u, t) = r.steps.sde.drift(out, u, nothing, t)
diffusion!(out, r::Reverse, u, t) = r.steps.sde.diffusion(out, u, nothing, t)

# Add vᵀ ∂f/∂u to `into`, and vᵀ ∂f/∂p to the gradient of the drift's parameters.
pull_drift!(into, r::Reverse, v, u, t) = pull!(into, r, r.steps.sde.drift, 1, v, u, t)
pull_diffusion!(into, r::Reverse, v, u, t) = pull!(into, r, r.steps.sde.diffusion, 2, v, u, t)

function pull!(into, r::Reverse, of::Coefficient, which::Int, v, u, t)
    of.model.has_derivatives || return nothing
    total = r.gradients[which]
    g, gp = memory(r, Symbol(:g, which), length(u)), memory(r, Symbol(:p, which), length(of.p))
    of.model.vjp_both(g, gp, v, u, of.p, Float64(t))
    into .+= view(g, eachindex(into))
    isempty(total) || (total .+= view(gp, eachindex(total)))
    return nothing
end

# The same of g(u) dW. A diffusion that is a vector has a motion for each number of the state.
function pull_noise!(into, r::Reverse, v, u, dW, t)
    (; product, batch, noises) = r.steps.sde
    product === nothing && return pull_diffusion!(into, r, memory(r, :vdW) .= v .* dW, u, t)
    n, of = length(u) ÷ batch, product
    g, gp = memory(r, :gz, batch * (n + noises)), memory(r, :pz, length(of.p))
    state = side_by_side!(memory(r, :z, length(g)), u, dW, batch)
    of.model.vjp_both(
        g, gp, side_by_side!(memory(r, :vz, length(g)), v, nothing, batch), state, of.p, Float64(t)
    )
    reshape(into, n, batch) .+= view(reshape(g, :, batch), 1:n, :)
    total = r.gradients[2]
    isempty(total) || (total .+= view(gp, eachindex(total)))
    return nothing
end

# `out` becomes g(u) dW.
function add_noise!(out, r::Reverse, u, dW, t)
    (; product, batch, noises) = r.steps.sde
    if product === nothing
        diffusion!(out, r, u, t)
        out .*= dW
        return nothing
    end
    n = length(u) ÷ batch
    state = side_by_side!(memory(r, :z, batch * (n + noises)), u, dW, batch)
    value = memory(r, :vz, length(state))
    product(value, state, nothing, t)
    reshape(out, n, batch) .= view(reshape(value, :, batch), 1:n, :)
    return nothing
end

function side_by_side!(z, u, dW, batch)
    rows, n = reshape(z, :, batch), length(u) ÷ batch
    rows[1:n, :] .= reshape(u, n, batch)
    rows[(n + 1):end, :] .= dW === nothing ? 0 : reshape(dW, :, batch)
    return z
end
