"""The initial value problem as engines get it: checked, flat in structure, forward in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from .mass_matrix import MassMatrix
from .methods import Method
from .sensealg import SensitivityAlgorithm
from .states import Layout

if TYPE_CHECKING:
    from .manifold import Projection

Tolerance = float | Tensor
"""One number, or a flat tensor of one for each number of the state."""


def tightest(tolerance: Tolerance) -> float:
    """One number for solves of other states, such as the adjoint's: the least above zero."""
    if not isinstance(tolerance, Tensor):
        return tolerance
    above = tolerance[tolerance > 0]
    return float(above.min()) if above.numel() else 0.0


def reversed_time(
    func: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[Tensor, Tensor], Tensor]:
    """The right-hand side for a time that was turned round."""
    return lambda t, y: -func(-t, y)


StepCallback = Callable[[Tensor, Tensor, Tensor], object]
"""``callback(t, y, dt)`` with the start of a step, the state there and its length."""


@dataclass(frozen=True)
class AdjointSolve:
    """What ``odeint_adjoint`` asks of the backward solve; None is as the forward solve.

    Attributes
    ----------
    rtol, atol : Any
        As the caller gave them.
    method : Method or None
    fixed_step : bool
        Whether the method was asked for by a name that means fixed steps.
    options : mapping or None
    callbacks : mapping
        The function's ``callback_*_adjoint``, by the name without the ending.
    """

    rtol: Any = None
    atol: Any = None
    method: Method | None = None
    fixed_step: bool = False
    options: Mapping[str, Any] | None = None
    callbacks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asks(self) -> bool:
        """Whether anything is asked that only a backward solve of its own can give."""
        given = (self.rtol, self.atol, self.method, self.options)
        return any(x is not None for x in given)


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
    rtol, atol : float or torch.Tensor
        A tensor has one number for each of a state, and one dimension.
    method : Method or None
        None is the engine's default.
    sensealg : SensitivityAlgorithm or None
        None is the engine's default.
    options : mapping
        Those of the caller's that the method takes, checked.
    fixed_step : bool
        Whether the method was asked for by a name that means fixed steps.
    owner : object
        The user's function, by which traces are remembered.
    key : tuple
        What the wrapping of ``owner`` into ``func`` rests on.
    layout : Layout or None
        How the caller's state lies in ``y0``; None where ``y0`` is the caller's.
    norm : callable or None
        The caller's norm of an error, on a tensor of the shape of ``y0``.
    watch : mapping of str to StepCallback
        What is called at each step, by torchdiffeq's names.
    adjoint : AdjointSolve or None
        None for ``odeint``.
    adjoint_params : tuple of torch.Tensor or None
        The tensors to which gradients are restricted, beside ``y0`` and ``t``.
    rows : int or None
        With steps for each row alone, how many there are: ``y0`` is then ``(rows, *rest)``, and
        ``func`` is called with states ``(1, *rest)``.
    mass : MassMatrix or None
        What stands before the derivative, if it is not the identity.
    split : tuple of Problem or None
        The stiff and the nonstiff part of an equation that is solved as their sum.
    projection : Projection or None
        What the state is projected onto after every step.
    """

    func: Callable[[Tensor, Tensor], Tensor]
    y0: Tensor
    t: Tensor
    rtol: Tolerance
    atol: Tolerance
    method: Method | None
    sensealg: SensitivityAlgorithm | None
    options: Mapping[str, Any]
    fixed_step: bool
    owner: object
    key: tuple[Any, ...]
    layout: Layout | None = None
    norm: Callable[[Tensor], Any] | None = None
    watch: Mapping[str, StepCallback] = field(default_factory=dict)
    adjoint: AdjointSolve | None = None
    adjoint_params: tuple[Tensor, ...] | None = None
    rows: int | None = None
    mass: MassMatrix | None = None
    split: tuple[Problem, Problem] | None = None
    projection: Projection | None = None

    @property
    def state(self) -> Tensor:
        """A state as the solver has it: the initial one, or the first row's."""
        return self.y0 if self.rows is None else self.y0[:1]

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


# The forward counts, in the order of Julia's report, and SciML's names of them.
SCIML_COUNTS = {"nfe": "nf", "njac": "njacs", "naccept": "naccept", "nreject": "nreject"}


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

    def take(self, counts: Mapping[str, float]) -> None:
        """Set the forward counts from those of SciML's names; what is not there is 0."""
        for name, sciml in SCIML_COUNTS.items():
            setattr(self, name, int(counts.get(sciml, 0)))
