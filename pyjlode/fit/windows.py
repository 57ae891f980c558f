"""Windows of time series, solved together on one grid of relative times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Relative times closer than this, in mean sampling distances, are one save point.
_RESOLUTION = 1e-6

Solve = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Series:
    """A normalised trajectory: times in mean sampling distances, states about 0 ± 1."""

    t: NDArray[np.float64]
    z: NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """Windows that are solved together.

    Attributes
    ----------
    start : torch.Tensor, shape (W, D)
        The first states.
    grid : torch.Tensor, shape (T,)
        Every relative time of any window, from 0.
    index : torch.Tensor, shape (L, W)
        Where in the grid each sample lies.
    target : torch.Tensor, shape (L, W, D)
    mask : torch.Tensor, shape (L, W)
        1 for samples, 0 for what fills up shorter windows and for the first samples, which are
        given.
    """

    start: Tensor
    grid: Tensor
    index: Tensor
    target: Tensor
    mask: Tensor

    def loss(self, solve: Solve) -> Tensor:
        """The mean squared error of ``solve(start, grid)``, of shape ``(T, W, D)``."""
        error = (self.pick(solve(self.start, self.grid)) - self.target) ** 2
        return (error.mean(dim=-1) * self.mask).sum() / self.mask.sum()

    def pick(self, states: Tensor) -> Tensor:
        """The states at the windows' own times, of shape ``(L, W, D)``."""
        return states[self.index, torch.arange(self.index.shape[1])]


def windows(lengths: Sequence[int], horizon: int) -> list[tuple[int, int, int]]:
    """``(series, first, past the last)`` of windows of up to ``horizon`` samples.

    They overlap by half, and by all but one sample where there are few.

    Examples
    --------
    >>> windows([5], 4)
    [(0, 0, 4), (0, 1, 5)]
    """
    found = []
    for i, n in enumerate(lengths):
        size = min(horizon, n)
        step = 1 if n <= 64 else max(1, size // 2)
        starts = list(range(0, n - size + 1, step))
        if starts[-1] != n - size:
            starts.append(n - size)
        found += [(i, s, s + size) for s in starts]
    return found


def make_batch(
    series: Sequence[Series], chosen: Sequence[tuple[int, int, int]], dtype: torch.dtype
) -> Batch:
    """Gather windows into a batch."""
    length = max(end - first for _, first, end in chosen)
    states = series[0].z.shape[1]
    relative = np.zeros((length, len(chosen)))
    target = np.zeros((length, len(chosen), states))
    mask = np.zeros((length, len(chosen)))
    for w, (i, first, end) in enumerate(chosen):
        n = end - first
        relative[:n, w] = series[i].t[first:end] - series[i].t[first]
        target[:n, w] = series[i].z[first:end]
        mask[1:n, w] = 1
    steps = np.rint(relative / _RESOLUTION).astype(np.int64)
    _, where, index = np.unique(steps, return_index=True, return_inverse=True)
    return Batch(
        start=torch.as_tensor(target[0], dtype=dtype),
        grid=torch.as_tensor(relative.reshape(-1)[where], dtype=torch.float64),
        index=torch.as_tensor(index.reshape(relative.shape)),
        target=torch.as_tensor(target, dtype=dtype),
        mask=torch.as_tensor(mask, dtype=dtype),
    )
