"""Layers of differential equations, by DiffEqFlux.jl's names: torch modules solved by Julia."""

from .augmented import AugmentedNDELayer
from .bases import (
    Basis,
    chebyshev_basis,
    cos_basis,
    fourier_basis,
    legendre_basis,
    polynomial_basis,
    sin_basis,
)
from .constrained import NeuralODEMM
from .controlled import NeuralCDE
from .delayed import NeuralCDDE
from .flow import CNF, FFJORD, FlowDensity
from .hamiltonian import HamiltonianNN, NeuralHamiltonianDE
from .implicit import NeuralDAE
from .latent_ode import LatentODE
from .recognition import RecognitionRNN
from .spline import SplineLayer
from .stochastic import NeuralDSDE, NeuralSDE
from .tensor import TensorLayer

__all__ = [
    "CNF",
    "FFJORD",
    "AugmentedNDELayer",
    "Basis",
    "FlowDensity",
    "HamiltonianNN",
    "LatentODE",
    "NeuralCDDE",
    "NeuralCDE",
    "NeuralDAE",
    "NeuralDSDE",
    "NeuralHamiltonianDE",
    "NeuralODEMM",
    "NeuralSDE",
    "RecognitionRNN",
    "SplineLayer",
    "TensorLayer",
    "chebyshev_basis",
    "cos_basis",
    "fourier_basis",
    "legendre_basis",
    "polynomial_basis",
    "sin_basis",
]
