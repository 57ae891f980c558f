"""Derivatives of the gradient: right where they are implemented, an error everywhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchdiffeq
from torch import Tensor

from pyjlode import (
    odeint,
)

D = torch.float64
TIMES = torch.tensor([0.0, 0.4, 1.3], dtype=D)
TIGHT: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-12}


def oscillate(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[1], -(y[0] ** 3)])


def reference(func: Any, y0: Tensor, t: Tensor) -> Tensor:
    return torchdiffeq.odeint(func, y0, t, method="dopri5", **TIGHT)


def test_gradient_penalty(engine: str) -> None:
    y0 = torch.tensor([1.0, 0.5], dtype=D, requires_grad=True)
    y = odeint(oscillate, y0, torch.tensor([0.0, 1.0], dtype=D), engine=engine, **TIGHT)
    (g,) = torch.autograd.grad(y[-1].sum(), y0, create_graph=True)
    ((y**2).sum() + (g**2).sum()).backward()
    z0 = y0.detach().clone().requires_grad_()
    z = reference(oscillate, z0, torch.tensor([0.0, 1.0], dtype=D))
    (h,) = torch.autograd.grad(z[-1].sum(), z0, create_graph=True)
    ((z**2).sum() + (h**2).sum()).backward()
    torch.testing.assert_close(y0.grad, z0.grad, rtol=1e-7, atol=1e-8)


def _net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).to(D)


@pytest.mark.julia_methods
@pytest.mark.parametrize(
    "method", ["Tsit5", "Vern7", "dopri5", "BS3", "Rodas5P", "Rodas4", "Rosenbrock23"]
)
def test_every_input(method: str) -> None:
    """By the initial state, parameters and times, against the torch engine's very operations."""
    net, k = _net(), torch.tensor(0.7, dtype=D, requires_grad=True)

    def func(t: Tensor, y: Tensor) -> Tensor:
        return net(y) * torch.cos(k * t) + k * y

    def loss(solve: Any, y0: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        inputs = (y0, t, k, *net.parameters())
        y = solve(y0, t)
        grads = torch.autograd.grad(y.pow(2).sum(), inputs, create_graph=True)
        penalty = sum((g**2).sum() for g in grads)
        return torch.autograd.grad(penalty, inputs)

    y0 = torch.tensor([[1.0, 0.5], [-0.3, 0.2]], dtype=D, requires_grad=True)
    t = TIMES.clone().requires_grad_()
    loose = {"rtol": 1e-6, "atol": 1e-7} if method in ("BS3", "Rosenbrock23") else TIGHT
    found = loss(lambda y0, t: odeint(func, y0, t, method=method, engine=julia, **loose), y0, t)
    expected = loss(lambda y0, t: reference(func, y0, t), y0, t)
    tolerance = 2e-3 if method in ("BS3", "Rosenbrock23") else 1e-6
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
