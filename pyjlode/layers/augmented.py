"""``AugmentedNDELayer``: more dimensions for a neural differential equation to move in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..eager import eager
from ..problem import Statistics


class AugmentedNDELayer(nn.Module):
    """A neural differential equation on a state with ``adim`` further features, zero at first.

    The flow of an ODE is a homeomorphism: in the features' own space it cannot take a disc out of
    the ring around it. With more dimensions it can.

    Parameters
    ----------
    nde : torch.nn.Module
        A layer such as :class:`pyjlode.NeuralODE`, on states with ``adim`` features more.
    adim : int
        How many features are added.
    dim : int, optional
        The dimension of the features: -1, or 1 for channels of images.

    Raises
    ------
    ValueError
        If ``adim`` is less than 1.

    References
    ----------
    Dupont, Doucet and Teh, Augmented Neural ODEs, 2019; DiffEqFlux.jl's ``AugmentedNDELayer``.

    Examples
    --------
    >>> import torch
    >>> from pyjlode import NeuralODE
    >>> net = torch.nn.Linear(5, 5)
    >>> node = NeuralODE(lambda t, y: net(y), [0.0, 1.0], engine="torch")
    >>> AugmentedNDELayer(node, 3)(torch.ones(7, 2)).shape
    torch.Size([2, 7, 5])
    """

    def __init__(self, nde: nn.Module, adim: int, dim: int = -1) -> None:
        super().__init__()
        if adim < 1:
            raise ValueError(f"adim must be at least 1, not {adim}.")
        self.nde = nde
        self.adim = adim
        self.dim = dim

    @property
    def stats(self) -> Statistics:
        """Counts of the last solve."""
        stats: Statistics = self.nde.stats  # type: ignore[assignment]
        return stats

    @property
    def nfe(self) -> int:
        """Right-hand-side evaluations of the last forward solve."""
        return self.stats.nfe

    @property
    def nfe_backward(self) -> int:
        """Evaluations of the adjoint's right-hand side, after the backward pass."""
        return self.stats.nfe_backward

    @eager
    def forward(self, y0: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What ``nde`` gives from ``y0`` with zeros beside; further arguments are for ``nde``."""
        shape = list(y0.shape)
        shape[self.dim] = self.adim
        result: Tensor = self.nde(torch.cat([y0, y0.new_zeros(shape)], self.dim), *args, **kwargs)
        return result

    def extra_repr(self) -> str:
        """What ``repr`` shows beside the module inside."""
        return f"adim={self.adim}, dim={self.dim}"
