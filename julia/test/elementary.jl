using Pyjlode: sigmoid, verf, vexp, vexpm1, vlog, vlog1p, vtanh
using Pyjlode: gelu, gelu_tanh, npow, nmax, nmin, nmod, nsqrt

function exact_erf(x::BigFloat)
    y = BigFloat()
    ccall((:mpfr_erf, :libmpfr), Int32, (Ref{BigFloat}, Ref{BigFloat}, Int32), y, x, 0)
    return y
end

# In units in the last place of the exact value; of what is no number, whether it is the same.
function error_in_ulps(found::T, exact::BigFloat) where {T}
    expected = T(exact)
    isfinite(expected) || return isequal(found, expected) ? 0.0 : Inf
    return Float64(abs(found - exact) / eps(expected))
end

# Everywhere from `low` to `high`, and at every magnitude down to the subnormal ones.
function samples(::Type{T}, low, high) where {T}
    small = exp10.(range(1.04 * log10(floatmin(T)), log10(max(-low, high)); length=4_001))
    everywhere = [range(low, high; length=20_001); small; -small]
    return T.(filter(x -> low <= x <= high, everywhere))
end

# Each over all that does not overflow or vanish, with a little beyond.
ranges(::Type{Float64}) = (760, 720, 60, 1e300)
ranges(::Type{Float32}) = (110, 92, 25, 1e37)

@testset "elementary functions" begin
    @testset "to 3 units in the last place, $T" for T in (Float32, Float64)
        vanishing, overflowing, saturating, large = ranges(T)
        for (f, exact, low, high) in (
            (vexp, exp, -vanishing, overflowing), (vexpm1, expm1, -saturating, overflowing),
            (vtanh, tanh, -saturating, saturating), (verf, exact_erf, -7, 7),
            (sigmoid, x -> 1 / (1 + exp(-x)), -vanishing, vanishing), (vlog, log, 0, large),
            (vlog, log, 0.5, 2), (vlog1p, log1p, -1, large), (vlog1p, log1p, -0.5, 1),
        )
            worst = setprecision(160) do
                maximum(x -> error_in_ulps(f(x), exact(big(x))), samples(T, low, high))
            end
            @test worst < 3
        end
    end

    @testset "edges, $T" for T in (Float32, Float64)
        large, tiny = floatmax(T), nextfloat(zero(T))
        @test all(f -> isnan(f(T(NaN))), (vexp, vexpm1, vtanh, verf, sigmoid, vlog, vlog1p))
        for (f, exact) in ((vexp, exp), (vexpm1, expm1), (vtanh, tanh), (vlog1p, log1p))
            points = T[0.0, -0.0, Inf, large, tiny]
            f === vlog1p || append!(points, T[-Inf, -large])
            @test isequal(f.(points), exact.(points))
        end
        @test isequal(verf.(T[0.0, -0.0, Inf, -Inf, large, -large]), T[0.0, -0.0, 1, -1, 1, -1])
        @test isequal(vlog.(T[0.0, -0.0, Inf, 1]), T[-Inf, -Inf, Inf, 0])
        @test isnan(vlog(-tiny)) && isnan(vlog(T(-Inf))) && vlog(tiny) ≈ log(tiny)
        @test vlog1p(T(-1)) == -Inf && isnan(vlog1p(T(-2))) && isnan(vlog1p(T(-Inf)))
        @test sigmoid.(T[-Inf, -large, -1000, 0, 1000, Inf]) == T[0, 0, 0, 0.5, 1, 1]
    end

    @testset "gelu, $T" for T in (Float32, Float64)
        for x in T.(-6:0.37:6)
            exact = big(x) * (1 + exact_erf(big(x) / sqrt(big(2)))) / 2
            @test gelu(x) ≈ exact atol = 8eps(T)
            inner = sqrt(2 / big(pi)) * (x + big(x)^3 * big"0.044715")
            @test gelu_tanh(x) ≈ x * (1 + tanh(inner)) / 2 atol = 8eps(T)
        end
    end

    @testset "NaN outside the domain, $T" for T in (Float32, Float64)
        @test isnan(nsqrt(T(-1)))
        @test isnan(npow(T(-2), T(0.5)))
        @test npow(T(-2), T(3)) == -8
        @test isnan(nmax(T(NaN), T(1))) && isnan(nmax(T(1), T(NaN)))
        @test isnan(nmin(T(NaN), T(1))) && isnan(nmin(T(1), T(NaN)))
        @test nmod(T(-1), T(3)) == 2
    end
end
