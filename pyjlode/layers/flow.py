"""``CNF`` and ``FFJORD``: densities by continuous normalizing flows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import log, pi
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..eager import eager
from ..of_time import of_time
from .divergence import exact_trace, hutchinson_trace
from .solved import SolvedLayer, time_span


class FlowDensity(NamedTuple):
    """What a flow gives of samples.

    Attributes
    ----------
    log_prob : torch.Tensor
        Log-density, of shape ``(B,)``.
    kinetic_energy, jacobian_norm : torch.Tensor or None
        Integrals over time of the field's squared norm and of its Jacobian's squared Frobenius
        norm, of shape ``(B,)``; None unless the layer was made with ``regularize``.
    """

    log_prob: Tensor
    kinetic_energy: Tensor | None
    jacobian_norm: Tensor | None


class CNF(SolvedLayer):
    """A density: samples flow by ``dz/dt = func(t, z)`` to a base distribution.

    The log-density changes along the flow by the trace of ``func``'s Jacobian, which is exact
    here and costs as many vector-Jacobian products as a sample has numbers.
    :class:`FFJORD` estimates it by one.

    Parameters
    ----------
    func : torch.nn.Module or callable
        ``func(t, z)`` of samples ``z`` of shape ``(B, *input_dims)``, which must not mix them.
    input_dims : int or sequence of int
        The shape of one sample.
    t : sequence of float, optional
        Times of the samples and of the base distribution.
    base : torch.distributions.Distribution, optional
        The base distribution of one sample; by default the standard normal one.
    regularize : bool, optional
        Whether :meth:`forward` integrates the kinetic energy and the Jacobian's norm too, to be
        added to a loss: flows with less of them take fewer steps.
    **solver
        ``method``, ``sensealg``, ``rtol``, ``atol``, ``options``, ``engine``, ``batch`` as for
        :func:`pyjlode.odeint`.

    References
    ----------
    Chen et al., Neural Ordinary Differential Equations, 2018, section 4. Finlay et al., How to
    Train Your Neural ODE, 2020 (the regularization; DiffEqFlux.jl integrates the Jacobian's norm,
    not its square).

    Examples
    --------
    A field without divergence, so that it keeps the density along the flow:

    >>> import torch
    >>> turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    >>> flow = CNF(lambda t, z: z @ turn, 2, engine="torch")
    >>> flow.log_prob(torch.zeros(1, 2))
    tensor([-1.8379])
    >>> flow.sample(5).shape
    torch.Size([5, 2])
    """

    t: Tensor

    def __init__(
        self,
        func: Callable[[Tensor, Tensor], Tensor],
        input_dims: int | Sequence[int],
        t: Sequence[float] | Tensor = (0.0, 1.0),
        *,
        base: Distribution | None = None,
        regularize: bool = False,
        **solver: Any,
    ) -> None:
        super().__init__(**solver)
        self.func = func
        dims = (input_dims,) if isinstance(input_dims, int) else input_dims
        self.input_dims = torch.Size(dims)
        self.register_buffer("t", time_span(t), persistent=False)
        self.base = base
        self.regularize = regularize

    @eager
    def forward(self, x: Tensor) -> FlowDensity:
        """Log-density of samples, with the regularizing integrals where they were asked for.

        Parameters
        ----------
        x : torch.Tensor
            Of shape ``(B, *input_dims)``.

        Returns
        -------
        FlowDensity
        """
        z, integrals = self._flow(x, self.t, self.regularize)
        log_prob = self._base_log_prob(z) + integrals[0]
        return FlowDensity(log_prob, *(integrals[1:] if self.regularize else (None, None)))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of samples, of shape ``(B,)``."""
        z, log_det = self.transform(x)
        return self._base_log_prob(z) + log_det

    def transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From samples to the base distribution.

        Returns
        -------
        z : torch.Tensor
            Of the shape of ``x``.
        log_det : torch.Tensor
            The logarithm of ``|det dz/dx|``, of shape ``(B,)``.
        """
        z, integrals = self._flow(x, self.t, False)
        return z, integrals[0]

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """From the base distribution to samples; as :meth:`transform` the other way."""
        x, integrals = self._flow(z, self.t.flip(0), False)
        return x, integrals[0]

    def sample(self, n: int) -> Tensor:
        """New samples, of shape ``(n, *input_dims)``, by torch's random numbers.

        Of the dtype of ``base``, else of this layer's first parameter, else of torch's default.
        """
        return self.solve(of_time(self.func), self._base_sample(n), self.t.flip(0))[-1]

    def sample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """New samples with their log-densities, by one solve."""
        z = self._base_sample(n)
        x, log_det = self.inverse(z)
        return x, self._base_log_prob(z) - log_det

    def _flow(self, x: Tensor, t: Tensor, regularize: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The state at the other end, and the integrals of trace, energy and Jacobian's norm."""
        if x.shape[1:] != self.input_dims or x.dim() == 0:
            raise ValueError(
                f"Samples must have shape (B, {', '.join(map(str, self.input_dims))}), "
                f"not {tuple(x.shape)}."
            )
        numbers = self.input_dims.numel()
        integrals = x.new_zeros(len(x), 3 if regularize else 1)
        start = torch.cat([x.flatten(1), integrals], 1)
        field = partial(_augmented, of_time(self.func), self._draw(x), self.input_dims, regularize)
        end = self.solve(field, start, t)[-1]
        return end[:, :numbers].reshape(x.shape), end[:, numbers:].unbind(1)

    def _draw(self, x: Tensor) -> Tensor | None:
        """Noise for one solve; None for the exact trace."""
        return None

    def _base_sample(self, n: int) -> Tensor:
        if self.base is not None:
            return self.base.sample((n,)).reshape(n, *self.input_dims)
        like = next(self.parameters(), torch.empty(0))
        return torch.randn(n, *self.input_dims, dtype=like.dtype)

    def _base_log_prob(self, z: Tensor) -> Tensor:
        if self.base is not None:
            # Of one distribution for each number, or one for all.
            return self.base.log_prob(z).reshape(len(z), -1).sum(1)
        return -0.5 * (z.flatten(1).square().sum(1) + self.input_dims.numel() * log(2 * pi))


class FFJORD(CNF):
    """A continuous normalizing flow whose trace is estimated by one vector-Jacobian product.

    The noise of the estimate is drawn once for each solve, so that the field is a smooth function
    of time, and the backward pass has the same.

    Parameters
    ----------
    func, input_dims, t, base, regularize, **solver
        As for :class:`CNF`.
    monte_carlo : bool, optional
        False makes the trace exact, for evaluation after training; an attribute too.
    noise : {"gaussian", "rademacher"}, optional
        Signs alone, "rademacher", have less variance.

    References
    ----------
    Grathwohl et al., FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative
    Models, 2018; DiffEqFlux.jl's ``FFJORD``.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Linear(2, 2)
    >>> flow = FFJORD(lambda t, z: net(z), 2, engine="torch", regularize=True)
    >>> density = flow(torch.zeros(4, 2))
    >>> loss = -density.log_prob.mean() + 0.01 * density.kinetic_energy.mean()
    """

    def __init__(
        self,
        func: Callable[[Tensor, Tensor], Tensor],
        input_dims: int | Sequence[int],
        t: Sequence[float] | Tensor = (0.0, 1.0),
        *,
        base: Distribution | None = None,
        regularize: bool = False,
        monte_carlo: bool = True,
        noise: Literal["gaussian", "rademacher"] = "gaussian",
        **solver: Any,
    ) -> None:
        super().__init__(func, input_dims, t, base=base, regularize=regularize, **solver)
        if noise not in ("gaussian", "rademacher"):
            raise ValueError(f'noise must be "gaussian" or "rademacher", not {noise!r}.')
        if monte_carlo and solver.get("batch") == "independent":
            raise ValueError(
                'FFJORD\'s noise belongs to the whole batch; with batch="independent" take '
                "monte_carlo=False."
            )
        self.monte_carlo = monte_carlo
        self.noise = noise

    def _draw(self, x: Tensor) -> Tensor | None:
        if not self.monte_carlo:
            return None
        if self.noise == "gaussian":
            return torch.randn_like(x)
        return torch.randint_like(x, 2) * 2 - 1


def _augmented(
    func: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor | None,
    dims: torch.Size,
    regularize: bool,
    t: Tensor,
    state: Tensor,
) -> Tensor:
    """The field on rows of a sample's numbers and its integrals."""
    z = state[:, : dims.numel()].reshape(-1, *dims)
    if noise is None:
        dz, trace, norm = exact_trace(func, t, z)
    else:
        dz, trace, norm = hutchinson_trace(func, t, z, noise)
    flat = dz.flatten(1)
    integrands = [trace, flat.square().sum(1), norm] if regularize else [trace]
    return torch.cat([flat, torch.stack(integrands, 1)], 1)
