"""Kernels for local regression: weights by distance in bandwidths, as in DiffEqFlux.jl."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

import torch
from torch import Tensor

Kernel = Callable[[Tensor], Tensor]


def _ending(kernel: Kernel) -> Kernel:
    """A kernel of the absolute distance, zero beyond 1."""

    def cut(x: Tensor) -> Tensor:
        distance = x.abs()
        return torch.where(distance > 1, 0.0, kernel(distance))

    return cut


KERNELS: dict[str, Kernel] = {
    "epanechnikov": _ending(lambda x: 0.75 * (1 - x**2)),
    "uniform": _ending(lambda x: torch.full_like(x, 0.5)),
    "triangular": _ending(lambda x: 1 - x),
    "quartic": _ending(lambda x: 15 / 16 * (1 - x**2) ** 2),
    "triweight": _ending(lambda x: 35 / 32 * (1 - x**2) ** 3),
    "tricube": _ending(lambda x: 70 / 81 * (1 - x**3) ** 3),
    "cosine": _ending(lambda x: pi / 4 * torch.cos(pi / 2 * x)),
    "gaussian": lambda x: torch.exp(-(x**2) / 2) / sqrt(2 * pi),
    "logistic": lambda x: 1 / (torch.exp(x) + 2 + torch.exp(-x)),
    "sigmoid": lambda x: 2 / (pi * (torch.exp(x) + torch.exp(-x))),
    "silverman": lambda x: (
        torch.sin(x.abs() / sqrt(2) + pi / 4) * 0.5 * torch.exp(-x.abs() / sqrt(2))
    ),
}
"""By name. Silverman's is the textbook's; DiffEqFlux.jl divides by 2 within the sine."""
