"""``NeuralODEMM``: a learnt derivative beside equations that are to hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..eager import eager
from ..mass_matrix import as_matrix
from ..neural_ode import keep_times, times_of
from ..of_time import of_time
from .solved import SolvedLayer


class NeuralODEMM(SolvedLayer):
    """States of ``M dy/dt = (model(t, y), constraints_model(t, y))``, with a mass matrix ``M``.

    Where ``M`` is zero in the last rows, the model learns the derivative and the constraints hold
    at each saved time: a differential-algebraic equation of index one. Differentiable with respect
    to ``y0`` and the parameters of both. It needs the Julia engine.

    Parameters
    ----------
    model : torch.nn.Module or callable
        ``model(t, y)`` of shape ``(..., d)`` for ``y`` of shape ``(..., n)``, the first equations.
        A module's parameters are this layer's.
    constraints_model : torch.nn.Module or callable
        ``constraints_model(t, y)`` of shape ``(..., n - d)``, the others.
    t : torch.Tensor or sequence of float, optional
        The times, of shape ``(T,)``; may be given at each call instead.
    mass_matrix : torch.Tensor or array
        ``M``, constant, of shape ``(n, n)``, dense or sparse.
    **solver
        As for :func:`pyjlode.odeint`: ``method`` (by default Rodas5P), ``sensealg``, ``rtol``,
        ``atol``, ``options``, ``engine``, ``batch``, ``initializealg``.

    Attributes
    ----------
    stats : Statistics
        Counts of the last solve.

    Raises
    ------
    TypeError
        If ``solver`` has another argument.
    ValueError
        If ``mass_matrix`` is not square; at a call, if there are no times, or the equations of both
        together are not ``n``.

    Notes
    -----
    Algebraic elements of ``y0`` are a first guess: they are changed so that the constraints hold.

    Where the net gives no derivative but the residual of an equation in ``y`` and ``dy``, that is
    :class:`pyjlode.NeuralDAE`.

    References
    ----------
    DiffEqFlux.jl's ``NeuralODEMM``; Hairer and Wanner, Solving Ordinary Differential Equations II,
    chapter VI.

    Examples
    --------
    Two species turn into each other at a learnt rate; a third is what is left of one unit.

    >>> import torch
    >>> from pyjlode import engine_info
    >>> net = torch.nn.Linear(3, 2)
    >>> def left(t, y):
    ...     return y.sum(-1, keepdim=True) - 1
    >>> M = torch.diag(torch.tensor([1.0, 1.0, 0.0]))
    >>> layer = NeuralODEMM(lambda t, y: net(y), left, [0.0, 0.5, 1.0], mass_matrix=M)
    >>> if engine_info().name == "julia":  # the torch engine has no mass matrices
    ...     y = layer(torch.tensor([[0.3, 0.2, 0.0], [0.1, 0.4, 0.0]]))
    ...     assert torch.allclose(y.sum(-1), torch.ones(3, 2), atol=1e-4)
    """

    arguments = SolvedLayer.arguments | {"initializealg"}

    def __init__(
        self,
        model: Callable[[Tensor, Tensor], Tensor],
        constraints_model: Callable[[Tensor, Tensor], Tensor],
        t: Tensor | Sequence[float] | None = None,
        *,
        mass_matrix: Any,
        **solver: Any,
    ) -> None:
        super().__init__(**solver)
        if not isinstance(mass_matrix, Tensor):
            mass_matrix = as_matrix(mass_matrix)
        if mass_matrix.dim() != 2 or mass_matrix.shape[0] != mass_matrix.shape[1]:
            raise ValueError(
                f"mass_matrix must be of shape (n, n), not {tuple(mass_matrix.shape)}."
            )
        self.model = model
        self.constraints_model = constraints_model
        self.mass_matrix: Tensor
        self.register_buffer("mass_matrix", mass_matrix)
        keep_times(self, t)

    @eager
    def forward(self, y0: Tensor, t: Tensor | Sequence[float] | None = None) -> Tensor:
        """Solve from ``y0``.

        Parameters
        ----------
        y0 : torch.Tensor
            Of shape ``(..., n)``.
        t : torch.Tensor or sequence of float, optional
            Times of this call, instead of the layer's.

        Returns
        -------
        torch.Tensor
            Of shape ``(T, *y0.shape)``; the first is ``y0`` made consistent.
        """
        times = times_of(self, t)
        model, constraints = of_time(self.model), of_time(self.constraints_model)

        def equations(t: Tensor, y: Tensor) -> Tensor:
            return torch.cat([model(t, y), constraints(t, y)], dim=-1)

        return self.solve(equations, y0, times, mass_matrix=self.mass_matrix)
