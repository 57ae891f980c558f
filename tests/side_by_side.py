"""A solve by this package and the same by torchdiffeq, compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchdiffeq
from reference import assert_close
from torch import Tensor, nn

from pyjlode import odeint, odeint_adjoint

D = torch.float64


class Field(nn.Module):
    def __init__(self, dtype: torch.dtype = D) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y) * torch.cos(t)


Y0 = torch.tensor([[0.5, -0.3], [1.0, 0.4]], dtype=D)
T = torch.tensor([0.0, 0.4, 1.0], dtype=D)


def halved(func: Any, y0: Any, t: Tensor) -> Tensor:
    """A grid of the times and what lies midway."""
    return torch.cat([torch.stack([t[:-1], (t[:-1] + t[1:]) / 2], -1).reshape(-1), t[-1:]])


def results(solve: Callable[..., Any], func: nn.Module, y0: Tensor, t: Tensor, **options: Any):
    """States, and the gradients of a loss by the state, the times and the parameters."""
    y0, t = y0.clone().requires_grad_(), t.clone().requires_grad_()
    states = solve(func, y0, t, **options)
    real = torch.view_as_real(states) if states.is_complex() else states
    loss = (torch.linspace(0.5, 1.5, real.numel(), dtype=real.dtype).view_as(real) * real).sum()
    return states.detach(), *torch.autograd.grad(loss, [y0, t, *func.parameters()])


def compare(
    engine: str, func: nn.Module, y0: Tensor, t: Tensor, tolerance: float, adjoint: bool = False,
    without_t: bool = False, **options: Any,
) -> None:  # fmt: skip
    ours, theirs = (
        (odeint_adjoint, torchdiffeq.odeint_adjoint) if adjoint else (odeint, torchdiffeq.odeint)
    )
    found = results(ours, func, y0, t, engine=engine, **options)
    expected = results(theirs, func, y0, t, **options)
    for i, (g, e) in enumerate(zip(found, expected, strict=True)):
        if i == 2 and without_t:
            continue  # torchdiffeq's steps of a given size do not start anew at each time
        if i == 2 and tolerance > 1e-8:
            # Within an adaptive step it is the slope of an interpolation, of a lower order.
            assert_close(g, e, 3e-2, f"times: {g} {e}")
            continue
        assert g.dtype == e.dtype
        assert_close(g, e, tolerance, f"{i}: {g} {e}")
