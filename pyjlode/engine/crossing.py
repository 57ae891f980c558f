"""Where an event's values cross zero, and the zero at which a solve starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..problem import Problem, tightest
from ..states import numbers

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
        self.signs = np.empty(0)
        self.reached = float("-inf")

    @torch.no_grad()
    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        if self.start is None:
            self.start = (t, y)
            self.signs = self._signs(t, y)
        time, begin = float(t), float(self.start[0])
        if time == begin:
            return torch.ones_like(t)
        signs = self._signs(t, y)
        crossed = signs * self.signs < np.abs(self.signs)
        if self.reached < begin and (crossed | (self.signs == 0)).any():
            self._leave(t, y, crossed)
            crossed = signs * self.signs < np.abs(self.signs)
        if crossed.any():
            return -torch.ones_like(t)
        if time > self.reached:
            self.reached = time
            self.signs = np.where(self.signs == 0, signs, self.signs)
        return torch.ones_like(t)

    def crossed(self, t: Tensor, y: Tensor) -> NDArray[Any]:
        """Which of the values have no longer the sign they had."""
        return self._signs(t, y) * self.signs < np.abs(self.signs)

    def _signs(self, t: Tensor, y: Tensor) -> NDArray[Any]:
        return np.sign(numbers(self.event.func(t, y)))

    def _leave(self, t: Tensor, y: Tensor, crossed: NDArray[Any]) -> None:
        """Where a value is zero at the start: its sign a hundredth of the first step later."""
        zero = self.signs == 0
        if (crossed & ~zero).any():
            zero = zero | zero_at_start(self.event).numpy()
        t0, y0 = self._start()
        h = t - t0
        first, last = self.slope(t0, y0), self.slope(t, y)
        x = 0.01
        between = (
            (1 + 2 * x) * (1 - x) ** 2 * y0 + x**2 * (3 - 2 * x) * y
            + h * (x * (1 - x) ** 2 * first - x**2 * (1 - x) * last)
        )  # fmt: skip
        self.signs = np.where(zero, self._signs(t0 + x * h, between), self.signs)

    def _start(self) -> tuple[Tensor, Tensor]:
        assert self.start is not None
        return self.start

    @torch.no_grad()
    def refine(self, t: Tensor, y: Tensor, width: float) -> tuple[Tensor, Tensor, int]:
        """The crossing to rounding, from a time that is within ``width`` of it.

        The state is where the value has crossed already.
        """
        slope = self.slope(t, y)
        begin = self._start()[0].to(t.dtype)

        def at(time: Tensor) -> Tensor:
            return y + (time - t).to(y.dtype) * slope

        def passed(time: Tensor) -> bool:
            return bool(self.crossed(time, at(time)).any())

        before, after = torch.maximum(t - width, begin), t + width
        while before > begin and passed(before):
            before = torch.maximum(t - 2 * (t - before), begin)
        for _ in range(60):
            if passed(after):
                break
            after = t + 2 * (after - t)
        for edge in self._near_zero(before, after, at):
            if before < edge < after:
                before, after = (before, edge) if passed(edge) else (edge, after)
        while before < (middle := (before + after) / 2) < after:
            before, after = (before, middle) if passed(middle) else (middle, after)
        state = at(after)
        return after, state, int(self.crossed(after, state).argmax())

    def _near_zero(
        self, before: Tensor, after: Tensor, at: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Times just beside the zero of a value that is linear here: they spare most bisections."""
        index = int(self.crossed(after, at(after)).argmax())
        left, right = (self.event.func(x, at(x))[index].to(x.dtype) for x in (before, after))
        zero = before + (after - before) * left / (left - right)
        margin = 8 * torch.finfo(zero.dtype).eps * after.abs()
        return zero - margin, zero + margin
