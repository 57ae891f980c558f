"""Gradients of stochastic equations: those of the steps, which are made by hand beside."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import pyjlode
from pyjlode import BrownianPath, Statistics, UnsupportedError, sdeint
from tests.reference import assert_close
from tests.stochastic_examples import D, Equation, by_hand

KINDS = [
    ("ito", "diagonal", "EM"), ("ito", "diagonal", "RKMil"), ("ito", "scalar", "EM"),
    ("ito", "scalar", "RKMil"), ("ito", "additive", "EM"), ("ito", "general", "EM"),
    ("stratonovich", "diagonal", "EulerHeun"), ("stratonovich", "diagonal", "RKMil"),
    ("stratonovich", "scalar", "EulerHeun"), ("stratonovich", "scalar", "RKMil"),
    ("stratonovich", "additive", "EulerHeun"), ("stratonovich", "general", "EulerHeun"),
]  # fmt: skip


@pytest.mark.parametrize(("sde_type", "noise_type", "method"), KINDS)
def test_gradients_are_those_of_the_steps(
    julia: str, sde_type: str, noise_type: str, method: str
) -> None:
    """Values and gradients to rounding, against autograd through steps with the same noise."""
    sde, ts = Equation(sde_type, noise_type), [0.1, 0.5, 0.93]
    y0 = torch.rand(3, 2, dtype=D).requires_grad_()
    stats = Statistics()
    y, path = sdeint(
        sde, y0, ts, method=method, dt=0.11, seed=1, return_noise=True, engine=julia, stats=stats
    )
    assert stats.naccept == 8 and len(path.t) == 9
    expected = by_hand(sde, method, y0, path, ts)
    assert_close(y, expected, 1e-13)
    weights = torch.linspace(0.5, 1.5, y.numel(), dtype=D).view_as(y)
    inputs = [y0, *sde.parameters()]
    found, wanted = (
        torch.autograd.grad((weights * s + s**2).sum(), inputs, allow_unused=True)
        for s in (y, expected)
    )
    for name, a, b in zip(("y0", "a", "b", "w"), found, wanted, strict=True):
        used = name != "w" or noise_type != "diagonal"
        assert (a is None) == (b is None) == (not used)
        if used:
            assert_close(a, b, 1e-12, name)


@pytest.mark.parametrize("method", ["EM", "RKMil"])
def test_gradients_are_finite_differences(julia: str, method: str) -> None:
    """Along one path, which the solve before gave."""
    sde = Equation("ito", "diagonal")
    y0 = torch.rand(3, 2, dtype=D).requires_grad_()
    path = BrownianPath.sample(torch.linspace(0, 1, 21, dtype=D), (3, 2), seed=0)

    def loss() -> Tensor:
        return sdeint(sde, y0, [0.0, 1.0], path, method, dt=0.05, engine=julia)[-1].sin().sum()

    inputs = [y0, sde.a, sde.b]
    gradients = torch.autograd.grad(loss(), inputs)
    h = 1e-6
    for x, gradient in zip(inputs, gradients, strict=True):
        direction = torch.randn_like(x)
        with torch.no_grad():
            x += h * direction
            above = loss()
            x -= 2 * h * direction
            below = loss()
            x += h * direction
        assert_close((gradient * direction).sum(), (above - below) / (2 * h), 1e-7)


def test_neural_coefficients(julia: str) -> None:
    """Layers in drift and diffusion, in single precision; a second backward pass."""

    class Neural(nn.Module):
        sde_type, noise_type = "ito", "general"

        def __init__(self) -> None:
            super().__init__()
            self.drift = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))
            self.diffusion = nn.Linear(3, 6)

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return self.drift(y)

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.sigmoid(self.diffusion(y)).unflatten(-1, (3, 2))

    sde, y0 = Neural(), torch.randn(100, 3)
    y, path = sdeint(sde, y0, [0.0, 1.0], dt=0.05, return_noise=True, engine=julia)
    expected = by_hand(sde, "EM", y0, path, [0.0, 1.0])
    assert y.dtype == torch.float32
    assert_close(y, expected, 1e-5)
    found = torch.autograd.grad(y.square().sum(), sde.parameters(), retain_graph=True)
    again = torch.autograd.grad(y.square().sum(), sde.parameters())
    wanted = torch.autograd.grad(expected.square().sum(), sde.parameters())
    for a, b, c in zip(found, again, wanted, strict=True):
        assert torch.equal(a, b)
        assert_close(a, c, 1e-4)


def test_gradient_is_of_the_values_at_the_solve(julia: str) -> None:
    """Buffers and parameters may change before the backward pass."""
    sde = Equation("ito", "general")
    y0 = torch.rand(2, 2, dtype=D)
    y, path = sdeint(sde, y0, [0.0, 0.4], dt=0.1, seed=0, return_noise=True, engine=julia)
    expected = by_hand(sde, "EM", y0, path, [0.0, 0.4])
    wanted = torch.autograd.grad(expected.sum(), sde.parameters())
    with torch.no_grad():
        sde.shift += 1
        for p in sde.parameters():
            p += 1
        sdeint(sde, y0, [0.0, 0.4], dt=0.1, engine=julia)
    for a, b in zip(torch.autograd.grad(y.sum(), sde.parameters()), wanted, strict=True):
        assert_close(a, b, 1e-12)


def test_callback_mode(julia: str) -> None:
    """A drift that branches on a value runs in Python, and is as right."""

    class Branching(Equation):
        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return self.a * y if y.sum() > 0 else -y

    sde = Branching("ito", "diagonal")
    y0 = torch.rand(2, 2, dtype=D).requires_grad_()
    with pytest.warns(pyjlode.PyjlodeWarning, match="callback mode"):
        y, path = sdeint(sde, y0, [0.0, 0.4], dt=0.1, return_noise=True, engine=julia)
    expected = by_hand(sde, "RKMil", y0, path, [0.0, 0.4])
    assert_close(y, expected, 1e-13)
    inputs = [y0, sde.a, sde.b]
    found, wanted = (torch.autograd.grad(s.square().sum(), inputs) for s in (y, expected))
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b, 1e-12)


def test_coefficients_without_derivatives(julia: str) -> None:
    """Constant ones, whose gradients are zero, and a function that keeps statistics."""

    class Constant:
        sde_type, noise_type = "ito", "general"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.ones_like(y)

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return y.new_ones(len(y), 2, 3)

    y0 = torch.rand(2, 2, dtype=D).requires_grad_()
    y = sdeint(Constant(), y0, [0.0, 0.4], dt=0.1, engine=julia)
    (gradient,) = torch.autograd.grad(y[-1].sum(), y0)
    assert torch.equal(gradient, torch.ones_like(y0))

    class Normed(Equation):
        def __init__(self) -> None:
            super().__init__("ito", "diagonal")
            self.norm = nn.BatchNorm1d(2, dtype=D)

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return self.norm(y)

    with pytest.raises(UnsupportedError, match="eval"):
        sdeint(Normed(), y0, [0.0, 0.4], dt=0.1, engine=julia)
