"""Events that jump or are flat, zeros at the start, and derivatives of an event's time."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torchdiffeq
from reference import assert_close
from torch import Tensor

from pyjlode import (
    ArgumentError,
    SolverError,
    UnsupportedError,
    odeint,
    odeint_adjoint,
    odeint_event,
    solve_ivp,
)
from pyjlode.event_time import link

D = torch.float64
Event = Callable[[Tensor, Tensor], Tensor]


def decay(rate: Tensor | float) -> Event:
    return lambda t, y: -rate * y


# Of exp(-t) from 1 at 0: when, and whether the time moves with the solution.
FLAT: dict[str, tuple[Event, float, bool]] = {
    "sign": (lambda t, y: torch.sign(1 - t), 1.0, False),
    "comparison": (lambda t, y: (t < 1).double(), 1.0, False),
    "true until": (lambda t, y: t < 1, 1.0, False),
    "true from": (lambda t, y: t > 1, 1.0, False),
    "clamp": (lambda t, y: torch.clamp(1 - t, min=0), 1.0, True),
    "relu": (lambda t, y: torch.relu(1 - t), 1.0, True),
    "sign of y": (lambda t, y: torch.sign(y - 0.5), math.log(2), False),
    "comparison of y": (lambda t, y: y > 0.5, math.log(2), False),
    "clamp of y": (lambda t, y: (y - 0.5).clamp(min=0), math.log(2), True),
    "relu of y": (lambda t, y: torch.relu(y - 0.5), math.log(2), True),
    "jump with a slope": (lambda t, y: torch.where(y > 0.5, y, -y), math.log(2), False),
    "cube": (lambda t, y: (y - 0.5) ** 3, math.log(2), False),
}


@pytest.mark.parametrize("name", FLAT)
def test_flat_events(engine: str, name: str) -> None:
    """The same time and state with gradients and without; a gradient, or an error that says why."""
    event, expected, moves = FLAT[name]
    k = torch.tensor(1.0, dtype=D, requires_grad=True)
    y0 = torch.ones(1, dtype=D)
    options: dict[str, Any] = {"event_fn": event, "engine": engine, "rtol": 1e-9, "atol": 1e-11}
    time, states = odeint_event(decay(k), y0, 0.0, **options)
    with torch.no_grad():
        plain_time, plain_states = odeint_event(decay(k), y0, 0.0, **options)
    precision = 1e-14 if expected == 1 else 1e-8
    assert abs(float(time.detach()) - expected) < precision
    assert abs(float(states[1].detach()) - math.exp(-expected)) < 1e-8
    assert torch.equal(time, plain_time) and torch.equal(states, plain_states)
    if not moves:
        for value in (time, states[1]):
            with pytest.raises(UnsupportedError, match="no derivative"):
                torch.autograd.grad(value.sum(), k, retain_graph=True)
        assert torch.autograd.grad(states[0].sum() + 0 * time, k, allow_unused=True)[0] in (None, 0)
        return
    by_time, by_state = (
        torch.autograd.grad(value.sum(), k, retain_graph=True)[0] for value in (time, states[1])
    )
    by_y = name.endswith("of y")
    assert_close(by_time, torch.tensor(-expected if by_y else 0.0, dtype=D), 1e-6)
    assert_close(by_state, torch.tensor(0.0 if by_y else -math.exp(-1), dtype=D), 1e-6)


def test_the_number_of_torchdiffeq(engine: str) -> None:
    """Its time of a jump, which it bisects."""
    y0, t0 = torch.ones(1, dtype=D), torch.tensor(0.0, dtype=D)
    event = FLAT["sign"][0]
    theirs, _ = torchdiffeq.odeint_event(decay(1.0), y0, t0, event_fn=event)
    ours, _ = odeint_event(decay(1.0), y0, t0, event_fn=event, engine=engine)
    assert abs(float(ours) - float(theirs)) < 1e-8


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("atol", [1e-9, 1e-3])
@pytest.mark.parametrize("boolean", [False, True])
@pytest.mark.parametrize("clock", ["goes on", "starts anew"])
def test_bounces_from_the_state_as_found(
    engine: str, grad: bool, atol: float, boolean: bool, clock: str
) -> None:
    """A ball is thrown back up from where it was found, in closed form."""
    g = torch.tensor(9.81, dtype=D, requires_grad=grad)
    state, time = torch.tensor([3.0, 0.0], dtype=D), torch.tensor(0.0, dtype=D)
    fall = math.sqrt(2 * 3.0 / 9.81)
    expected = 0.0
    for i in range(5):
        time, states = odeint_event(
            lambda t, y: torch.stack([y[1], -g]), state, time, engine=engine, rtol=atol, atol=atol,
            event_fn=lambda t, y: y[0] > 0 if boolean else y[0],
        )  # fmt: skip
        flight = fall if i == 0 else 2 * fall * 0.8**i
        expected = expected + flight if clock == "goes on" else flight
        assert abs(float(time.detach()) - expected) < 1e-5 + 10 * atol, i
        state = torch.stack([states[1, 0], -0.8 * states[1, 1]])
        if clock == "starts anew":
            time = torch.zeros_like(time)


@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_ceiling_and_floor(engine: str, dtype: torch.dtype) -> None:
    """Two walls, far from zero, of which now one is left and now the other."""
    state, time = torch.tensor([100.2, 1.0], dtype=dtype), torch.tensor(0.0, dtype=dtype)
    expected = 0.8
    for i in range(4):
        time, states = odeint_event(
            lambda t, y: torch.stack([y[1], 0 * y[1]]), state, time, engine=engine,
            event_fn=lambda t, y: torch.stack([y[0] - 100, 101 - y[0]]),
        )  # fmt: skip
        assert abs(float(time) - expected) < (1e-7 if dtype == D else 1e-3), i
        state = torch.stack([states[1, 0], -states[1, 1]])
        expected += 1


@pytest.mark.parametrize("reverse_time", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e-16, -1e-16])
def test_start_on_a_zero(engine: str, reverse_time: bool, offset: float) -> None:
    """Sine from zero, or from rounding beside it: the next zero, not this one."""
    y0 = torch.tensor([offset, 1.0], dtype=D)
    time, states = odeint_event(
        lambda t, y: torch.stack([y[1], -y[0]]), y0, 0.0, event_fn=lambda t, y: y[0],
        engine=engine, reverse_time=reverse_time,
    )  # fmt: skip
    assert_close(time.abs(), torch.tensor(math.pi, dtype=D), 1e-6)
    assert_close(states[1, 1], torch.tensor(-1.0, dtype=D), 1e-6)


def test_start_near_a_zero_counts(engine: str) -> None:
    """A state that is a little above the floor, and falls, meets it."""
    y0 = torch.tensor([1e-8, -1.0], dtype=D)
    time, _ = odeint_event(
        lambda t, y: torch.stack([y[1], 0 * y[1]]), y0, 2.0, event_fn=lambda t, y: y[0],
        engine=engine,
    )  # fmt: skip
    assert abs(float(time) - 2 - 1e-8) < 1e-14


def test_one_of_two_is_zero_at_the_start(engine: str) -> None:
    """That one is left, the other found, in the first step."""
    y0 = torch.tensor([0.0], dtype=D)
    time, _ = odeint_event(
        lambda t, y: 1 + 0 * y, y0, 0.0, engine=engine,
        event_fn=lambda t, y: torch.cat([y, y - 1e-5]),
    )  # fmt: skip
    assert_close(time, torch.tensor(1e-5, dtype=D), 1e-9)


def test_zero_for_ever(engine: str) -> None:
    """A value that is zero from the start on has no sign to change."""
    with pytest.raises(SolverError, match="zero at the start has the sign that follows"):
        odeint_event(
            decay(1.0), torch.ones(1, dtype=D), 0.0, event_fn=lambda t, y: 0 * y, engine=engine,
            options={"max_num_steps": 50},
        )  # fmt: skip


def test_wrong_values(engine: str) -> None:
    y0 = torch.ones(1, dtype=D)
    for value, error in ((torch.ones(0), ArgumentError), (torch.ones(1) * 1j, TypeError)):
        with pytest.raises(error, match="event_fn"):
            odeint_event(decay(1.0), y0, 0.0, event_fn=lambda t, y, v=value: v, engine=engine)


@pytest.mark.parametrize("method", ["rk4", "euler"])
def test_fixed_steps_leave_zero(engine: str, method: str) -> None:
    """Straight up and down: even Euler's steps know when a constant speed returns."""
    time, _ = odeint_event(
        lambda t, y: torch.where(t < 1, 1.0, -1.0).to(D) + 0 * y, torch.zeros(1, dtype=D), 0.0,
        event_fn=lambda t, y: y, engine=engine, method=method, options={"step_size": 0.25},
    )  # fmt: skip
    assert 1.7 < float(time) < 2.3


INTERFACES: dict[str, Callable[..., Any]] = {
    "odeint_event": odeint_event,
    "odeint": lambda f, y, t, **k: odeint(f, y, torch.stack([t, t.detach() + 1]), **k),
    "odeint_adjoint": lambda f, y, t, **k: odeint_adjoint(
        f, y, torch.stack([t, t.detach() + 1]), **k
    ),
    "odeint_event of odeint_adjoint": partial(odeint_event, odeint_interface=odeint_adjoint),
    "odeint_event of a function": partial(
        odeint_event, odeint_interface=lambda *a, **k: odeint(*a, **k)
    ),
}


@pytest.mark.parametrize("name", INTERFACES)
def test_every_way_in(engine: str, name: str) -> None:
    """Time and state have gradients by all: a tuple for a state, and the start."""
    k, a, c, t0 = (torch.tensor(x, dtype=D, requires_grad=True) for x in (0.7, 1.5, 0.4, 0.3))
    time, (y, z) = INTERFACES[name](
        lambda t, s: (-k * s[0], s[0]), (a, 0 * a.detach()), t0, rtol=1e-10, atol=1e-12,
        event_fn=lambda t, s: s[0] - c * torch.exp(t), engine=engine,
    )  # fmt: skip
    when = (torch.log(a / c) + k * t0) / (1 + k)
    at = c * torch.exp(when)
    for found, expected in ((time, when), (y[1], at), (z[1], (a - at) / k)):
        assert_close(found.detach(), expected.detach(), 1e-7)
        have, want = (
            torch.stack(torch.autograd.grad(x, [k, a, c, t0], retain_graph=True))
            for x in (found, expected)
        )
        assert_close(have, want, 1e-6)


@pytest.mark.parametrize("interface", [odeint, odeint_adjoint])
def test_interface_of_torchdiffeq(engine: str, interface: Callable[..., Any]) -> None:
    """Its ``odeint_event`` takes the gradient at a fixed time, and moves the time itself."""
    a, t0 = (torch.tensor(x, dtype=D, requires_grad=True) for x in (1.5, 0.3))

    class Decay(torch.nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return -0.7 * y

    time, states = torchdiffeq.odeint_event(
        Decay(), a[None], t0, event_fn=lambda t, y: y - 0.4 * torch.exp(t), rtol=1e-10, atol=1e-12,
        odeint_interface=partial(interface, engine=engine),
    )  # fmt: skip
    when = (torch.log(a / 0.4) + 0.7 * t0) / 1.7
    for found, expected in ((time, when), (states[1, 0], 0.4 * torch.exp(when))):
        have, want = (
            torch.stack(torch.autograd.grad(x, [a, t0], retain_graph=True))
            for x in (found, expected)
        )
        assert_close(have, want, 1e-6)


def test_events_of_solve_ivp_that_jump(engine: str) -> None:
    """They end a solve, or are passed, where they jump; a zero at the start is SciPy's event."""
    if engine == "torch":
        return  # SciPy's own

    def sign(t: Any, y: Any) -> Any:
        return 1.0 if t < 1 else 0.0

    def boolean(t: Any, y: Any) -> Any:
        return y[0] > 0.25

    boolean.terminal = True  # type: ignore[attr-defined]
    found = solve_ivp(
        lambda t, y: -y, (0, 9), [1.0], events=[sign, boolean], rtol=1e-9, atol=1e-11, engine=engine
    )
    assert found.status == 1
    assert abs(found.t_events[0] - 1).max() < 1e-14
    assert abs(found.t_events[1] - math.log(4)).max() < 1e-8
    traced = solve_ivp(
        lambda t, y: -y, (0, 9), torch.ones(1, dtype=D), engine=engine, rtol=1e-9, atol=1e-11,
        events=[lambda t, y: torch.relu(1 - t), lambda t, y: y[0] > 0.25],
    )  # fmt: skip
    assert [len(x) for x in traced.t_events] == [1, 1]
    assert abs(traced.t_events[0] - 1).max() < 1e-14
    assert abs(traced.t_events[1] - math.log(4)).max() < 1e-8


def _falling(x: Tensor, engine: str) -> Tensor:
    """A number of the time and the speed at which a falling body passes a height."""
    g, y, v, t0, h = x
    time, states = odeint_event(
        lambda t, s: torch.stack([s[1], -g]), torch.stack([y, v]), t0,
        event_fn=lambda t, s: s[0] - h, engine=engine, rtol=1e-10, atol=1e-12,
    )  # fmt: skip
    return 1.3 * time + 0.1 * states[1, 1] ** 2 + time * states[1, 1]


def _falling_closed(x: Tensor) -> Tensor:
    g, y, v, t0, h = x
    speed = -torch.sqrt(v**2 + 2 * g * (y - h))
    time = t0 + (v - speed) / g
    return 1.3 * time + 0.1 * speed**2 + time * speed


def _decaying(x: Tensor, engine: str) -> Tensor:
    """The decay by a rate that changes in time; the event is no linear function of anything."""
    k, y0, c, w = x
    time, states = odeint_event(
        lambda t, y: -k * y * torch.cos(w * t), y0[None], 0.2, engine=engine, rtol=1e-11,
        event_fn=lambda t, y: (y - c) * torch.exp(y) * (1 + t), atol=1e-13,
    )  # fmt: skip
    return torch.sin(time) + states[1, 0] ** 2 * time


def _decaying_closed(x: Tensor) -> Tensor:
    k, y0, c, w = x
    time = torch.asin(torch.log(y0 / c) * w / k + torch.sin(0.2 * w)) / w
    return torch.sin(time) + c**2 * time


HESSIANS = {
    "falling": (_falling, _falling_closed, [9.81, 20.0, 1.0, 0.5, 2.0]),
    "decaying": (_decaying, _decaying_closed, [0.9, 1.5, 0.9, 1.1]),
}


def _hessians_agree(name: str, engine: str) -> None:
    solve, closed, values = HESSIANS[name]
    x = torch.tensor(values, dtype=D)
    assert_close(solve(x, engine), closed(x), 1e-8)
    have, want = (
        torch.autograd.functional.hessian(f, x) for f in (partial(solve, engine=engine), closed)
    )
    assert_close(have, want, 1e-7)
    # A gradient penalty, which is how most meet second derivatives.
    penalties = []
    for f in (partial(solve, engine=engine), closed):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(f(leaf), leaf, create_graph=True)
        gradient.square().sum().backward()
        penalties.append(leaf.grad)
    assert_close(*penalties, 1e-7)


@pytest.mark.parametrize("name", HESSIANS)
def test_hessian(name: str) -> None:
    _hessians_agree(name, "torch")


@pytest.mark.parametrize("name", HESSIANS)
def test_hessian_julia(julia: str, name: str) -> None:
    _hessians_agree(name, julia)


def test_hessian_by_differences() -> None:
    """Of what has no closed form; and of the solve's own second derivatives none is left out."""

    def solve(x: Tensor) -> Tensor:
        a, b, c, d = x
        time, states = odeint_event(
            lambda t, y: torch.stack([a * y[1] + 0.1 * t**2, -torch.sin(y[0]) * b]),
            torch.stack([c, d]), 0.1, engine="torch", rtol=1e-11, atol=1e-12,
            event_fn=lambda t, y: torch.stack([y[0] - 9, y[0] * y[1] - a / 3 + torch.sin(t) / 9]),
        )  # fmt: skip
        return time * states[1, 0] + states[1, 1] ** 3

    x = torch.tensor([1.1, 0.8, 0.5, -1.0], dtype=D)
    functional = torch.autograd.functional
    found = functional.hessian(solve, x)
    steps = 1e-4 * torch.eye(4, dtype=D)
    expected = torch.stack(
        [
            (functional.jacobian(solve, x + e) - functional.jacobian(solve, x - e)) / 2e-4
            for e in steps
        ]
    )
    assert_close(found, expected, 1e-6)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(solve(leaf), leaf, create_graph=True)
    with pytest.raises(UnsupportedError, match="third"):
        torch.autograd.grad(gradient.sum(), leaf, create_graph=True)


class _Once(torch.autograd.Function):
    """A product whose gradient has none, as many a compiled function's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            raise RuntimeError("no second derivative")
        x, y = ctx.saved_tensors
        return cotangent * y, cotangent * x


def test_first_derivatives_alone() -> None:
    """What has no second derivatives keeps the first, and says so of the second."""
    k = torch.tensor(2.0, dtype=D, requires_grad=True)

    def flow(t: Tensor, k: Tensor) -> Tensor:
        return torch.exp(-k * t).reshape(1)

    when = torch.tensor(math.log(2) / 2, dtype=D)
    time, y = link(
        lambda t, y: -k * y, lambda t, y: _Once.apply(y - 0.5, 1 + y), when, flow(when, k), 0
    )
    for value, expected in ((time, -math.log(2) / 4), (y.sum(), 0.0)):
        (found,) = torch.autograd.grad(value, k, retain_graph=True)
        assert_close(found, torch.tensor(expected, dtype=D), 1e-9)
    with pytest.raises(UnsupportedError, match="no second derivative"):
        torch.autograd.grad(time, k, create_graph=True)


def test_forward_mode() -> None:
    """The tangent of the time and the state is that of their closed forms."""
    with torch.autograd.forward_ad.dual_level():
        k = torch.autograd.forward_ad.make_dual(
            torch.tensor(2.0, dtype=D, requires_grad=True), torch.tensor(1.0, dtype=D)
        )
        when = torch.tensor(math.log(2) / 2, dtype=D)
        y = torch.exp(-k * when).reshape(1)
        time, end = link(lambda t, y: -k * y, lambda t, y: y - 0.5 + 0 * t, when, y, 0)
        unpack = torch.autograd.forward_ad.unpack_dual
        assert_close(unpack(time).tangent, torch.tensor(-math.log(2) / 4, dtype=D), 1e-9)
        assert float(unpack(end).tangent.detach().abs()) < 1e-12


@pytest.mark.parametrize("atol", [0.0, (1e-9, 1e-8)])
def test_what_the_torch_engine_cannot(atol: Any) -> None:
    """It finds an event to one absolute tolerance."""
    y0 = (torch.ones(1, dtype=D), torch.ones(1, dtype=D))
    with pytest.raises(UnsupportedError, match="one number above zero"):
        odeint_event(
            lambda t, y: (-y[0], y[1]), y0, 0.0, event_fn=lambda t, y: y[0] - 0.5, engine="torch",
            atol=atol,
        )  # fmt: skip
    with pytest.raises(UnsupportedError, match="no events"):
        odeint_event(
            decay(1.0), y0[0], 0.0, event_fn=lambda t, y: y - 0.5, engine="torch",
            method="scipy_solver",
        )  # fmt: skip
