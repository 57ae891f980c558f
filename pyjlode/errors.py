"""Everything that pyjlode raises or warns, each with its cause and its cure."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from .solution import Solution


class PyjlodeError(Exception):
    """Base class of every error that pyjlode raises on purpose."""


class ArgumentError(PyjlodeError, ValueError, AssertionError):
    """An argument is not as it must be.

    torchdiffeq asserts most of these; code that catches its ``AssertionError`` goes on working.
    """


class JuliaNotFoundError(PyjlodeError):
    """The Julia engine was asked for and no usable Julia was found."""


class TraceError(PyjlodeError):
    """The dynamics could not be turned into Julia code.

    Parameters
    ----------
    message : str
        Why not, as the end of a sentence.
    operation : str, optional
        The ATen operation that forced it, such as ``"aten.sort"``.
    line : str, optional
        The line of the user's code, as ``file:line: code``.
    """

    def __init__(
        self, message: str, *, operation: str | None = None, line: str | None = None
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.line = line


class DerivativeError(PyjlodeError, TypeError):
    """``func`` returned something that is not like the state."""


class UnsupportedError(PyjlodeError):
    """The chosen engine does not have what was asked for; the message names the alternative."""


class SolverError(PyjlodeError, AssertionError):
    """A solve, forward or backward, stopped before its end.

    It is an ``AssertionError`` too, which is what torchdiffeq raises then.

    Parameters
    ----------
    message : str
        What happened and what to do.
    retcode : str
        The solver's return code, in SciML's words (``"MaxIters"``, ``"Unstable"``, ...).
    t : float
        The time that the solve reached.
    stats : mapping of str to int, optional
        Counts such as ``nf`` (right-hand-side evaluations) and ``naccept`` (accepted steps).
    states : torch.Tensor, optional
        As the engine has them, the states at the save points that were reached.
    nonfinite : tuple of float and torch.Tensor, optional
        The first time and finite state at which ``func`` gave a value that is not finite.
    row : int, optional
        With ``batch="independent"``, which row it was; the first of them, if several failed.

    Attributes
    ----------
    solution : Solution or None
        What was computed: its ``t`` has the save points that a forward solve reached, and its
        ``y`` the states there. None for a backward solve.
    """

    def __init__(
        self,
        message: str,
        *,
        retcode: str,
        t: float,
        stats: Mapping[str, int] | None = None,
        states: Tensor | None = None,
        nonfinite: tuple[float, Any] | None = None,
        row: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retcode = retcode
        self.t = t
        self.stats = dict(stats or {})
        self.states = states
        self.nonfinite = nonfinite
        self.row = row
        self.solution: Solution | None = None


class PyjlodeWarning(UserWarning):
    """Something worth knowing that does not stop the work, such as callback mode."""


def warn(text: str) -> None:
    """Give a :class:`PyjlodeWarning` that points at the user's line, not at one of pyjlode's."""
    frame, level = sys._getframe(1), 2
    ours = Path(__file__).parent
    while frame.f_back is not None and Path(frame.f_code.co_filename).is_relative_to(ours):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, PyjlodeWarning, stacklevel=level)
