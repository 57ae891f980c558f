using Pyjlode
using SciMLSensitivity: SciMLSensitivity
using Test

@testset "Pyjlode" begin
    include("elementary.jl")
    include("matmul.jl")
    include("rows.jl")
    include("pattern.jl")
    include("mass.jl")
    include("convolution.jl")
    include("linalg.jl")
    include("indexing.jl")
    include("solve.jl")
    include("discrete.jl")
    include("independent.jl")
    include("discrete_implicit.jl")
    include("events.jl")
    include("partitioned.jl")
    include("stochastic.jl")
    include("delay.jl")
end
