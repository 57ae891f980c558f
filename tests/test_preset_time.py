"""Changes of the state at preset times: closed forms, differences, both engines."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from reference import assert_close
from torch import Tensor

from pyjlode import (
    ArgumentError,
    GaussAdjoint,
    PresetTimeCallback,
    SolverError,
    Statistics,
    UnsupportedError,
    odeint,
    odeint_adjoint,
)

D = torch.float64


def doses(times: Tensor, stops: Tensor, dose: Tensor, k: Tensor, y0: Tensor) -> Tensor:
    """Exponential decay with a dose ``dose + stop`` at each stop, in closed form."""
    states = []
    for t in times:
        y = y0 * torch.exp(-k * (t - times[0]))
        for stop in stops:
            if float(times[0].detach()) <= float(stop.detach()) <= float(t.detach()):
                y = y + (dose + stop) * torch.exp(-k * (t - stop))
        states.append(y)
    return torch.stack(states)


@pytest.mark.parametrize(
    ("stops", "settings"),
    [
        ([0.0, 1.0, 2.0, 3.0], "default"),
        ([0.0, 0.5, 0.6], "gauss"),
        ([3.0, -1.0, 1.5, 9.0], "adjoint"),
        ([7.0], "default"),
    ],
)
def test_doses(engine: str, stops: list[float], settings: str) -> None:
    """Values and the gradient by every input; one of t at a stop is that of the state after it."""
    solve: Any = odeint_adjoint if settings == "adjoint" else odeint
    given: dict[str, Any] = {}
    if settings == "gauss" and engine == "julia":
        given["sensealg"] = GaussAdjoint()
    times = torch.tensor([0.0, 1.0, 1.3, 2.0, 3.0], dtype=D, requires_grad=True)
    tstops = torch.tensor(stops, dtype=D, requires_grad=True)
    dose, k = (torch.tensor(x, dtype=D, requires_grad=True) for x in (2.0, 0.6))
    y0 = torch.tensor([1.0, -0.4], dtype=D, requires_grad=True)
    callback = PresetTimeCallback(tstops, lambda t, y: y + dose + t)
    found = solve(
        lambda t, y: -k * y, y0, times, callback=callback, engine=engine, rtol=1e-7, atol=1e-9,
        **given,
    )  # fmt: skip
    expected = doses(times, tstops, dose, k, y0)
    assert_close(found.detach(), expected.detach(), 1e-6)
    inputs = [y0, k, times, dose, tstops]
    weights = torch.rand(found.shape, dtype=D)
    got, want = (
        torch.autograd.grad((weights * y).sum(), inputs, allow_unused=True, materialize_grads=True)
        for y in (found, expected)
    )
    for name, g, w in zip(("y0", "k", "t", "dose", "tstops"), got, want, strict=True):
        assert_close(g, w, 1e-5, name)


def test_nonlinear_against_differences(engine: str) -> None:
    """An affect that depends on the state, learnt parameters and a stop that moves."""
    net = torch.nn.Linear(2, 2, dtype=D)
    times = torch.tensor([0.0, 0.4, 1.0], dtype=D)

    def solve(y0: Tensor, a: Tensor, stop: Tensor) -> Tensor:
        callback = PresetTimeCallback(stop, lambda t, y: y * a + torch.sin(y * t))
        return odeint(
            lambda t, y: torch.tanh(net(y)) * (1 + t), y0, times, callback=callback, engine=engine,
            rtol=1e-7, atol=1e-9,
        )  # fmt: skip

    inputs = (
        torch.tensor([0.3, -0.8], dtype=D, requires_grad=True),
        torch.tensor([0.5, 1.5], dtype=D, requires_grad=True),
        torch.tensor([0.6, 0.2], dtype=D, requires_grad=True),
    )
    weights = torch.rand(3, 2, dtype=D)
    everything = [*inputs, *net.parameters()]
    found = torch.autograd.grad((weights * solve(*inputs)).sum(), everything)
    for x, gradient in zip(everything, found, strict=True):
        direction = torch.rand_like(x)
        values = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                x += step * direction
                values.append(float((weights * solve(*inputs)).sum()))
                x -= step * direction
        difference = (values[0] - values[1]) / 2e-3
        assert abs(difference - float((direction * gradient).sum())) < 1e-5


def test_the_time_of_a_dose_before_the_start_of_the_rest(engine: str) -> None:
    """A stop at t[0] stays where it is: an earlier start has the solution before it too."""
    k = 0.6

    def last(start: Tensor) -> Tensor:
        callback = PresetTimeCallback([1.0], lambda t, y: 3 * y)
        t = torch.stack([start, torch.tensor(2.0, dtype=D)])
        y0 = torch.ones(1, dtype=D)
        y = odeint(lambda t, y: -k * y, y0, t, callback=callback, engine=engine, rtol=1e-10)
        return y[-1, 0]

    start = torch.tensor(1.0, dtype=D, requires_grad=True)
    (gradient,) = torch.autograd.grad(last(start), start)
    with torch.no_grad():
        difference = (last(start) - last(start - 1e-5)) / 1e-5
    assert abs(float(gradient) - 3 * k * math.exp(-k)) < 1e-7
    assert abs(float(difference) - float(gradient)) < 1e-4


def test_reversed_time_and_tuples(engine: str) -> None:
    """A tuple with a complex part, backwards in time."""
    y0 = (torch.ones(2, dtype=D), torch.ones(1, dtype=torch.complex128))
    seen: list[float] = []

    def affect(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        seen.append(float(t))
        return y[0] + t, 2j * y[1]

    a, b = odeint(
        lambda t, y: (0.5 * y[0], 1j * y[1]), y0, [2.0, 1.0, 0.0],
        callback=PresetTimeCallback([0.5, 1.0], affect), engine=engine, rtol=1e-9, atol=1e-11,
    )  # fmt: skip
    assert seen == [1.0, 0.5]
    first = math.exp(-0.5) + 1
    last = (first * math.exp(-0.25) + 0.5) * math.exp(-0.25)
    assert_close(a, torch.tensor([[1.0] * 2, [first] * 2, [last] * 2], dtype=D), 1e-7)
    turned = torch.exp(-1j * torch.tensor([0.0, 1.0, 2.0], dtype=D)) * torch.tensor([1, 2j, -4])
    assert_close(torch.view_as_real(b[:, 0]), torch.view_as_real(turned), 1e-7)


def test_solution(engine: str) -> None:
    """The interpolation at and around the stops; the first state and the last are changed ones."""
    callback = PresetTimeCallback([0.0, 1.0, 2.0], lambda t, y: y + 1)
    solution = odeint(
        lambda t, y: -y, torch.zeros(1, dtype=D), [0.0, 2.0], callback=callback, engine=engine,
        return_solution=True, rtol=1e-9, atol=1e-11,
    )  # fmt: skip
    e = math.exp(-1)
    expected = [1, math.exp(-0.5), 1 + e, (1 + e) * math.exp(-0.5), 1 + e * (1 + e)]
    expected_states = torch.tensor(expected, dtype=D)[:, None]
    assert_close(solution([0.0, 0.5, 1.0, 1.5, 2.0]), expected_states, 1e-6)
    assert_close(solution.derivative([0.5, 1.0, 2.0]), -expected_states[[1, 2, 4]], 1e-4)
    assert_close(solution.y, expected_states[[0, 4]], 1e-7)
    one = odeint(lambda t, y: -y, torch.zeros(1, dtype=D), [1.0], callback=callback, engine=engine)
    assert one.tolist() == [[1.0]]


def test_counts_are_sums(engine: str) -> None:
    stats, parts = Statistics(), [Statistics(), Statistics()]
    y0 = torch.ones(2, dtype=D, requires_grad=True)

    def func(t: Tensor, y: Tensor) -> Tensor:
        return -y

    given: Any = {"engine": engine, "sensealg": "backsolve"}
    for _ in range(2):  # counts of an earlier solve do not stay
        callback = PresetTimeCallback([1.0], lambda t, y: 2 * y)
        odeint(func, y0, [0.0, 3.0], callback=callback, stats=stats, **given).sum().backward()
    middle = odeint(func, y0, [0.0, 1.0], stats=parts[0], **given)
    odeint(func, 2 * middle[-1], [1.0, 3.0], stats=parts[1], **given).sum().backward()
    for name in ("nfe", "njac", "naccept", "nreject", "nfe_backward"):
        assert getattr(stats, name) == sum(getattr(p, name) for p in parts), name
    assert stats.nfe > 0 and stats.nfe_backward > 0


def test_rows_with_steps_of_their_own(engine: str) -> None:
    stats = Statistics()
    k = torch.tensor(1.0, dtype=D, requires_grad=True)
    y0 = torch.tensor([[1.0], [3.0]], dtype=D, requires_grad=True)
    t = torch.tensor([0.0, 1.0, 2.0], dtype=D, requires_grad=True)
    callback = PresetTimeCallback([1.0], lambda t, y: y - y.mean())
    found = odeint(
        lambda t, y: -k * y, y0, t, callback=callback, engine=engine, batch="independent",
        stats=stats, rtol=1e-9, atol=1e-11,
    )  # fmt: skip
    after = (y0 - y0.mean()) * torch.exp(-k) * torch.exp(-k * (t[1:, None, None] - 1))
    shift = torch.exp(k * t[0])
    expected = torch.cat([y0[None], after * shift])
    assert_close(found.detach(), expected.detach(), 1e-7)
    got, want = (torch.autograd.grad((y**2).sum(), [k, y0, t]) for y in (found, expected))
    for g, w in zip(got, want, strict=True):
        assert_close(g, w, 1e-6)
    assert stats.rows["nfe"].shape == (2,) and int(stats.rows["nfe"].sum()) <= stats.nfe


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_steps_and_jumps(engine: str, method: str) -> None:
    """Fixed steps start anew at a stop; a right-hand side that jumps there has two sides."""
    options = {"step_size": 0.3} if method == "rk4" else {"jump_t": torch.tensor([1.0, 1.5])}

    def func(t: Tensor, y: Tensor) -> Tensor:
        ones = torch.ones_like(y)
        return torch.where(t < 1, ones, 0 * ones) if method == "dopri5" else ones

    callback = PresetTimeCallback([1.0], lambda t, y: 2 - y)
    stats = Statistics()
    y = odeint(
        func, torch.zeros(1, dtype=torch.float32), [0.0, 2.0], callback=callback, engine=engine,
        method=method, options=options, stats=stats,
    )  # fmt: skip
    assert_close(y[-1], torch.tensor([1.0 if method == "dopri5" else 2.0]), 1e-5)


def test_times_that_differ_by_rounding_are_one(engine: str) -> None:
    t = torch.linspace(0, 1, 11, dtype=D)
    assert float(t[3]) != 0.3 or float(t[6]) != 0.6 or float(t[7]) != 0.7
    callback = PresetTimeCallback(torch.tensor([0.3, 0.6, 0.7]), lambda t, y: y + 1)
    y = odeint(lambda t, y: 0 * y, torch.zeros(1, dtype=D), t, callback=callback, engine=engine)
    assert y[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 3, 3, 3, 3]


def test_a_failure_keeps_the_pieces_before(engine: str) -> None:
    """The dose takes the state to where func is not a number."""
    callback = PresetTimeCallback([1.0], lambda t, y: y + 2)
    with pytest.raises(SolverError) as caught:
        odeint(
            lambda t, y: torch.sqrt(1 - y) * 0, torch.zeros(1, dtype=D), [0.0, 0.5, 1.0, 1.2, 2.0],
            callback=callback, engine=engine,
        )  # fmt: skip
    solution = caught.value.solution
    assert solution is not None
    assert solution.t.tolist() == [0.0, 0.5, 1.0] and solution.y[:, 0].tolist() == [0, 0, 2]


def test_what_is_refused() -> None:
    y0, t = torch.ones(2, dtype=D), [0.0, 1.0]

    def solve(affect: Any, **given: Any) -> None:
        callback = PresetTimeCallback([0.5], affect)
        odeint(lambda t, y: -y, y0, t, callback=callback, engine="torch", **given)

    for affect in (
        lambda t, y: None,
        lambda t, y: y[:1],
        lambda t, y: y.float(),
        lambda t, y: (y,),
    ):
        with pytest.raises(TypeError, match="affect must return a state like y0"):
            solve(affect)
    with pytest.raises(ArgumentError, match=r"not finite at t = 0\.5"):
        solve(lambda t, y: y / 0)
    with pytest.raises(UnsupportedError, match="event_fn"):
        solve(lambda t, y: y, event_fn=lambda t, y: y[0])
    with pytest.raises(UnsupportedError, match="mass_matrix"):
        solve(lambda t, y: y, mass_matrix=torch.eye(2, dtype=D))
    with pytest.raises(TypeError, match="PresetTimeCallback"):
        odeint(lambda t, y: -y, y0, t, callback=print, engine="torch")  # type: ignore[arg-type]
    for times in ([[1.0]], [1.0, 1.0], [math.inf]):
        with pytest.raises(ArgumentError, match="tstops"):
            PresetTimeCallback(times, lambda t, y: y)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="affect must be callable"):
        PresetTimeCallback([1.0], None)  # type: ignore[arg-type]
