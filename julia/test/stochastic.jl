using LinearAlgebra: mul!, norm

for (name, uuid) in (
    "DiffEqNoiseProcess" => "77a26b50-5914-5dd7-bc55-306e6241c503",
    "StochasticDiffEqHighOrder" => "0520c28c-50fd-4d16-9c96-902fc80b3bab",
    "StochasticDiffEqLowOrder" => "d15fe365-ce7f-450a-828a-7985bd5b681b",
)
    Base.require(Base.PkgId(Base.UUID(uuid), name))
end
const Stochastic = Base.get_extension(Pyjlode, :PyjlodeStochasticExt)

@testset "a matrix of blocks is the matrix" begin
    A = Stochastic.Blocks{Float64}(randn(2 * 3 * 4), 2, 3) # four of 2 by 3
    full, x, y = Matrix(A), randn(12), randn(8)
    @test size(A) == (8, 12)
    @test full[3:4, 4:6] == reshape(A.data[7:12], 2, 3)
    @test all(iszero, full[1:2, 4:12])
    @test mul!(similar(y), A, x) ≈ full * x
    @test mul!(copy(y), A, x, 2, 3) ≈ 2 * full * x + 3 * y
    @test norm(A, 2) ≈ norm(full)
    @test size(zero(A)) == size(A) && all(iszero, zero(A))
    B = copy(A)
    B .= 0.5 .* (A .- 3 .* B)
    @test Matrix(B) ≈ -full
    A[2, 3] = 7
    @test A[2, 3] == 7
    @test_throws ErrorException A[1, 12] = 1.0
    @test_throws DimensionMismatch mul!(y, A, y)
end

@testset "other steps than the noise has stop the solve" begin
    f = Pyjlode.example(Float64, 2)
    equation = Stochastic.sde(f, [-1.0], f, [-1.0], nothing, nothing, 2, 0)
    noise = Stochastic.Increments([0.0, 0.1, 0.2], randn(2, 2), zeros(2, 0))
    problem = Stochastic.problem(equation, ones(2), (0.0, 0.2), noise)
    @test_throws "where the noise has one of" Stochastic.solve!(
        Stochastic.init(problem, Stochastic.EM(false); dt=0.05, adaptive=false)
    )
end

@testset "steps that were tried with other lengths before have Brownian increments" begin
    Noise = Stochastic.DiffEqNoiseProcess
    noise = Stochastic.Drawn{Float64}(0.0, 2, 1)
    noise.dt = 0.1
    Noise.setup_next_step!(noise, nothing, nothing)
    increments = Vector{Float64}[]
    for k in 1:20_000
        # Rejected again and again, in every third step: shorter, and longer than known motion.
        lengths = k % 3 == 0 ? (0.1, 0.05, 0.02, 0.07, 0.11, 0.04) : (0.1,)
        for dt in lengths
            Noise.reject_step!(noise, dt, nothing, nothing)
        end
        push!(increments, [noise.dW; noise.dZ] ./ sqrt(lengths[end]))
        Noise.accept_step!(noise, 0.1, nothing, nothing)
    end
    X = reduce(hcat, increments)
    n = size(X, 2)
    @test all(abs.(sum(X; dims=2) ./ n) .< 4 / sqrt(n))
    @test all(abs.(sum(abs2, X; dims=2) ./ n .- 1) .< 4 * sqrt(2 / n))
    @test all(abs.(sum(X .^ 4; dims=2) ./ n .- 3) .< 4 * sqrt(96 / n))
    @test all(abs.(sum(X[:, 2:end] .* X[:, 1:(end - 1)]; dims=2) ./ n) .< 4 / sqrt(n))
    @test abs(sum(X[1, :] .* X[3, :]) / n) < 4 / sqrt(n)
    last = noise.known[noise.steps[end]][1]
    @test noise.curW ≈ last
end
