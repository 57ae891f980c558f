"""
Delay differential equations: what of the Julia half of pyjlode needs DelayDiffEq, which is loaded
with the first of them.
"""
module PyjlodeDelayExt

using DelayDiffEq: DelayDiffEq, MethodOfSteps
using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: Pyjlode, Model, Settings, Tableau, add!, beside_python, combine!, dot_at, plain,
    slopes!, spread!, tableau, weights!, with_constants
using SciMLBase: SciMLBase, DDEFunction, DDEProblem, init, solve!, successful_retcode

# The memory of a numpy array, or an array of Julia's own.
vector(x) = plain(x)
vector(x::Vector) = x

include("delay.jl")
include("delay_steps.jl")
include("delay_adjoint.jl")
include("delay_workload.jl")
Pyjlode.precompile_calls(backward, dde, solve_delayed)

end
