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

"""
    Drawn{T}(t, n, seed)

Brownian motion, and a second, independent one, drawn as a solver that chooses its steps asks for
it. Every value is remembered and later ones are drawn given all of them, by Brownian bridges, so
that a step that is tried again with another length sees the same motion. (RSwM3 of
DiffEqNoiseProcess 5.33 does not after two rejections in a row: increments of sixty standard
deviations were seen, and they count as a step's.)
"""
mutable struct Drawn{T} <: DiffEqNoiseProcess.AbstractNoiseProcess{T,2,Vector{Vector{T}},true}
    const rng::Xoshiro
    const t::Vector{Float64} # where it is known, with the values there
    const known::Vector{NTuple{2,Vector{T}}}
    const steps::Vector{Int} # the places of the steps' ends among them
    const W::Vector{Vector{T}} # the present value alone
    const u::Vector{Vector{T}}
    const dW::Vector{T}
    const dZ::Vector{T}
    const curW::Vector{T}
    const curZ::Vector{T}
    const reset::Bool
    target::Int
    curt::Float64
    dt::Float64
end

function Drawn{T}(t::Float64, n::Int, seed::Integer) where {T}
    none() = zeros(T, n)
    value = none()
    return Drawn{T}(
        Xoshiro(seed), [t], [(none(), none())], [1], [value], [value], none(), none(), value,
        none(), false, 1, t, 0.0,
    )
end

Base.copy(noise::Drawn) = noise

# The place of a time, at which the motion is drawn if it is not known there.
function place!(noise::Drawn{T}, t::Float64) where {T}
    (; rng, known) = noise
    i = searchsortedlast(noise.t, t)
    noise.t[i] == t && return i
    left = noise.t[i]
    if i == length(noise.t)
        scale = T(sqrt(t - left))
        new = map(x -> x .+ scale .* randn(rng, T, length(x)), known[i])
    else
        right = noise.t[i + 1]
        part = T((t - left) / (right - left))
        scale = T(sqrt((t - left) * (right - t) / (right - left)))
        new = map(known[i], known[i + 1]) do x, y
            x .+ part .* (y .- x) .+ scale .* randn(rng, T, length(x))
        end
    end
    insert!(noise.t, i + 1, t)
    insert!(known, i + 1, new)
    return i + 1
end

function DiffEqNoiseProcess.calculate_step!(noise::Drawn, dt, u, p)
    noise.dt = dt
    noise.target = place!(noise, noise.curt + dt)
    (W, Z), (newW, newZ) = noise.known[noise.steps[end]], noise.known[noise.target]
    noise.dW .= newW .- W
    noise.dZ .= newZ .- Z
    return nothing
end

DiffEqNoiseProcess.setup_next_step!(noise::Drawn, u, p) =
    DiffEqNoiseProcess.calculate_step!(noise, noise.dt, u, p)
DiffEqNoiseProcess.reject_step!(noise::Drawn, dt, u, p) =
    DiffEqNoiseProcess.calculate_step!(noise, dt, u, p)
DiffEqNoiseProcess.save_noise!(::Drawn) = nothing

function DiffEqNoiseProcess.accept_step!(noise::Drawn, dt, u, p, setup_next=true)
    if noise.target != noise.steps[end]
        push!(noise.steps, noise.target)
        noise.curt = noise.t[noise.target]
        noise.curW .+= noise.dW
    end
    setup_next && DiffEqNoiseProcess.calculate_step!(noise, dt, u, p)
    return nothing
end
