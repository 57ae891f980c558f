# Elementary functions of generated code. Julia's own throw outside their domain; torch's return
# NaN, and a solver recovers from NaN by taking a smaller step.

nsqrt(x::AbstractFloat) = Base.sqrt_llvm(x)
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

erfc(x::Float64) = ccall((:erfc, Base.libm_name), Float64, (Float64,), x)
erfc(x::Float32) = ccall((:erfcf, Base.libm_name), Float32, (Float32,), x)

@inline gelu(x::T) where {T<:AbstractFloat} = x * (one(T) + verf(x * T(sqrt(1 / 2)))) / 2

@inline function gelu_tanh(x::T) where {T<:AbstractFloat}
    inner = T(sqrt(2 / pi)) * (x + T(0.044715) * x * x * x)
    return x * (one(T) + vtanh(inner)) / 2
end

# What follows has no branches, so that LLVM vectorises a loop over it. The polynomials interpolate
# at Chebyshev's nodes; the errors, up to 3 units in the last place, are those that the tests find.

const IEEE = Union{Float32,Float64}

"""
    reduce_exp(x) -> (p, shifted)

With `x = k log(2) + r` and `|r| ≤ log(2)/2`: `p = exp(r) - 1`, and `k` in the lowest bits of
`shifted`.
"""
@inline function reduce_exp(x::T) where {T<:IEEE}
    shifted = muladd(x, T(1.4426950408889634), rounder(T))
    k = shifted - rounder(T)
    r = muladd(k, -ln2_high(T), x)
    r = muladd(k, -ln2_low(T), r)
    return muladd(r * r, evalpoly(r, expm1_terms(T)), r), shifted
end

# Adding 1.5 * 2^(mantissa bits) rounds to an integer and leaves it in the lowest bits.
rounder(::Type{Float64}) = 6.755399441055744e15
rounder(::Type{Float32}) = 1.2582912f7
ln2_high(::Type{Float64}) = 0.6931471803691238
ln2_low(::Type{Float64}) = 1.9082149292705877e-10
ln2_high(::Type{Float32}) = 0.693359375f0
ln2_low(::Type{Float32}) = -2.12194440f-4

# (exp(r) - 1 - r) / r²
expm1_terms(::Type{Float64}) = (
    0.5000000000000001, 0.16666666666666669, 0.04166666666662413, 0.008333333333330062,
    0.0013888888917213717, 0.00019841269863053618, 2.4801521295954376e-5, 2.7557268459997064e-6,
    2.7620088445409746e-7, 2.510038549551032e-8,
)
expm1_terms(::Type{Float32}) =
    (0.5f0, 0.16666667f0, 0.041666467f0, 0.0083333105f0, 0.001393365f0, 0.00019890991f0)

# 2^(k + shift), of `k` in the lowest bits of `shifted`.
@inline function power_of_two(shifted::Float64, shift::Int=0)
    return reinterpret(Float64, (reinterpret(UInt64, shifted) + (0x3ff + shift) % UInt64) << 52)
end
@inline function power_of_two(shifted::Float32, shift::Int=0)
    return reinterpret(Float32, (reinterpret(UInt32, shifted) + (0x7f + shift) % UInt32) << 23)
end

# Beyond these exp is infinite or zero.
exp_high(::Type{Float64}) = 710.0
exp_low(::Type{Float64}) = -746.0
exp_high(::Type{Float32}) = 89.0f0
exp_low(::Type{Float32}) = -104.0f0

@inline within(x::T, low::T, high::T) where {T<:IEEE} =
    ifelse(x > high, high, ifelse(x < low, low, x))

"""
    vexp(x)

The exponential function without branches.
"""
@inline function vexp(x::T) where {T<:IEEE}
    p, shifted = reduce_exp(within(x, exp_low(T), exp_high(T)))
    # 2^k in two factors, of which each is a number: also where the result overflows or is subnormal.
    half = T(0.5) * (shifted - rounder(T)) + rounder(T)
    first = power_of_two(half)
    second = power_of_two(shifted - (half - rounder(T)))
    return muladd(p, first, first) * second
end

"""
    vexpm1(x)

`exp(x) - 1` without branches.
"""
@inline function vexpm1(x::T) where {T<:IEEE}
    p, shifted = reduce_exp(within(x, T(-50), exp_high(T)))
    # Half of it, as 2^k can be too large for a number where the result is none yet.
    scale = power_of_two(shifted, -1)
    y = copysign(2 * muladd(scale, p, scale - T(0.5)), x)
    return ifelse(abs(x) < floatmin(T), x, y)
end

"""
    vtanh(x)

Hyperbolic tangent without branches: with `e = expm1(2|x|)`, `tanh|x| = e / (e + 2)`.
"""
@inline function vtanh(x::T) where {T<:IEEE}
    magnitude = abs(x)
    p, shifted = reduce_exp(2 * ifelse(magnitude > T(20), T(20), magnitude))
    scale = power_of_two(shifted)
    e = muladd(scale, p, scale - one(T))
    return copysign(e / (e + 2), x)
end

@inline function sigmoid(x::T) where {T<:IEEE}
    e = vexp(-abs(x))
    return ifelse(x < 0, e, one(T)) / (one(T) + e)
end

"""
    vlog(x)

The natural logarithm without branches, NaN below zero. With `x = 2^k m`, `√½ ≤ m < √2`, and
`s = (m - 1) / (m + 1)`: `log(m) = 2 atanh(s)`.
"""
@inline function vlog(x::T) where {T<:IEEE}
    k, m = split_exponent(x)
    f = m - one(T)
    s = f / (T(2) + f)
    z = s * s
    half_square = T(0.5) * f * f
    # 2 atanh(s) = f - f²/2 + s (f²/2 + R), where nothing large cancels.
    R = z * evalpoly(z, log_terms(T))
    y = k * ln2_high(T) - ((half_square - muladd(s, half_square + R, k * ln2_low(T))) - f)
    return at_edges(y, x)
end

@inline at_edges(y::T, x::T) where {T} =
    ifelse(x > 0, ifelse(x == T(Inf), x, y), ifelse(x == 0, T(-Inf), T(NaN)))

# (2 atanh(s) / s - 2) / s² of s².
log_terms(::Type{Float64}) = (
    0.666666666666667, 0.3999999999989889, 0.28571428626253836, 0.22222211089379496,
    0.1818289243253687, 0.15331611722055008, 0.14617807153417325,
)
log_terms(::Type{Float32}) = (0.66666687f0, 0.3998876f0, 0.29580986f0)

# The exponent as a number, and what is left of x, between √½ and √2.
@inline function split_exponent(x::Float64)
    small = x < floatmin(Float64)
    bits = reinterpret(UInt64, ifelse(small, x * 0x1p54, x)) + 0x00095f619980c433
    k = reinterpret(Float64, (bits >> 52) | 0x4330000000000000) - (0x1p52 + 1023)
    m = reinterpret(Float64, (bits & 0x000fffffffffffff) + 0x3fe6a09e667f3bcd)
    return ifelse(small, k - 54, k), m
end
@inline function split_exponent(x::Float32)
    small = x < floatmin(Float32)
    bits = reinterpret(UInt32, ifelse(small, x * 3.3554432f7, x)) + 0x004afb0d
    k = reinterpret(Float32, (bits >> 23) | 0x4b000000) - (8.388608f6 + 127)
    m = reinterpret(Float32, (bits & 0x007fffff) + 0x3f3504f3)
    return ifelse(small, k - 25, k), m
end

"""
    vlog1p(x)

`log(1 + x)` without branches, NaN below -1: `log(u)` of the rounded `u = 1 + x`, and the first
order of what was rounded away.
"""
@inline function vlog1p(x::T) where {T<:IEEE}
    u = one(T) + x
    y = vlog(u) + (x - (u - one(T))) / u
    return ifelse(u > 0, ifelse(u == T(Inf), u, copysign(y, x)), vlog(u))
end

"""
    verf(x)

The error function without branches: a polynomial in `x²` up to 1, and `1 - exp(-x²) q(x)` beyond,
with `q` a polynomial in the part of `1 / (x + shift)`.
"""
@inline function verf(x::T) where {T<:IEEE}
    magnitude = abs(x)
    small = x * evalpoly(x * x, erf_terms(T))
    # From `erf_high` on it is one, to rounding.
    a = ifelse(magnitude > erf_high(T), erf_high(T), magnitude)
    shift, scale, middle = erfc_variable(T)
    q = evalpoly(muladd(inv(a + shift), scale, -middle), erfc_terms(T))
    p, shifted = reduce_exp(-a * a)
    e = power_of_two(shifted)
    large = copysign(one(T) - muladd(p, e, e) * q, x)
    return ifelse(magnitude < 1, small, large)
end

erf_high(::Type{Float64}) = 6.0
erf_high(::Type{Float32}) = 4.0f0

# erf(x) / x of x².
erf_terms(::Type{Float64}) = (
    1.1283791670955126, -0.3761263890318375, 0.11283791670954879, -0.026866170645076792,
    0.0052239776248180145, -0.000854832698083379, 0.0001205533111164271, -1.4925595266831182e-5,
    1.6461000484121368e-6, -1.6350312701054695e-7, 1.4659775274047436e-8, -1.1372848856791674e-9,
    5.957176147748911e-11,
)
erf_terms(::Type{Float32}) = (
    1.1283791f0, -0.37612626f0, 0.11283594f0, -0.026854211f0, 0.0051890872f0, -0.00080168643f0,
    7.875875f-5,
)

# exp(x²) erfc(x) between 1 and `erf_high`, of `scale / (x + shift) - middle`, which is in -1 to 1.
erfc_variable(::Type{Float64}) = (3.0, 14.4, 2.6)
erfc_variable(::Type{Float32}) = (2.0f0, 12.0f0, 3.0f0)
erfc_terms(::Type{Float64}) = (
    0.20798329133342885, 0.1543611742943884, 0.04969844540337519, 0.012713147695154319,
    0.002479314697621816, 0.0003316029648787869, 1.956357890341004e-5, -2.4255722204589493e-6,
    -5.541125759609552e-7, 4.551277377948179e-9, 1.1314775811683065e-8, 2.441573684390086e-10,
    -2.3735789163210345e-10,
)
erfc_terms(::Type{Float32}) = (
    0.25539565f0, 0.1423953f0, 0.026851559f0, 0.002924887f0, 4.4353616f-5, -2.8137183f-5,
)
