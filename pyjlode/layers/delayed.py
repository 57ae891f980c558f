"""``NeuralCDDE``: dynamics learnt from the state and what it was before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..check import State
from ..ddeint import ddeint
from ..eager import eager
from ..neural_ode import keep_times, times_of
from ..problem import Statistics
from ..states import as_numbers
from .solved import SolvedLayer


class NeuralCDDE(SolvedLayer):
    """The states at times ``t`` of ``dy/dt = model(y(t), y(t - lags[0]), ...)``, as a layer.

    Differentiable with respect to every parameter of the model, the past, and the lags.

    Parameters
    ----------
    model : torch.nn.Module or callable
        ``model(y, *delayed)``, of the shape of ``y``, with a delayed state for each lag. A module's
        parameters are this layer's. (DiffEqFlux's gets them concatenated.)
    lags : torch.nn.Parameter, torch.Tensor or sequence of float
        The delays, of shape ``(K,)``. They are learnt if they are a parameter.
    t : torch.Tensor or sequence of float, optional
        The times, of shape ``(T,)``, increasing; may be given at each call instead.
    **solver
        ``method``, ``sensealg``, ``rtol``, ``atol``, ``options`` and ``engine``, as for
        :func:`pyjlode.ddeint`.

    Attributes
    ----------
    stats : Statistics
        Counts of the last solve.

    Raises
    ------
    TypeError
        If ``solver`` has another argument.

    References
    ----------
    DiffEqFlux.jl's ``NeuralCDDE``. Zhu, Guo and Lin, Neural Delay Differential Equations, 2021,
    arXiv:2102.10801.

    Examples
    --------
    >>> import torch
    >>> from pyjlode import engine_info
    >>> class Feedback(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.net = torch.nn.Linear(4, 2)
    ...     def forward(self, y, delayed):
    ...         return self.net(torch.cat([y, delayed], dim=-1)).tanh()
    >>> layer = NeuralCDDE(Feedback(), [0.5], [0.0, 1.0, 2.0])
    >>> if engine_info().name == "julia":
    ...     assert layer(torch.ones(3, 2)).shape == (3, 3, 2)
    """

    arguments: ClassVar[frozenset[str]] = frozenset(
        {"method", "sensealg", "rtol", "atol", "options", "engine"}
    )

    def __init__(
        self,
        model: Callable[..., Any],
        lags: Tensor | Sequence[float],
        t: Tensor | Sequence[float] | None = None,
        **solver: Any,
    ) -> None:
        super().__init__(**solver)
        self.model = model
        if isinstance(lags, nn.Parameter):
            self.lags = lags
        else:
            delays = as_numbers("lags", lags).to(torch.float64)
            self.register_buffer("lags", delays, persistent=False)
        keep_times(self, t)

    @eager
    def forward(
        self,
        history: State | Callable[[Tensor], Any],
        t: Tensor | Sequence[float] | None = None,
    ) -> Any:
        """Solve from a past.

        Parameters
        ----------
        history : torch.Tensor or callable
            The constant past, or ``history(t)``, which is also the state at the first time.
        t : torch.Tensor or sequence of float, optional
            Times of this call, instead of the layer's.

        Returns
        -------
        torch.Tensor
            Of shape ``(T, *y.shape)``.
        """
        times = times_of(self, t)
        self.stats = Statistics()
        model = self.model  # a trace rests on it alone, not on the last solve's counts
        return ddeint(
            lambda t, *states: model(*states), history, times, lags=self.lags, stats=self.stats,
            **self.solver,
        )  # fmt: skip
