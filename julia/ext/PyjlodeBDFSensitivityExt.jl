"""
Compiles, when both are installed, what the first gradient through a BDF method would.
"""
module PyjlodeBDFSensitivityExt

using OrdinaryDiffEqBDF: OrdinaryDiffEqBDF
using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: exercise_loaded
using SciMLSensitivity: SciMLSensitivity

@setup_workload begin
    @compile_workload begin
        for T in (Float64, Float32), method in ("FBDF", "QNDF")
            exercise_loaded(method, "OrdinaryDiffEqBDF", ("gauss",); T)
        end
    end
end

end
