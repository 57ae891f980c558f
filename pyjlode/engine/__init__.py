"""The engines that solve, and the choice between them."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from .. import runtime
from ..eager import outside_inference
from ..errors import warn
from ..problem import Interpolant, Problem, Statistics

ENGINES = ("auto", "julia", "torch")


class Engine(Protocol):
    """What solves a problem.

    ``solve`` returns states of shape ``(T, *y0.shape)`` with a gradient where one is needed, fills
    the statistics, and raises :class:`pyjlode.SolverError` for a solve that did not succeed.
    ``solve_dense`` gives what interpolates beside the states. ``solve_event`` ends where the
    function of ``event``, a problem like the other, crosses zero: it gives that time, without a
    gradient, the states at the start and there, with one for a fixed time, and which of the values
    it was. The state there has crossed already, so that a solve from it goes on.
    """

    name: str

    def solve(self, problem: Problem, stats: Statistics) -> Tensor: ...

    def solve_dense(self, problem: Problem, stats: Statistics) -> tuple[Tensor, Interpolant]: ...

    def solve_event(
        self, problem: Problem, event: Problem, stats: Statistics
    ) -> tuple[Tensor, Tensor, int]: ...

    def method_name(self, problem: Problem) -> str: ...

    def versions(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class EngineInfo:
    """Which engine solves, and the versions of what it is made of.

    Examples
    --------
    >>> print(EngineInfo("torch", {"torchdiffeq": "0.2.5"}))
    torch (torchdiffeq 0.2.5)
    """

    name: str
    versions: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(f'{k} {v}' for k, v in self.versions.items())})"


_chosen: str | None = None


def use_engine(name: str) -> None:
    """Choose the engine for every later call that does not name one.

    Parameters
    ----------
    name : {"auto", "julia", "torch"}
        ``auto``: Julia where it is ready, else torch. The environment variable
        ``PYJLODE_ENGINE`` is the choice before the first call.

    Examples
    --------
    >>> use_engine("torch")
    >>> engine_info().name
    'torch'
    >>> use_engine(os.environ.get("PYJLODE_ENGINE", "auto"))
    """
    global _chosen
    _chosen = _check_name(name)


def choose_engine(name: str | None = None, other: str = "torchdiffeq") -> Engine:
    """The engine of that name; None is the choice made by :func:`use_engine`.

    ``other`` is what solves where there is no Julia, to be named in the notice.
    """
    wanted = _check_name(name or _chosen or os.environ.get("PYJLODE_ENGINE", "auto"))
    if wanted == "julia" or (wanted == "auto" and runtime.is_ready()):
        return _julia()
    if wanted == "auto":
        _say_who_solves(other)
    return _torch()


def engine_info(name: str | None = None) -> EngineInfo:
    """Say which engine would solve, starting it if need be.

    Examples
    --------
    >>> engine_info("torch").name
    'torch'
    """
    engine = choose_engine(name)
    return EngineInfo(engine.name, engine.versions())


@runtime.in_julia  # threads whose first call it is share one engine
@functools.cache
def _julia() -> Engine:
    from .julia import JuliaEngine

    engine = JuliaEngine(runtime.start())
    with outside_inference():
        engine.warm_up()
    return engine


@functools.cache
def _torch() -> Engine:
    from .embedded import TorchEngine

    return TorchEngine()


@functools.cache
def _say_who_solves(other: str) -> None:
    warn(
        f"No Julia is set up, so {other} solves; `pyjlode setup` installs Julia, "
        "and PYJLODE_ENGINE=torch makes this the choice."
    )


def _check_name(name: str) -> str:
    if name not in ENGINES:
        raise ValueError(f"There is no engine {name!r}; there are {', '.join(ENGINES)}.")
    return name
