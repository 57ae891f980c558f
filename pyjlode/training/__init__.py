"""Helpers for training neural differential equations, after DiffEqFlux.jl."""

from .collocation import collocate_data
from .horizons import growing_horizons
from .kernels import KERNELS
from .multiple_shooting import multiple_shoot

__all__ = ["KERNELS", "collocate_data", "growing_horizons", "multiple_shoot"]
