"""
Compiles, when it is installed, what the first solve and gradient with DP8, torchdiffeq's dopri8,
would.
"""
module PyjlodeHighOrderRKExt

using OrdinaryDiffEqHighOrderRK: OrdinaryDiffEqHighOrderRK
using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: exercise_loaded

@setup_workload begin
    @compile_workload begin
        for T in (Float64, Float32)
            exercise_loaded(
                "DP8", "OrdinaryDiffEqHighOrderRK", ("discrete",); T, interpolates=true
            )
        end
    end
end

end
