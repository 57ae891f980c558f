using Pyjlode
using Test

@testset "Pyjlode" begin
    include("elementary.jl")
    include("matmul.jl")
    include("indexing.jl")
    include("solve.jl")
end
