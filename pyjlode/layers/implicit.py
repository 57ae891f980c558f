"""``NeuralDAE``: a learnt residual beside equations that are to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..daeint import daeint
from ..eager import eager
from ..errors import DerivativeError
from ..neural_ode import keep_times, times_of
from ..of_time import of_time
from ..problem import Statistics
from .solved import SolvedLayer


class NeuralDAE(SolvedLayer):
    """States of a learnt residual ``0 = model(t, y, dy)`` with ``0 = constraints_model(t, y)``.

    A fully implicit equation of index one, as :func:`pyjlode.daeint` solves it. Differentiable with
    respect to the differential variables of ``y0`` and the parameters of both. It needs the Julia
    engine.

    Parameters
    ----------
    model : torch.nn.Module or callable
        ``model(t, y, dy)`` of shape ``(..., d)``, the residuals of the differential equations, for
        ``y`` of shape ``(..., n)`` and ``dy`` of shape ``(..., d)``: the derivatives of the
        differential variables. A module's parameters are this layer's.
    constraints_model : torch.nn.Module or callable
        ``constraints_model(t, y)`` of shape ``(..., n - d)``, the residuals of the algebraic ones.
    t : torch.Tensor or sequence of float, optional
        The times, of shape ``(T,)``; may be given at each call instead.
    differential_vars : torch.Tensor or sequence of bool
        Of shape ``(n,)``: which variables are differential. ``d`` of them are.
    **solver
        As for :func:`pyjlode.daeint`: ``method`` (by default Rodas5P), ``sensealg``, ``rtol``,
        ``atol``, ``options``, ``engine``, ``initializealg``.

    Attributes
    ----------
    stats : Statistics
        Counts of the last solve.

    Raises
    ------
    TypeError
        If ``solver`` has another argument; at a call, if a model's result is not of its shape.
    ValueError
        If ``differential_vars`` is no mask; at a call, if there are no times.

    Notes
    -----
    DiffEqFlux's net gets ``y`` and ``dy`` concatenated, with those of algebraic variables, and no
    time. Of an equation of index one, derivatives of algebraic variables are none of the unknowns
    (its own test of the layer, which learns from them, is marked as broken), so that they are left
    out here. Its ``u0`` and ``du0`` have to be consistent; here ``dy0`` and the algebraic variables
    of ``y0`` are first guesses. Gradients are those of :func:`pyjlode.daeint`, not of an automatic
    differentiation of the solver.

    A residual that does not depend on ``dy`` determines nothing: ``model`` should start near one
    like ``dy - f(y)``.

    References
    ----------
    DiffEqFlux.jl's ``NeuralDAE``.

    Examples
    --------
    Two species turn into each other at a learnt rate; a third is what is left of one unit.

    >>> import torch
    >>> from pyjlode import engine_info
    >>> net = torch.nn.Linear(3, 2).double()
    >>> def left(t, y):
    ...     return y.sum(-1, keepdim=True) - 1
    >>> layer = NeuralDAE(
    ...     lambda t, y, dy: dy - net(y), left, [0.0, 1.0], differential_vars=[True, True, False]
    ... )
    >>> if engine_info().name == "julia":  # the torch engine does not solve these
    ...     y = layer(torch.tensor([[0.3, 0.2, 0.0], [0.1, 0.4, 0.0]]).double())
    ...     assert torch.allclose(y.sum(-1), torch.ones(2, 2).double())
    """

    arguments = SolvedLayer.arguments - {"batch"} | {"initializealg"}

    def __init__(
        self,
        model: Callable[[Tensor, Tensor, Tensor], Tensor],
        constraints_model: Callable[[Tensor, Tensor], Tensor],
        t: Tensor | Sequence[float] | None = None,
        *,
        differential_vars: Tensor | Sequence[bool],
        **solver: Any,
    ) -> None:
        super().__init__(**solver)
        mask = torch.as_tensor(differential_vars)
        if mask.dtype is not torch.bool or mask.dim() != 1 or not bool(mask.any()):
            raise ValueError(
                "differential_vars must be of True and False, one for each variable, and True for "
                "one at least."
            )
        self.model = model
        self.constraints_model = constraints_model
        self.differential_vars = mask.tolist()
        keep_times(self, t)

    @eager
    def forward(
        self, y0: Tensor, dy0: Tensor | None = None, t: Tensor | Sequence[float] | None = None
    ) -> Tensor:
        """Solve from ``y0``.

        Parameters
        ----------
        y0 : torch.Tensor
            Of shape ``(..., n)``.
        dy0 : torch.Tensor, optional
            First guess of the derivative, like ``y0``; zero if left out.
        t : torch.Tensor or sequence of float, optional
            Times of this call, instead of the layer's.

        Returns
        -------
        torch.Tensor
            Of shape ``(T, *y0.shape)``; the first is ``y0`` made consistent.
        """
        times = times_of(self, t)
        self.stats = Statistics()
        constraints, mask = of_time(self.constraints_model), tuple(self.differential_vars)
        residual = _residual(self.model, constraints, mask)
        states: Tensor = daeint(
            residual, y0, dy0, times, differential_vars=self.differential_vars, stats=self.stats,
            **self.solver,
        )  # fmt: skip
        return states


def _residual(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    constraints: Callable[[Tensor, Tensor], Tensor],
    differential: tuple[bool, ...],
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Each model's results at its variables, as DiffEqFlux has them."""

    def residual(t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        slopes = [dy[..., i] for i, kind in enumerate(differential) if kind]
        own = model(t, y, torch.stack(slopes, dim=-1))
        _check_shape("model", own, y, len(slopes))
        equations = iter(own.unbind(-1))
        held: Iterator[Tensor] = iter(())
        if len(slopes) < len(differential):
            ruled = constraints(t, y)
            _check_shape("constraints_model", ruled, y, len(differential) - len(slopes))
            held = iter(ruled.unbind(-1))
        return torch.stack([next(equations if kind else held) for kind in differential], dim=-1)

    return residual


def _check_shape(name: str, found: Tensor, y: Tensor, size: int) -> None:
    wanted = (*y.shape[:-1], size)
    if found.shape != wanted:
        raise DerivativeError(f"{name} gave shape {tuple(found.shape)}, not {wanted}.")
