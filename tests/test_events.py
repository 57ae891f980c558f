"""Events: times, states and gradients against closed forms, torchdiffeq and differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchdiffeq
from reference import assert_close

from pyjlode import (
    GaussAdjoint,
    PyjlodeWarning,
    SensitivityAlgorithm,
    SolverError,
    odeint,
    odeint_event,
)
from pyjlode.engine import choose_engine
from pyjlode.problem import Statistics

D = torch.float64


def number(x: float, dtype: torch.dtype = D) -> torch.Tensor:
    return torch.tensor(x, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("dtype", [D, torch.float32])
@pytest.mark.parametrize("sensealg", [None, GaussAdjoint()])
def test_falling_ball(
    engine: str, dtype: torch.dtype, sensealg: SensitivityAlgorithm | None
) -> None:
    """From height y with speed v down to h, in closed form, and the gradient of that."""
    if engine == "torch" and sensealg is not None:
        return
    g, h, y, v, t0 = (number(x, dtype) for x in (9.81, 2.0, 20.0, 1.0, 0.5))

    def expected() -> tuple[torch.Tensor, torch.Tensor]:
        speed = -torch.sqrt(v**2 + 2 * g * (y - h))
        return t0 + (v - speed) / g, speed

    def found() -> tuple[torch.Tensor, torch.Tensor]:
        time, states = odeint_event(
            lambda t, s: torch.stack([s[1], -g]), torch.stack([y, v]), t0,
            event_fn=lambda t, s: s[0] - h, engine=engine, sensealg=sensealg,
        )  # fmt: skip
        assert time.shape == () and states.shape == (2, 2)
        assert torch.equal(states[0].detach(), torch.stack([y, v]).detach())
        assert_close(states[1, 0].detach(), h.detach(), 1e-5)
        return time, states[1, 1]

    tolerance = 1e-7 if dtype == D else 1e-4
    for f, e in zip(found(), expected(), strict=True):
        assert_close(f.detach(), e.detach(), tolerance)
        inputs = [g, h, y, v, t0]
        want = torch.autograd.grad(
            e, inputs, allow_unused=True, materialize_grads=True, retain_graph=True
        )
        have = torch.autograd.grad(
            f, inputs, allow_unused=True, materialize_grads=True, retain_graph=True
        )
        assert_close(torch.stack(have), torch.stack(want), tolerance)


@pytest.mark.parametrize("reverse_time", [False, True])
def test_oscillator_against_torchdiffeq(engine: str, reverse_time: bool) -> None:
    """Frequency, phase and start of a driven oscillator; the event depends on time too."""
    results = []
    for solve, options in ((odeint_event, {"engine": engine}), (torchdiffeq.odeint_event, {})):
        omega, x0, t0 = number(1.3), torch.tensor([[0.2, 1.0]], dtype=D), number(0.3)
        x0.requires_grad_()

        def func(t: torch.Tensor, y: torch.Tensor, w: torch.Tensor = omega) -> torch.Tensor:
            return torch.stack([y[:, 1], -(w**2) * y[:, 0] + 0.1 * torch.sin(t)], dim=1)

        time, states = solve(
            func, x0, t0, event_fn=lambda t, y: y[0, 0] + 0.5 + 0.05 * torch.sin(t), rtol=1e-10,
            atol=1e-11, reverse_time=reverse_time, **options,
        )  # fmt: skip
        loss = 1.7 * time + (states * torch.tensor([[0.3, -0.7]], dtype=D)).sum()
        results.append(
            [time, states, *torch.autograd.grad(loss, [omega, x0, t0], retain_graph=True)]
        )
    assert (float(results[0][0].detach()) < 0.3) == reverse_time
    for f, e in zip(*results, strict=True):
        assert_close(f.detach(), e.detach(), 1e-6)


def _differences(solve: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> None:
    """Central differences for every number of every input."""
    found = torch.autograd.grad(solve(*inputs), inputs)
    for i, x in enumerate(inputs):
        expected = torch.zeros_like(x)
        for k in range(x.numel()):
            ends = []
            for sign in (1, -1):
                moved = [z.detach().clone() for z in inputs]
                moved[i].view(-1)[k] += sign * 1e-5
                ends.append(float(solve(*moved)))
            expected.view(-1)[k] = (ends[0] - ends[1]) / 2e-5
        assert_close(found[i], expected, 1e-5, f"input {i}")


@pytest.mark.parametrize("method", [None, "Rodas5P"])
def test_every_gradient(engine: str, method: str | None) -> None:
    """A tuple for a state, a network for an event; differences for every input."""
    if engine == "torch" and method is not None:
        return
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).to(D)
    names = [n for n, _ in net.named_parameters()]

    def solve(*x: torch.Tensor) -> torch.Tensor:
        first, second, t0, rate, *weights = x

        def event(t: torch.Tensor, y: tuple[torch.Tensor, ...]) -> torch.Tensor:
            features = torch.cat([y[0], y[1], t.reshape(1)])
            value = torch.func.functional_call(
                net, dict(zip(names, weights, strict=True)), features
            )
            return value + y[0][0] - 0.35

        def func(t: torch.Tensor, y: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return -rate * y[0], torch.sin(y[0] + t)

        options: dict[str, Any] = {} if method is None else {"method": method}
        time, (a, b) = odeint_event(
            func, (first, second), t0, event_fn=event, engine=engine, rtol=1e-10, atol=1e-11,
            **options,
        )  # fmt: skip
        return 0.7 * time + a[1, 0] + 2 * b[1, 0]

    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.2)
    inputs = [
        torch.tensor([1.0], dtype=D, requires_grad=True),
        torch.tensor([0.3], dtype=D, requires_grad=True),
        number(0.1),
        number(0.8),
        *(p.detach().clone().requires_grad_() for p in net.parameters()),
    ]
    _differences(solve, inputs)


def test_the_first_of_several(engine: str) -> None:
    k = torch.tensor([0.5, 0.9, 0.2], dtype=D, requires_grad=True)
    y0 = torch.tensor([1.0, 0.0], dtype=D)
    time, _ = odeint_event(
        lambda t, y: torch.stack([-y[1], y[0]]), y0, torch.tensor(0.0, dtype=D),
        event_fn=lambda t, y: torch.stack([y[0] - k[0], 1e3 * (k[1] - y[1]), y[0] + k[2]]),
        engine=engine,
    )  # fmt: skip
    assert_close(time, torch.tensor(math.pi / 3, dtype=D), 1e-6)
    (gradient,) = torch.autograd.grad(time, k)
    assert_close(gradient, torch.tensor([-1 / math.sin(math.pi / 3), 0, 0], dtype=D), 1e-5)


def test_event_fn_of_odeint(engine: str) -> None:
    """The time has a gradient, and the state that of the state at the moving time."""
    k, y0 = number(2.0), torch.ones(1, dtype=D, requires_grad=True)
    stats = Statistics()
    time, states = odeint(
        lambda t, y: -k * y, y0, [0.0, 1.0], event_fn=lambda t, y: y - 0.5, engine=engine,
        rtol=1e-9, atol=1e-10, stats=stats,
    )  # fmt: skip
    assert_close(time.detach(), torch.tensor(math.log(2) / 2, dtype=D), 1e-8)
    assert states.shape == (2, 1)
    (gradient,) = torch.autograd.grad(time, k, retain_graph=True)
    assert_close(gradient, -time.detach() / 2, 1e-6)
    (gradient,) = torch.autograd.grad(states[1, 0], k)
    assert abs(gradient) < 1e-7
    assert stats.nfe > 0
    with torch.no_grad():
        again, states = odeint_event(
            lambda t, y: -k * y, y0, 0.0, event_fn=lambda t, y: y - 0.5, engine=engine
        )
    assert not again.requires_grad and not states.requires_grad
    assert_close(again, time.detach(), 1e-6)


def test_zero_at_the_start(engine: str) -> None:
    """It is left; torchdiffeq's solve ends there."""
    y0 = torch.tensor([1.0, 0.0], dtype=D)
    time, states = odeint(
        lambda t, y: torch.stack([-y[1], y[0]]), y0, [0.3, 1.0], event_fn=lambda t, y: y[1],
        engine=engine,
    )  # fmt: skip
    assert_close(time, torch.tensor(0.3 + math.pi, dtype=D), 1e-7)
    assert_close(states[1], -y0, 1e-6)


def test_no_event(engine: str) -> None:
    with pytest.raises(SolverError, match="before there was an event") as caught:
        odeint_event(
            lambda t, y: torch.cos(t) * y, torch.ones(1, dtype=D), torch.tensor(0.0, dtype=D),
            event_fn=lambda t, y: y + 1, engine=engine, options={"max_num_steps": 100},
        )  # fmt: skip
    assert caught.value.retcode == "MaxIters"
    assert caught.value.t > 1
    assert caught.value.solution is not None
    with pytest.raises(TypeError, match="callable"):
        odeint(lambda t, y: y, torch.ones(1), [0.0, 1.0], event_fn=1.0, engine=engine)
    with pytest.raises(TypeError, match="float"):
        odeint(lambda t, y: y, torch.ones(1), [0.0, 1.0], event_fn=lambda t, y: 1.0, engine=engine)


def test_fixed_steps(engine: str) -> None:
    def solve(options: dict[str, float]) -> torch.Tensor:
        time, _ = odeint_event(
            lambda t, y: -y, torch.ones(1, dtype=D), 0.0, event_fn=lambda t, y: y - 0.5,
            method="rk4", options=options, engine=engine,
        )  # fmt: skip
        return time

    assert_close(solve({"step_size": 0.01}), torch.tensor(math.log(2), dtype=D), 1e-4)
    with pytest.raises(ValueError, match="step_size"):
        solve({})


def test_interfaces() -> None:
    """Whatever takes ``event_fn`` will do, torchdiffeq's own functions too."""
    g = number(9.81)

    class Fall(torch.nn.Module):
        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.stack([y[1], -g])

    for interface, options in (
        (torchdiffeq.odeint, {}),
        (torchdiffeq.odeint_adjoint, {"adjoint_params": (g,)}),
    ):
        time, _ = odeint_event(
            Fall(), torch.tensor([20.0, 0.0], dtype=D), 0.0, event_fn=lambda t, y: y[0],
            odeint_interface=interface, **options,
        )  # fmt: skip
        (gradient,) = torch.autograd.grad(time, g)
        assert_close(gradient, -time.detach() / (2 * g.detach()), 1e-5)


def test_twice_within_a_step(julia: str) -> None:
    """Verner's long steps pass over this dip; it is seen between their ends."""
    time, _ = odeint_event(
        lambda t, y: 1 + 0 * y, torch.zeros(1, dtype=D), 0.0,
        event_fn=lambda t, y: torch.abs(y - 2) - 0.4, engine="julia", method="Vern9",
        options={"first_step": 4.0},
    )  # fmt: skip
    assert_close(time, torch.tensor(1.6, dtype=D), 1e-9)


def test_events_in_callback_mode(julia: str) -> None:
    """Functions that cannot be traced: the event alone, and both."""
    choose_engine("julia").models.clear()
    k = number(0.5)

    def branching(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y[0] - k if float(y.detach()[0]) > -10 else y[0]

    def falling(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -k * y if float(y.detach()[0]) > 0 else 0 * y

    for func, text in ((lambda t, y: -k * y, "branching"), (falling, "falling")):
        with pytest.warns(PyjlodeWarning, match=f"{text}.*callback mode"):
            time, _ = odeint_event(
                func, torch.ones(1, dtype=D), number(0.0), event_fn=branching, engine="julia"
            )
        assert_close(time.detach(), torch.tensor(2 * math.log(2), dtype=D), 1e-6)
        (gradient,) = torch.autograd.grad(time, k)
        expected = torch.tensor(4 * math.log(2) * -1 - 4, dtype=D)
        assert_close(gradient, expected, 1e-5)
