"""Stochastic equations: values along known Brownian motion, orders, statistics.

Some of the methods without gradients in the plain suite; all with ``PYJLODE_ALL_METHODS=1``.
"""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor

import pyjlode
from pyjlode import BrownianPath, SolverError, Statistics, UnsupportedError, sdeint
from tests.reference import assert_close
from tests.stochastic_examples import D, Equation, General, Geometric, Relaxing, Turning, by_hand


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
    with pytest.raises(UnsupportedError, match="second derivatives"):
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
