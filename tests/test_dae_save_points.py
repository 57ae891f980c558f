"""Algebraic equations hold at the save points, also where an input has a kink within a step."""

from __future__ import annotations

import pytest
import torch
from reference import assert_close
from torch import Tensor

from pyjlode import daeint, odeint

D = torch.float64
MASS = torch.diag(torch.tensor([1.0, 0.0], dtype=D))
TIMES = torch.linspace(0, 2, 41, dtype=D)
Y0 = torch.tensor([1.0, 0.3], dtype=D)


def signal(t: Tensor, k: Tensor) -> Tensor:
    return (t - k).abs() + torch.sin(3 * t)


def residuals(y: Tensor, k: Tensor) -> Tensor:
    return y[:, 1] ** 3 + y[:, 1] - torch.stack([signal(t, k) for t in TIMES])


@pytest.mark.parametrize("method", ["Rodas5P", "Rodas4", "RadauIIA5", "FBDF"])
def test_mass_matrix(julia: str, method: str) -> None:
    k = torch.tensor(1 / 3, dtype=D)

    def func(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[1] - y[0], y[1] ** 3 + y[1] - signal(t, k)])

    y = odeint(
        func, Y0, TIMES, method=method, mass_matrix=MASS, rtol=1e-8, atol=1e-10, engine=julia
    )
    assert residuals(y, k).abs().max() < 5e-8


def test_implicit_form_and_its_gradient(julia: str) -> None:
    def solve(k: Tensor) -> Tensor:
        def func(t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
            return torch.stack([dy[0] + y[0] - y[1], y[1] ** 3 + y[1] - signal(t, k)])

        kinds = [True, False]
        return daeint(func, Y0, None, TIMES, rtol=1e-9, atol=1e-11, differential_vars=kinds)

    k = torch.tensor(1 / 3, dtype=D, requires_grad=True)
    y = solve(k)
    assert residuals(y, k).abs().max() < 5e-8
    y.square().sum().backward()
    step = 1e-4
    with torch.no_grad():
        above, below = (solve(k + s).square().sum() for s in (step, -step))
    assert_close(k.grad, (above - below) / (2 * step), 1e-4)
