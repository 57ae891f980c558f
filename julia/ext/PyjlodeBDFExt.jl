"""
Compiles, when it is installed, what the first solve with a BDF method would.
"""
module PyjlodeBDFExt

using OrdinaryDiffEqBDF: OrdinaryDiffEqBDF
using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: SPARSE, exercise_loaded

@setup_workload begin
    @compile_workload begin
        for T in (Float64, Float32), method in ("FBDF", "QNDF")
            exercise_loaded(method, "OrdinaryDiffEqBDF", (); T)
        end
        exercise_loaded("FBDF", "OrdinaryDiffEqBDF", (); states=SPARSE)
    end
end

end
