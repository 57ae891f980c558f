"""Delay equations: closed forms, SciPy interval by interval, and segments side by side in torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import factorial
from typing import Any

import pytest
import torch
from reference import assert_close
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import pyjlode
from pyjlode import (
    JuliaNotFoundError,
    NeuralCDDE,
    SolverError,
    Statistics,
    UnsupportedError,
    ddeint,
)
from pyjlode.ddeint import METHODS

D = torch.float64
TIGHT = {"rtol": 1e-10, "atol": 1e-12}


def linear(t: Tensor, y: Tensor, delayed: Tensor) -> Tensor:
    return -delayed


def steps(t: Tensor) -> Tensor:
    """Of y' = -y(t - 1) with the past 1, by the method of steps."""
    k = torch.arange(10, dtype=D)[:, None]
    pieces = (-1) ** k * (t - k + 1).clamp(min=0) ** k
    pieces = pieces / torch.tensor([factorial(i) for i in range(10)], dtype=D)[:, None]
    return torch.where(t > k - 1, pieces, 0.0).sum(0)


class Field(nn.Module):
    """Of two delays, and of time; the past is ``history``."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.7, dtype=D))
        self.weight = nn.Parameter(0.8 * torch.randn(2, 2, dtype=D))
        self.past = nn.Parameter(torch.randn(3, 2, dtype=D))
        self.frequency = nn.Parameter(torch.tensor(1.3, dtype=D))

    def forward(self, t: Tensor, y: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return (first @ self.weight).tanh() - self.rate * y + torch.sin(t) * second.square() / 4

    def history(self, t: Tensor) -> Tensor:
        return self.past * torch.cos(self.frequency * t)


def side_by_side(
    func: Callable[..., Tensor], history: Callable[[Tensor], Tensor], h: Tensor, lags: list[int],
    start: Tensor, pieces: int, substeps: int = 40,
) -> Tensor:  # fmt: skip
    """The states at the ends of ``pieces`` stretches of ``h``, with lags of so many stretches.

    All stretches so far are solved beside each other, so that a delay is another part of the state:
    classical Runge-Kutta steps, under autograd.
    """
    knots = [history(start)]

    def slope(x: Tensor, parts: Tensor) -> Tensor:
        def at(i: int) -> Tensor:
            return parts[i] if i >= 0 else history(start + (i + x) * h)

        rows = [
            func(start + (i + x) * h, at(i), *(at(i - n) for n in lags)) for i in range(len(parts))
        ]
        return h * torch.stack(rows)

    for _ in range(pieces):
        y, dx = torch.stack(knots), 1 / substeps
        for i in range(substeps):
            x = torch.tensor(i * dx, dtype=D)
            k1 = slope(x, y)
            k2 = slope(x + dx / 2, y + dx / 2 * k1)
            k3 = slope(x + dx / 2, y + dx / 2 * k2)
            k4 = slope(x + dx, y + dx * k3)
            y = y + dx / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        knots.append(y[-1])
    return torch.stack(knots)


def differences(loss: Callable[[], Tensor], x: Tensor, size: float = 1e-5) -> Tensor:
    """Central differences with respect to each element of ``x``."""
    found = torch.zeros_like(x)
    with torch.no_grad():
        for i in range(x.numel()):
            values = []
            for sign in (1, -1):
                x.view(-1)[i] += sign * size
                values.append(loss())
                x.view(-1)[i] -= sign * size
            found.view(-1)[i] = (values[0] - values[1]) / (2 * size)
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [(D, 1e-6), (torch.float32, 1e-5)])
def test_the_method_of_steps(julia: str, dtype: torch.dtype, tolerance: float) -> None:
    t = torch.linspace(0.0, 5.0, 23, dtype=D)
    past = torch.ones(2, dtype=dtype, requires_grad=True)
    stats = Statistics()
    y = ddeint(linear, past, t, lags=[1.0], engine=julia, stats=stats)
    assert y.dtype == dtype and y.shape == (23, 2)
    assert_close(y.to(D), steps(t)[:, None].expand(23, 2), tolerance)
    # The equation is linear in the past.
    y.sum().backward()
    assert_close(past.grad.to(D), steps(t).sum().expand(2), tolerance)
    assert stats.nfe > 0 and stats.naccept >= 5 and stats.nfe_backward > 0


@pytest.mark.parametrize("start", [-0.3, 1e-9, 1e5])
def test_starts_and_ends_that_are_not_round(julia: str, start: float) -> None:
    """A stage that reads the start, or a step's end, but for rounding."""
    t = start + torch.tensor([0.0, 1.0, 1.3, 2.0, 3.0], dtype=D)
    past = torch.ones(1, dtype=D, requires_grad=True)
    for lag in ([1.0], torch.tensor([1.0, 50.0])):
        y = ddeint(lambda t, y, delayed, *_: -delayed, past, t, lags=lag, engine=julia, **TIGHT)
        assert_close(y[:, 0], steps(t - start), 1e-9)
        (gradient,) = torch.autograd.grad(y.sum(), past)
        assert_close(gradient[0], steps(t - start).sum(), 1e-9)


def test_mackey_glass(julia: str) -> None:
    """Against SciPy, interval by interval."""

    def growth(delayed: Any) -> Any:
        return 2 * delayed / (1 + delayed**9.65)

    lag, before = 2.0, lambda t: [0.5]
    expected = [0.5]
    for k in range(5):
        span = (k * lag, (k + 1) * lag)
        piece = solve_ivp(
            lambda t, y: growth(before(t - lag)[0]) - y, span, expected[-1:],  # noqa: B023
            "DOP853", rtol=1e-12, atol=1e-13, dense_output=True, max_step=0.1,
        )  # fmt: skip
        before = piece.sol
        expected.append(piece.y[0, -1])
    y = ddeint(
        lambda t, y, delayed: growth(delayed) - y, torch.tensor(0.5, dtype=D),
        torch.arange(6, dtype=D) * lag, lags=[lag], engine=julia, **TIGHT,
    )  # fmt: skip
    assert y.shape == (6,)
    assert_close(y, torch.tensor(expected, dtype=D), 1e-8)


def test_values_and_gradients_of_segments_side_by_side(julia: str) -> None:
    """Two lags, a batch, time, a past that is a function; with respect to everything."""
    field, start = Field(), torch.tensor(0.2, dtype=D, requires_grad=True)
    h = torch.tensor(0.5, dtype=D, requires_grad=True)
    inputs = [start, h, *field.parameters()]
    expected = side_by_side(field, field.history, h, [1, 2], start, 5)
    found = ddeint(
        field, field.history, start + torch.arange(6) * h, lags=torch.stack([h, 2 * h]),
        engine=julia, **TIGHT,
    )  # fmt: skip
    assert_close(found, expected, 1e-8)
    weights = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad((weights * y + y.square()).sum(), inputs) for y in (found, expected)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.abs().max() > 1e-2
        assert_close(ours, theirs, 1e-7)


def test_gradients_are_finite_differences(julia: str) -> None:
    """Each input by itself, with save points within steps and lags of no common measure."""
    field = Field()
    t = torch.tensor([0.1, 0.45, 1.0, 1.71, 2.2], dtype=D, requires_grad=True)
    lags = torch.tensor([0.37, 0.81], dtype=D, requires_grad=True)
    past = torch.randn(3, 2, dtype=D, requires_grad=True)
    weights = torch.randn(5, 3, 2, dtype=D)
    for history, inputs in (
        (field.history, [t, lags, *field.parameters()]),
        (past, [past, t, lags, field.rate, field.weight]),
    ):

        def loss(history: Any = history) -> Tensor:
            return (weights * ddeint(field, history, t, lags=lags, engine=julia, **TIGHT)).sum()

        gradients = torch.autograd.grad(loss(), inputs)
        for gradient, x in zip(gradients, inputs, strict=True):
            expected = differences(loss, x.detach())
            assert expected.abs().max() > 1e-2
            assert_close(gradient, expected, 1e-6)


def test_gradient_of_the_numbers(julia: str) -> None:
    """With fixed steps that are coarse, the exact derivative of what was computed."""
    field, past = Field(), torch.randn(3, 2, dtype=D, requires_grad=True)
    inputs = [past, field.rate, field.weight]

    def solve(method: str) -> Tensor:
        return ddeint(
            field, past, [0.0, 0.6, 1.9], lags=[0.4, 0.55], method=method,
            options={"step_size": 0.21}, engine=julia,
        )  # fmt: skip

    for method in ("Tsit5", "Vern7"):
        gradients = torch.autograd.grad(solve(method)[1:].square().sum(), inputs)
        for gradient, x in zip(gradients, inputs, strict=True):
            expected = differences(lambda m=method: solve(m)[1:].square().sum(), x.detach())
            assert_close(gradient, expected, 1e-8)


@pytest.mark.parametrize("method", METHODS if os.environ.get("PYJLODE_ALL_METHODS") else ["Vern7"])
def test_methods(julia: str, method: str) -> None:
    """One that interpolates by further stages; with ``make methods`` all."""
    t = torch.tensor([0.0, 0.7, 2.5], dtype=D)
    past = torch.ones(1, dtype=D, requires_grad=True)
    y = ddeint(linear, past, t, lags=[1.0], method=method, engine=julia)
    assert_close(y[:, 0], steps(t), 1e-6)
    (gradient,) = torch.autograd.grad(y[1:].sum(), past)
    assert_close(gradient[0], steps(t)[1:].sum(), 1e-6)


def test_states_that_are_tuples(julia: str) -> None:
    """With a complex part, and a function that is called from Julia."""

    def func(t: Tensor, y: Any, delayed: Any) -> Any:
        turn = 1j if float(t.detach()) >= 0 else 1.0  # a value of time
        return -delayed[0], turn * delayed[1]

    t = torch.tensor([0.0, 0.5, 1.0], dtype=D)
    past = (torch.ones(2, dtype=D), torch.ones(1, dtype=torch.complex128, requires_grad=True))
    with pytest.warns(pyjlode.PyjlodeWarning, match="callback mode"):
        y, z = ddeint(func, past, t, lags=[1.0], engine=julia)
    assert_close(y, steps(t)[:, None].expand(3, 2), 1e-9)
    assert_close(torch.view_as_real(z), torch.stack([torch.ones(3), t], -1)[:, None].to(D), 1e-9)
    z[-1].imag.sum().backward()
    assert_close(torch.view_as_real(past[1].grad), torch.tensor([[1.0, 1.0]], dtype=D), 1e-9)


def test_the_gradient_is_of_the_values_at_the_solve(julia: str) -> None:
    """Constants and parameters that change before the backward pass."""
    rate = torch.tensor(-1.0, dtype=D)
    past = torch.ones(1, dtype=D, requires_grad=True)
    t = torch.tensor([0.0, 2.5], dtype=D)
    y = ddeint(lambda t, y, delayed: rate * delayed, past, t, lags=[1.0], engine=julia)
    rate.fill_(5.0)
    for _ in range(2):  # the second time from the same steps
        (gradient,) = torch.autograd.grad(y[-1].sum(), past, retain_graph=True)
        assert_close(gradient[0], steps(t)[-1], 1e-8)


def test_neural_cdde(julia: str) -> None:
    """A net of the state and the delayed one, with a lag that is learnt."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).to(D)

        def forward(self, y: Tensor, delayed: Tensor) -> Tensor:
            return self.net(torch.cat([y, delayed], dim=-1))

    lag = nn.Parameter(torch.tensor([0.5], dtype=D))
    layer = NeuralCDDE(Net(), lag, [0.0, 0.5, 1.0, 1.5], rtol=1e-10, atol=1e-12)
    assert any(p is lag for p in layer.parameters())
    past = torch.randn(6, 2, dtype=D, requires_grad=True)
    found = layer(past)
    assert layer.nfe > 0
    inputs = [past, *layer.model.parameters()]
    expected = side_by_side(
        lambda t, *y: layer.model(*y), lambda t: past, torch.tensor(0.5, dtype=D), [1],
        torch.tensor(0.0, dtype=D), 3,
    )  # fmt: skip
    assert_close(found, expected, 1e-8)
    for a, b in zip(
        torch.autograd.grad(found.square().sum(), [*inputs, lag]),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=False,
    ):
        assert_close(a, b, 1e-7)
    assert layer(past, [0.0, 0.2]).shape == (2, 6, 2)


def test_what_fails_raises(julia: str) -> None:
    one = torch.ones(1, dtype=D, requires_grad=True)

    def explode(t: Tensor, y: Tensor, delayed: Tensor) -> Tensor:
        return y**2 + delayed

    with pytest.raises(SolverError, match="blew up") as failure:
        ddeint(explode, one, [0.0, 0.1, 9.0], lags=[1.0], engine=julia)
    assert 0.1 < failure.value.t < 1.0
    assert failure.value.solution is not None and len(failure.value.solution.t) == 2
    with pytest.raises(SolverError, match="max_num_steps"):
        ddeint(linear, one, [0.0, 9.0], lags=[1.0], options={"max_num_steps": 3}, engine=julia)
    # The value is finite where the slope is not.
    zero = torch.zeros(1, dtype=D, requires_grad=True)
    y = ddeint(lambda t, y, delayed: delayed.sqrt(), zero, [0.0, 0.5], lags=[1.0], engine=julia)
    with pytest.raises(SolverError, match="not finite"):
        y.sum().backward()


def test_updates_are_refused(julia: str) -> None:
    norm = nn.BatchNorm1d(2, dtype=D)
    with pytest.raises(UnsupportedError, match="eval"):
        ddeint(lambda t, y, d: norm(d), torch.rand(3, 2, dtype=D), [0.0, 1.0], lags=[1.0])


def test_without_julia(monkeypatch: pytest.MonkeyPatch) -> None:
    one = torch.ones(1)
    with pytest.raises(UnsupportedError, match="pyjlode setup"):
        ddeint(linear, one, [0.0, 1.0], lags=[1.0], engine="torch")
    monkeypatch.setattr("pyjlode.engine._julia", pyjlode.engine._julia.__wrapped__)
    monkeypatch.setattr("pyjlode.runtime._running", None)
    monkeypatch.setattr("pyjlode.config.find", lambda: None)
    with pytest.raises(JuliaNotFoundError, match="pyjlode setup"):
        ddeint(linear, one, [0.0, 1.0], lags=[1.0], engine="julia")


def test_arguments_are_checked() -> None:
    one = torch.ones(1, dtype=D)
    good = {"func": linear, "history": one, "t": [0.0, 1.0], "lags": [1.0], "engine": "torch"}
    t = torch.tensor([0.0, 1.0], requires_grad=True)
    for changed, kind, message in (
        ({"lags": []}, ValueError, "one or more numbers"),
        ({"lags": 1.0}, ValueError, "one dimension"),
        ({"lags": [1.0, 0.0]}, ValueError, "above zero"),
        ({"lags": [float("inf")]}, ValueError, "finite"),
        ({"func": one}, TypeError, "callable"),
        ({"history": "one"}, TypeError, "must be a tensor"),
        ({"history": torch.ones(1, dtype=torch.int64)}, TypeError, "float32 or float64"),
        ({"history": one * float("nan")}, ValueError, "finite"),
        ({"history": lambda t: 1.0}, TypeError, "must be a tensor"),
        ({"history": lambda t: one, "t": []}, ValueError, "one dimension and a time"),
        ({"t": [1.0, 0.0]}, ValueError, "strictly increasing"),
        ({"rtol": -1.0}, ValueError, "rtol"),
        ({"method": "Tsit6"}, ValueError, "Tsit5"),
        ({"method": "Rodas5P"}, UnsupportedError, "stiff.*Tsit5, BS3.*chain"),
        ({"method": "FBDF"}, UnsupportedError, "stiff.*Tsit5, BS3.*chain"),
        ({"method": "VCABM"}, UnsupportedError, "use one of Tsit5, BS3"),
        ({"lags": lambda t, y: 1 + y}, UnsupportedError, "depend on the state.*chain"),
        ({"lags": [1.0, lambda t, y: 1 + y]}, UnsupportedError, "depend on the state.*chain"),
        ({"sensealg": "gauss"}, UnsupportedError, "GaussAdjoint"),
        ({"sensealg": pyjlode.DiscreteAdjoint(checkpoints=3)}, UnsupportedError, "checkpoints"),
        ({"options": {"jump_t": [0.5]}}, UnsupportedError, "jump_t"),
        ({"options": {"step": 1}}, ValueError, "step"),
        ({"method": "Tsit5", "options": {"step_size": 1.5}}, ValueError, "shortest lag"),
        ({"t": t, "options": {"step_size": 0.5}}, UnsupportedError, "t.detach"),
    ):
        with pytest.raises(kind, match=message):
            ddeint(**{**good, **changed})
    assert torch.equal(ddeint(linear, one, [3.0], lags=[1.0], engine="torch"), one[None])
    with pytest.raises(TypeError, match="batch"):
        NeuralCDDE(nn.Identity(), [1.0], batch="independent")


def test_a_function_that_gives_another_shape(julia: str) -> None:
    with pytest.raises(TypeError, match="returned shape"):
        ddeint(lambda t, y, d: d[:1], torch.ones(2, dtype=D), [0.0, 1.0], lags=[1.0], engine=julia)
