"""
Stochastic differential equations: what of the Julia half of pyjlode needs the packages of
StochasticDiffEq, which are loaded with the first of them.
"""
module PyjlodeStochasticExt

using DiffEqNoiseProcess: DiffEqNoiseProcess
using LinearAlgebra: LinearAlgebra, mul!, norm
using PrecompileTools: @compile_workload, @setup_workload
using Pyjlode: Pyjlode, Model, beside_python, plain, with_constants
using Random: Xoshiro, randn
using SciMLBase: SciMLBase, SDEFunction, SDEProblem, init, solve!, successful_retcode
using StochasticDiffEqHighOrder: SOSRA, SOSRA2, SOSRI, SOSRI2, SRA1, SRA2, SRA3, SRIW1, SRIW2
using StochasticDiffEqLowOrder: EM, EulerHeun, LambaEulerHeun, RKMil

# The memory of a numpy array, or an array of Julia's own.
vector(x) = plain(x)
vector(x::Vector) = x

include("noise.jl")
include("blocks.jl")
include("stochastic.jl")
include("stochastic_adjoint.jl")
include("workload.jl")
Pyjlode.precompile_calls(backward, sde, solve_adaptive, solve_fixed)

end
