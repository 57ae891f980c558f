"""Solves across points where the right-hand side jumps, or where steps have to end: in pieces.

Each piece is a solve of its own, which starts from the end of the one before, so that any method
and any sensitivity algorithm serves; autograd joins their gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

import torch
from torch import Tensor

from ..options import break_points
from ..problem import Problem, Statistics


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


def solve_in_pieces(
    solve: Callable[[Problem, Statistics], Tensor], problem: Problem, stats: Statistics
) -> Tensor:
    """Solve from each of the points of ``step_t`` and ``jump_t`` to the next."""
    jumps = set(break_points(problem.options, ("jump_t",), problem.t.detach()))
    points = break_points(problem.options, ("step_t", "jump_t"), problem.t.detach())
    options = {k: v for k, v in problem.options.items() if k not in ("step_t", "jump_t")}
    states: list[Tensor] = []
    y, t = problem.y0, problem.t
    start = t[:1]
    for i, end in enumerate([*points, inf]):
        values = t.detach()
        inside = t[(values > start.detach()) & (values <= end)]
        wanted = len(inside)
        if end < inf and (wanted == 0 or float(inside[-1].detach()) != end):
            inside = torch.cat([inside, torch.tensor([end], dtype=t.dtype)])
        if len(inside) == 0:
            break
        before = points[i - 1] if i else -inf
        within = Within(problem, before if before in jumps else -inf, end if end in jumps else inf)
        piece = replace(
            problem, func=within, owner=within, key=(*problem.key, "piece"), y0=y, options=options,
            t=torch.cat([start, inside]),
        )  # fmt: skip
        found = Statistics()
        solved = solve(piece, found)
        _add(stats, found)
        states.append(solved[min(i, 1) : 1 + wanted])
        y, start = solved[-1], inside[-1:].detach()
        options.pop("first_step", None)
    return torch.cat(states)


def _add(total: Statistics, part: Statistics) -> None:
    for name in ("nfe", "njac", "naccept", "nreject"):
        setattr(total, name, getattr(total, name) + getattr(part, name))
