"""Solves that end at an event."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .engine import Engine
from .errors import ArgumentError
from .event_time import link
from .mass_matrix import slope_of
from .problem import Problem, Statistics
from .states import Layout


def solve_until_event(
    problem: Problem,
    unflatten: Callable[[Tensor], Any],
    event_fn: Callable[..., Tensor],
    solver: Engine,
    stats: Statistics,
) -> tuple[Tensor, Any]:
    """The event's time, and the states at the start and at that time."""
    if not callable(event_fn):
        raise TypeError(
            f"event_fn must be callable as event_fn(t, y), not {type(event_fn).__name__}."
        )
    direction = problem.direction

    def event(t: Tensor, y: Tensor) -> Tensor:
        return as_values(event_fn(direction * t, unflatten(y.clone())), y.dtype)

    # What the wrapping rests on comes first: a key's end says which way time runs.
    watched = replace(problem, func=event, owner=event_fn, key=("event", *problem.key))
    time, states, index = solver.solve_event(problem, watched, stats)
    if torch.is_grad_enabled() and not _caller_links():
        slope = problem.func
        if problem.mass is not None:
            slope = slope_of(slope, problem.mass.matrix)
        time, end = link(
            slope, event, time, states[-1], index, start=float(problem.t[0].detach()),
            twice=problem.mass is None,
        )  # fmt: skip
        if end.requires_grad:
            states = torch.cat([states[:-1], end[None]])
    return (direction * time).to(problem.t.dtype), unflatten(states)


def _caller_links() -> bool:
    """Whether it is torchdiffeq's ``odeint_event`` that calls, which takes a fixed time's gradient.

    Linked twice, the gradients would be wrong.
    """
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")).startswith("torchdiffeq.")


def as_values(value: Any, dtype: torch.dtype) -> Tensor:
    """An event's values in one dimension; of a Boolean, either change is a change of sign.

    Examples
    --------
    >>> as_values(torch.tensor([True, False]), torch.float64).tolist()
    [1.0, -1.0]
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"event_fn returned {type(value).__name__}, not a tensor.")
    if value.is_complex():
        raise TypeError(f"event_fn must return real numbers, not {value.dtype}.")
    if value.numel() == 0:
        raise ArgumentError("event_fn returned a tensor without elements.")
    flat = value.reshape(-1)
    return 2 * flat.to(dtype) - 1 if flat.dtype is torch.bool else flat.to(dtype)


def link_event(
    derivative: Callable[..., Any],
    event_fn: Callable[..., Tensor],
    event_t: Tensor,
    solution: Any,
    start: Tensor,
    arguments: Mapping[str, Any],
) -> tuple[Tensor, Any]:
    """Make another package's time of an event, and through it the last state, differentiable.

    ``solution`` must have the gradient of the state at a fixed time; ``arguments`` are those of the
    solve, whose ``atol`` torchdiffeq finds an event to.
    """
    single = isinstance(solution, Tensor)
    end = solution[-1] if single else tuple(s[-1] for s in solution)
    layout = Layout.of(end)

    def event(t: Tensor, y: Tensor) -> Tensor:
        return as_values(event_fn(t, layout.split(y.clone())), y.dtype)

    slack = float(torch.as_tensor(arguments.get("atol", 1e-9)).max())
    time, linked = link(
        layout.wrap(derivative), event, event_t.detach().to(torch.float64), layout.join(end),
        start=float(start.detach()), slack=slack,
    )  # fmt: skip
    last = layout.split(linked)
    pairs = [(solution, last)] if single else list(zip(solution, last, strict=True))
    joined = tuple(torch.cat([s[:-1], y[None]]) for s, y in pairs)
    return time.to(event_t.dtype), joined[0] if single else joined
