"""Paired timing: the solvers of a case take turns in one process, each for a run of solves."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

Run = Callable[[], object]

#: Seconds of a solver's turn; a solve that takes longer has a turn of its own.
TURN = 0.1


class Problem(NamedTuple):
    """What :func:`pyjlode.odeint` gets."""

    field: nn.Module
    y0: Tensor
    t: Tensor
    tolerance: float


@dataclass(frozen=True)
class Case:
    """One problem and the solvers that solve it.

    Attributes
    ----------
    name : str
    solvers : mapping of str to callable
        Each solves the problem once, with the gradient unless its name says otherwise.
    problem : Problem or None
        Of a module, for a look at where the time goes.
    """

    name: str
    solvers: Mapping[str, Run]
    problem: Problem | None = None


@dataclass(frozen=True)
class Row:
    """Median times of a case in milliseconds, by solver; a solver that failed has its message."""

    case: str
    times: Mapping[str, float | str]


def measure(case: Case, seconds: float = 4.0) -> Row:
    """Run every solver once to compile, then all in turn until ``seconds`` are over.

    A turn is a run of solves, as a training has them, where the caches are the solver's own; its
    time is that of all of them over their number. Noise that lasts longer than a round of turns
    falls on all solvers alike, so ratios can be trusted where the times cannot. A solver that has
    had ``seconds`` for itself is left out of further rounds.
    """
    times: dict[str, list[float]] = {}
    failed: dict[str, float | str] = {}
    for name, run in case.solvers.items():
        try:
            run()
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:80]
        else:
            times[name] = []
    spent = dict.fromkeys(times, 0.0)
    began = time.perf_counter()
    rounds = 0
    while times and (rounds < 5 or time.perf_counter() - began < seconds) and rounds < 200:
        for name in times:
            if spent[name] > seconds:
                continue
            taken, solves = turn(case.solvers[name])
            spent[name] += taken
            times[name].append(1e3 * taken / solves)
        rounds += 1
    medians: dict[str, float | str] = {n: statistics.median(v) for n, v in times.items()}
    return Row(case.name, {n: {**medians, **failed}[n] for n in case.solvers})


def turn(run: Run) -> tuple[float, int]:
    """Solve until :data:`TURN` is over: the seconds that took and the number of solves."""
    solves = 0
    start = time.perf_counter()
    while (taken := time.perf_counter() - start) < TURN:
        run()
        solves += 1
    return taken, solves
