"""
Jump processes: what of the Julia half of pyjlode needs JumpProcesses, which is loaded with the first
of them.
"""
module PyjlodeJumpExt

using JumpProcesses: ConstantRateJump, Direct, DirectFW, DiscreteProblem, FRMFW, JumpProblem,
    JumpSet, NRM, SSAStepper, VR_FRM, VariableRateJump
using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: Pyjlode, Model, beside_python, plain, replicas
using Random: Xoshiro
using SciMLBase: SciMLBase, DiscreteCallback, ODEProblem, init, solve!, successful_retcode

# The memory of a numpy array, or an array of Julia's own.
vector(x) = plain(x)
vector(x::Vector) = x

include("jump_rates.jl")
include("jumps.jl")
include("jump_workload.jl")
Pyjlode.precompile_calls(between_jumps, process, solve_jumps)

end
