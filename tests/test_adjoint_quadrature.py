"""Gradients by what the adjoint's steps know nothing of, such as an interpolated input's values."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from reference import assert_close
from torch import Tensor

from pyjlode import GaussAdjoint, QuadratureAdjoint, SensitivityAlgorithm, odeint

D = torch.float64
KNOTS = torch.linspace(0, 1, 11, dtype=D)
RATE = 0.4


def hats(t: Tensor) -> Tensor:
    return (1 - (t - KNOTS).abs() * 10).clamp(min=0)


def exact(end: float) -> Tensor:
    """The derivative of ``y(end)`` by ``u``, with 20 points between knots."""
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(20))
    total = torch.zeros(11, dtype=D)
    for left, right in pairwise(KNOTS):
        for x, w in zip(nodes, weights, strict=True):
            t = (left + right) / 2 + x * (right - left) / 2
            if t < end:
                total += w * (right - left) / 2 * torch.exp(-RATE * (end - t)) * hats(t)
    return total


# With zeros the input is not felt by the forward solve's steps either.
@pytest.mark.parametrize("u", [torch.linspace(0.5, 1.5, 11, dtype=D), torch.zeros(11, dtype=D)])
@pytest.mark.parametrize(
    ("method", "sensealg"),
    [("FBDF", None), ("KenCarp4", None), ("VCABM", None), ("Tsit5", "gauss"), ("Rodas5P", "gauss"),
     ("Vern7", "gauss"), ("Tsit5", "quadrature"), ("Rodas5P", "quadrature")],
)  # fmt: skip
def test_interpolated_input(julia: str, method: str, sensealg: str | None, u: Tensor) -> None:
    """Gauss's rule over the adjoint's steps was 3% off, at any tolerance."""
    u = u.clone().requires_grad_()
    y = odeint(
        lambda t, y: -RATE * y + hats(t) @ u, torch.ones(1, dtype=D), [0.0, 1.0], method=method,
        sensealg=sensealg, rtol=1e-8, atol=1e-10, engine=julia,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(y[-1].sum(), u)
    assert_close(gradient, exact(1.0), 1e-7)


@pytest.mark.parametrize(
    "sensealg", [GaussAdjoint(), GaussAdjoint(checkpointing=True), QuadratureAdjoint()]
)
def test_backwards_in_time(julia: str, sensealg: SensitivityAlgorithm) -> None:
    u = torch.ones(11, dtype=D, requires_grad=True)
    y = odeint(
        lambda t, y: RATE * y - hats(1 - t) @ u, torch.ones(1, dtype=D), [1.0, 0.6, 0.3, 0.0],
        method="Tsit5", sensealg=sensealg, rtol=1e-8, atol=1e-10, engine=julia,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(y[-1].sum(), u)
    assert_close(gradient, exact(1.0), 1e-7)


@pytest.mark.parametrize("method", ["FBDF", "VCABM", "KenCarp4"])
def test_a_jump(julia: str, method: str) -> None:
    """Of a parameter that counts from 1/3 on."""
    k = torch.tensor([0.0, 2.0], dtype=D, requires_grad=True)
    y = odeint(
        lambda t, y: -RATE * y + torch.where(t < 1 / 3, k[:1], k[1:]), torch.ones(1, dtype=D),
        [0.0, 1.0], method=method, rtol=1e-8, atol=1e-10, options={"jump_t": [1 / 3]}, engine=julia,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(y[-1].sum(), k)
    late = (1 - torch.exp(torch.tensor(-RATE * 2 / 3, dtype=D))) / RATE
    all_ = (1 - torch.exp(torch.tensor(-RATE, dtype=D))) / RATE
    assert_close(gradient, torch.stack([all_ - late, late]), 1e-8)
