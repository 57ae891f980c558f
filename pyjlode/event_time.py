"""The derivatives of an event's time, and through it of the state there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import UnsupportedError

Function = Callable[[Tensor, Tensor], Tensor]

# How far before the event its value is looked at where it is flat at the event itself, in units of
# rounding: so far that the value is more than rounding, and its rate still that at the event.
_BEFORE = 1024


@dataclass(frozen=True)
class Crossing:
    """An event's value and what it moves with, at one time of a solution.

    Attributes
    ----------
    t, y : torch.Tensor
    slope : torch.Tensor
        ``dy/dt`` along the solution.
    value, rate : torch.Tensor
        Of the element that crosses zero, and its derivative by time along the solution.
    scale : float
        The size of what the value is the sum of.
    twice : bool
        Whether ``slope`` and ``rate`` have derivatives.
    """

    t: Tensor
    y: Tensor
    slope: Tensor
    value: Tensor
    rate: Tensor
    scale: float
    twice: bool

    @property
    def steady(self) -> bool:
        """Whether the value does not move along the solution, or is not finite."""
        rate = float(self.rate.detach())
        return not 0 < abs(rate) < float("inf")


def link(
    slope: Function,
    event: Function,
    time: Tensor,
    y: Tensor,
    index: int | None = None,
    *,
    start: float = 0.0,
    slack: float = 0.0,
    twice: bool = True,
) -> tuple[Tensor, Tensor]:
    """An event's time and the state there, with the derivatives that they have.

    The event's value is zero along the moved solution: by the implicit function theorem the time
    moves with the value at a fixed time, divided by its rate. Numbers are those given.

    Parameters
    ----------
    slope : callable
        ``dy/dt`` as a function of ``t`` and ``y`` along the solution.
    event : callable
        The event's values, in one dimension.
    time : torch.Tensor
        The event's, without a gradient.
    y : torch.Tensor
        The state there, with the gradient of the solution at that fixed time.
    index : int, optional
        The value that crosses zero; by default the one that is nearest to it in time.
    start : float, optional
        When the solve began.
    slack : float, optional
        How far the time may be off.
    twice : bool, optional
        Whether ``slope`` has the derivatives of what it is made of.
    """
    if not y.requires_grad:
        with torch.enable_grad():
            if not event(time.to(y.dtype), y).requires_grad:
                return time, y
    length = max(abs(float(time)), abs(float(time) - start))
    crossing = _look(slope, event, time, y, index, twice)
    sound = not crossing.steady and _is_zero(crossing, length, slack)
    if crossing.steady:
        # It may be flat from here on, as of a clamp; then its rate is the one before.
        shift = _BEFORE * torch.finfo(y.dtype).eps * length
        before = _look(
            slope, event, time - shift, y - shift * crossing.slope.detach(), index, twice
        )
        if _reaches_zero(before, shift):
            crossing, sound = before, True
    return _Link.apply(
        (time, y.detach(), crossing, sound),
        crossing.value, crossing.rate, y, crossing.slope,
    )  # fmt: skip


def _is_zero(crossing: Crossing, length: float, slack: float) -> bool:
    """Whether the value passes through zero, and does not jump over it."""
    value, rate = abs(float(crossing.value.detach())), abs(float(crossing.rate.detach()))
    rounding = torch.finfo(crossing.y.dtype).eps ** 0.5
    return value <= rounding * (crossing.scale + rate * length) + rate * slack


def _reaches_zero(before: Crossing, shift: float) -> bool:
    """Whether a value that moves as it does before the event is zero at it."""
    if before.steady or shift == 0:
        return False
    value, change = float(before.value.detach()), float(before.rate.detach()) * shift
    return abs(value + change) <= 0.25 * abs(change)


def _look(
    slope: Function, event: Function, t: Tensor, y: Tensor, index: int | None, twice: bool
) -> Crossing:
    try:
        return _evaluate(slope, event, t, y, index, twice)
    except Exception:
        if not twice:
            raise
        # What has no second derivatives, as a compiled module, has first ones.
        return _evaluate(slope, event, t, y, index, False)


def _evaluate(
    slope: Function, event: Function, t: Tensor, y: Tensor, index: int | None, twice: bool
) -> Crossing:
    with torch.enable_grad():
        t = t.to(y.dtype).detach().requires_grad_()
        y = y if y.requires_grad else y.detach().requires_grad_()
        with torch.set_grad_enabled(twice):
            rate_of_y = slope(t, y)
        values = event(t, y)
        if index is None:
            index = _nearest(values, t, y, rate_of_y)
        value = values[index]
        if not value.requires_grad:
            return Crossing(t, y, rate_of_y, value, torch.zeros_like(t), 0.0, twice)
        by_t, by_y = torch.autograd.grad(
            value, (t, y), retain_graph=True, create_graph=twice, allow_unused=True,
            materialize_grads=True,
        )  # fmt: skip
        rate = by_t + (by_y * rate_of_y).sum()
        scale = float((by_y * y).detach().abs().sum() + (by_t * t).detach().abs())
    return Crossing(t, y, rate_of_y, value, rate, scale, twice)


def _nearest(values: Tensor, t: Tensor, y: Tensor, slope: Tensor) -> int:
    """The value that is nearest to zero in time: they may be of different scales."""
    distances = []
    for value in values:
        rate = torch.zeros_like(t)
        if value.requires_grad:
            by_t, by_y = torch.autograd.grad(
                value, (t, y), retain_graph=True, allow_unused=True, materialize_grads=True
            )
            rate = by_t + (by_y * slope).sum()
        distances.append((value / rate).detach().abs())
    inf = float("inf")
    return int(torch.stack(distances).nan_to_num(inf, inf).argmin())


class _Link(torch.autograd.Function):
    """The event's time and the last state as functions of the event's value at a fixed time.

    The value's rate and the state's slope are inputs too. They count in second derivatives only,
    and their graphs are walked for these alone.
    """

    @staticmethod
    def forward(
        found: tuple[Tensor, Tensor, Crossing, bool],
        value: Tensor,
        rate: Tensor,
        y: Tensor,
        slope: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return found[0].clone(), found[1].clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        (_, _, ctx.crossing, ctx.sound), *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def jvp(ctx: Any, _: Any, value: Any, rate: Any, y: Any, slope: Any) -> tuple[Tensor, Tensor]:
        _refuse(ctx.sound)
        at_rate, at_slope = ctx.saved_tensors[1], ctx.saved_tensors[3]
        moved = torch.zeros_like(at_rate) if value is None else -value / at_rate
        change = moved * at_slope
        return moved.to(torch.float64), change if y is None else y + change

    @staticmethod
    def backward(ctx: Any, of_time: Tensor | None, of_y: Tensor | None) -> tuple[Any, ...]:
        if of_time is None and of_y is None:
            return None, None, None, None, None
        value, rate, y, slope = ctx.saved_tensors
        if not ctx.sound:
            if any(x is not None and bool(x.any()) for x in (of_time, of_y)):
                _refuse(ctx.sound)
            return None, None, None, of_y, None
        if torch.is_grad_enabled():
            return None, *_differentiable(ctx, (value, rate, y, slope), of_time, of_y)
        total = torch.zeros_like(rate) if of_time is None else of_time.to(rate.dtype)
        if of_y is not None:
            total = total + (of_y * slope).sum()
        return None, -total / rate, None, of_y, None


def _refuse(sound: bool) -> None:
    if not sound:
        raise UnsupportedError(
            "The event's time has no derivative: where it happens event_fn jumps, or its rate "
            "along the solution is zero or not finite, as of sign, a comparison or a clamp. Give "
            "an event_fn that crosses zero with a slope; or, for gradients at the fixed time, "
            "solve with odeint up to event_t.detach()."
        )


def _differentiable(
    ctx: Any, inputs: tuple[Tensor, ...], of_time: Tensor | None, of_y: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The gradients as functions with a derivative of their own.

    Time and state are written to second order in the value at the fixed time, which is zero:
    ``value + rate s + curvature s²/2 = 0`` and ``y + slope s + bend s²/2``.
    """
    crossing: Crossing = ctx.crossing
    if not crossing.twice:
        raise UnsupportedError(
            "There is no second derivative of the event's time: func or event_fn has none, or "
            "there is a mass matrix. Leave create_graph out, or take differences of the gradient."
        )
    curvature, bend = _second_rates(crossing)
    with torch.enable_grad():
        # The value was computed from the state: each counts for itself under another name.
        inputs = tuple(x.view_as(x) for x in inputs)
        wanted = [x for x, needed in zip(inputs, ctx.needs_input_grad[1:], strict=True) if needed]
        value, rate, y, slope = inputs
        off = value - value.detach()
        shift = -off / rate - curvature * off**2 / (2 * rate**3)
        state = y + slope * shift + bend * shift**2 / 2
        pairs = [(shift.to(torch.float64), of_time), (state, of_y)]
        outputs, cotangents = zip(*((o, c) for o, c in pairs if c is not None), strict=True)
        found = iter(
            torch.autograd.grad(outputs, wanted, cotangents, create_graph=True, allow_unused=True)
        )
    return tuple(_guard(next(found)) if needed else None for needed in ctx.needs_input_grad[1:])


def _second_rates(crossing: Crossing) -> tuple[Tensor, Tensor]:
    """The derivatives by time, along the solution, of the value's rate and of the slope."""
    t, y, slope, rate = crossing.t, crossing.y, crossing.slope, crossing.rate
    direction = slope.detach()

    def pull(out: Tensor, cotangent: Tensor | None, create_graph: bool) -> tuple[Tensor, ...]:
        if not out.requires_grad:
            return torch.zeros_like(t), torch.zeros_like(y)
        return torch.autograd.grad(
            out, (t, y), cotangent, retain_graph=True, create_graph=create_graph,
            allow_unused=True, materialize_grads=True,
        )  # fmt: skip

    by_t, by_y = pull(rate, None, False)
    curvature = by_t + (by_y * direction).sum()
    # The derivative of a function along a direction is that of its pullback by the cotangent.
    with torch.enable_grad():
        cotangent = torch.zeros_like(slope).requires_grad_()
        by_t, by_y = pull(slope, cotangent, True)
        along = by_t + (by_y * direction).sum()
    if not along.requires_grad:
        return curvature.detach(), torch.zeros_like(y)
    (bend,) = torch.autograd.grad(along, cotangent, allow_unused=True, materialize_grads=True)
    return curvature.detach(), bend.detach()


def is_linked(time: Tensor) -> bool:
    """Whether a time is one of :func:`link`, with no more than conversions since."""
    node = time.grad_fn
    while node is not None and node.name() != "_LinkBackward":
        node = node.next_functions[0][0] if node.next_functions else None
    return node is not None


class _Guard(torch.autograd.Function):
    """The identity, which has a first derivative only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise UnsupportedError(
                "There is no third derivative of an event's time. Take the second without "
                "create_graph, or differences of it."
            )
        return cotangent


def _guard(x: Tensor | None) -> Tensor | None:
    return None if x is None else _Guard.apply(x)
