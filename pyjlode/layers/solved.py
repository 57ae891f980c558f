"""``SolvedLayer``: what layers that solve an equation have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..odeint import odeint
from ..problem import Statistics
from ..states import as_numbers


class SolvedLayer(nn.Module):
    """A layer with arguments for :func:`pyjlode.odeint` and the counts of its last solve.

    Parameters
    ----------
    **solver
        ``method``, ``sensealg``, ``rtol``, ``atol``, ``options``, ``engine`` and ``batch``, as for
        :func:`pyjlode.odeint`.

    Attributes
    ----------
    stats : Statistics
        Counts of the last solve.

    Raises
    ------
    TypeError
        If ``solver`` has another argument.
    """

    #: The names that ``solver`` may have; of a layer with another solver, those of that.
    arguments: ClassVar[frozenset[str]] = frozenset(
        {"method", "sensealg", "rtol", "atol", "options", "engine", "batch"}
    )

    def __init__(self, **solver: Any) -> None:
        super().__init__()
        unknown = sorted(set(solver) - self.arguments)
        if unknown:
            raise TypeError(
                f"{type(self).__name__} takes no {', '.join(unknown)}; "
                f"for the solver it takes {', '.join(sorted(self.arguments))}."
            )
        self.solver = solver
        self.stats = Statistics()

    @property
    def nfe(self) -> int:
        """Right-hand-side evaluations of the last forward solve."""
        return self.stats.nfe

    @property
    def nfe_backward(self) -> int:
        """Evaluations of the adjoint's right-hand side, after the backward pass."""
        return self.stats.nfe_backward

    def solve(
        self,
        func: Callable[[Tensor, Tensor], Tensor],
        y0: Tensor,
        t: Tensor | Sequence[float],
        **more: Any,
    ) -> Tensor:
        """States at ``t``, of shape ``(T, *y0.shape)``, by the layer's method; counted."""
        self.stats = Statistics()
        states: Tensor = odeint(func, y0, t, stats=self.stats, **more, **self.solver)
        return states

    def extra_repr(self) -> str:
        """What ``repr`` shows beside the modules inside."""
        return ", ".join(f"{name}={value}" for name, value in self.solver.items())


def time_span(t: Sequence[float] | Tensor) -> Tensor:
    """The two ends of a solve, checked.

    Raises
    ------
    ValueError
        If they are not two different numbers.
    """
    span = as_numbers("t", t).to(torch.float64)
    if span.shape != (2,) or bool(span[0] == span[1]):
        raise ValueError(f"t must be two different times, start and end, not {t}.")
    return span
