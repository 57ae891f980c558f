"""What a function reads when it is traced, and what it may change without being traced again."""

from __future__ import annotations

import math
import types
import warnings
from typing import Any

import pytest
import torch
from reading import NUMBERS, STATE, D
from torch import Tensor, nn

from pyjlode import PyjlodeWarning, daeint, ddeint, odeint, odeint_event, sdeint, steady_state
from pyjlode.engine import choose_engine
from pyjlode.trace.capture import trace
from pyjlode.trace.fingerprint import fingerprint

T = torch.tensor([0.0, 1.0], dtype=D)
Y0 = torch.ones(1, dtype=D)
# Of these it is told that they are traced for each solve.
_OPAQUE = {"environment", "globals"}


def _end(func: Any, engine: str) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PyjlodeWarning)
        return float(odeint(func, Y0, T, rtol=1e-9, atol=1e-11, engine=engine)[-1].detach())


@pytest.mark.parametrize("name", [*NUMBERS, *STATE])
def test_a_change_is_seen(engine: str, name: str) -> None:
    func, change = {**NUMBERS, **STATE}[name]()
    assert _end(func, engine) == pytest.approx(math.exp(-1), rel=1e-7)
    change()
    assert _end(func, engine) == pytest.approx(math.exp(-3), rel=1e-7)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_trace_says_what_it_read(name: str) -> None:
    func, _ = NUMBERS[name]()
    for derivatives in (False, True):
        read = trace(func, Y0, derivatives=derivatives).reads
        assert len(read) >= 1
        found = fingerprint(func).tensors
        assert all(any(x is y for y in found) for x in read)


@pytest.mark.parametrize("name", STATE)
def test_a_key_shows_a_change_or_says_that_it_cannot(name: str) -> None:
    func, change = STATE[name]()
    before = fingerprint(func)
    assert fingerprint(func).key == before.key
    change()
    assert bool(before.opaque) == (name in _OPAQUE)
    assert before.opaque or fingerprint(func).key != before.key


def test_a_tensor_used_as_a_tensor_is_not_read() -> None:
    k = torch.tensor(2.0, dtype=D)
    traced = trace(lambda t, y: -k * y + torch.tensor(1.0, dtype=D) * k, Y0, derivatives=True)
    assert traced.reads == ()
    assert any(x is k for x in traced.constants)


class _Trainer:
    def __init__(self) -> None:
        self.k, self.step = 2.0, 0
        self.losses: list[float] = []

    def rhs(self, t: Tensor, y: Tensor) -> Tensor:
        return -self.k * y

    def train(self) -> None:
        self.losses.append(1.0)
        self.step += 1


class _Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.nfe, self.log, self.counts = 0, [0], {"f": 0}

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        self.counts["f"] += 1
        self.log.append(1)
        return -2.0 * y


def test_what_is_not_read_may_change() -> None:
    trainer, counting = _Trainer(), _Counting()
    before = fingerprint(trainer.rhs).key, fingerprint(counting).key
    trainer.train()
    counting(T[0], Y0)
    assert (fingerprint(trainer.rhs).key, fingerprint(counting).key) == before
    trainer.k = 3.0
    assert fingerprint(trainer.rhs).key != before[0]


def test_what_is_not_read_is_not_compiled_for(julia: str) -> None:
    models = choose_engine(julia).models
    trainer, counting = _Trainer(), _Counting()
    for func in (trainer.rhs, counting):
        odeint(func, Y0, T, engine=julia)
        before = len(models)
        for _ in range(3):
            trainer.train()
            counting.nfe = 0
            odeint(func, Y0, T, engine=julia)
        assert len(models) == before


class _Clamped:
    def __init__(self, k: float) -> None:
        self.k = k

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.k = max(self.k, 0.1)
        return -self.k * y


def test_what_a_function_writes_itself_is_still_read(engine: str) -> None:
    found = [_end(_Clamped(k), engine) for k in (0.01, 2.0, 0.05, 3.0)]
    assert found == pytest.approx([math.exp(-k) for k in (0.1, 2.0, 0.1, 3.0)], rel=1e-7)


def test_the_sign_of_zero_counts() -> None:
    model = types.SimpleNamespace(k=0.0)
    func = lambda t, y: -math.copysign(1.0, model.k) * y  # noqa: E731
    before = fingerprint(func).key
    model.k = -0.0
    assert fingerprint(func).key != before


def test_it_is_told_what_changes_again_and_again(julia: str) -> None:
    choose_engine(julia).models.clear()
    model = types.SimpleNamespace(rate=0.0)

    def sweep() -> None:
        for i in range(20):
            model.rate = 0.1 * i
            odeint(lambda t, y: -model.rate * y, Y0, T, engine=julia)

    with pytest.warns(PyjlodeWarning, match="'rate'"):
        sweep()


# Every kind of equation.


def _equation(kind: str, k: Tensor, engine: str) -> float:
    """Something that is exp(-k), or k, where every function reads k as a number."""
    tight = {"rtol": 1e-9, "atol": 1e-11}
    if kind == "event":
        y0 = torch.zeros(1, dtype=D)
        found, _ = odeint_event(
            lambda t, y: torch.ones_like(y), y0, torch.tensor(0.0, dtype=D),
            event_fn=lambda t, y: y - k.item(), engine=engine, **tight,
        )  # fmt: skip
        return float(found)
    if kind == "stiff":
        return float(odeint(lambda t, y: -k.item() * y, Y0, T, method="Rodas5P", **tight)[-1])
    if kind == "dde":
        return float(ddeint(lambda t, y, late: -k.item() * y, Y0, T, lags=[0.5], **tight)[-1])
    if kind == "dae":
        y0, dy0 = Y0, torch.tensor([-k.item()], dtype=D)
        return float(daeint(lambda t, y, dy: dy + k.item() * y, y0, dy0, T, **tight)[-1])
    if kind == "steady":
        return float(steady_state(lambda t, y: k.item() - y, Y0))
    if kind == "sde":
        f = types.SimpleNamespace(
            noise_type="diagonal", sde_type="ito", f=lambda t, y: -k.item() * y,
            g=lambda t, y: torch.zeros_like(y),
        )  # fmt: skip
        return float(sdeint(f, Y0[None], T, dt=1e-3, method="euler")[-1])
    raise ValueError(kind)


@pytest.mark.parametrize("kind", ["event", "stiff", "dde", "dae", "steady", "sde"])
def test_in_every_kind_of_equation(julia: str, kind: str) -> None:
    k = torch.tensor(1.0, dtype=D)
    linear = kind in ("event", "steady")
    for value in (1.0, 3.0):
        k.fill_(value)
        expected = value if linear else math.exp(-value)
        tolerance = 1e-2 if kind == "sde" else 1e-6
        assert _equation(kind, k, julia) == pytest.approx(expected, rel=tolerance)


# Functions that write into their arguments.


def _writes(t: Tensor, y: Tensor) -> Tensor:
    slope = -y
    y[:, 0] = 7
    y.mul_(3)
    t.add_(1)
    return slope


def _writes_first(t: Tensor, y: Tensor) -> Tensor:
    y.mul_(-3)
    return y


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("func", [_writes, _writes_first])
def test_a_function_may_write_into_its_argument(engine: str, func: Any, gradient: bool) -> None:
    y0 = torch.ones(2, 2, dtype=D, requires_grad=gradient)
    rate = -1.0 if func is _writes else -3.0
    states = odeint(func, y0, T, rtol=1e-9, atol=1e-11, engine=engine)
    assert torch.equal(y0, torch.ones_like(y0))
    expected = torch.full((2, 2), math.exp(rate), dtype=D)
    assert torch.allclose(states[-1], expected, rtol=1e-7)
    assert torch.equal(states[0], torch.ones_like(y0))
    if gradient:
        (found,) = torch.autograd.grad(states[-1].sum(), y0)
        assert torch.allclose(found, expected, rtol=1e-6)


def test_an_event_function_may_write_into_its_argument(engine: str) -> None:
    y0, start = torch.zeros(2, dtype=D), torch.tensor(0.0, dtype=D)

    def event(t: Tensor, y: Tensor) -> Tensor:
        return y.sub_(1.0)[0]

    found, states = odeint_event(
        lambda t, y: torch.ones_like(y), y0, start, event_fn=event, engine=engine
    )
    assert float(found) == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(y0, torch.zeros(2, dtype=D))
    assert torch.allclose(states[-1], torch.ones(2, dtype=D), atol=1e-6)


def test_a_state_of_several_tensors_may_be_written_into(engine: str) -> None:
    def func(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return y[0].mul_(-1.0), y[1].mul_(-2.0)

    y0 = (torch.ones(1, dtype=D), torch.ones(2, dtype=D))
    a, b = odeint(func, y0, T, rtol=1e-9, atol=1e-11, engine=engine)
    assert torch.equal(y0[0], torch.ones(1, dtype=D)) and torch.equal(y0[1], torch.ones(2, dtype=D))
    assert float(a[-1]) == pytest.approx(math.exp(-1), rel=1e-7)
    assert torch.allclose(b[-1], torch.full((2,), math.exp(-2), dtype=D), rtol=1e-7)


def test_copies_into_which_nothing_is_written_cost_nothing() -> None:
    traced = trace(lambda t, y: -y * t, Y0, derivatives=True, jacobian=True, second=True)
    assert "clone" not in traced.graph.code
    assert "clone" in trace(_writes, torch.ones(2, 2, dtype=D), derivatives=False).graph.code
