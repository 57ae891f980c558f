"""What happens to the state at given times: doses, kicks, resets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf
from typing import Any

import torch
from torch import Tensor

from .engine import Engine
from .engine.pieces import PieceStatistics, Within, failure_in_piece, moved
from .errors import ArgumentError, UnsupportedError
from .options import break_points
from .problem import Interpolant, Problem, Statistics
from .solution import nowhere
from .states import as_numbers


class PresetTimeCallback:
    """Change the state at given times; the ``callback`` of :func:`pyjlode.odeint`.

    The solve goes in pieces from each of the times to the next, so every method and sensitivity
    algorithm serves, and no step goes across one.

    Parameters
    ----------
    tstops : torch.Tensor or sequence of float
        When, of shape ``(K,)``, in any order, none twice. Those outside the span are ignored; at
        the first time of the span the state is changed before the solve starts, at the last after
        it has ended, as in SciML. A tensor may require a gradient.
    affect : callable
        ``affect(t, y)``, in torch, gives the state after the change: ``y`` is like ``y0`` (with
        ``batch="independent"`` the whole batch) and ``t`` a scalar tensor, the time of the stop.

    Raises
    ------
    ArgumentError
        If the times are not as described.
    TypeError
        If ``affect`` is not callable.

    Notes
    -----
    The state that is saved at a stop is the one after the change (SciML saves both); for that
    before, ask for it in ``affect``. A stop that differs from a time of ``t`` by rounding alone
    is taken to be at that time.

    Gradients are with respect to all that those of :func:`pyjlode.odeint` are, to what ``affect``
    uses, and to ``tstops``. The derivative with respect to a time of ``t`` at a stop is that of
    the solution after it.

    References
    ----------
    SciML's page "Timed Callbacks" (DiffEqCallbacks.jl).

    Examples
    --------
    A drug that decays, with a dose each hour:

    >>> import torch
    >>> from pyjlode import odeint
    >>> dose = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    >>> doses = PresetTimeCallback([1.0, 2.0], lambda t, y: y + dose)
    >>> y0 = torch.zeros(1, dtype=torch.float64)
    >>> y = odeint(lambda t, y: -0.5 * y, y0, [0.0, 1.0, 3.0], callback=doses)
    >>> print(f"{y[1].item():.4f}, {y[2].item():.4f}")
    2.0000, 1.9488
    >>> y[2].backward()  # exp(-0.5 (3 - 1)) + exp(-0.5 (3 - 2))
    >>> print(f"{dose.grad.item():.4f}")
    0.9744
    """

    def __init__(
        self, tstops: Tensor | Sequence[float], affect: Callable[[Tensor, Any], Any]
    ) -> None:
        times = as_numbers("tstops", tstops)
        self.tstops = times if times.is_floating_point() else times.to(torch.float64)
        self.affect = affect
        values = self.tstops.detach()
        if values.dim() != 1 or not bool(torch.isfinite(values).all()):
            raise ArgumentError("tstops must be finite times, of one dimension.")
        if len(values.unique()) < len(values):
            raise ArgumentError("tstops must not have a time twice.")
        if not callable(affect):
            raise TypeError(
                f"affect must be callable as affect(t, y), not {type(affect).__name__}."
            )


def refuse(problem: Problem, callback: Any, event_fn: object) -> None:
    """What solves with a callback have not.

    Raises
    ------
    TypeError
        If it is no :class:`PresetTimeCallback`.
    UnsupportedError
        Naming what to do instead.
    """
    if not isinstance(callback, PresetTimeCallback):
        raise TypeError(
            "callback must be a PresetTimeCallback or a ManifoldProjection, not "
            f"{type(callback).__name__}; "
            "docs/events.md says what there is for SciML's other callbacks."
        )
    if event_fn is not None:
        raise UnsupportedError(
            "There is no event_fn with a callback; solve from one of the tstops to the next, the "
            "last part with event_fn."
        )
    if problem.mass is not None:
        raise UnsupportedError(
            "There is no callback with a mass_matrix; solve from one of the tstops to the next, "
            "each from the changed end of the one before."
        )


class WithStops:
    """An engine that changes the state at the stops of a callback, and solves between them.

    Parameters
    ----------
    engine : Engine
        What solves.
    callback : PresetTimeCallback
    """

    def __init__(self, engine: Engine, callback: PresetTimeCallback) -> None:
        self.engine = engine
        self.callback = callback
        self.name = engine.name

    def solve(self, problem: Problem, stats: Statistics) -> Tensor:
        """As the engine's."""
        states, _ = _solve(self.engine.solve, problem, self.callback, stats)
        return torch.cat(states)

    def solve_dense(self, problem: Problem, stats: Statistics) -> tuple[Tensor, Interpolant]:
        """As the engine's; at a stop the interpolation is that of the solution after it."""
        pieces: list[tuple[float, Interpolant]] = []

        def solve(piece: Problem, counts: Statistics) -> Tensor:
            states, interpolant = self.engine.solve_dense(piece, counts)
            pieces.append((float(piece.t[0].detach()), interpolant))
            return states

        states, last = _solve(solve, problem, self.callback, stats)
        pieces.append((float(problem.t[-1].detach()), nowhere(replace(problem, y0=last))))
        return torch.cat(states), _joined(pieces)

    def solve_event(
        self, problem: Problem, event: Problem, stats: Statistics
    ) -> tuple[Tensor, Tensor, int]:
        """Refused before this is called."""
        raise NotImplementedError

    def method_name(self, problem: Problem) -> str:
        """As the engine's."""
        return self.engine.method_name(problem)

    def versions(self) -> dict[str, str]:
        """As the engine's."""
        return self.engine.versions()


def change_start(problem: Problem, callback: PresetTimeCallback) -> Problem:
    """The problem with its initial state changed, where there is a stop at its first time."""
    start = problem.t[0]
    for stop in _stops(problem, callback):
        if float(stop.detach()) == float(start.detach()) and problem.y0.numel():
            before = moved(problem, problem.y0, start, stop)
            after = _changed(problem, callback, before, stop)
            return replace(problem, y0=moved(problem, after, stop, start))
    return problem


def _solve(
    solve: Callable[[Problem, Statistics], Tensor],
    problem: Problem,
    callback: PresetTimeCallback,
    stats: Statistics,
) -> tuple[list[Tensor], Tensor]:
    """States at the times, piece by piece, and the last."""
    t, y, start = problem.t, problem.y0, problem.t[0]
    values = t.detach()
    stops = [stop for stop in _stops(problem, callback) if stop.detach() > values[0]]
    jumps = set(break_points(problem.options, ("jump_t",), values))
    stats.__dict__.update(vars(Statistics()))
    states, saved = [y[None]], 1
    for stop in [*stops, None]:
        until = len(t) if stop is None else int((values < stop.detach()).sum())
        inside = t[saved:until]
        if stop is None and len(inside) == 0:
            break
        times = torch.cat(
            [start[None], inside] if stop is None else [start[None], inside, stop[None]]
        )
        piece = _with_sides(replace(problem, y0=y, t=times), jumps)
        with failure_in_piece(states, len(inside), stats):
            solved = solve(piece, PieceStatistics(stats))
        states.append(solved[1 : 1 + len(inside)])
        y, saved = solved[-1], until
        if stop is None:
            break
        y, start = _changed(problem, callback, y, stop), stop
        if saved < len(t) and float(values[saved]) == float(stop.detach()):
            states.append(moved(problem, y, stop, t[saved])[None])
            saved += 1
        # The step that the caller asked for is the first one's.
        options = {k: v for k, v in problem.options.items() if k != "first_step"}
        problem = replace(problem, options=options)
    return states, y


def _stops(problem: Problem, callback: PresetTimeCallback) -> list[Tensor]:
    """The stops within the span, in the order and the direction in which the problem is solved."""
    t = problem.t.detach()
    stops = problem.direction * callback.tstops.to(t.dtype)
    rounding = max(torch.finfo(x.dtype).eps for x in (t, problem.y0, callback.tstops))
    near = 4 * rounding * float(t.abs().max())
    found = []
    for stop in stops:
        place = t[(t - stop.detach()).abs() <= near]
        # The value is that of the time itself; the gradient is the stop's.
        stop = stop if len(place) == 0 else place[0] + (stop - stop.detach())
        if t[0] <= stop.detach() <= t[-1]:
            found.append(stop)
    found.sort(key=lambda stop: float(stop.detach()))
    for a, b in pairwise(found):
        if float(b.detach()) - float(a.detach()) <= near:
            raise ArgumentError("tstops must not be nearer to each other than rounding.")
    return found


def _changed(problem: Problem, callback: PresetTimeCallback, y: Tensor, stop: Tensor) -> Tensor:
    """The state after the change."""
    layout = problem.layout
    assert layout is not None
    before = layout.split(y.clone())
    after = callback.affect((problem.direction * stop).to(y.dtype), before)
    parts, wanted = ((x,) if isinstance(x, Tensor) else x for x in (after, layout.split(y)))
    alike = isinstance(after, Tensor) != layout.joined
    alike = alike and isinstance(parts, (tuple, list)) and len(parts) == len(wanted)
    if not alike or not all(
        isinstance(a, Tensor) and a.shape == b.shape and a.dtype == b.dtype
        for a, b in zip(parts, wanted, strict=True)
    ):
        raise TypeError(
            f"affect must return a state like y0: {_described(wanted)}, not {_described(parts)}."
        )
    joined = layout.join(after)
    if not bool(torch.isfinite(joined.detach()).all()):
        time = float(problem.direction * stop.detach())
        raise ArgumentError(f"affect gave values that are not finite at t = {time:g}.")
    return joined


def _described(parts: Any) -> str:
    if not isinstance(parts, (tuple, list)):
        return type(parts).__name__
    return ", ".join(
        f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        for x in parts
    )


def _with_sides(piece: Problem, jumps: set[float]) -> Problem:
    """The piece with a func that sees only its own side of a jump at one of the ends."""
    first, last = float(piece.t[0].detach()), float(piece.t[-1].detach())
    if first not in jumps and last not in jumps:
        return piece
    within = Within(piece, first if first in jumps else -inf, last if last in jumps else inf)
    return replace(piece, func=within, owner=within, key=("within", *piece.key))


def _joined(pieces: Sequence[tuple[float, Interpolant]]) -> Interpolant:
    """The interpolation of pieces, each from where it starts."""
    starts = torch.tensor([start for start, _ in pieces], dtype=torch.float64)

    def interpolant(times: Tensor, order: int) -> Tensor:
        which = torch.bucketize(times, starts, right=True) - 1
        found = [pieces[i][1](time[None], order) for i, time in zip(which, times, strict=True)]
        return torch.cat(found)

    return interpolant
