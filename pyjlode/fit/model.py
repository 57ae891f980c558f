"""The model that is fitted: a network in normalised coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..names import unknown
from .data import Dataset, InputError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}

# A positive column whose largest value is this many times its smallest is fitted as a logarithm.
_LOG_RATIO = 8.0


def check_activation(name: str) -> str:
    """The name, if there is such an activation; else :class:`InputError` with the nearest."""
    if name in ACTIVATIONS:
        return name
    raise InputError(unknown("activation", name, ACTIVATIONS))


@dataclass(frozen=True)
class Scaling:
    """From the user's units to the network's and back.

    Times are divided by the mean distance of samples. States are shifted and scaled to mean 0 and
    deviation 1; columns that are positive and span almost an order of magnitude are taken as
    logarithms first, which keeps forecasts of them positive.
    """

    time_unit: float
    logarithmic: tuple[bool, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @staticmethod
    def of(data: Dataset, training: Sequence[int]) -> Scaling:
        """Fit the scaling to the first ``training[i]`` samples of each trajectory."""
        y = np.concatenate([s.y[:n] for s, n in zip(data.trajectories, training, strict=True)])
        gaps = np.concatenate(
            [np.diff(s.t[:n]) for s, n in zip(data.trajectories, training, strict=True)]
        )
        everything = np.concatenate([s.y for s in data.trajectories])
        positive = everything.min(axis=0) > 0
        wide = y.max(axis=0) >= _LOG_RATIO * np.maximum(y.min(axis=0), 1e-300)
        logarithmic = positive & wide
        z = np.where(logarithmic, np.log(np.where(positive, y, 1.0)), y)
        deviation = z.std(axis=0)
        deviation[deviation == 0] = 1.0
        return Scaling(
            float(gaps.mean()),
            tuple(bool(x) for x in logarithmic),
            tuple(float(x) for x in z.mean(axis=0)),
            tuple(float(x) for x in deviation),
        )

    def normalise(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        log = np.array(self.logarithmic)
        z = np.where(log, np.log(np.where(log, y, 1.0)), y)
        return (z - np.array(self.mean)) / np.array(self.deviation)

    def restore(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        y = z * np.array(self.deviation) + np.array(self.mean)
        log = np.array(self.logarithmic)
        return np.where(log, np.exp(np.where(log, y, 0.0)), y)


class Dynamics(nn.Module):
    """``dz/dt`` as a fully connected network of the state."""

    def __init__(self, states: int, hidden: Sequence[int], activation: str) -> None:
        super().__init__()
        sizes = [states, *hidden]
        layers: list[nn.Module] = []
        for n, m in pairwise(sizes):
            layers += [nn.Linear(n, m), ACTIVATIONS[activation]()]
        self.net = nn.Sequential(*layers, nn.Linear(sizes[-1], states))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return self.net(z)


@dataclass(frozen=True)
class Description:
    """All but the weights of a fitted model, as saved in ``model.pt``."""

    time: str
    columns: tuple[str, ...]
    hidden: tuple[int, ...]
    activation: str
    dtype: str
    method: str | None
    rtol: float | None
    atol: float | None
    scaling: Scaling

    def build(self) -> Dynamics:
        dtype = getattr(torch, self.dtype)
        return Dynamics(len(self.columns), self.hidden, self.activation).to(dtype)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(saved: dict[str, Any]) -> Description:
        return Description(**{**saved, "scaling": Scaling(**saved["scaling"])})
