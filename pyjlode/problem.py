"""The initial value problem as engines get it: checked, flat in structure, forward in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from .methods import Method
from .sensealg import SensitivityAlgorithm


@dataclass(frozen=True)
class Problem:
    """One solve.

    Attributes
    ----------
    func : callable
        ``func(t, y)`` on a state of the shape of ``y0``.
    y0 : torch.Tensor
        The initial state, float32 or float64, on the CPU.
    t : torch.Tensor
        Times, strictly increasing, of shape ``(T,)``.
    rtol, atol : float
    method : Method or None
        None is the engine's default.
    sensealg : SensitivityAlgorithm or None
        None is the engine's default.
    options : mapping
        Of the method: ``step_size``, ``first_step``, ``min_step``, ``max_step``,
        ``max_num_steps``.
    fixed_step : bool
        Whether the method was asked for by a name that means fixed steps.
    owner : object
        The user's function, by which traces are remembered.
    key : tuple
        What the wrapping of ``owner`` into ``func`` rests on.
    """

    func: Callable[[Tensor, Tensor], Tensor]
    y0: Tensor
    t: Tensor
    rtol: float
    atol: float
    method: Method | None
    sensealg: SensitivityAlgorithm | None
    options: Mapping[str, Any]
    fixed_step: bool
    owner: object
    key: tuple[Any, ...]

    @property
    def direction(self) -> int:
        """-1 where the caller's time runs backwards, and ``t`` is its negative."""
        return -1 if self.key[-1:] == ("reversed",) else 1


class Interpolant(Protocol):
    """A solve between its save points."""

    def __call__(self, times: Tensor, order: int) -> Tensor:
        """States (``order`` 0) or their derivatives with respect to time (1).

        Of shape ``(S, *y0.shape)``, at times of the problem, which run forward.
        """


@dataclass
class Statistics:
    """Counts of a solve.

    Attributes
    ----------
    nfe : int
        Right-hand-side evaluations, forward.
    njac, naccept, nreject : int
        Jacobians, accepted and rejected steps; 0 where the engine does not tell.
    nfe_backward : int
        Evaluations of the adjoint's right-hand side, after the backward pass.
    """

    nfe: int = 0
    njac: int = 0
    naccept: int = 0
    nreject: int = 0
    nfe_backward: int = 0
