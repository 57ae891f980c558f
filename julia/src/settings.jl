# How to solve.

"""
    Norm(f, parts)

How large an error is: what the Python function `f` says of the vector, or the largest root mean
square of some `parts` of it, or where there are none, that of all.
"""
struct Norm <: Function
    f::Union{Nothing,Py}
    parts::Vector{UnitRange{Int}}
end
Norm() = Norm(nothing, UnitRange{Int}[])
ranges(ends) = [a:b for (a, b) in eachcol(reshape(Vector{Int}(ends), 2, :))]

(norm::Norm)(x::Number, t) = abs(x)

function (norm::Norm)(x::AbstractVector{T}, t) where {T<:AbstractFloat}
    norm.f === nothing || return T(PythonCall.pyconvert(Float64, call_python(norm.f, x)))
    isempty(norm.parts) && return root_mean_square(x, eachindex(x))
    largest = zero(T)
    for part in norm.parts
        value = root_mean_square(x, part)
        isnan(value) && return value
        largest = max(largest, value)
    end
    return largest
end

function root_mean_square(x::AbstractVector{T}, part) where {T}
    total = zero(T)
    @inbounds @simd for i in part
        total += abs2(x[i])
    end
    return sqrt(total / max(length(part), 1))
end

"""
    Tolerances(values)

A tolerance of each component. Solvers divide by it component by component; where one asks for
a single number, as for a linear solve, which has none here that iterates, it gets the tightest.
"""
struct Tolerances <: AbstractVector{Float64}
    values::Vector{Float64}
end
Base.size(x::Tolerances) = size(x.values)
Base.IndexStyle(::Type{Tolerances}) = IndexLinear()
Base.@propagate_inbounds Base.getindex(x::Tolerances, i::Int) = x.values[i]
Base.convert(::Type{T}, x::Tolerances) where {T<:AbstractFloat} = T(minimum(x))
(::Type{T})(x::Tolerances) where {T<:AbstractFloat} = T(minimum(x))
Base.broadcasted(::typeof(real), x::Tolerances) = x # solvers take the real part of any tolerance
(norm::Norm)(x::Tolerances, t) = minimum(x)

const Tolerance = Union{Float64,Tolerances}

"""
    Settings

How to solve: `method` by name, tolerances (of all components or of each), the largest number of
steps, the step of a fixed-step method (0 for steps chosen by the error), and the first, smallest
and largest step, the safety factor and the largest and smallest ratio of a step to the one before
(0 for the method's own), and the norm of the error.
"""
struct Settings
    method::String
    rtol::Tolerance
    atol::Tolerance
    maxiters::Int
    dt::Float64
    fixed::Bool
    dtmin::Float64
    dtmax::Float64
    safety::Float64
    grow::Float64
    shrink::Float64
    norm::Norm
end

function Settings(method, rtol, atol, maxiters, dt, fixed, dtmin, dtmax)
    return Settings(
        method, rtol, atol, maxiters, dt, fixed, dtmin, dtmax, 0.0, 0.0, 0.0, Norm()
    )
end

"""
    settings(method, rtol, atol, maxiters, dt, fixed, dtmin, dtmax, safety, grow, shrink, norm, parts)

[`Settings`](@ref) as Python gives them: tolerances may be arrays, `norm` a function or `nothing`,
and `parts` are the first and last index of each part of the state.
"""
function settings(
    method, rtol, atol, maxiters, dt, fixed, dtmin, dtmax, safety, grow, shrink, norm, parts
)
    return Settings(
        method, tolerances(rtol, atol)..., maxiters, dt, fixed, dtmin, dtmax, safety, grow, shrink,
        Norm(norm, ranges(parts)),
    )
end

# Both of one kind: some methods have a number beside a vector in none of their equations.
tolerances(rtol::Number, atol::Number) = Float64(rtol), Float64(atol)
tolerances(rtol::Number, atol) = tolerances(fill(rtol, length(atol)), atol)
tolerances(rtol, atol::Number) = tolerances(rtol, fill(atol, length(rtol)))
tolerances(rtol, atol) = Tolerances(Vector{Float64}(rtol)), Tolerances(Vector{Float64}(atol))

# The settings of a solve by another method, which chooses its steps itself.
function with_method(s::Settings, method::String)
    method == s.method && return s
    return Settings(
        method, s.rtol, s.atol, s.maxiters, 0.0, false, s.dtmin, s.dtmax, s.safety, s.grow,
        s.shrink, s.norm,
    )
end

# A step that ends beyond what numbers can hold was too long. OrdinaryDiffEq would make the next one's
# length of its error, NaN, and give up: Robertson's problem overflows float32 in a first step of a
# length that float64 only rejects.
overflows(u, p, t) = !all(isfinite, u)

# Failures are told by the return code, as an exception in Python.
const QUIET = SciMLLogging.None()

function keywords(s::Settings, span::Float64)
    steps = (;
        reltol=s.rtol, abstol=s.atol, maxiters=s.maxiters, verbose=QUIET, internalnorm=s.norm,
        isoutofdomain=overflows,
    )
    s.dt > 0 && (steps = (; steps..., dt=s.dt))
    s.dtmin > 0 && (steps = (; steps..., dtmin=s.dtmin))
    s.dtmax > 0 && (steps = (; steps..., dtmax=s.dtmax))
    s.fixed && (steps = (; steps..., adaptive=false, dt=s.dt > 0 ? s.dt : span))
    return steps
end

# The controller's factors are set in the integrator: as an argument, a controller would be of
# another type, for which the solver would be compiled again.
function retune!(cache, s::Settings)
    s.safety == s.grow == s.shrink == 0 && return nothing
    if hasproperty(cache, :caches)
        foreach(c -> retune!(c, s), cache.caches)
    elseif hasproperty(cache, :controller) && hasproperty(cache.controller, :basic)
        cache.controller = retuned(cache.controller, s)
    end
    return nothing
end

function retuned(controller::C, s::Settings) where {C}
    (; basic) = controller
    changed = Dict(:gamma => s.safety, :qmax => s.grow, :qmax_first_step => s.grow, :qmin => s.shrink)
    values = map(fieldnames(typeof(basic))) do name
        value = get(changed, name, 0.0)
        value == 0 ? getfield(basic, name) : oftype(getfield(basic, name), value)
    end
    tuned = typeof(basic)(values...)
    return C((f === :basic ? tuned : getfield(controller, f) for f in fieldnames(C))...)
end
