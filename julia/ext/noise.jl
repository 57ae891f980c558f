# Brownian motion of which every increment is known before the solve.

"""
    Increments{T}

A noise process that gives the increments `first` (and `second`, of an independent process, for the
methods that have one) of the steps between the times `t`, one column a step. A solver that takes
other steps than these is stopped.
"""
mutable struct Increments{T} <:
               DiffEqNoiseProcess.AbstractNoiseProcess{T,2,Vector{Vector{T}},true}
    const t::Vector{Float64}
    const first::Matrix{T}
    const second::Matrix{T}
    const W::Vector{Vector{T}} # the present value alone
    const u::Vector{Vector{T}}
    const dW::Vector{T}
    const dZ::Vector{T}
    const curW::Vector{T}
    const curZ::Vector{T}
    const reset::Bool
    step::Int
    curt::Float64
    dt::Float64
end

function Increments(t::Vector{Float64}, first::Matrix{T}, second::Matrix{T}) where {T}
    none() = zeros(T, size(first, 1))
    value = none()
    return Increments{T}(
        t, first, second, [value], [value], none(), none(), value, none(), false, 1, t[1],
        t[2] - t[1],
    )
end

Base.copy(noise::Increments) = noise

function use_increments!(noise::Increments)
    k = noise.step
    length = noise.t[k + 1] - noise.t[k]
    abs(noise.dt - length) <= 1e-9 * length ||
        error("a step of $(noise.dt) from t = $(noise.t[k]), where the noise has one of $length")
    copyto!(noise.dW, view(noise.first, :, k))
    isempty(noise.second) || copyto!(noise.dZ, view(noise.second, :, k))
    return nothing
end

DiffEqNoiseProcess.setup_next_step!(noise::Increments, u, p) = use_increments!(noise)

function DiffEqNoiseProcess.calculate_step!(noise::Increments, dt, u, p)
    noise.dt = dt
    return use_increments!(noise)
end

function DiffEqNoiseProcess.accept_step!(noise::Increments, dt, u, p, setup_next=true)
    noise.curW .+= noise.dW
    noise.step += 1
    noise.curt = noise.t[noise.step]
    noise.dt = dt
    setup_next && use_increments!(noise)
    return nothing
end

DiffEqNoiseProcess.reject_step!(::Increments, dt, u, p) =
    error("a step of fixed length was rejected")
DiffEqNoiseProcess.save_noise!(::Increments) = nothing
