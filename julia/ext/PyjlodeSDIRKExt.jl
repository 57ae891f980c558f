"""
Compiles, when it is installed, what the first solve and gradient with an SDIRK method would.
"""
module PyjlodeSDIRKExt

using OrdinaryDiffEqSDIRK: OrdinaryDiffEqSDIRK
using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: SPARSE, exercise_loaded

@setup_workload begin
    @compile_workload begin
        for method in ("TRBDF2", "KenCarp4", "Kvaerno5")
            exercise_loaded(method, "OrdinaryDiffEqSDIRK", ("discrete",))
        end
        for method in ("TRBDF2", "KenCarp4")
            exercise_loaded(method, "OrdinaryDiffEqSDIRK", (); T=Float32)
        end
        exercise_loaded("KenCarp4", "OrdinaryDiffEqSDIRK", (); states=SPARSE)
    end
end

end
