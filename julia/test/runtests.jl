using Pyjlode
using Test

@testset "Pyjlode" begin
    include("elementary.jl")
    include("matmul.jl")
    include("pattern.jl")
    include("convolution.jl")
    include("linalg.jl")
    include("indexing.jl")
    include("solve.jl")
    include("discrete.jl")
    include("events.jl")
end
