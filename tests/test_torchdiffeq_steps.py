"""What torchdiffeq's options say of single steps: callbacks, and points where func jumps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torchdiffeq
from reference import assert_close
from side_by_side import Y0, D, Field, T, compare
from torch import Tensor

from pyjlode import PyjlodeWarning, SolverError, Statistics, odeint


class Watched(Field):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Tensor, Any, Tensor]] = []

    def note(self, name: str, t: Tensor, y: Any, dt: Tensor) -> None:
        assert isinstance(t, Tensor) and isinstance(dt, Tensor) and t.dim() == dt.dim() == 0
        self.seen.append((name, t.clone(), y, dt.clone()))

    def forward(self, t: Tensor, y: Any) -> Any:
        if isinstance(y, tuple):
            return 20 * super().forward(t, y[0]), -y[1]
        return 20 * super().forward(t, y)

    def callback_step(self, t: Tensor, y: Any, dt: Tensor) -> None:
        self.note("step", t, y, dt)

    def callback_accept_step(self, t: Tensor, y: Any, dt: Tensor) -> None:
        self.note("accept", t, y, dt)

    def callback_reject_step(self, t: Tensor, y: Any, dt: Tensor) -> None:
        self.note("reject", t, y, dt)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("joined", [False, True])
def test_callbacks(engine: str, joined: bool, reverse: bool) -> None:
    """Each step tried, then whether it was accepted; accepted ones join up from end to end."""
    t = T.flip(0) if reverse else T
    y0: Any = (Y0, torch.ones(3, dtype=D)) if joined else Y0
    func = Watched()
    options = {"first_step": 0.5}  # too long
    odeint(func, y0, t, method="dopri5", options=options, rtol=1e-4, atol=1e-4, engine=engine)
    ours, func.seen = func.seen, []
    torchdiffeq.odeint(func, y0, t, method="dopri5", options=options, rtol=1e-4, atol=1e-4)
    theirs = func.seen
    names = [entry[0] for entry in ours]
    assert names[::2] == ["step"] * (len(names) // 2)
    assert names[1] == theirs[1][0] == "reject"
    for a, b in zip(ours[0][1:], theirs[0][1:], strict=True):
        assert type(a) is type(b)
        for p, q in zip(a, b, strict=True) if joined and isinstance(a, tuple) else [(a, b)]:
            assert_close(p, q, 1e-12)
    sign = -1 if reverse else 1
    now = float(t[0])
    for name, start, _, dt in ours:
        if name == "accept":
            assert math.isclose(float(start), now, abs_tol=1e-12)
            now += sign * float(dt)
    assert sign * (now - float(t[-1])) > -1e-12


def test_callbacks_of_fixed_steps(engine: str) -> None:
    func = Watched()
    with pytest.warns(PyjlodeWarning, match="callback_accept_step, callback_reject_step"):
        y = odeint(func, Y0, T, method="euler", engine=engine)
    assert [(n, round(float(t), 12)) for n, t, _, _ in func.seen] == [("step", 0.0), ("step", 0.4)]
    assert torch.equal(func.seen[0][2], Y0)
    assert_close(func.seen[1][2], y[1], 1e-14)


def jumping(t: Tensor, y: Tensor) -> Tensor:
    """Rises by 1 until 0.5, falls by 2 after."""
    return torch.where(t < 0.5, torch.ones_like(y), -2 * torch.ones_like(y)) * (1 + 0 * y)


@pytest.mark.parametrize("name", ["jump_t", "step_t"])
@pytest.mark.parametrize("sensealg", ["discrete", "gauss"])
def test_times_that_are_points_too(julia: str, name: str, sensealg: str) -> None:
    """A save point that moves moves no jump: later states do not depend on it."""
    rate = 2.0 if name == "jump_t" else -1.0

    def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.where(t < 0.5, -1.0, rate) * y

    t = torch.tensor([0.0, 0.5, 1.0], dtype=D, requires_grad=True)
    stats = Statistics(nfe=10**6)
    y = odeint(
        func, torch.ones(1, dtype=D), t, options={name: torch.tensor([0.5])}, rtol=1e-10,
        atol=1e-10, sensealg=sensealg, engine=julia, stats=stats,
    )[:, 0]  # fmt: skip
    middle, last = math.exp(-0.5), math.exp(-0.5 + rate / 2)
    assert_close(y.detach(), torch.tensor([1.0, middle, last], dtype=D), 1e-8)
    for i, expected in ((1, [middle, -middle, 0.0]), (2, [last, 0.0, rate * last])):
        (found,) = torch.autograd.grad(y[i], t, retain_graph=True)
        assert_close(found, torch.tensor(expected, dtype=D), 1e-7)
    assert 0 < stats.nfe < 10**5 and stats.nfe_backward > 0


def test_what_a_solve_in_pieces_reached(julia: str) -> None:
    """1 / (1.2 - t) blows up in the second piece."""
    with pytest.raises(SolverError) as caught:
        odeint(
            lambda t, y: y**2, torch.tensor([1 / 1.2], dtype=D), [0.0, 0.4, 1.0, 1.1, 1.5],
            options={"jump_t": torch.tensor([0.7])}, engine=julia,
        )  # fmt: skip
    found = caught.value.solution
    t = torch.tensor([0.0, 0.4, 1.0, 1.1], dtype=D)
    assert_close(found.t, t, 1e-12)
    assert_close(found.y[:, 0], 1 / (1.2 - t), 1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["jump_t", "step_t"])
def test_jumps(engine: str, name: str, reverse: bool) -> None:
    """The solution across a jump of func is exact where a step ends there."""
    y0 = torch.zeros(2, dtype=D, requires_grad=True)
    t = torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=D)
    t = t.flip(0) if reverse else t
    options = {name: torch.tensor([0.5, 3.0], dtype=D)}
    y = odeint(
        jumping, y0, t, method="dopri5", options=options, rtol=1e-10, atol=1e-10, engine=engine
    )
    expected = torch.tensor([0.0, 0.25, 0.0, -0.5], dtype=D)
    expected = expected.flip(0) + 0.5 if reverse else expected
    assert_close(y[:, 0], expected, 1e-12 if name == "jump_t" else 1e-6)
    y.sum().backward()
    assert_close(y0.grad, torch.full((2,), 4.0, dtype=D), 1e-6)


def test_gradients_across_jumps(engine: str) -> None:
    class Controlled(Field):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return super().forward(t, y) + torch.where(t < 0.5, torch.sin(3 * y), torch.cos(t + y))

    compare(
        engine, Controlled(), Y0, T, 1e-6, method="dopri5", rtol=1e-9, atol=1e-9,
        options={"jump_t": torch.tensor([0.5], dtype=D)},
    )  # fmt: skip
