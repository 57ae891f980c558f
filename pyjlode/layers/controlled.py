"""``NeuralCDE``: a state that is driven by a path through data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ..cdeint import cdeint
from ..eager import eager
from ..of_time import of_time
from ..problem import Statistics
from ..states import as_numbers
from .solved import SolvedLayer


class NeuralCDE(SolvedLayer):
    """``readout(z)`` of ``dz = func(t, z) dX`` with ``z = initial(X)`` at the first time.

    A recurrent net for irregular series with gaps: the state changes as the data's path does.
    Differentiable with respect to every parameter and the coefficients of ``X``.

    Parameters
    ----------
    initial : torch.nn.Module or callable
        From the path's first point, of shape ``(..., channels)``, to the first state,
        ``(..., hidden)``.
    func : torch.nn.Module or callable
        ``func(t, z)`` of shape ``(..., hidden, channels)``, as for :func:`pyjlode.cdeint`.
    readout : torch.nn.Module or callable, optional
        From states to what is predicted, ``(..., out)``. Default: the states.
    **solver
        ``method``, ``sensealg``, ``rtol`` (1e-4 by default), ``atol`` (1e-6), ``options`` and
        ``engine``, as for :func:`pyjlode.odeint`.

    Attributes
    ----------
    stats : Statistics
        Counts of the last solve.

    Raises
    ------
    TypeError
        If ``solver`` has another argument.

    Notes
    -----
    Time must be a channel of the data if the state is to know how fast they come.

    References
    ----------
    Kidger, Morrill, Foster and Lyons, Neural Controlled Differential Equations for Irregular Time
    Series, 2020, arXiv:2005.08926, equations (4) and (5).

    Examples
    --------
    Series of four points, of time and one value; a number for each of them:

    >>> import torch
    >>> from pyjlode import CubicSpline, natural_cubic_coeffs
    >>> class Field(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.net = torch.nn.Linear(5, 5 * 2)
    ...     def forward(self, t, z):
    ...         return torch.tanh(self.net(z)).unflatten(-1, (5, 2))
    >>> layer = NeuralCDE(
    ...     torch.nn.Linear(2, 5), Field(), torch.nn.Linear(5, 1), engine="torch"
    ... )
    >>> t = torch.linspace(0.0, 1.0, 4)
    >>> x = torch.stack([t.expand(7, 4), torch.randn(7, 4)], dim=-1)
    >>> X = CubicSpline(natural_cubic_coeffs(x, t), t)
    >>> layer(X).shape, layer(X, t).shape
    (torch.Size([7, 1]), torch.Size([7, 4, 1]))
    """

    arguments = SolvedLayer.arguments - {"batch"}

    def __init__(
        self,
        initial: Callable[[Tensor], Tensor],
        func: Callable[[Tensor, Tensor], Tensor],
        readout: Callable[[Tensor], Tensor] | None = None,
        **solver: Any,
    ) -> None:
        super().__init__(**solver)
        self.initial = initial
        self.func = func
        self.readout = nn.Identity() if readout is None else readout

    @eager
    def forward(self, X: Any, t: Tensor | Sequence[float] | None = None) -> Tensor:
        """Follow ``X``.

        Parameters
        ----------
        X : CubicSpline, LinearInterpolation or other
            The path: what has ``evaluate(t)``, ``derivative(t)`` and, if there is no ``t``,
            ``interval``, its first and last time.
        t : torch.Tensor or sequence of float, optional
            Times, of shape ``(T,)``, from that of the first state.

        Returns
        -------
        torch.Tensor
            Read-outs at the times, of shape ``(..., T, out)``; without ``t`` at the path's end, of
            shape ``(..., out)``.
        """
        times = X.interval if t is None else t
        times = as_numbers("t", times)
        z0 = self.initial(X.evaluate(times[0]))
        self.stats = Statistics()
        z = cdeint(X, of_time(self.func), z0, times, adjoint=False, stats=self.stats, **self.solver)
        return self.readout(z[..., -1, :] if t is None else z)
