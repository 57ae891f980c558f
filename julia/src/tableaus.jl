# Butcher tableaus of the explicit methods, read off OrdinaryDiffEq's own steps.

"""
    Tableau

What one step of an explicit Runge-Kutta method computes, from `u` at time `t`:

    kᵢ = f(u + dt Σⱼ aᵢⱼ kⱼ, t + cᵢ dt),    u₁ = u + dt Σᵢ bᵢ kᵢ,
    u(t + θ dt) = u + dt Σᵢ wᵢ(θ) kᵢ,       wᵢ(θ) = Σⱼ weightsᵢ[j] θʲ

(Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I, II.1 and II.6).

# Fields
- `a`, `b`, `c`, `weights`: as above; `a[i]` is a row and `weights[i]` has no constant term
- `first`: the first stage that is evaluated within a step; 2 where `k₁` is the step before's
  `f(u₁)` ("first same as last"), else 1
- `stages`: the last stage that is evaluated within a step; those after it serve to interpolate
- `last`: the stage that is `f(u₁)`, or 0 where there is none
"""
struct Tableau
    a::Vector{Vector{Float64}}
    b::Vector{Float64}
    c::Vector{Float64}
    weights::Vector{Vector{Float64}}
    first::Int
    stages::Int
    last::Int
end

Base.length(tableau::Tableau) = length(tableau.c)

# More than any method evaluates in a step with its interpolation, and more than any of the
# polynomials' degrees.
const MOST_EVALUATIONS = 64
const MOST_DEGREE = 10

# An equation whose i-th evaluation gives the i-th unit vector, and which notes where it was
# evaluated. From u = 0 with dt = 1 a stage's argument is then its row of the tableau, exactly.
struct Probe <: Function
    arguments::Vector{Vector{Float64}}
    times::Vector{Float64}
end

function (f::Probe)(du, u, p, t)
    push!(f.arguments, copy(u))
    push!(f.times, t)
    fill!(du, 0)
    du[length(f.times)] = 1
    return nothing
end

"""
    read_tableau(method, adaptive)

The [`Tableau`](@ref) of an explicit method, from one step of OrdinaryDiffEq's own code. Error
estimates that evaluate the function again (RK4's) make stages that nothing else uses.
"""
function read_tableau(method, adaptive::Bool)
    probe = Probe(Vector{Float64}[], Float64[])
    problem = ODEProblem{true,SciMLBase.FullSpecialize}(
        probe, zeros(MOST_EVALUATIONS), (0.0, 4.0)
    )
    # At these tolerances the step is accepted, whatever it gives.
    integrator = init(problem, method; adaptive, dt=1.0, abstol=1e6, reltol=1e6, verbose=QUIET)
    before = length(probe.times)
    step!(integrator)
    integrator.t == 1 || throw(ErrorException("no tableau of $method: its step was rejected"))
    after = length(probe.times)
    u = copy(integrator.u)
    # Here methods that interpolate with further stages evaluate them.
    samples = [integrator(BigFloat(i) / MOST_DEGREE) for i in 0:MOST_DEGREE]
    # Without "first same as last" the step evaluates k₁ anew, where the start did.
    anew = iszero(probe.arguments[before + 1])
    used = (anew ? before + 1 : before):length(probe.times)
    stages = after - first(used) + 1
    a, b, c = [x[used] for x in probe.arguments[used]], u[used], probe.times[used]
    same = findfirst(i -> c[i] == 1 && a[i] == b, 1:stages)
    return Tableau(
        a, b, c, polynomials(samples)[used], anew ? 1 : 2, stages, something(same, 0)
    )
end

# Per component, the coefficients for the powers from 1 of the polynomial that has the values
# `samples[i + 1]` at i / MOST_DEGREE. The samples are exact in BigFloat for the coefficients of
# the method, so only BigFloat's rounding has to be taken off again.
function polynomials(samples)
    nodes = BigFloat.(0:MOST_DEGREE) ./ MOST_DEGREE
    powers = [x^j for x in nodes, j in 0:MOST_DEGREE]
    found = Float64.(powers \ permutedims(reduce(hcat, samples)))
    found[abs.(found) .< 1e-50] .= 0
    degree = findlast(row -> any(!iszero, row), collect(eachrow(found))) - 1
    return [found[2:(degree + 1), i] for i in axes(found, 2)]
end

"""
    weights!(w, tableau, θ)

The interpolation's weights at `θ`, and with `slopes!` their derivatives.
"""
function weights!(w, tableau, θ)
    for i in eachindex(w)
        w[i] = θ * evalpoly(θ, tableau.weights[i])
    end
    return w
end

function slopes!(w, tableau, θ)
    for i in eachindex(w)
        coefficients, slope = tableau.weights[i], 0.0
        for j in reverse(eachindex(coefficients))
            slope = muladd(slope, θ, j * coefficients[j])
        end
        w[i] = slope
    end
    return w
end

# By method, and whether its steps are adaptive: read when the package is precompiled.
const TABLEAUS = Dict{Tuple{String,Bool},Tableau}()

function tableau(method::String, adaptive::Bool)
    return get!(() -> read_tableau(algorithm(method), adaptive), TABLEAUS, (method, adaptive))
end
