using Pyjlode: vtanh, sigmoid, erf, npow, nmax, nmin, nlog, nsqrt, nmod

@testset "elementary functions" begin
    @testset "tanh to 4 units in the last place, $T" for T in (Float32, Float64)
        worst = 0.0
        for x in Iterators.flatten((range(-25, 25; length=20_001), exp10.(range(-30, 1, 2_001))))
            y = T(x)
            exact = tanh(big(y))
            worst = max(worst, Float64(abs(vtanh(y) - exact) / eps(max(abs(T(exact)), floatmin(T)))))
        end
        @test worst < 4
        @test vtanh(T(Inf)) == 1
        @test vtanh(T(-Inf)) == -1
        @test isnan(vtanh(T(NaN)))
        @test vtanh(T(0)) == 0
    end

    @testset "sigmoid does not overflow, $T" for T in (Float32, Float64)
        @test sigmoid(T(-1000)) == 0
        @test sigmoid(T(1000)) == 1
        @test sigmoid(T(0.3)) ≈ 1 / (1 + exp(-T(0.3)))
    end

    @testset "NaN outside the domain, $T" for T in (Float32, Float64)
        @test isnan(nlog(T(-1)))
        @test isnan(nsqrt(T(-1)))
        @test isnan(npow(T(-2), T(0.5)))
        @test npow(T(-2), T(3)) == -8
        @test isnan(nmax(T(NaN), T(1))) && isnan(nmax(T(1), T(NaN)))
        @test isnan(nmin(T(NaN), T(1))) && isnan(nmin(T(1), T(NaN)))
        @test nmod(T(-1), T(3)) == 2
    end

    @test erf(0.5) ≈ 0.5204998778130465 rtol = 1e-15
    @test erf(0.5f0) ≈ 0.5205f0 rtol = 1e-6
end
