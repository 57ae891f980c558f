# Tableaus of the implicit one-step methods, from OrdinaryDiffEq's own.

abstract type ImplicitTableau end

"""
    RosenbrockTableau

What one step of a Rosenbrock method computes, from `u` at time `t`, with `J = ∂f/∂u` there:

    (M / (γ dt) - J) kᵢ = f(u + Σⱼ aᵢⱼ kⱼ, t + cᵢ dt) + M Σⱼ Cᵢⱼ kⱼ / dt + dᵢ dt ∂f/∂t,
    u₁ = u + Σᵢ bᵢ kᵢ,    u(t + θ dt) = u + Σᵢ wᵢ(θ) kᵢ,    wᵢ(θ) = Σⱼ weightsᵢ[j] θʲ

with the mass matrix `M`, or the identity (Hairer and Wanner, Solving Ordinary Differential
Equations II, IV.7, equations 7.25 and, for `M`, VI.3).
"""
struct RosenbrockTableau <: ImplicitTableau
    a::Vector{Vector{Float64}}
    C::Vector{Vector{Float64}}
    b::Vector{Float64}
    c::Vector{Float64}
    d::Vector{Float64}
    γ::Float64
    weights::Vector{Vector{Float64}}
end

"""
    SDIRKTableau

What one step of a singly diagonally implicit Runge-Kutta method with an explicit first stage
computes, from `u` at time `t`:

    k₁ = dt f(u, t),    kᵢ = dt f(u + Σⱼ aᵢⱼ kⱼ + γ kᵢ, t + cᵢ dt),    u₁ = u + Σᵢ bᵢ kᵢ

and between the steps Hermite's cubic polynomial, with `weights` as in [`RosenbrockTableau`](@ref)
(Kennedy and Carpenter, Diagonally implicit Runge-Kutta methods, 2016).
"""
struct SDIRKTableau <: ImplicitTableau
    a::Vector{Vector{Float64}}
    b::Vector{Float64}
    c::Vector{Float64}
    γ::Float64
    weights::Vector{Vector{Float64}}
end

Base.length(tableau::ImplicitTableau) = length(tableau.c)

const ROSENBROCK = ("Rosenbrock23", "Rodas4", "Rodas5P")

const IMPLICIT_TABLEAUS = Dict{String,ImplicitTableau}()

implicit_tableau(method::String) =
    get!(() -> read_implicit_tableau(method), IMPLICIT_TABLEAUS, method)

function read_implicit_tableau(method::String)
    # Shampine and Reichelt's form of the method differs: kᵢ is k₁ and then k₂ - k₁ of theirs, each
    # times γ dt.
    method == "Rosenbrock23" && return shampine_reichelt()
    method in ROSENBROCK || return sdirk_tableau(IMPLICIT[method]())
    (; A, C, b, c, d, gamma, H) =
        OrdinaryDiffEqRosenbrock.tabtype(IMPLICIT[method]())(Float64, Float64)
    # u(θ) = (1 - θ) u + θ (u₁ + (1 - θ) Σᵢ (H₁ᵢ + θ H₂ᵢ + ...) kᵢ)
    weights = [[H[:, i]; 0.0] - [-b[i]; H[:, i]] for i in axes(H, 2)]
    return RosenbrockTableau(rows(A), rows(C), b, c, d, gamma, weights)
end

rows(matrix) = [Vector{Float64}(row) for row in eachrow(matrix)]

function shampine_reichelt()
    γ = 1 / (2 + sqrt(2))
    return RosenbrockTableau(
        [[0.0, 0.0], [1 / 2γ, 0.0]], [[0.0, 0.0], [-1 / γ, 0.0]], [1 / γ, 1 / γ], [0.0, 0.5],
        [γ, 0.0], γ, [[1 / γ, 0.0], [-2 / (1 - 2γ), 1 / (γ * (1 - 2γ))]],
    )
end

function sdirk_tableau(method)
    read = getglobal(parentmodule(typeof(method)), :ESDIRKIMEXTableau)
    (; Ai, bi, s) = read(method, Float64, Float64)
    a, γ, c = rows(Ai), Ai[s, s], abscissae(Ai)
    for i in 1:s
        a[i][i:end] .= 0
    end
    weights = [bi[i] * [0.0, 3.0, -2.0] for i in 1:s]
    weights[1] += [1.0, -2.0, 1.0]
    weights[s] += [0.0, -1.0, 1.0]
    return SDIRKTableau(a, bi, c, γ, weights)
end

# The times of the stages within a step: each row's sum, whatever the method (Hairer, Nørsett and
# Wanner, Solving Ordinary Differential Equations I, II.1.9).
abscissae(a) = vec(sum(a; dims=2))

"""
    started(problem, method; options...)

An integrator, as `init` makes it, with the times of an SDIRK method's stages, and its derivative at
a step's end, as they should be.

OrdinaryDiffEqSDIRK 2.7.1 has other times for Kvaerno3, Kvaerno4, Kvaerno5 (γ for 2γ in the second
stage), SSPSDIRK2 and ESDIRK547L2SA2. Of an equation that depends on time these have order 1 so, and
Kvaerno5 order 3; of one that does not, their own. The derivative, between steps that Hermite's
interpolation needs, it has at the step's start for SDIRK2 and SSPSDIRK2.
"""
function started(problem, method; options...)
    integrator = init(problem, method; options...)
    correct_tableau!(integrator.cache)
    return integrator
end

function correct_tableau!(cache)
    if hasproperty(cache, :caches) # of a method that switches
        foreach(correct_tableau!, cache.caches)
    elseif hasproperty(cache, :tab) && hasproperty(cache.tab, :Ai)
        (; Ai, c, stiffly_accurate) = cache.tab
        right = abscissae(Ai)
        # The others' differ by rounding.
        maximum(abs, right - c) > 1e-6 && copyto!(c, right)
        stiffly_accurate || (cache.tab = with_end_derivative(cache.tab))
    end
    return nothing
end

function with_end_derivative(tab::T) where {T}
    changed = (; explicit_fsallast=true, fsallast_c=1)
    return T((get(changed, name, getfield(tab, name)) for name in fieldnames(T))...)
end
