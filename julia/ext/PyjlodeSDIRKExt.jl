"""
Compiles, when it is installed, what the first solve and gradient with an SDIRK method would.
"""
module PyjlodeSDIRKExt

using OrdinaryDiffEqSDIRK: OrdinaryDiffEqSDIRK
using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: exercise_loaded

@setup_workload begin
    @compile_workload begin
        exercise_loaded("TRBDF2", "OrdinaryDiffEqSDIRK")
        exercise_loaded("KenCarp4", "OrdinaryDiffEqSDIRK")
    end
end

end
