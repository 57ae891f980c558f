"""The initial value problem as engines get it: checked, flat in structure, forward in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
    rows : int or None
        With steps for each row alone, how many there are: ``y0`` is then ``(rows, *rest)``, and
        ``func`` is called with states ``(1, *rest)``.
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
    rows: int | None = None

    @property
    def state(self) -> Tensor:
        """A state as the solver has it: the initial one, or the first row's."""
        return self.y0 if self.rows is None else self.y0[:1]


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
    rows : dict of str to torch.Tensor
        With ``batch="independent"``, the forward counts of each row, of shape ``(B,)``, by their
        names above, which are then their sums.
    """

    nfe: int = 0
    njac: int = 0
    naccept: int = 0
    nreject: int = 0
    nfe_backward: int = 0
    rows: dict[str, Tensor] = field(default_factory=dict)
