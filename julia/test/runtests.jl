using Pyjlode
using Test

@testset "Pyjlode" begin
    include("elementary.jl")
    include("matmul.jl")
    include("convolution.jl")
    include("linalg.jl")
    include("solve.jl")
end
