"""Neural ODEs for PyTorch, solved and differentiated by Julia's SciML.

Importing this package starts no Julia and takes no network.
"""

from importlib.metadata import PackageNotFoundError, version

from .adjoint import odeint_adjoint
from .brownian import BrownianPath
from .cdeint import cdeint
from .control import (
    CubicSpline,
    LinearInterpolation,
    hermite_cubic_coefficients_with_backward_differences,
    linear_interpolation_coeffs,
    natural_cubic_coeffs,
)
from .daeint import daeint
from .ddeint import ddeint
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
from .jumpint import jumpint
from .layers import (
    CNF,
    FFJORD,
    AugmentedNDELayer,
    HamiltonianNN,
    LatentODE,
    NeuralCDDE,
    NeuralCDE,
    NeuralDAE,
    NeuralDSDE,
    NeuralHamiltonianDE,
    NeuralODEMM,
    NeuralSDE,
    SplineLayer,
    TensorLayer,
)
from .manifold import ManifoldProjection
from .methods import Method, find_method, methods
from .neural_ode import NeuralODE
from .odeint import odeint, odeint_event
from .preset_time import PresetTimeCallback
from .problem import Statistics
from .runtime import julia_lock
from .sdeint import sdeint
from .sensealg import (
    BacksolveAdjoint,
    DiscreteAdjoint,
    ForwardSensitivity,
    GaussAdjoint,
    InterpolatingAdjoint,
    QuadratureAdjoint,
    SensitivityAlgorithm,
    find_sensealg,
)
from .solution import Solution
from .solve_ivp import solve_ivp
from .steady_state import steady_state
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
    "BrownianPath",
    "CubicSpline",
    "DiscreteAdjoint",
    "EngineInfo",
    "Explanation",
    "ForwardSensitivity",
    "GaussAdjoint",
    "HamiltonianNN",
    "InterpolatingAdjoint",
    "JuliaNotFoundError",
    "LatentODE",
    "LinearInterpolation",
    "ManifoldProjection",
    "Method",
    "NeuralCDDE",
    "NeuralCDE",
    "NeuralDAE",
    "NeuralDSDE",
    "NeuralHamiltonianDE",
    "NeuralODE",
    "NeuralODEMM",
    "NeuralSDE",
    "PresetTimeCallback",
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
    "cdeint",
    "collocate_data",
    "daeint",
    "ddeint",
    "engine_info",
    "explain",
    "find_method",
    "find_sensealg",
    "hermite_cubic_coefficients_with_backward_differences",
    "julia_lock",
    "jumpint",
    "linear_interpolation_coeffs",
    "methods",
    "multiple_shoot",
    "natural_cubic_coeffs",
    "odeint",
    "odeint_adjoint",
    "odeint_event",
    "sdeint",
    "solve_ivp",
    "steady_state",
    "use_engine",
]
