"""Neural ODEs for PyTorch, solved and differentiated by Julia's SciML.

Importing this package starts no Julia and takes no network.
"""

from importlib.metadata import PackageNotFoundError, version

from .adjoint import odeint_adjoint
from .engine import EngineInfo, engine_info, use_engine
from .errors import (
    ArgumentError,
    JuliaNotFoundError,
    PyjlodeError,
    PyjlodeWarning,
    SolverError,
    TraceError,
    UnsupportedError,
)
from .explain import Explanation, explain
from .layers import (
    CNF,
    FFJORD,
    AugmentedNDELayer,
    HamiltonianNN,
    LatentODE,
    NeuralHamiltonianDE,
    SplineLayer,
    TensorLayer,
)
from .methods import Method, find_method, methods
from .neural_ode import NeuralODE
from .odeint import odeint, odeint_event
from .problem import Statistics
from .sensealg import (
    BacksolveAdjoint,
    DiscreteAdjoint,
    GaussAdjoint,
    InterpolatingAdjoint,
    QuadratureAdjoint,
    SensitivityAlgorithm,
    find_sensealg,
)
from .solution import Solution
from .solve_ivp import solve_ivp
from .training import collocate_data, multiple_shoot

try:
    __version__ = version("pyjlode")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0+unknown"

__all__ = [
    "CNF",
    "FFJORD",
    "ArgumentError",
    "AugmentedNDELayer",
    "BacksolveAdjoint",
    "DiscreteAdjoint",
    "EngineInfo",
    "Explanation",
    "GaussAdjoint",
    "HamiltonianNN",
    "InterpolatingAdjoint",
    "JuliaNotFoundError",
    "LatentODE",
    "Method",
    "NeuralHamiltonianDE",
    "NeuralODE",
    "PyjlodeError",
    "PyjlodeWarning",
    "QuadratureAdjoint",
    "SensitivityAlgorithm",
    "Solution",
    "SolverError",
    "SplineLayer",
    "Statistics",
    "TensorLayer",
    "TraceError",
    "UnsupportedError",
    "collocate_data",
    "engine_info",
    "explain",
    "find_method",
    "find_sensealg",
    "methods",
    "multiple_shoot",
    "odeint",
    "odeint_adjoint",
    "odeint_event",
    "solve_ivp",
    "use_engine",
]
