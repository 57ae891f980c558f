"""Everything that pyjlode raises or warns, each with its cause and its cure."""

from __future__ import annotations

from collections.abc import Mapping


class PyjlodeError(Exception):
    """Base class of every error that pyjlode raises on purpose."""


class JuliaNotFoundError(PyjlodeError):
    """The Julia engine was asked for and no usable Julia was found."""


class TraceError(PyjlodeError):
    """The dynamics could not be turned into Julia code."""


class DerivativeError(PyjlodeError, TypeError):
    """``func`` returned something that is not like the state."""


class UnsupportedError(PyjlodeError):
    """The chosen engine does not have what was asked for; the message names the alternative."""


class SolverError(PyjlodeError):
    """A solve, forward or backward, stopped before its end.

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
    """

    def __init__(
        self, message: str, *, retcode: str, t: float, stats: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(message)
        self.retcode = retcode
        self.t = t
        self.stats = dict(stats or {})


class PyjlodeWarning(UserWarning):
    """Something worth knowing that does not stop the work, such as callback mode."""
