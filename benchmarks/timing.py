"""Paired timing: the solvers of a case run in turn, in one process, round after round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

Run = Callable[[], object]


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

    Noise that lasts longer than a round falls on all solvers alike, so ratios can be trusted where
    the times cannot. A solver that has had ``seconds`` for itself is left out of further rounds.
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
    began = time.perf_counter()
    rounds = 0
    while times and (rounds < 5 or time.perf_counter() - began < seconds) and rounds < 200:
        for name in times:
            if sum(times[name]) > 1e3 * seconds:
                continue
            start = time.perf_counter()
            case.solvers[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
        rounds += 1
    medians: dict[str, float | str] = {n: statistics.median(v) for n, v in times.items()}
    return Row(case.name, {n: {**medians, **failed}[n] for n in case.solvers})
