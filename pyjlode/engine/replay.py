"""A solve's accepted steps made again in torch, for derivatives of every order.

Julia computes a solve and its gradient. Where the gradient itself is differentiated, the same steps
are computed once more with torch's operations, from the starts and lengths that Julia accepted and
the method's tableau, and autograd differentiates those: derivatives of the very same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..trace.cut import Substitution

Function = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ExplicitTableau:
    """Of an explicit Runge-Kutta method, as Julia's ``Tableau`` has it.

    With ``k[i] = f(t + c[i] dt, u + dt a[i] @ k)`` a step ends at ``u + dt b @ k``, and between
    them the state at ``t + θ dt`` is ``u + dt w @ k``, where ``w[i]`` is a polynomial in θ of the
    coefficients ``weights[i]``, from the first power.
    """

    a: Any
    b: Any
    c: Any
    weights: Any
    first: int
    stages: int
    last: int


@dataclass(frozen=True)
class RosenbrockTableau:
    """Of a Rosenbrock method, as Julia's ``RosenbrockTableau`` has it.

    With ``J`` the Jacobian at the step's start a stage solves ``(I / (γ dt) - J) k[i] = f(t + c[i]
    dt, u + a[i] @ k) + C[i] @ k / dt + d[i] dt ∂f/∂t``; the step ends at ``u + b @ k``.
    """

    a: Any
    C: Any
    b: Any
    c: Any
    d: Any
    gamma: float
    weights: Any


@dataclass(frozen=True)
class Replay:
    """The steps of one solve.

    Attributes
    ----------
    func : callable
        The right-hand side on the engine's state.
    tensors : tuple of torch.Tensor
        What ``func`` closes over and has a gradient.
    tableau : ExplicitTableau or RosenbrockTableau
    starts, lengths : sequence of float
        Of the steps, in time.
    inside, upto : sequence of int
        After each step, how many save points lie before its end, and up to it.
    fixed : bool
        Whether steps of a fixed length start anew at each save point.
    """

    func: Function
    tensors: tuple[Tensor, ...]
    tableau: ExplicitTableau | RosenbrockTableau
    starts: Sequence[float]
    lengths: Sequence[float]
    inside: Sequence[int]
    upto: Sequence[int]
    fixed: bool

    def states(self, y0: Tensor, t: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """The states at the times ``t``, differentiable by all three."""
        substitution = Substitution(
            {
                id(x): torch.view_as_complex(p) if x.is_complex() else p
                for x, p in zip(self.tensors, parameters, strict=True)
            }
        )

        def func(time: Tensor, u: Tensor) -> Tensor:
            # The caller's functions take the state's precision.
            with substitution:
                return self.func(time.to(y0.dtype), u)

        times = t.to(torch.float64)
        step = _Explicit if isinstance(self.tableau, ExplicitTableau) else _Rosenbrock
        saved, u, made = [y0], y0, None
        for n, (start, length) in enumerate(self._times(times)):
            made = step(self.tableau, func, start, length, u, made)  # type: ignore[arg-type]
            for i in range(max(len(saved), 1), self.inside[n]):
                saved.append(made.at((times[i] - start) / length))
            u = made.end
            # A save point at the step's end may move beyond it, by nothing so far.
            saved += [
                u if self.fixed else along(func, start + length, u, times[i] - start - length)
                for i in range(len(saved), self.upto[n])
            ]
        return torch.stack(saved)

    def _times(self, times: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Starts and lengths of the steps, as they move with the save points.

        Adaptive steps move with the first of them and keep their lengths. Fixed ones start anew at
        each, and the last one before the next is as long as what is left.
        """
        group, base = 0, self.starts[0]
        for n, (start, length) in enumerate(zip(self.starts, self.lengths, strict=True)):
            moved = times[group] + (start - base)
            if not self.fixed:
                yield moved, torch.tensor(length, dtype=torch.float64)
                continue
            reached = self.upto[n] - 1
            if reached == group:
                yield moved, torch.tensor(length, dtype=torch.float64)
                continue
            yield moved, times[reached] - moved
            group = reached
            base = self.starts[n + 1] if n + 1 < len(self.starts) else start


class _Explicit:
    """One step of an explicit method."""

    def __init__(
        self, tableau: ExplicitTableau, func: Function, t: Tensor, dt: Tensor, u: Tensor,
        before: _Explicit | None,
    ) -> None:  # fmt: skip
        self.tableau, self.func, self.t, self.dt, self.u = tableau, func, t, dt, u
        self.k: list[Tensor] = []
        if before is not None and tableau.first == 2:  # its last stage is this one's first
            self.k.append(before.k[tableau.last - 1])
        self._stages(tableau.stages)
        self.end = self._sum(tableau.b)

    def _stages(self, count: int) -> None:
        for i in range(len(self.k), count):
            argument = self._sum(self.tableau.a[i])
            self.k.append(self.func(self.t + float(self.tableau.c[i]) * self.dt, argument))

    def _sum(self, row: Any) -> Tensor:
        total = self.u
        for weight, k in zip(row, self.k, strict=False):
            if isinstance(weight, Tensor) or weight != 0:
                total = total + (self.dt * weight) * k
        return total

    def at(self, theta: Tensor) -> Tensor:
        """The state a part ``theta`` of the step after its start."""
        self._stages(len(self.tableau.c))
        return self._sum([_polynomial(row, theta) for row in self.tableau.weights])


class _Rosenbrock:
    """One step of a Rosenbrock method."""

    def __init__(
        self, tableau: RosenbrockTableau, func: Function, t: Tensor, dt: Tensor, u: Tensor,
        before: object,
    ) -> None:  # fmt: skip
        self.tableau, self.u = tableau, u
        jacobian, rate = _linearised(func, t, u)
        eye = torch.eye(u.numel(), dtype=u.dtype)
        factors = torch.linalg.lu_factor(eye / (tableau.gamma * dt).to(u.dtype) - jacobian)
        self.k: list[Tensor] = []
        for i, (c, d) in enumerate(zip(tableau.c, tableau.d, strict=True)):
            value = func(t + float(c) * dt, _weighted(u, tableau.a[i], self.k))
            value = _weighted(value, tableau.C[i], self.k, 1 / dt)
            value = value + (float(d) * dt) * rate.view(u.shape)
            solved = torch.linalg.lu_solve(*factors, value.reshape(-1, 1))
            self.k.append(solved.view(u.shape))
        self.end = _weighted(u, tableau.b, self.k)

    def at(self, theta: Tensor) -> Tensor:
        """The state a part ``theta`` of the step after its start."""
        return _weighted(self.u, [_polynomial(row, theta) for row in self.tableau.weights], self.k)


def along(func: Function, t: Tensor, u: Tensor, dt: Tensor) -> Tensor:
    """One classical Runge-Kutta step, whose derivatives at length zero are right to order four.

    Examples
    --------
    >>> import torch
    >>> u, zero = torch.ones(1, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    >>> along(lambda t, u: -2 * u, zero, u, zero + 0.1)
    tensor([0.8187], dtype=torch.float64)
    """
    k1 = func(t, u)
    k2 = func(t + dt / 2, u + dt / 2 * k1)
    k3 = func(t + dt / 2, u + dt / 2 * k2)
    k4 = func(t + dt, u + dt * k3)
    return u + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _weighted(base: Tensor, row: Any, k: Sequence[Tensor], scale: Any = 1.0) -> Tensor:
    for weight, x in zip(row, k, strict=False):
        if isinstance(weight, Tensor) or weight != 0:
            base = base + (weight * scale) * x
    return base


def _polynomial(coefficients: Any, theta: Tensor) -> Tensor:
    value = torch.zeros_like(theta)
    for coefficient in coefficients[::-1]:
        value = (value + float(coefficient)) * theta
    return value


def _linearised(func: Function, t: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of ``func`` by the state, flat, and by time, differentiable themselves."""
    time, state = (x if x.requires_grad else x.detach().requires_grad_() for x in (t, u))
    value = func(time, state).reshape(-1)
    zero = torch.zeros(len(value), dtype=u.dtype)
    if not value.requires_grad:
        return torch.zeros(len(value), len(value), dtype=u.dtype), zero
    rows = [
        torch.autograd.grad(x, (state, time), create_graph=True, materialize_grads=True)
        for x in value.unbind()
    ]
    return (
        torch.stack([row[0].reshape(-1) for row in rows]),
        torch.stack([row[1] for row in rows]).to(u.dtype),
    )


def tableau_of(fields: Sequence[Any]) -> ExplicitTableau | RosenbrockTableau | None:
    """The tableau of Julia's ``tableau_fields``; None for another kind of method."""
    kind, *values = fields
    arrays: list[Any] = [x if isinstance(x, (int, float)) else np.array(x) for x in values]
    if kind == "explicit":
        return ExplicitTableau(*arrays)
    return RosenbrockTableau(*arrays) if kind == "rosenbrock" else None
