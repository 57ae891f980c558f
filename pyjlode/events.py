"""Solves that end at an event, and the gradient of the time at which it happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .engine import Engine
from .problem import Problem, Statistics


def solve_until_event(
    problem: Problem,
    unflatten: Callable[[Tensor], Any],
    event_fn: Callable[..., Tensor],
    solver: Engine,
    stats: Statistics,
) -> tuple[Tensor, Any]:
    """The event's time, without a gradient, and the states at the start and at that time."""
    if not callable(event_fn):
        raise TypeError(
            f"event_fn must be callable as event_fn(t, y), not {type(event_fn).__name__}."
        )
    direction = problem.direction

    def event(t: Tensor, y: Tensor) -> Tensor:
        value = event_fn(direction * t, unflatten(y.clone()))
        if not isinstance(value, Tensor):
            raise TypeError(f"event_fn returned {type(value).__name__}, not a tensor.")
        return value.reshape(-1).to(y.dtype)

    # What the wrapping rests on comes first: a key's end says which way time runs.
    watched = replace(problem, func=event, owner=event_fn, key=("event", *problem.key))
    time, states = solver.solve_event(problem, watched, stats)
    return (direction * time).to(problem.t.dtype), unflatten(states)


def link_event(
    derivative: Callable[..., Any],
    event_fn: Callable[..., Tensor],
    event_t: Tensor,
    solution: Any,
) -> tuple[Tensor, Any]:
    """Make the event's time, and through it the last state, differentiable.

    ``derivative(t, y)`` is ``dy/dt`` along the solution, and ``solution`` must have the gradient of
    the state at a fixed time. By the implicit function
    theorem the event's time moves with the event's value, divided by that value's rate along
    the solution.
    """
    single = isinstance(solution, Tensor)
    parts = (solution,) if single else tuple(solution)
    end = tuple(s[-1] for s in parts)

    def pack(y: tuple[Tensor, ...]) -> Any:
        own = tuple(x.clone() for x in y)  # the caller's functions may write into them
        return own[0] if single else own

    time = event_t.detach().to(end[0].real.dtype)
    with torch.no_grad():
        slope = derivative(time, pack(end))
    slopes = (slope,) if single else tuple(slope)
    index, rate = _crossing(event_fn, time, end, slopes, pack)
    value = event_fn(time, pack(end)).reshape(-1)[index]
    shift = -(value - value.detach()) / rate
    linked = tuple(
        torch.cat([s[:-1], (y + f * shift)[None]])
        for s, y, f in zip(parts, end, slopes, strict=True)
    )
    return event_t.detach() + shift.to(event_t.dtype), linked[0] if single else linked


def _crossing(
    event_fn: Callable[..., Tensor],
    t: Tensor,
    end: tuple[Tensor, ...],
    slopes: tuple[Tensor, ...],
    pack: Callable[[tuple[Tensor, ...]], Any],
) -> tuple[int, Tensor]:
    """Which of the event's values crosses zero at this time, and its rate along the solution."""
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in (t, *end)]
        values = event_fn(inputs[0], pack(tuple(inputs[1:]))).reshape(-1)
    rates = []
    for value in values:
        rate = torch.zeros_like(t)
        if value.requires_grad:
            found = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
            rate = rate if found[0] is None else rate + found[0]
            for g, f in zip(found[1:], slopes, strict=True):
                rate = rate if g is None else rate + (g.conj() * f).real.sum()
        rates.append(rate.detach())
    # The one that is nearest to zero in time: the values may be of different scales.
    distance = torch.stack([(v.detach() / r).abs() for v, r in zip(values, rates, strict=True)])
    index = int(distance.nan_to_num(float("inf"), float("inf")).argmin())
    return index, rates[index]
