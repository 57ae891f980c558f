"""Stochastic equations: values along known Brownian motion, orders, statistics, gradients.

Some of the methods without gradients in the plain suite; all with ``PYJLODE_ALL_METHODS=1``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyjlode
from pyjlode import BrownianPath, SolverError, Statistics, UnsupportedError, sdeint
from tests.reference import assert_close

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


def _errors(sde: Any, method: str, exact: Tensor, y0: Tensor, path: BrownianPath) -> list[float]:
    """The mean error at time 1 with steps of 1/16, 1/64 and 1/256."""
    with torch.no_grad():
        return [
            float((sdeint(sde, y0, [0.0, 1.0], path, method, dt=2.0**-k)[-1] - exact).abs().mean())
            for k in (4, 6, 8)
        ]


ORDERS = [
    (Geometric("ito"), "EM", 0.5), (Geometric("ito"), "RKMil", 1.0),
    (Geometric("ito"), "SRIW1", 1.5), (Geometric("stratonovich"), "EulerHeun", 1.0),
    (Geometric("stratonovich"), "RKMil", 1.0), (Turning(), "EM", 0.5), (Turning(), "RKMil", 1.0),
    (Turning(), "SRIW1", 1.5), (Relaxing(), "EM", 1.0),
    (Relaxing("stratonovich"), "EulerHeun", 1.0), (Relaxing(), "SRA1", 1.5),
]  # fmt: skip
ADAPTIVE = [(Geometric("ito"), "SOSRI")]
if os.environ.get("PYJLODE_ALL_METHODS"):
    ORDERS += [(Geometric("ito"), m, 1.5) for m in ("SRIW2", "SOSRI", "SOSRI2")]
    ORDERS += [(Relaxing(), m, 1.5) for m in ("SRA2", "SRA3", "SOSRA")]
    ORDERS += [(Turning(), "SOSRI", 1.5), (Relaxing("stratonovich"), "SOSRA2", 1.5)]
    ADAPTIVE += [(Geometric("ito"), m) for m in ("SOSRI2", "SRIW1", "SRIW2")]
    ADAPTIVE += [(Relaxing(), m) for m in ("SRA1", "SRA2", "SRA3", "SOSRA", "SOSRA2")]


@pytest.mark.parametrize(
    ("sde", "method", "order"), ORDERS, ids=[f"{type(s).__name__}-{m}" for s, m, _ in ORDERS]
)
def test_strong_order(julia: str, sde: Any, method: str, order: float) -> None:
    """Along the same Brownian motion, which coarser steps see too, with its integral."""
    n, m = {"diagonal": (1, 1), "scalar": (2, 1), "additive": (3, 2)}[sde.noise_type]
    path = BrownianPath.sample(torch.linspace(0, 1, 1025), (400, m), seed=5)
    y0 = torch.eye(n, dtype=D)[:1].repeat(400, 1)
    if sde.noise_type == "additive":
        with torch.no_grad():
            exact = sdeint(sde, y0, [0.0, 1.0], path, "SRA1", dt=2.0**-10)[-1]
    else:
        exact = sde.exact(path.W[-1])
    errors = _errors(sde, method, exact, y0, path)
    slope = math.log2(errors[0] / errors[-1]) / 4
    assert slope > order - 0.15, errors
    assert slope < order + 1, errors  # the test can tell the orders apart
    assert errors[-1] < 0.1


def test_weak_statistics(julia: str) -> None:
    """Mean and variance of an Ornstein-Uhlenbeck process, at two times, and their correlation."""

    class Process:
        sde_type, noise_type = "ito", "diagonal"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return 2 * (1 - y)

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return 0.5 * torch.ones_like(y)

    count = 40_000
    y = sdeint(
        Process(), torch.zeros(count, 1, dtype=D), [0.0, 0.5, 1.0], dt=0.01, method="EM", seed=3
    )[1:, :, 0]
    for t, values in zip((0.5, 1.0), y, strict=True):
        variance = 0.5**2 / 4 * (1 - math.exp(-4 * t))
        assert abs(values.mean() - (1 - math.exp(-2 * t))) < 5 * math.sqrt(variance / count) + 0.005
        assert abs(values.var() / variance - 1) < 5 * math.sqrt(2 / count) + 0.02
    covariance = 0.5**2 / 4 * (math.exp(-1) - math.exp(-3))
    assert abs(torch.cov(y)[0, 1] / covariance - 1) < 0.05


def test_seeds(julia: str) -> None:
    """Same path for the same seed, whatever the method; torch's generator where there is none."""
    sde, y0 = Geometric("ito"), torch.ones(3, 2, dtype=D)

    def solve(**change: Any) -> tuple[Tensor, BrownianPath]:
        call = {"seed": 7, "method": "EM", "dt": 0.1, "return_noise": True} | change
        return sdeint(sde, y0, [0.0, 1.0], engine=julia, **call)

    (y, path), (again, _), (_, other) = solve(), solve(), solve(method="SRIW1")
    assert torch.equal(y, again) and torch.equal(path.W, other.W)
    assert not torch.equal(y, solve(seed=8)[0])
    torch.manual_seed(0)
    first, second = solve(seed=None)[0], solve(seed=None)[0]
    torch.manual_seed(0)
    assert torch.equal(first, solve(seed=None)[0]) and not torch.equal(first, second)
    adaptive = {"adaptive": True, "method": "SOSRI"}
    y, path = solve(**adaptive)
    assert torch.equal(y, solve(**adaptive)[0]) and not torch.equal(y, solve(**adaptive, seed=8)[0])
    rows = y[-1].reshape(-1)
    assert len(rows.unique()) == len(rows)  # each trajectory has a motion of its own


@pytest.mark.parametrize(("sde", "method"), ADAPTIVE)
def test_adaptive_steps(julia: str, sde: Any, method: str) -> None:
    """Against what the Brownian motion that came of it leads to."""
    y0, stats = torch.ones(4, 3 if sde.noise_type == "additive" else 1, dtype=D), Statistics()
    y, path = sdeint(
        sde, y0, [0.0, 0.3, 1.0], method=method, adaptive=True, dt=1e-3, seed=2,
        return_noise=True, engine=julia, stats=stats,
    )  # fmt: skip
    additive = sde.noise_type == "additive"
    exact = by_hand(sde, "EM", y0, path, [1.0])[0] if additive else sde.exact(path(0.0, 1.0))
    assert_close(y[-1], exact, 0.02)
    assert path.t[0] == 0 and path.t[-1] == 1 and len(path.t) == stats.naccept + 1
    variance = (path.W.diff(dim=0) ** 2 / path.t.diff()[:, None, None]).mean()
    assert abs(float(variance) - 1) < 5 * math.sqrt(2 / path.W[1:].numel())


@pytest.mark.parametrize(
    ("sde", "method"), [(Geometric("ito"), "RKMil"), (Geometric("stratonovich"), "LambaEulerHeun")]
)
def test_adaptive_steps_converge_to_the_solution(julia: str, sde: Any, method: str) -> None:
    """In the mean over many paths, where a choice of steps by the path could leave a bias."""
    errors, tolerance = [], {"RKMil": 1e-3, "LambaEulerHeun": 1e-2}[method]
    for seed in range(60):
        y0 = torch.ones(1, 1, dtype=D)
        call = {"rtol": tolerance, "atol": tolerance, "seed": seed, "return_noise": True}
        y, path = sdeint(sde, y0, [0.0, 1.0], method=method, adaptive=True, **call)
        errors.append(y[-1].log() - sde.exact(path(0.0, 1.0)).log())
    error = torch.stack(errors)
    assert abs(error.mean()) < 4 * error.std() / math.sqrt(60) + 1e-3
    assert error.std() < 5e-3


@pytest.mark.parametrize(
    ("sde_type", "noise_type", "method", "same"),
    [
        ("ito", "diagonal", "RKMil", "RKMil"),
        ("stratonovich", "additive", "LambaEulerHeun", "EulerHeun"),
    ],
)  # fmt: skip
def test_adaptive_steps_to_rounding(
    julia: str, sde_type: str, noise_type: str, method: str, same: str
) -> None:
    """By the same steps with the noise that is said to be theirs."""
    sde, y0, ts = Equation(sde_type, noise_type), torch.rand(3, 2, dtype=D), [0.0, 0.3, 1.0]
    with torch.no_grad():
        y, path = sdeint(
            sde, y0, ts, method=method, adaptive=True, seed=2, return_noise=True, engine=julia
        )
        assert_close(y, by_hand(sde, same, y0, path, ts), 1e-11)
    assert len(path.t.diff().unique()) > 5


def test_another_s_brownian_motion(julia: str) -> None:
    """What is called as torchsde's is."""
    path = BrownianPath.sample(torch.linspace(0, 1, 11, dtype=D), (3, 2), seed=0)
    sde, y0, ts = Geometric("ito"), torch.ones(3, 2, dtype=D), [0.0, 0.5, 1.0]
    expected = sdeint(sde, y0, ts, path, dt=0.1)
    assert torch.equal(sdeint(sde, y0, ts, lambda a, b: path(a, b), dt=0.1), expected)
    for name, same in (("euler", "EM"), ("milstein", "RKMil"), ("srk", "SRIW1")):
        pair = [sdeint(sde, y0, ts, path, m, dt=0.1) for m in (name, same)]
        assert torch.equal(*pair)


def test_times_of_single_precision(julia: str) -> None:
    """Their rounding makes no steps more, and finds its place in a path."""
    sde, y0, ts = Geometric("ito"), torch.ones(2, 1, dtype=D), torch.linspace(0, 10, 101)
    y, path = sdeint(sde, y0, ts, dt=0.01, seed=0, return_noise=True, engine=julia)
    assert len(path.t) == 1001
    grid = torch.linspace(0, 10, 1001, dtype=D)
    again = sdeint(sde, y0, grid[::10], BrownianPath(grid, path.W), dt=0.01, engine=julia)
    assert_close(y, again, 1e-4)


def test_names_of_the_coefficients(julia: str) -> None:
    class Other(Geometric):
        def h(self, t: Tensor, y: Tensor) -> Tensor:
            return -y

    y0 = torch.ones(1, 1, dtype=D)
    y = sdeint(Other("ito"), y0, [0.0, 1.0], names={"drift": "h"}, dt=0.1, seed=0, method="EM")
    path = BrownianPath.sample(torch.linspace(0, 1, 11, dtype=D), (1, 1), seed=0)
    expected = torch.ones(1, 1, dtype=D)
    for dW in path.W.diff(dim=0):
        expected = expected * (1 - 0.1 + 0.8 * dW)
    assert_close(y[-1], expected, 1e-12)


def test_what_fails_raises(julia: str) -> None:
    class Bursting(Geometric):
        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.exp(y**2)

    with pytest.raises(SolverError, match="smaller steps"):
        sdeint(Bursting("ito"), 3 * torch.ones(1, 1), [0.0, 5.0], dt=0.1)
    with pytest.raises(SolverError, match="stopped at"):
        sdeint(
            Geometric("ito"), torch.ones(1, 1), [0.0, 5.0], adaptive=True, dt=1e-3,
            options={"max_num_steps": 3},
        )  # fmt: skip


def test_no_gradient_is_refused(julia: str) -> None:
    sde = Equation("ito", "diagonal")
    y0, ts = torch.rand(2, 2, dtype=D), [0.0, 0.1]
    with pytest.raises(UnsupportedError, match="EM, RKMil, EulerHeun"):
        sdeint(sde, y0, ts, method="SRIW1", dt=0.1)
    with pytest.raises(UnsupportedError, match="adaptive"):
        sdeint(sde, y0, ts, adaptive=True)
    with torch.no_grad():
        assert sdeint(sde, y0, ts, method="SRIW1", dt=0.1).shape == (2, 2, 2)
    y = sdeint(sde, y0.requires_grad_(), ts, dt=0.1)
    (once,) = torch.autograd.grad(y.sum(), y0, create_graph=True)
    with pytest.raises(RuntimeError):
        once.sum().backward()


def test_the_torch_engine_says_what_to_do() -> None:
    with pytest.raises(UnsupportedError, match="pyjlode setup"):
        sdeint(Geometric("ito"), torch.ones(1, 1), [0.0, 1.0], engine="torch")


def test_arguments_are_checked() -> None:
    sde, y0, ts = Geometric("ito"), torch.ones(2, 2, dtype=D), [0.0, 1.0]
    path = BrownianPath.sample([0.0, 0.5, 1.0], (2, 2), seed=0)

    def made(**attributes: Any) -> Any:
        return type("Made", (Geometric,), attributes)("ito")

    for call, kind, message in (
        ({"sde": made(noise_type="other")}, ValueError, "noise_type"),
        ({"sde": Geometric("other")}, ValueError, "sde_type"),
        ({"sde": made(g=None)}, ValueError, "must have methods"),
        ({"sde": made(g=lambda self, t, y: y[0])}, TypeError, "diagonal noise"),
        ({"sde": made(noise_type="scalar")}, TypeError, r"\(2, 2, 1\)"),
        ({"sde": made(f=lambda self, t, y: y.sum())}, TypeError, "f gives"),
        ({"y0": torch.ones(2)}, ValueError, "shape"),
        ({"y0": torch.ones(2, 2, dtype=torch.int64)}, TypeError, "float32"),
        ({"y0": y0 * math.nan}, ValueError, "finite"),
        ({"ts": [1.0, 0.0]}, ValueError, "increasing"),
        ({"ts": torch.tensor(ts, requires_grad=True)}, UnsupportedError, "ts"),
        ({"dt": 0.0}, ValueError, "dt"),
        ({"method": "SRIW3"}, ValueError, "SRIW2"),
        ({"method": "midpoint"}, UnsupportedError, "EulerHeun"),
        ({"method": "EulerHeun"}, UnsupportedError, "EM, RKMil"),
        ({"method": "LambaEM", "adaptive": True}, UnsupportedError, "something else"),
        (
            {"method": "ImplicitEM"},
            UnsupportedError,
            "ImplicitEM here.*stiff.*EM, RKMil.*dt below 2",
        ),
        ({"method": "SKenCarp()"}, UnsupportedError, "stiff.*EM, RKMil"),
        ({"method": "DRI1"}, UnsupportedError, "expectations.*mean over a batch"),
        ({"method": "LambaEulerHeun"}, UnsupportedError, "EM, RKMil"),
        ({"sde": Turning(), "adaptive": True}, UnsupportedError, "diagonal and additive"),
        ({"sde": General(), "adaptive": True}, UnsupportedError, "leave adaptive out"),
        ({"sde": General(), "adaptive": True, "method": "EM"}, UnsupportedError, "leave adaptive"),
        ({"method": "EM", "adaptive": True}, UnsupportedError, "SOSRI"),
        ({"adaptive": True, "bm": path}, UnsupportedError, "seed"),
        ({"bm": path, "seed": 0}, ValueError, "exclude"),
        ({"bm": path, "dt": 0.25}, ValueError, "no time 0.25"),
        ({"bm": path, "y0": y0.float()}, ValueError, "float32"),
        ({"bm": BrownianPath(path.t, path.W), "method": "SRIW1", "dt": 1.0}, UnsupportedError, "Z"),
        ({"bm": path.__call__, "method": "SRIW1"}, UnsupportedError, "BrownianPath"),
        ({"seed": -1}, ValueError, "seed"),
        ({"logqp": True}, UnsupportedError, "logqp"),
        ({"options": {"step": 1}}, ValueError, "options"),
        ({"names": {"prior": "h"}}, UnsupportedError, "names"),
    ):
        with pytest.raises(kind, match=message):
            sdeint(**({"sde": sde, "y0": y0, "ts": ts} | call))
    with pytest.raises(pyjlode.PyjlodeError):
        BrownianPath(path.t, path.W[1:])
