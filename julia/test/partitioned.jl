using Pyjlode: load, partitioned_tableau

@testset "tableaus of partitioned methods" begin
    load("VerletLeapfrog", "OrdinaryDiffEqSymplecticRK", "Tsit5", false)
    leapfrog = partitioned_tableau("VerletLeapfrog")
    @test leapfrog.kick == [true, false, true]
    @test leapfrog.q == [[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, 0]]
    @test leapfrog.p == [[0, 0, 0], [0.5, 0, 0], [0.5, 0, 0], [0.5, 0, 0.5]]
    @test leapfrog.c == [0, 0.5, 1, 1]
    load("VelocityVerlet", "OrdinaryDiffEqSymplecticRK", "Tsit5", false)
    verlet = partitioned_tableau("VelocityVerlet")
    @test verlet.kick == [true, true]
    @test verlet.α == [0, 1, 1]
    @test verlet.q == [[0, 0], [0.5, 0], [0.5, 0]]
    @test verlet.p[end] == [0.5, 0.5]
    @test verlet.s == 2
end
