"""Equations split into a stiff and a nonstiff part, for implicit-explicit (IMEX) methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .errors import ArgumentError, UnsupportedError
from .methods import Method
from .problem import Problem, reversed_time
from .sensealg import BacksolveAdjoint, DiscreteAdjoint

METHODS = ("KenCarp3", "KenCarp4", "KenCarp47", "KenCarp5", "KenCarp58")
"""Those that solve the first part implicitly and the second explicitly."""

DEFAULT = "KenCarp4"

Parts = tuple[Callable[..., Any], Callable[..., Any]]


def parts_of(func: Any) -> Parts | None:
    """The two functions of a split equation; None of another one."""
    if not isinstance(func, (tuple, list)):
        return None
    if len(func) != 2 or not all(callable(f) for f in func):
        raise ArgumentError(
            "func must be callable, or a pair of two functions: the stiff part, solved implicitly, "
            "and the nonstiff one."
        )
    return func[0], func[1]


def total(parts: Parts) -> Callable[..., Any]:
    """The sum of the parts."""
    stiff, nonstiff = parts

    def func(t: Any, y: Any) -> Any:
        first, second = stiff(t, y), nonstiff(t, y)
        if isinstance(first, (tuple, list)):
            return tuple(a + b for a, b in zip(first, second, strict=True))
        return first + second

    return func


def check_split(method: Method) -> None:
    """Refuse a method that has no parts.

    Raises
    ------
    UnsupportedError
        Naming those that have.
    """
    if method.name not in METHODS:
        raise UnsupportedError(
            f"{method.name} solves no split equation; use one of {', '.join(METHODS)}, or give the "
            "sum of the two functions."
        )


def with_parts(problem: Problem, parts: Parts, turned: bool) -> Problem:
    """The problem of the sum, with those of its parts."""
    assert problem.layout is not None
    problems = []
    for name, part in zip(("stiff", "nonstiff"), parts, strict=True):
        func = problem.layout.wrap(part)
        # Models of a structure are shared; those of the two parts are in use at the same time.
        key = (name, *problem.key)
        problems.append(
            replace(problem, func=reversed_time(func) if turned else func, owner=part, key=key)
        )
    return replace(problem, split=(problems[0], problems[1]))


def refuse(problem: Problem, plain: bool) -> None:
    """What solves of split equations have not.

    Raises
    ------
    UnsupportedError
        Naming what to do instead.
    """
    if problem.split is None:
        return
    if isinstance(problem.sensealg, (DiscreteAdjoint, BacksolveAdjoint)):
        raise UnsupportedError(
            f"{type(problem.sensealg).__name__} is not for split equations; use GaussAdjoint, or "
            "give the sum of the two functions."
        )
    pieces = {"step_t", "jump_t"} & problem.options.keys()
    if not plain or problem.rows is not None or pieces:
        raise UnsupportedError(
            "Split equations have no event_fn, return_solution, step_t, jump_t or "
            'batch="independent"; give the sum of the two functions.'
        )
