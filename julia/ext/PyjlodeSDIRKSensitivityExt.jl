"""
Compiles, when both are installed, what the first gradient through an SDIRK method by its default
sensitivity algorithm would.
"""
module PyjlodeSDIRKSensitivityExt

using OrdinaryDiffEqSDIRK: OrdinaryDiffEqSDIRK
using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: exercise_loaded
using SciMLSensitivity: SciMLSensitivity

@setup_workload begin
    @compile_workload begin
        for method in ("TRBDF2", "KenCarp4", "Kvaerno5")
            exercise_loaded(method, "OrdinaryDiffEqSDIRK", ("gauss",))
        end
        for method in ("TRBDF2", "KenCarp4")
            exercise_loaded(method, "OrdinaryDiffEqSDIRK", ("gauss",); T=Float32)
        end
    end
end

end
