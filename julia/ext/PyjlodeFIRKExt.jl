"""
Compiles, when it is installed, what the first solve with RadauIIA5 would.
"""
module PyjlodeFIRKExt

using OrdinaryDiffEqFIRK: OrdinaryDiffEqFIRK
using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: exercise_loaded

@setup_workload begin
    @compile_workload begin
        for T in (Float64, Float32)
            exercise_loaded("RadauIIA5", "OrdinaryDiffEqFIRK", (); T)
        end
    end
end

end
