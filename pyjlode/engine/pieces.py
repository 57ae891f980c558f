"""Solves across points where the right-hand side jumps, or where steps have to end: in pieces.

Each piece is a solve of its own, which starts from the end of the one before, so that any method
and any sensitivity algorithm serves; autograd joins their gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from typing import Any

import torch
from torch import Tensor

from ..errors import SolverError, UnsupportedError
from ..options import break_points
from ..problem import SCIML_COUNTS, Problem, Statistics


class Within:
    """A right-hand side that sees no time outside a piece: of a jump, only the piece's own side.

    Parameters
    ----------
    problem : Problem
    first, last : float
        Ends of the piece; infinite where func does not jump.
    """

    def __init__(self, problem: Problem, first: float, last: float) -> None:
        dtype = problem.y0.dtype
        self.owner = problem.owner
        self.func = problem.func
        ends = torch.tensor([first, last], dtype=dtype)
        # The last stage of a step is evaluated at its end, where func has jumped already.
        self.first, self.last = torch.nextafter(ends, torch.tensor([inf, -inf], dtype=dtype))
        self.__qualname__ = getattr(problem.owner, "__qualname__", type(problem.owner).__name__)

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        inside = torch.minimum(torch.maximum(t, self.first), self.last)
        return self.func(t + (inside - t).detach(), y)


class PieceStatistics(Statistics):
    """Counts of a piece, each of which is added to the whole solve's when it is set."""

    _total: Statistics

    def __init__(self, total: Statistics) -> None:
        object.__setattr__(self, "_total", total)
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "rows":
            had = self._total.rows
            self._total.rows = {k: v + had[k] if k in had else v for k, v in value.items()} or had
        else:
            more = value - getattr(self, name, 0)
            setattr(self._total, name, getattr(self._total, name) + more)
        super().__setattr__(name, value)


def moved(problem: Problem, y: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """The state at another time of the same value: the same one, with the gradient of moving it."""
    distance = (after - before).to(y.dtype)
    if not (torch.is_grad_enabled() and distance.requires_grad):
        return y
    if problem.mass is not None:
        raise UnsupportedError(
            f"With {problem.mass.name} there is no gradient by a time of t that is in step_t or "
            "jump_t; give t.detach(), or leave that time out of one of them."
        )
    time = after.detach().to(y.dtype)
    with torch.no_grad():
        rows = [y] if problem.rows is None else y.split(1)
        slope = torch.cat([problem.func(time, row) for row in rows])
    return y + slope * distance


@contextmanager
def failure_in_piece(states: list[Tensor], wanted: int, stats: Statistics) -> Iterator[None]:
    """A failure inside leaves with the states and counts of the pieces before it too.

    ``wanted`` is how many states of the piece are the caller's, after its first.
    """
    before = {sciml: getattr(stats, name) for name, sciml in SCIML_COUNTS.items()}
    try:
        yield
    except SolverError as error:
        if error.solution is None:  # else it is of a solve within func
            parts = [s.detach() for s in states]
            if error.states is not None:
                parts.append(error.states[min(len(states), 1) : 1 + wanted])
            error.states = torch.cat(parts) if parts else None
            for name, count in before.items():
                error.stats[name] = error.stats.get(name, 0) + count
        raise


def solve_in_pieces(
    solve: Callable[[Problem, Statistics], Tensor], problem: Problem, stats: Statistics
) -> Tensor:
    """Solve from each of the points of ``step_t`` and ``jump_t`` to the next."""
    t, values = problem.t, problem.t.detach()
    jumps = set(break_points(problem.options, ("jump_t",), values))
    points = break_points(problem.options, ("step_t", "jump_t"), values)
    options = {k: v for k, v in problem.options.items() if k not in ("step_t", "jump_t")}
    stats.__dict__.update(vars(Statistics()))
    y, start, saved, before = problem.y0, t[:1], 1, -inf
    states: list[Tensor] = []
    for end in [*points, inf]:
        until = int((values < end).sum())
        inside = t[saved:until]
        if end == inf and len(inside) == 0:
            break
        # A point stays where it is if the time of a save point there moves.
        last = [] if end == inf else [torch.tensor([end], dtype=t.dtype)]
        within = Within(problem, before if before in jumps else -inf, end if end in jumps else inf)
        piece = replace(
            problem, func=within, owner=within, key=("piece", *problem.key), y0=y, options=options,
            t=torch.cat([start, inside, *last]),
        )  # fmt: skip
        with failure_in_piece(states, len(inside), stats):
            solved = solve(piece, PieceStatistics(stats))
        states.append(solved[min(len(states), 1) : 1 + len(inside)])
        y, saved = solved[-1], until
        if saved < len(t) and float(values[saved]) == end:
            states.append(moved(piece, y, last[0][0], t[saved])[None])
            saved += 1
        before, start = end, values.new_tensor([end])
        options.pop("first_step", None)
    return torch.cat(states)
