"""
Compiles, when it is installed, what the first solve and gradient with torchdiffeq's rk4 would.
"""
module PyjlodeExplicitRKExt

using OrdinaryDiffEqExplicitRK: OrdinaryDiffEqExplicitRK
using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: exercise_loaded

@setup_workload begin
    @compile_workload begin
        for T in (Float64, Float32)
            exercise_loaded("rk4", "OrdinaryDiffEqExplicitRK", ("discrete",); T, step=0.1)
        end
    end
end

end
