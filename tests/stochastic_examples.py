"""Stochastic equations with parameters, in the form that :func:`pyjlode.sdeint` takes, and
their steps by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyjlode import BrownianPath

D = torch.float64


class Equation(nn.Module):
    """Coefficients with parameters, of which one is in both, and explicit time."""

    def __init__(self, sde_type: str, noise_type: str, n: int = 2, m: int = 3) -> None:
        super().__init__()
        self.sde_type, self.noise_type = sde_type, noise_type
        self.a, self.b = (nn.Parameter(torch.tensor(x, dtype=D)) for x in (0.4, 0.7))
        columns = {"diagonal": 1, "scalar": 1}.get(noise_type, m)
        self.w = nn.Parameter(torch.randn(n, columns, dtype=D))
        self.register_buffer("shift", torch.tensor(0.3, dtype=D))

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return self.a * torch.sin(y.flip(-1)) - self.b * y + 0.2 * t

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        if self.noise_type == "diagonal":
            return self.b * torch.cos(y + self.shift) + 0.1 * t
        if self.noise_type == "additive":
            return (self.w * (1 + t)).expand(len(y), *self.w.shape)
        return torch.sin(y.flip(-1)).unsqueeze(-1) * self.w + self.b * y.unsqueeze(-1) * (1 + t)


class Geometric:
    """``dy = 0.2 y dt + 0.8 y dW``; of Stratonovich the same with another meaning."""

    noise_type = "diagonal"

    def __init__(self, sde_type: str) -> None:
        self.sde_type = sde_type

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.2 * y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.8 * y

    def exact(self, W: Tensor) -> Tensor:
        """At time 1, from 1."""
        return torch.exp(0.2 - (0.32 if self.sde_type == "ito" else 0) + 0.8 * W)


class Turning:
    """One noise for both elements: ``dy = 0.2 y dt + 0.5 J y dW``, with J exchanging them."""

    sde_type, noise_type = "ito", "scalar"

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.2 * y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.5 * y.flip(-1).unsqueeze(-1)

    def exact(self, W: Tensor) -> Tensor:
        """At time 1, from (1, 0): the sum and the difference are geometric motions."""
        growth = 0.2 - 0.5**2 / 2
        plus, minus = torch.exp(growth + 0.5 * W), torch.exp(growth - 0.5 * W)
        return torch.cat([plus + minus, plus - minus], dim=-1) / 2


class General(Turning):
    noise_type = "general"


class Relaxing:
    """``dy = (sin(3 t) - y) dt + S(t) dW`` with two noises of three elements."""

    noise_type = "additive"

    def __init__(self, sde_type: str = "ito") -> None:
        self.sde_type = sde_type
        self.s = torch.tensor([[1.0, 0.5], [0.0, -0.7], [0.3, 0.3]], dtype=D)

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(3 * t) - y - 0.1 * y**3

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return (self.s * torch.cos(t)).expand(len(y), 3, 2)


def step(sde: Any, method: str, y: Tensor, t: Tensor, h: Tensor, dW: Tensor) -> Tensor:
    """One step as the books have it."""

    def g(t: Tensor, y: Tensor, w: Tensor | float) -> Tensor:
        value = sde.g(t, y)
        if sde.noise_type == "scalar":
            value = value.squeeze(-1)
        if sde.noise_type in ("diagonal", "scalar"):
            return value * w
        return torch.einsum("bnm,bm->bn", value, w)

    euler = y + h * sde.f(t, y)
    if method == "EM":
        return euler + g(t, y, dW)
    if method == "EulerHeun":
        guess = euler + g(t, y, dW)
        drift = (sde.f(t, y) + sde.f(t + h, guess)) / 2
        return y + h * drift + (g(t, y, dW) + g(t + h, guess, dW)) / 2
    ito = sde.sde_type == "ito"
    shifted = (euler if ito else y) + h.sqrt() * g(t, y, 1.0)
    slope = (g(t, shifted, 1.0) - g(t, y, 1.0)) / (2 * h.sqrt())
    return euler + g(t, y, dW) + slope * (dW**2 - (h if ito else 0))


def by_hand(sde: Any, method: str, y: Tensor, path: BrownianPath, ts: Sequence[float]) -> Tensor:
    """The states at ``ts``, by steps between the path's times."""
    states = [y]
    for k, h in enumerate(path.t.diff()):
        y = step(sde, method, y, path.t[k].to(y.dtype), h.to(y.dtype), path.W[k + 1] - path.W[k])
        states.append(y)
    places = [int((path.t - s).abs().argmin()) for s in ts]
    return torch.stack([states[k] for k in places])
