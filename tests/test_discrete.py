"""The discrete adjoint in Julia against torch's reverse mode through the same steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchdiffeq
from reference import Func, assert_close, gradients
from torch import Tensor

from pyjlode import DiscreteAdjoint, SolverError, UnsupportedError, odeint
from pyjlode.engine import solve as julia_solve
from pyjlode.problem import Statistics

D = torch.float64
ADAPTIVE = ["Tsit5", "DP5", "BS3", "Vern6", "Vern7", "Vern8", "Vern9", "Midpoint", "Heun", "RK4"]

# Verner's interpolations have coefficients of a million, by which rounding grows.
TOLERANCE = {"Vern6": 1e-10, "Vern8": 1e-9, "Vern7": 1e-11, "Vern9": 1e-11}


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The steps of the solves that the test makes, last one last."""
    found: list[Any] = []
    forward = julia_solve.Solve.forward

    def noting(*args: Any, **options: Any) -> Any:
        out, solved = forward(*args, **options)
        found.append(solved.tape)
        return out, solved

    monkeypatch.setattr(julia_solve.Solve, "forward", noting)
    return found


def same_steps(tape: Any, func: Func, y0: Tensor, t: Tensor) -> Tensor:
    """Torch's solve with the tableau and the lengths of the steps of another, noted one."""
    tableau = tape.tableau
    a, b, c, weights = (
        [np.asarray(r).tolist() for r in tableau.a], np.asarray(tableau.b).tolist(),
        np.asarray(tableau.c).tolist(), [np.asarray(r).tolist() for r in tableau.weights],
    )  # fmt: skip
    sign = -1 if t[-1] < t[0] else 1
    y, start, passed, states = y0, t[0], 1, [y0]
    steps = zip(tape.dt, tape.inside, tape.upto, strict=True)
    for h, inside, upto in ((sign * h, i, u) for h, i, u in steps):
        k: list[Tensor] = []
        for row, node in zip(a, c, strict=True):
            y_stage = y + h * sum(r * x for r, x in zip(row, k, strict=False))
            k.append(func(start + node * h, y_stage))
        for s in t[passed:inside]:
            theta = (s - start) / h
            w = [sum(q * theta ** (j + 1) for j, q in enumerate(row)) for row in weights]
            states.append(y + h * sum(q * x for q, x in zip(w, k, strict=True)))
        y = y + h * sum(q * x for q, x in zip(b, k, strict=False))
        start = start + h
        if upto > inside:  # a save point at the step's end moves along the slope there
            states.append(y + (t[upto - 1] - start) * func(start, y))
        passed = upto
    return torch.stack(states)


def network(dtype: torch.dtype) -> tuple[Func, list[Tensor]]:
    net = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
    net = net.to(dtype)
    scale = torch.tensor(1.3, dtype=dtype, requires_grad=True)

    def func(t: Tensor, y: Tensor) -> Tensor:
        time = t.to(y.dtype).expand(*y.shape[:-1], 1)
        return scale * net(torch.cat([y, torch.sin(3 * time)], dim=-1))

    return func, [scale, *net.parameters()]


def check(
    tapes: list[Any], func: Func, y0: Tensor, t: Tensor, tensors: list[Tensor], tolerance: float,
    replay: Callable[..., Tensor] = same_steps, **options: Any,
) -> None:  # fmt: skip
    """Compare a solve and its gradients with those of ``replay``, through the same steps."""

    def solve(y: Tensor, s: Tensor) -> Tensor:
        return odeint(func, y, s, engine="julia", **options)

    states, found = gradients(solve, y0, t, tensors)
    tape = tapes[-1]
    expected_states, expected = gradients(lambda y, s: replay(tape, func, y, s), y0, t, tensors)
    assert_close(states, expected_states, tolerance, "states")
    for i, (g, e) in enumerate(zip(found, expected, strict=True)):
        assert_close(g, e, 10 * tolerance, f"gradient {i}")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_same_steps(julia: str, tapes: list[Any], method: str, reverse: bool) -> None:
    """Every explicit method; several save points in one step, and steps without any."""
    func, tensors = network(D)
    y0 = torch.tensor([[0.5, -0.3], [1.0, 0.4], [0.0, -2.0]], dtype=D)
    t = torch.tensor([0.0, 0.01, 0.02, 0.021, 1.1, 1.5], dtype=D)
    check(
        tapes, func, y0, t.flip(0) if reverse else t, tensors, TOLERANCE.get(method, 1e-13),
        method=method, rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    assert len(tapes[-1].t) > 2


@pytest.mark.parametrize("shape", [(2,), (4, 2), (2, 3, 2)])
def test_float32_and_shapes(julia: str, tapes: list[Any], shape: tuple[int, ...]) -> None:
    func, tensors = network(torch.float32)
    t = torch.tensor([0.0, 0.2, 0.21, 1.0])
    check(tapes, func, torch.randn(shape), t, tensors, 2e-6, sensealg="discrete")


@pytest.mark.parametrize("checkpoints", [1, 2, 5, 1000])
def test_checkpoints(julia: str, tapes: list[Any], checkpoints: int) -> None:
    func, tensors = network(D)
    y0, t = torch.tensor([0.5, -0.3], dtype=D), torch.linspace(0, 2, 9, dtype=D)
    check(tapes, func, y0, t, tensors, 1e-13, sensealg=DiscreteAdjoint(checkpoints=checkpoints))
    assert len(tapes[-1].states) <= checkpoints
    assert len(tapes[-1].t) > 10


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun2"])
@pytest.mark.parametrize("reverse", [False, True])
def test_torchdiffeq_with_fixed_steps(julia: str, method: str, reverse: bool) -> None:
    """One step from each time to the next: also the derivatives by the times are torch's."""
    func, tensors = network(D)
    y0, t = torch.randn(3, 2, dtype=D), torch.tensor([0.0, 0.1, 0.15, 0.4, 0.45], dtype=D)
    t = t.flip(0) if reverse else t
    solvers: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda y, s: odeint(func, y, s, method=method, engine="julia"),
        lambda y, s: torchdiffeq.odeint(func, y, s, method=method),
    ]
    (states, found), (expected_states, expected) = (
        gradients(solve, y0, t, tensors) for solve in solvers
    )
    assert_close(states, expected_states, 1e-14)
    for i, (g, e) in enumerate(zip(found, expected, strict=True)):
        assert_close(g, e, 1e-13, f"gradient {i}")


def test_torchdiffeq_with_a_step_size(julia: str) -> None:
    func, tensors = network(D)
    y0, t = torch.randn(3, 2, dtype=D), torch.tensor([0.0, 0.5, 1.0], dtype=D)
    arguments: dict[str, Any] = {"method": "midpoint", "options": {"step_size": 0.125}}
    _, found = gradients(
        lambda y, s: odeint(func, y, s, engine="julia", **arguments), y0, t, tensors
    )
    _, expected = gradients(
        lambda y, s: torchdiffeq.odeint(func, y, s, **arguments), y0, t, tensors
    )
    del found[1], expected[1]  # torchdiffeq's steps do not start anew at each time
    for i, (g, e) in enumerate(zip(found, expected, strict=True)):
        assert_close(g, e, 1e-13, f"gradient {i}")


def test_it_is_the_default(julia: str) -> None:
    """At loose tolerances it is the gradient of the numbers that it shows, where others are not."""

    def loss(k: Tensor, **options: Any) -> Tensor:
        y0 = torch.ones(1, dtype=D)
        return odeint(
            lambda t, y: -k * y, y0, [0.0, 1.0], method="rk4", engine="julia", **options
        )[-1].sum()  # fmt: skip

    k = torch.tensor(0.8, dtype=D, requires_grad=True)
    x = -0.8  # one step of Runge and Kutta's gives 1 + x + x²/2 + x³/6 + x⁴/24
    expected = torch.tensor(-(1 + x + x**2 / 2 + x**3 / 6), dtype=D)
    for options in ({}, {"sensealg": "discrete"}):
        (found,) = torch.autograd.grad(loss(k, **options), k)
        assert_close(found, expected, 1e-15)
    (continuous,) = torch.autograd.grad(loss(k, sensealg="gauss"), k)
    assert float(abs(continuous - expected)) > 1e-4


def test_backward_twice(julia: str) -> None:
    k = torch.tensor(0.8, dtype=D, requires_grad=True)
    stats = Statistics()
    y = odeint(lambda t, y: -k * y, torch.ones(1, dtype=D), [0, 1], engine="julia", stats=stats)
    first, second = (torch.autograd.grad(y[-1].sum(), k, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert stats.nfe_backward == 6 * stats.naccept  # one product a stage


def test_no_parameters_and_no_gradient_of_time(julia: str) -> None:
    y0 = torch.ones(2, dtype=D, requires_grad=True)
    odeint(lambda t, y: -y, y0, [0.0, 1.0], engine="julia")[-1].sum().backward()
    assert_close(y0.grad, torch.full((2,), float(np.exp(-1)), dtype=D), 1e-6)


def test_gradient_that_is_not_finite(julia: str) -> None:
    y0 = torch.zeros(1, dtype=D, requires_grad=True)
    y = odeint(lambda t, y: torch.sqrt(y), y0, [0.0, 1.0], engine="julia")
    with pytest.raises(SolverError, match="backward"):
        y[-1].sum().backward()


def test_what_there_is_not(engine: str) -> None:
    y0 = torch.ones(1, dtype=D, requires_grad=True)
    with pytest.raises(ValueError, match="at least 1"):
        DiscreteAdjoint(checkpoints=0)
    refused = {
        "torch": {"sensealg": DiscreteAdjoint(checkpoints=3)},
        "julia": {"sensealg": DiscreteAdjoint(), "method": "FBDF"},
    }[engine]
    with pytest.raises(UnsupportedError, match=r"BacksolveAdjoint|GaussAdjoint"):
        odeint(lambda t, y: -y, y0, [0.0, 1.0], engine=engine, **refused)


@pytest.mark.parametrize("method", ["Tsit5", "Rodas5P", "KenCarp4"])
def test_a_first_step_that_is_cut_short(julia: str, method: str) -> None:
    """It is as long as the way to where it ends: to the first time, or the whole of it."""
    k, y0 = (torch.tensor(x, dtype=D, requires_grad=True) for x in (0.3, [1.0, -2.0]))
    for times, options in (([0.0, 1e-6, 0.1], {}), ([0.0, 0.02, 0.07, 0.1], {"first_step": 9.0})):
        t = torch.tensor(times, dtype=D)
        solved = [
            odeint(
                lambda t, y: -k * y, y0, t, rtol=1e-3, atol=1e-3, method=method, options=options,
                sensealg=sensealg, engine="julia",
            )
            for sensealg in ("discrete", "gauss")
        ]  # fmt: skip
        with torch.no_grad():
            solved.append(
                odeint(
                    lambda t, y: -k * y, y0, t, rtol=1e-3, atol=1e-3, method=method,
                    options=options, engine="julia",
                )
            )  # fmt: skip
        exact = torch.exp(-k * t)[:, None] * y0
        expected = torch.autograd.grad(exact.sum(), (k, y0))
        for states in solved:
            assert_close(states.detach(), exact.detach(), 1e-5)
            if states.requires_grad:
                found = torch.autograd.grad(states.sum(), (k, y0))
                for g, e in zip(found, expected, strict=True):
                    assert_close(g, e, 1e-3)


def test_a_switching_method_leaves_its_parts_as_they_are(julia: str) -> None:
    def steps() -> int:
        stats = Statistics()
        t = torch.linspace(0, 1, 50)
        odeint(lambda t, y: -y, torch.ones(1), t, method="Rodas5P", engine="julia", stats=stats)
        return stats.naccept

    before = steps()
    odeint(lambda t, y: -y, torch.ones(1), [0.0, 1.0], method="auto", engine="julia")
    assert steps() == before < 49
