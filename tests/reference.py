"""Solutions and gradients by means of their own: classical Runge-Kutta steps and torch autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Func = Callable[[Tensor, Tensor], Tensor]


def rk4(func: Func, y0: Tensor, t: Tensor, substeps: int = 60) -> Tensor:
    """States at ``t``, by ``substeps`` steps between each two of its times."""
    states = [y0]
    y = y0
    for i in range(len(t) - 1):
        h = (t[i + 1] - t[i]) / substeps
        for k in range(substeps):
            s = t[i] + k * h
            k1 = func(s, y)
            k2 = func(s + h / 2, y + h / 2 * k1)
            k3 = func(s + h / 2, y + h / 2 * k2)
            k4 = func(s + h, y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        states.append(y)
    return torch.stack(states)


def gradients(
    solve: Callable[[Tensor, Tensor], Tensor],
    y0: Tensor,
    t: Tensor,
    others: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """The states, and a loss's gradients with respect to ``y0``, ``t`` and ``others``."""
    y0 = y0.detach().clone().requires_grad_()
    t = t.detach().clone().requires_grad_()
    states = solve(y0, t)
    weights = torch.linspace(0.5, 1.5, states.numel(), dtype=states.dtype).view_as(states)
    loss = (weights * states + 0.3 * states**2).sum()
    found = torch.autograd.grad(loss, [y0, t, *others], allow_unused=True, retain_graph=True)
    inputs = [y0, t, *others]
    return states.detach(), [
        torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)
    ]


def assert_close(found: Tensor, expected: Tensor, tolerance: float, what: str = "") -> None:
    """The largest error is below ``tolerance`` of the largest expected value."""
    assert found.shape == expected.shape, what
    scale = float(expected.detach().abs().max()) if expected.numel() else 0.0
    error = float((found - expected).detach().abs().max()) if expected.numel() else 0.0
    assert error <= tolerance * max(scale, 1e-3), f"{what}: {error:.3g} of {scale:.3g}"
