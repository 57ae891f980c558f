"""``collocate_data``: smooth states and their derivatives from data, without solving anything."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from ..errors import ArgumentError
from .kernels import KERNELS


def collocate_data(
    data: Tensor,
    t: Tensor,
    kernel: str = "triangular",
    bandwidth: float | None = None,
    *,
    at: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Estimates of the derivatives and the states, by local polynomials.

    A model's right-hand side can be fitted to them directly, ``func(t, u) ≈ u'``: a fast start,
    after which solves refine it.

    Parameters
    ----------
    data : torch.Tensor
        Of shape ``(T, *state)``.
    t : torch.Tensor
        Times, of shape ``(T,)``, increasing.
    kernel : str, optional
        How much a datum counts at some distance: "epanechnikov", "uniform", "triangular",
        "quartic", "triweight", "tricube", "cosine", which end at the bandwidth, or "gaussian",
        "logistic", "sigmoid", "silverman".
    bandwidth : float, optional
        As a part of the whole time; by default of order ``T**(-2/7)``, DiffEqFlux.jl's.
    at : torch.Tensor, optional
        Times of the estimates, of shape ``(S,)``; by default ``t``.

    Returns
    -------
    derivatives, states : torch.Tensor
        Of shape ``(S, *state)``: from local quadratics, and from local lines.

    Raises
    ------
    ArgumentError
        If the kernel is unknown, or there are too few data within the bandwidth somewhere.

    References
    ----------
    Liang and Wu, Parameter Estimation for Differential Equation Models Using a Framework of
    Measurement Error in Regression Models, 2008; Roesch, Rackauckas and Stumpf, Collocation Based
    Training of Neural Ordinary Differential Equations, 2021; DiffEqFlux.jl's ``collocate_data``.

    Examples
    --------
    >>> import torch
    >>> t = torch.linspace(0.0, 3.0, 100)
    >>> slopes, states = collocate_data(torch.sin(t), t, "epanechnikov", 0.1)
    >>> bool((slopes - torch.cos(t)).abs().max() < 0.02)
    True
    """
    if kernel not in KERNELS:
        raise ArgumentError(f"kernel must be one of {', '.join(KERNELS)}, not {kernel!r}.")
    if t.dim() != 1 or t.shape != data.shape[:1] or len(t) < 3:
        raise ArgumentError(
            f"data must have one state for each of at least 3 times, not {len(data)} for {len(t)}."
        )
    n = len(t)
    width = bandwidth or n ** (-1 / 5) * n ** (-3 / 35) * log(n) ** (-1 / 16)
    # Times as parts of the whole, so that the systems below are of numbers near 1.
    whole = t[-1] - t[0]
    distance = (t[None, :] - (t if at is None else at)[:, None]) / whole
    weight = KERNELS[kernel](distance / width) / width
    values = data.reshape(n, -1)
    states = _local(distance, weight, values, degree=1)[:, 0]
    slopes = _local(distance, weight, values, degree=2)[:, 1] / whole
    if not bool(torch.isfinite(states).all() and torch.isfinite(slopes).all()):
        raise ArgumentError(
            f"There are too few data within a bandwidth of {width:.3g}; take a larger one."
        )
    shape = (len(distance), *data.shape[1:])
    return slopes.reshape(shape), states.reshape(shape)


def _local(distance: Tensor, weight: Tensor, values: Tensor, degree: int) -> Tensor:
    """Coefficients ``(S, degree + 1, D)`` of weighted polynomials; NaN where there is none."""
    powers = torch.stack([distance**k for k in range(degree + 1)], -1)
    weighted = (powers * weight[..., None]).mT
    system = weighted @ powers
    # Scaled to a diagonal of ones, a singular system shows in its least eigenvalue.
    scale = torch.diagonal(system, dim1=-2, dim2=-1).sqrt().reciprocal()
    scaled = scale[..., :, None] * system * scale[..., None, :]
    identity = torch.eye(degree + 1, dtype=scaled.dtype)
    usable = torch.isfinite(scaled).all(-1).all(-1)
    safe = torch.where(usable[:, None, None], scaled, identity)
    usable &= torch.linalg.eigvalsh(safe.detach())[:, 0] > 100 * torch.finfo(scaled.dtype).eps
    safe = torch.where(usable[:, None, None], scaled, identity)
    found = torch.linalg.solve(safe, scale[..., None] * (weighted @ values)) * scale[..., None]
    return torch.where(usable[:, None, None], found, torch.nan)
