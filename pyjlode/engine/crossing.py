"""Where an event's values cross zero, and the zero at which a solve starts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..problem import Problem, tightest

Function = Callable[[Tensor, Tensor], Tensor]

# What Julia does about an event's value at the start: a zero, or one but for rounding, is left.
LEAVE, LEAVE_NEAR = 1, 2

# Rounding counts as this many units in the last place, and as this part of the solve's atol: a
# state that was found at an event is nearer to it.
_UNITS = 64
_PART = 1e-3


def zero_at_start(event: Problem) -> Tensor:
    """Which of an event's values are zero at the start, but for what rounding does to the state.

    Of a function with derivatives these say what rounding does; of one that jumps, a look at states
    on either side.
    """
    y = event.y0.detach()
    t = event.t[0].detach().to(y.dtype)
    eps = torch.finfo(y.dtype).eps
    coarsest = max(eps, torch.finfo(event.t.dtype).eps)
    of_time = _UNITS * coarsest * t.abs()
    of_state = _UNITS * eps * y.abs().max() + _PART * tightest(event.atol)
    with torch.no_grad():
        values = event.func(t, y)
        near = [
            event.func(t + a * of_time, y + b * of_state)
            for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))
        ]
    zero = values == 0
    for other in near:
        zero = zero | (other.sign() != values.sign())
    return zero | (values.abs() <= _rounding(event.func, t, y, of_time, of_state))


def _rounding(func: Function, t: Tensor, y: Tensor, of_time: Tensor, of_state: Tensor) -> Tensor:
    """How far each value is moved."""
    with torch.enable_grad():
        inputs = (t.clone().requires_grad_(), y.clone().requires_grad_())
        values = func(*inputs).unbind()
    sizes = []
    for value in values:
        size = torch.zeros_like(t)
        if value.requires_grad:
            by_t, by_y = torch.autograd.grad(
                value, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            size = by_t.abs() * of_time + by_y.abs().sum() * of_state
        sizes.append(size.detach())
    return torch.stack(sizes)


class FirstCrossing:
    """An event for torchdiffeq: 1 until one of the values has changed its sign, then -1.

    Torchdiffeq takes the sign at the start for that of the solution, and compares signs alone. Here
    a value that is zero at the start has the sign that follows.
    """

    def __init__(self, event: Problem, slope: Function) -> None:
        self.event = event
        self.slope = slope
        self.start: tuple[Tensor, Tensor] | None = None
        self.signs = torch.empty(0)
        self.reached: Tensor | None = None

    @torch.no_grad()
    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        if self.start is None:
            self.start = (t, y)
            self.signs = self.event.func(t, y).sign()
        if t == self.start[0]:
            return torch.ones_like(t)
        crossed = self.crossed(t, y)
        if self.reached is None and bool((crossed | (self.signs == 0)).any()):
            self._leave(t, y, crossed)
            crossed = self.crossed(t, y)
        if bool(crossed.any()):
            return -torch.ones_like(t)
        if self.reached is None or t > self.reached:
            self.reached = t
            self.signs = torch.where(self.signs == 0, self.event.func(t, y).sign(), self.signs)
        return torch.ones_like(t)

    def crossed(self, t: Tensor, y: Tensor) -> Tensor:
        """Which of the values have no longer the sign they had."""
        return (self.signs != 0) & (self.event.func(t, y).sign() * self.signs <= 0)

    def _leave(self, t: Tensor, y: Tensor, crossed: Tensor) -> None:
        """Where a value is zero at the start: its sign a hundredth of the first step later."""
        zero = self.signs == 0
        if bool((crossed & ~zero).any()):
            zero = zero | zero_at_start(self.event)
        t0, y0 = self._start()
        h = t - t0
        first, last = self.slope(t0, y0), self.slope(t, y)
        x = 0.01
        between = (
            (1 + 2 * x) * (1 - x) ** 2 * y0 + x**2 * (3 - 2 * x) * y
            + h * (x * (1 - x) ** 2 * first - x**2 * (1 - x) * last)
        )  # fmt: skip
        signs = self.event.func(t0 + x * h, between).sign()
        self.signs = torch.where(zero, signs, self.signs)

    def _start(self) -> tuple[Tensor, Tensor]:
        assert self.start is not None
        return self.start

    @torch.no_grad()
    def refine(self, t: Tensor, y: Tensor, width: float) -> tuple[Tensor, Tensor, int]:
        """The crossing to rounding, from a time that is within ``width`` of it.

        The state is where the value has crossed already.
        """
        slope = self.slope(t, y)
        t0 = self._start()[0]

        def at(time: Tensor) -> Tensor:
            return y + (time - t).to(y.dtype) * slope

        before, after = (t - width).clamp(min=t0), t + width
        for _ in range(60):
            if bool(self.crossed(after, at(after)).any()):
                break
            after = t + 2 * (after - t)
        while bool((middle := (before + after) / 2) > before) and bool(middle < after):
            if bool(self.crossed(middle, at(middle)).any()):
                after = middle
            else:
                before = middle
        state = at(after)
        return after, state, int(self.crossed(after, state).to(torch.int8).argmax())
