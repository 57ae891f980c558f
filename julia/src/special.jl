# Special functions that neither Julia nor LLVM's vector code has, and integers that are kept as
# floating point numbers.

"A floating point number towards zero, as conversion to an integer gives it; NaN beyond `limit`."
@inline function to_integer(x::T, limit::T) where {T<:AbstractFloat}
    return abs(x) <= limit ? trunc(x) : T(NaN)
end

"""
    exact(x, limit)

`x`, an integer that arithmetic made. Beyond `limit` neighbouring integers share a floating point
number, or torch's type would wrap around, and the result would be wrong in silence: that throws.
"""
@inline function exact(x::T, limit::T) where {T<:AbstractFloat}
    abs(x) > limit && throw_inexact(x, limit)
    return x
end
@noinline function throw_inexact(x, limit)
    throw(OverflowError("an integer in the dynamics, $x, is beyond the exact range of ±$limit"))
end

"The index of one of `n` elements, a negative one counted from the end; NaN if there is none."
@inline function bounded(x::T, n::T) where {T<:AbstractFloat}
    index = ifelse(x < 0, x + n, x)
    return ifelse((index >= 0) & (index < n), index, T(NaN))
end

"Apply an operation on 64-bit integers; NaN stays NaN."
@inline function on_integers(op::F, x::T, y::T) where {F,T<:AbstractFloat}
    (abs(x) < T(2)^62 && abs(y) < T(2)^62) || return T(NaN)
    return T(op(unsafe_trunc(Int, x), unsafe_trunc(Int, y)))
end
shift_left(x::Int, n::Int) = 0 <= n < 63 ? x << n : 0
shift_right(x::Int, n::Int) = n < 0 ? 0 : x >> min(n, 63)

"""
    floor_divide(x, y)

Python's `x // y`: the quotient that belongs to the remainder, which rounding `x / y` can miss.
"""
function floor_divide(x::T, y::T) where {T<:AbstractFloat}
    y == 0 && return x / y
    remainder = nrem(x, y)
    quotient = (x - remainder) / y
    if remainder != 0 && (y < 0) != (remainder < 0)
        quotient -= one(T)
    end
    quotient == 0 && return copysign(zero(T), x / y)
    below = floor(quotient)
    return quotient - below > T(0.5) ? below + one(T) : below
end

fmaximum(x::T, y::T) where {T<:AbstractFloat} = isnan(x) ? y : isnan(y) ? x : nmax(x, y)
fminimum(x::T, y::T) where {T<:AbstractFloat} = isnan(x) ? y : isnan(y) ? x : nmin(x, y)

function logaddexp(x::T, y::T) where {T<:AbstractFloat}
    low, high = nmin(x, y), nmax(x, y)
    return low != high || isfinite(low) ? vlog1p(vexp(low - high)) + high : x
end

function lgamma(x::Float64)
    sign = Ref{Cint}(0)
    return ccall((:lgamma_r, Base.libm_name), Float64, (Float64, Ref{Cint}), x, sign)
end
lgamma(x::Float32) = Float32(lgamma(Float64(x)))

"""
    digamma(x)

Derivative of `log Γ`: by the recurrence up to 10, then the asymptotic series; by reflection for
negative `x`.
"""
digamma(x::Float32) = Float32(digamma(Float64(x)))
function digamma(x::Float64)
    x == 0 && return copysign(Inf, -x)
    if x < 0
        x == trunc(x) && return NaN
        # The fraction alone, since the tangent of a large multiple of π loses its digits.
        return digamma(1 - x) - π / tan(π * (x - trunc(x)))
    end
    isinf(x) && return x
    shift = 0.0
    while x < 10
        shift -= 1 / x
        x += 1
    end
    z = 1 / (x * x)
    series = z * evalpoly(z, (1/12, -1/120, 1/252, -1/240, 1/132, -691/32760, 1/12))
    return shift + log(x) - 1 / (2x) - series
end

"""
    zeta(s, q)

Hurwitz's `Σ (q + k)^(-s)` by the Euler-Maclaurin formula, for `s > 1`.
"""
zeta(s::Float32, q::Float32) = Float32(zeta(Float64(s), Float64(q)))
function zeta(s::Float64, q::Float64)
    s == 1 && return Inf
    s < 1 && return NaN
    if q <= 0
        q == trunc(q) && return Inf
        (s != trunc(s) || q < -10_000) && return NaN
    end
    total = q^(-s)
    a = q
    while a <= 9
        a += 1
        total += a^(-s)
    end
    w = a^(-s)
    total += w * a / (s - 1) - w / 2
    factor, power = 1.0, 0.0
    for (j, coefficient) in enumerate(EULER_MACLAURIN)
        factor *= s + power
        w /= a
        total += factor * w * coefficient
        power += 1
        factor *= s + power
        w /= a
        power += 1
    end
    return total
end

# Bernoulli numbers over factorials, B_2k / (2k)!.
const EULER_MACLAURIN = (
    1/12, -1/720, 1/30240, -1/1209600, 1/47900160, -691/1307674368000, 1/74724249600,
    -3617/10670622842880000, 43867/5109094217170944000, -174611/802857662698291200000,
)

"The `n`-th derivative of digamma."
polygamma(n::Int, x::Float32) = Float32(polygamma(n, Float64(x)))
function polygamma(n::Int, x::Float64)
    n == 0 && return digamma(x)
    if n == 1 && x < 0.5 # by reflection: the series wants a positive argument
        s = sinpi(x)
        return s == 0 ? Inf : -trigamma(1 - x) + π^2 / (s * s)
    end
    n == 1 && return trigamma(x)
    return (isodd(n) ? 1 : -1) * exp(lgamma(n + 1.0)) * zeta(n + 1.0, x)
end
trigamma(x::Float64) = zeta(2.0, x)

"""
    erfinv(x)

Inverse error function: a rational approximation, then Newton steps to full precision.
"""
erfinv(x::Float32) = Float32(erfinv(Float64(x)))
function erfinv(x::Float64)
    abs(x) > 1 && return NaN
    abs(x) == 1 && return copysign(Inf, x)
    if abs(x) <= 0.7
        z = x * x
        a = evalpoly(z, (0.886226899, -1.645349621, 0.914624893, -0.140543331))
        b = evalpoly(z, (1.0, -2.118377725, 1.442710462, -0.329097515, 0.012229801))
        y = x * a / b
    else
        z = sqrt(-log((1 - abs(x)) / 2))
        a = evalpoly(z, (-1.970840454, -1.624906493, 3.429567803, 1.641345311))
        b = evalpoly(z, (1.0, 3.543889200, 1.637067800))
        y = copysign(a / b, x)
    end
    for _ in 1:2
        y -= (verf(y) - x) / (2 / sqrt(π) * exp(-y * y))
    end
    return y
end
