"""``NeuralDSDE`` and ``NeuralSDE``: learnt drift and diffusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ..eager import eager
from ..errors import DerivativeError
from ..neural_ode import keep_times, times_of
from ..of_time import of_time
from ..problem import Statistics
from ..sdeint import sdeint
from .solved import SolvedLayer


class _StochasticLayer(SolvedLayer):
    """What both have in common; as an object it is what :func:`pyjlode.sdeint` takes."""

    arguments = frozenset(
        {"method", "dt", "adaptive", "rtol", "atol", "dt_min", "options", "engine"}
    )
    sde_type: ClassVar[str] = "ito"
    noise_type: ClassVar[str]

    def __init__(
        self,
        drift: Callable[[Tensor, Tensor], Tensor],
        diffusion: Callable[[Tensor, Tensor], Tensor],
        t: Tensor | Sequence[float] | None = None,
        **solver: Any,
    ) -> None:
        super().__init__(**solver)
        self.drift = drift
        self.diffusion = diffusion
        keep_times(self, t)
        if not self.solver.get("adaptive"):
            self.solver.setdefault("method", "EM")

    # Not methods: a trace rests on all that the owner of one holds, the last solve's counts too.
    @property
    def f(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The drift, ``f(t, y)`` of shape ``(B, n)``."""
        return of_time(self.drift)

    @property
    def g(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The diffusion, ``g(t, y)``, as ``noise_type`` has it."""
        return of_time(self.diffusion)

    @eager
    def forward(
        self,
        y0: Tensor,
        t: Tensor | Sequence[float] | None = None,
        *,
        seed: int | None = None,
        bm: Any = None,
    ) -> Tensor:
        """One path from each row of ``y0``.

        Parameters
        ----------
        y0 : torch.Tensor
            Of shape ``(B, n)``; each row has a Brownian motion of its own.
        t : torch.Tensor or sequence of float, optional
            Times of this call, instead of the layer's.
        seed : int, optional
            The same seed gives the same Brownian motion. Default: drawn from torch's generator.
        bm : BrownianPath or callable, optional
            The Brownian motion, instead of a seed.

        Returns
        -------
        torch.Tensor
            Of shape ``(T, B, n)``.
        """
        times = times_of(self, t)
        self.stats = Statistics()
        states: Tensor = sdeint(self, y0, times, bm=bm, seed=seed, stats=self.stats, **self.solver)
        return states


class NeuralDSDE(_StochasticLayer):
    """Paths of ``dy = drift(t, y) dt + diffusion(t, y) dW`` (Itô), with a noise for each element.

    Differentiable, along the path drawn, with respect to ``y0`` and every parameter of both nets,
    with EM and RKMil and fixed steps. The layer is also an ``sde`` for :func:`pyjlode.sdeint`.

    Parameters
    ----------
    drift : torch.nn.Module or callable
        ``drift(t, y)`` of shape ``(B, n)``. A module's parameters are this layer's.
    diffusion : torch.nn.Module or callable
        ``diffusion(t, y)`` of shape ``(B, n)``: element ``i`` multiplies the ``i``-th Brownian
        motion.
    t : torch.Tensor or sequence of float, optional
        The times, of shape ``(T,)``, increasing; may be given at each call instead.
    **solver
        ``method``, ``dt``, ``adaptive``, ``rtol``, ``atol``, ``dt_min``, ``options`` and
        ``engine``, as for :func:`pyjlode.sdeint`. Default: EM with steps of at most 1e-3.

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
    EM is the default because element ``i`` of a net depends on all of ``y``. Where it depends on
    ``y[:, i]`` only, RKMil has the strong order 1, and the SRI methods, without gradients, 1.5;
    elsewhere they have 0.5 like EM.

    References
    ----------
    DiffEqFlux.jl's ``NeuralDSDE``; Li et al., Scalable Gradients for Stochastic Differential
    Equations, 2020.

    Examples
    --------
    >>> import torch
    >>> from pyjlode import engine_info
    >>> drift, diffusion = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> layer = NeuralDSDE(
    ...     lambda t, y: drift(y), lambda t, y: 0.1 * diffusion(y), [0.0, 0.5, 1.0], dt=0.01
    ... )
    >>> if engine_info().name == "julia":  # the torch engine has no stochastic solver
    ...     y = layer(torch.ones(100, 2), seed=0)
    ...     y[-1].mean(0).sum().backward()
    ...     assert y.shape == (3, 100, 2) and diffusion.weight.grad.abs().min() > 0
    """

    noise_type = "diagonal"


class NeuralSDE(_StochasticLayer):
    """Paths of ``dy = drift(t, y) dt + diffusion(t, y) dW`` (Itô) with ``nbrown`` noises.

    Differentiable, along the path drawn, with respect to ``y0`` and every parameter of both nets.
    The layer is also an ``sde`` for :func:`pyjlode.sdeint`.

    Parameters
    ----------
    drift : torch.nn.Module or callable
        ``drift(t, y)`` of shape ``(B, n)``. A module's parameters are this layer's.
    diffusion : torch.nn.Module or callable
        ``diffusion(t, y)``, a matrix for each row: of shape ``(B, n, nbrown)``, or with its rows
        one after the other, ``(B, n * nbrown)``.
    nbrown : int
        How many Brownian motions there are.
    t : torch.Tensor or sequence of float, optional
        The times, of shape ``(T,)``, increasing; may be given at each call instead.
    **solver
        As for :class:`NeuralDSDE`; of the methods, EM is for general noise.

    Attributes
    ----------
    stats : Statistics
        Counts of the last solve.

    Raises
    ------
    TypeError
        If ``solver`` has another argument; at a call, if the diffusion is of another shape.
    ValueError
        If ``nbrown`` is less than 1.

    References
    ----------
    DiffEqFlux.jl's ``NeuralSDE``; Li et al., Scalable Gradients for Stochastic Differential
    Equations, 2020.

    Examples
    --------
    >>> import torch
    >>> from pyjlode import engine_info
    >>> drift, diffusion = torch.nn.Linear(2, 2), torch.nn.Linear(2, 6)
    >>> layer = NeuralSDE(
    ...     lambda t, y: drift(y), lambda t, y: 0.1 * diffusion(y), 3, [0.0, 0.5, 1.0], dt=0.01
    ... )
    >>> if engine_info().name == "julia":  # the torch engine has no stochastic solver
    ...     assert layer(torch.ones(100, 2), seed=0).shape == (3, 100, 2)
    """

    noise_type = "general"

    def __init__(
        self,
        drift: Callable[[Tensor, Tensor], Tensor],
        diffusion: Callable[[Tensor, Tensor], Tensor],
        nbrown: int,
        t: Tensor | Sequence[float] | None = None,
        **solver: Any,
    ) -> None:
        super().__init__(drift, diffusion, t, **solver)
        if nbrown < 1:
            raise ValueError(f"nbrown must be at least 1, not {nbrown}.")
        self.nbrown = nbrown

    @property
    def g(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The diffusion, ``g(t, y)`` of shape ``(B, n, nbrown)``."""
        return _matrices(self.diffusion, self.nbrown)

    def extra_repr(self) -> str:
        """What ``repr`` shows beside the modules inside."""
        return ", ".join([f"nbrown={self.nbrown}", super().extra_repr()])


def _matrices(
    diffusion: Callable[[Tensor, Tensor], Tensor], nbrown: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """The diffusion with its values in the shape of matrices, checked."""

    def g(t: Tensor, y: Tensor) -> Tensor:
        value = diffusion(t, y)
        rows, n = y.shape
        if value.shape == (rows, n * nbrown):
            value = value.reshape(rows, n, nbrown)
        if value.shape != (rows, n, nbrown):
            raise DerivativeError(
                f"diffusion gives shape {tuple(value.shape)}; it must be {(rows, n, nbrown)} or "
                f"{(rows, n * nbrown)}."
            )
        return value

    return g
