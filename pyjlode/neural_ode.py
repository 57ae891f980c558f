"""``NeuralODE``: a layer whose output is the solution of an ODE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .eager import eager
from .odeint import odeint
from .of_time import of_time
from .problem import Statistics
from .sensealg import SensitivityAlgorithm
from .states import as_numbers


class NeuralODE(nn.Module):
    """The states at times ``t`` of ``dy/dt = func(t, y)``, as a layer.

    Parameters
    ----------
    func : torch.nn.Module or callable
        ``func(t, y)``, or ``func(y)`` as of an ``nn.Sequential``. A module's parameters are this
        layer's.
    t : torch.Tensor or sequence of float, optional
        The times, of shape ``(T,)``; may be given at each call instead. A ``torch.nn.Parameter`` is
        a parameter of the layer: a depth that is learnt.
    method, sensealg, rtol, atol, options, engine, batch
        As for :func:`pyjlode.odeint`.

    Attributes
    ----------
    stats : Statistics
        Counts of the last solve.

    References
    ----------
    Chen et al., Neural Ordinary Differential Equations, 2018; DiffEqFlux.jl's ``NeuralODE``.

    Examples
    --------
    >>> import torch
    >>> class Decay(torch.nn.Module):
    ...     def forward(self, t, y):
    ...         return -y
    >>> layer = NeuralODE(Decay(), [0.0, 1.0], engine="torch")
    >>> layer(torch.ones(3, 2)).shape
    torch.Size([2, 3, 2])
    >>> depth = torch.nn.Parameter(torch.tensor([0.0, 1.0]))
    >>> [name for name, _ in NeuralODE(Decay(), depth).named_parameters()]
    ['t']
    """

    def __init__(
        self,
        func: Callable[..., Any],
        t: Tensor | Sequence[float] | None = None,
        *,
        method: str | None = None,
        sensealg: SensitivityAlgorithm | str | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        options: Mapping[str, Any] | None = None,
        engine: str | None = None,
        batch: str | None = None,
    ) -> None:
        super().__init__()
        self.func = func
        keep_times(self, t)
        self.method = method
        self.sensealg = sensealg
        self.rtol = rtol
        self.atol = atol
        self.options = options
        self.engine = engine
        self.batch = batch
        self.stats = Statistics()

    @property
    def nfe(self) -> int:
        """Right-hand-side evaluations of the last forward solve."""
        return self.stats.nfe

    @property
    def nfe_backward(self) -> int:
        """Evaluations of the adjoint's right-hand side, after the backward pass."""
        return self.stats.nfe_backward

    @eager
    def forward(self, y0: Any, t: Tensor | Sequence[float] | None = None) -> Any:
        """Solve from ``y0``.

        Parameters
        ----------
        y0 : torch.Tensor or tuple of torch.Tensor
        t : torch.Tensor or sequence of float, optional
            Times of this call, instead of the layer's.

        Returns
        -------
        torch.Tensor or tuple of torch.Tensor
            Of shape ``(T, *y0.shape)``.
        """
        times = times_of(self, t)
        self.stats = Statistics()
        return odeint(
            of_time(self.func),
            y0,
            times,
            rtol=self.rtol,
            atol=self.atol,
            method=self.method,
            options=self.options,
            sensealg=self.sensealg,
            engine=self.engine,
            stats=self.stats,
            batch=self.batch,
        )

    def extra_repr(self) -> str:
        """What ``repr`` shows beside the module inside."""
        return (
            f"method={self.method}, sensealg={self.sensealg}, engine={self.engine}, "
            f"batch={self.batch}"
        )


def keep_times(layer: nn.Module, t: Tensor | Sequence[float] | None) -> None:
    """Give a layer its times: a parameter ``t``, which is learnt, or a buffer that is not saved."""
    if isinstance(t, nn.Parameter):
        layer.t = t
        return
    times = None if t is None else as_numbers("t", t).to(torch.float64)
    layer.register_buffer("t", times, persistent=False)


def times_of(layer: nn.Module, t: Tensor | Sequence[float] | None) -> Any:
    """The times of a call, or else the layer's.

    Raises
    ------
    ValueError
        If there are neither.
    """
    times: Any = layer.t if t is None else t
    if times is None:
        raise ValueError(f"{type(layer).__name__} has no times; give t here or when it is made.")
    return times
