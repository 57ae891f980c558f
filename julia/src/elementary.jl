# Elementary functions of generated code. Julia's own throw outside their domain; torch's return
# NaN, and a solver recovers from NaN by taking a smaller step.

nsqrt(x::AbstractFloat) = Base.sqrt_llvm(x)
nlog(x::T) where {T<:AbstractFloat} = x < 0 ? T(NaN) : log(x)
nlog1p(x::T) where {T<:AbstractFloat} = x < -1 ? T(NaN) : log1p(x)
nlog2(x::T) where {T<:AbstractFloat} = x < 0 ? T(NaN) : log2(x)
nlog10(x::T) where {T<:AbstractFloat} = x < 0 ? T(NaN) : log10(x)
nsin(x::T) where {T<:AbstractFloat} = isinf(x) ? T(NaN) : sin(x)
ncos(x::T) where {T<:AbstractFloat} = isinf(x) ? T(NaN) : cos(x)
ntan(x::T) where {T<:AbstractFloat} = isinf(x) ? T(NaN) : tan(x)
nasin(x::T) where {T<:AbstractFloat} = abs(x) > 1 ? T(NaN) : asin(x)
nacos(x::T) where {T<:AbstractFloat} = abs(x) > 1 ? T(NaN) : acos(x)
nacosh(x::T) where {T<:AbstractFloat} = x < 1 ? T(NaN) : acosh(x)
natanh(x::T) where {T<:AbstractFloat} = abs(x) > 1 ? T(NaN) : atanh(x)

function npow(x::T, y::T) where {T<:AbstractFloat}
    return x < 0 && y != trunc(y) ? T(NaN) : x^y
end

nmax(x::T, y::T) where {T<:AbstractFloat} = ifelse((x > y) | (x != x), x, y)
nmin(x::T, y::T) where {T<:AbstractFloat} = ifelse((x < y) | (x != x), x, y)
nrem(x::T, y::T) where {T<:AbstractFloat} = isinf(x) || y == 0 ? T(NaN) : rem(x, y)
nmod(x::T, y::T) where {T<:AbstractFloat} = isinf(x) || y == 0 ? T(NaN) : mod(x, y)

relu(x::T) where {T<:AbstractFloat} = ifelse(x < 0, zero(T), x)

function sigmoid(x::T) where {T<:AbstractFloat}
    e = exp(-abs(x))
    return ifelse(x < 0, e, one(T)) / (one(T) + e)
end

erf(x::Float64) = ccall((:erf, Base.libm_name), Float64, (Float64,), x)
erf(x::Float32) = ccall((:erff, Base.libm_name), Float32, (Float32,), x)
erfc(x::Float64) = ccall((:erfc, Base.libm_name), Float64, (Float64,), x)
erfc(x::Float32) = ccall((:erfcf, Base.libm_name), Float32, (Float32,), x)

gelu(x::T) where {T<:AbstractFloat} = x * (one(T) + erf(x * T(sqrt(1 / 2)))) / 2

function gelu_tanh(x::T) where {T<:AbstractFloat}
    inner = T(sqrt(2 / pi)) * (x + T(0.044715) * x * x * x)
    return x * (one(T) + vtanh(inner)) / 2
end

"""
    vtanh(x)

Hyperbolic tangent without branches, so that LLVM vectorises a loop over it. With
`e = expm1(2|x|)`, `tanh|x| = e / (e + 2)`; `expm1` by reduction to `|r| ≤ log(2)/2` and a Taylor
polynomial, correct to a few units in the last place.
"""
@inline function vtanh(x::T) where {T<:Union{Float32,Float64}}
    magnitude = abs(x)
    y = 2 * ifelse(magnitude > T(20), T(20), magnitude)
    shifted = muladd(y, T(1.4426950408889634), _rounder(T))
    k = shifted - _rounder(T)
    r = muladd(k, -_ln2_high(T), y)
    r = muladd(k, -_ln2_low(T), r)
    scale = _power_of_two(shifted)
    e = muladd(scale, _expm1_polynomial(r), scale - one(T))
    return copysign(e / (e + 2), x)
end

# Adding 1.5 * 2^(mantissa bits) rounds to an integer and leaves it in the lowest bits.
_rounder(::Type{Float64}) = 6.755399441055744e15
_rounder(::Type{Float32}) = 1.2582912f7
_ln2_high(::Type{Float64}) = 0.6931471803691238
_ln2_low(::Type{Float64}) = 1.9082149292705877e-10
_ln2_high(::Type{Float32}) = 0.693359375f0
_ln2_low(::Type{Float32}) = -2.12194440f-4

@inline function _power_of_two(shifted::Float64)
    return reinterpret(Float64, (reinterpret(UInt64, shifted) + 0x3ff) << 52)
end
@inline function _power_of_two(shifted::Float32)
    return reinterpret(Float32, (reinterpret(UInt32, shifted) + 0x7f) << 23)
end

@inline function _expm1_polynomial(r::Float64)
    coefficients = ntuple(i -> 1 / factorial(i + 1), Val(12))
    return muladd(r * r, evalpoly(r, coefficients), r)
end
@inline function _expm1_polynomial(r::Float32)
    coefficients = ntuple(i -> Float32(1 / factorial(i + 1)), Val(6))
    return muladd(r * r, evalpoly(r, coefficients), r)
end
