"""
Compiles, when it is installed, what the first solve with VCABM would.
"""
module PyjlodeAdamsExt

using OrdinaryDiffEqAdamsBashforthMoulton: OrdinaryDiffEqAdamsBashforthMoulton
using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: exercise_loaded

@setup_workload begin
    @compile_workload begin
        for T in (Float64, Float32)
            exercise_loaded("VCABM", "OrdinaryDiffEqAdamsBashforthMoulton", (); T)
        end
    end
end

end
