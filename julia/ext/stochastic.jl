# The forward solve.

# A model with its parameters, as StochasticDiffEq calls it.
struct Coefficient{T} <: Function
    model::Model{T}
    p::Vector{T}
end
(c::Coefficient{T})(du::Vector{T}, u::Vector{T}, _, t) where {T} =
    (c.model.value(du, u, c.p, Float64(t)); nothing)
(c::Coefficient{T})(du::Blocks{T}, u::Vector{T}, _, t) where {T} =
    (c.model.value(du.data, u, c.p, Float64(t)); nothing)

"""
    SDE{T}

Drift and diffusion of an Itô or Stratonovich equation, with `batch` rows that have `noises`
Brownian motions each; 0 if the diffusion is a vector, one motion for each number of the state.
`product`, for gradients where it is a matrix, is that matrix times the increments: a function of the
rows' states and increments side by side, with zeros beside its result.
"""
struct SDE{T}
    drift::Coefficient{T}
    diffusion::Coefficient{T}
    product::Union{Nothing,Coefficient{T}}
    batch::Int
    noises::Int
end

function sde(drift, p_drift, diffusion, p_diffusion, product, p_product, batch, noises)
    return SDE(
        coefficient(drift, p_drift), coefficient(diffusion, p_diffusion),
        product === nothing ? nothing : coefficient(product, p_product), Int(batch), Int(noises),
    )
end

coefficient(model::Model{T}, p) where {T} = Coefficient{T}(model, copy(vector(p)))

# Euler's methods evaluate the diffusion where the step starts, as in the books and torchsde.
const METHODS = Dict{String,Any}(
    "EM" => ito -> EM(false), "EulerHeun" => ito -> EulerHeun(),
    "RKMil" => ito -> RKMil(; interpretation=interpretation(ito)),
    "LambaEulerHeun" => ito -> LambaEulerHeun(),
    "SRIW1" => ito -> SRIW1(), "SRIW2" => ito -> SRIW2(), "SOSRI" => ito -> SOSRI(),
    "SOSRI2" => ito -> SOSRI2(), "SRA1" => ito -> SRA1(), "SRA2" => ito -> SRA2(),
    "SRA3" => ito -> SRA3(), "SOSRA" => ito -> SOSRA(), "SOSRA2" => ito -> SOSRA2(),
)
const Interpretation = SciMLBase.AlgorithmInterpretation
interpretation(ito::Bool) = ito ? Interpretation.Ito : Interpretation.Stratonovich

function problem(sde::SDE{T}, u0, span, noise) where {T}
    f = SDEFunction{true,SciMLBase.FullSpecialize}(sde.drift, sde.diffusion)
    (; batch, noises) = sde
    blocks() = Blocks{T}(zeros(T, length(u0) * noises), length(u0) ÷ batch, noises)
    prototype = noises == 0 ? nothing : blocks()
    return SDEProblem{true}(f, u0, span, nothing; noise, noise_rate_prototype=prototype)
end

# Those whose derivatives are taken.
coefficients(sde::SDE) = (sde.drift, something(sde.product, sde.diffusion))

"""
    Steps{T}

The steps that were taken: the states at their starts, and at the last end.
"""
struct Steps{T}
    sde::SDE{T}
    constants::Vector{Vector{T}}
    method::String
    ito::Bool
    t::Vector{Float64}
    W::Matrix{T}
    states::Vector{Vector{T}}
end

"""
    solve_fixed(sde, method, ito, u0, t, W, Z, places, out, info, keep)

Solve by the steps between the times `t`, with the increments `W` and `Z` of these steps, one after
the other. The states at the steps `places`, counted from 0, go into `out`; `info` gets 1 for success,
the time reached, and the count of steps. Returns the [`Steps`](@ref), where they are to be kept.
"""
function solve_fixed(sde::SDE{T}, method, ito, u0, t, W, Z, places, out, info, keep) where {T}
    Pyjlode.collect_when_due()
    u0, t, out, info = copy(vector(u0)), copy(vector(t)), vector(out), vector(info)
    steps = length(t) - 1
    W, Z = reshape(vector(W), :, steps), reshape(vector(Z), size(vector(W), 1) ÷ steps, :)
    stops = t[vector(places) .+ 1]
    kept = Bool(keep)
    integrator = init(
        problem(sde, u0, (t[1], t[end]), Increments(t, W, Z)), METHODS[String(method)](Bool(ito));
        dt=2 * maximum(diff(t)), adaptive=false, tstops=t[2:end], save_everystep=kept,
        saveat=kept ? Float64[] : stops, save_start=true, save_end=true, dense=false,
        verbose=Pyjlode.QUIET, save_noise=false,
    )
    solution = beside_python(() -> solve!(integrator), sde.drift.model, sde.diffusion.model)
    success = report!(info, solution, integrator)
    success || return nothing
    at = kept ? vector(places) .+ 1 : eachindex(stops)
    length(solution.u) == (kept ? steps + 1 : length(stops)) ||
        error("$(length(solution.u)) states were saved")
    for (i, k) in enumerate(at)
        copyto!(out, (i - 1) * length(u0) + 1, solution.u[k], 1, length(u0))
    end
    kept || return nothing
    constants = [copy(c.model.constants) for c in coefficients(sde)]
    return Steps{T}(sde, constants, String(method), Bool(ito), t, W, solution.u)
end

function report!(info, solution, integrator)
    success = successful_retcode(solution) && all(isfinite, integrator.u)
    info[1] = success
    info[2] = integrator.t
    info[3] = integrator.stats.naccept
    info[4] = integrator.stats.nreject
    return success
end

"""
    solve_adaptive(sde, method, ito, u0, ts, seed, rtol, atol, dt, dtmin, maxiters, out, info)

Solve by steps that the method chooses. Returns the return code, and the times of the steps and the
Brownian motion at them.
"""
function solve_adaptive(
    sde::SDE{T}, method, ito, u0, ts, seed, rtol, atol, dt, dtmin, maxiters, out, info
) where {T}
    Pyjlode.collect_when_due()
    u0, ts, out, info = copy(vector(u0)), copy(vector(ts)), vector(out), vector(info)
    motions = sde.noises == 0 ? length(u0) : sde.batch * sde.noises
    noise = Drawn{T}(ts[1], motions, seed)
    integrator = init(
        problem(sde, u0, (ts[1], ts[end]), noise), METHODS[String(method)](Bool(ito));
        dt=Float64(dt), dtmin=Float64(dtmin), adaptive=true, tstops=ts[2:end], saveat=ts,
        save_everystep=false, dense=false, reltol=T(rtol), abstol=T(atol),
        maxiters=Int(maxiters), verbose=Pyjlode.QUIET, save_noise=false,
    )
    solution = beside_python(() -> solve!(integrator), sde.drift.model, sde.diffusion.model)
    if report!(info, solution, integrator)
        length(solution.u) == length(ts) || error("$(length(solution.u)) states were saved")
        for i in eachindex(ts)
            copyto!(out, (i - 1) * length(u0) + 1, solution.u[i], 1, length(u0))
        end
    end
    W = [first(noise.known[i]) for i in noise.steps]
    return string(solution.retcode), noise.t[noise.steps], reduce(hcat, W)
end
