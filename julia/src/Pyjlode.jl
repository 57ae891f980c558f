"""
    Pyjlode

The Julia half of the Python package pyjlode: it solves ordinary differential equations whose
right-hand sides were generated from torch functions, and their adjoints.

Everything the solvers see has a type that does not depend on the model: flat vectors, and
functions behind `FunctionWrapper`s. So the solvers are compiled once, when this package is
precompiled, and a new model costs only the compilation of its own small functions.
"""
module Pyjlode

using ADTypes: AutoFiniteDiff
using FunctionWrappers: FunctionWrapper
using LinearAlgebra: BLAS, ColumnNorm, I, LAPACK, LU, UniformScaling, diag, dot, exp!, issuccess, ldiv!,
    lu, lu!, mul!, norm, qr, svd
using LinearSolve: LinearSolve, KLUFactorization
using OrdinaryDiffEqCore: OrdinaryDiffEqCore
using OrdinaryDiffEqLowOrderRK: AutoDP5, BS3, DP5, Euler, Heun, Midpoint, RK4
using OrdinaryDiffEqRosenbrock: OrdinaryDiffEqRosenbrock, Rodas4, Rodas5P, Rosenbrock23
using OrdinaryDiffEqTsit5: AutoTsit5, Tsit5
using OrdinaryDiffEqVerner: AutoVern6, AutoVern7, AutoVern8, AutoVern9, Vern6, Vern7, Vern8, Vern9
using PrecompileTools: @compile_workload, @setup_workload
using PythonCall: PythonCall, Py, PyArray
using SciMLBase: CallbackSet, DiscreteCallback, ODEFunction, ODEProblem, SciMLBase, init, reinit!,
    solve!, step!, successful_retcode
using SciMLLogging: SciMLLogging
using SparseArrays: SparseMatrixCSC, findnz, nnz, nonzeros, nzrange, rowvals, sparse

include("elementary.jl")
include("special.jl")
include("matmul.jl")
include("rows.jl")
include("pattern.jl")
include("mass.jl")
include("convolution.jl")
include("rows_convolution.jl")
include("linalg.jl")
include("indexing.jl")
include("ordering.jl")
include("memory.jl")
include("interrupts.jl")
include("deferred.jl")
include("batch.jl")
include("model.jl")
include("jacobian.jl")
include("split.jl")
include("methods.jl")
include("tableaus.jl")
include("settings.jl")
include("implicit_tableaus.jl")
include("manifold.jl")
include("tape.jl")
include("implicit_tape.jl")
include("parts.jl")
include("watch.jl")
include("forward.jl")
include("projected.jl")
include("events.jl")
include("failure.jl")
include("partitioned.jl")
include("adjoint.jl")
include("forward_sensitivity.jl")
include("discrete.jl")
include("discrete_manifold.jl")
include("discrete_partitioned.jl")
include("stage_matrix.jl")
include("discrete_implicit.jl")
include("discrete_rosenbrock.jl")
include("discrete_sdirk.jl")
include("accepted_steps.jl")
include("initial.jl")
include("steady.jl")
include("steps.jl")
include("independent.jl")
include("bridge.jl")
include("callback.jl")
include("workload.jl")
include("python_calls.jl")

end
