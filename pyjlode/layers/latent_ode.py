"""``LatentODE``: a generative model of time series whose latent state follows an ODE."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi
from typing import Any

import torch
from torch import Tensor, nn

from ..eager import eager
from ..of_time import of_time
from .recognition import RecognitionRNN
from .solved import SolvedLayer


class LatentODE(SolvedLayer):
    """A variational autoencoder of time series: ``z(t[0])`` is inferred, ``z`` follows an ODE.

    Times may be irregular; series of a batch share the vector of times, and a mask says which of
    them observes what.

    Parameters
    ----------
    func : torch.nn.Module or callable
        ``func(t, z)`` of latent states of shape ``(B, latent_dim)``.
    decoder : torch.nn.Module
        From latent states ``(..., latent_dim)`` to means of observations ``(..., obs_dim)``.
    obs_dim, latent_dim : int
        Numbers in an observation and in the latent state.
    hidden_dim : int, optional
        Of the recognition network.
    noise_std : float, optional
        Standard deviation of an observation about its mean.
    recognition : torch.nn.Module, optional
        ``recognition(y, t, mask) -> mean, logvar``; by default a :class:`RecognitionRNN`.
    **solver
        ``method``, ``sensealg``, ``rtol``, ``atol``, ``options``, ``engine``, ``batch`` as for
        :func:`pyjlode.odeint`.

    References
    ----------
    Chen et al., Neural Ordinary Differential Equations, 2018, section 5; Kingma and Welling,
    Auto-Encoding Variational Bayes, 2013.

    Examples
    --------
    >>> import torch
    >>> net, decoder = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
    >>> model = LatentODE(lambda t, z: net(z), decoder, obs_dim=2, latent_dim=4, engine="torch")
    >>> y, t = torch.randn(10, 3, 2), torch.linspace(0.0, 1.0, 10)
    >>> loss = -model.elbo(y, t)
    >>> model(y, t, at=torch.linspace(0.0, 2.0, 50)).shape
    torch.Size([50, 3, 2])
    """

    def __init__(
        self,
        func: Callable[[Tensor, Tensor], Tensor],
        decoder: nn.Module,
        *,
        obs_dim: int,
        latent_dim: int,
        hidden_dim: int = 25,
        noise_std: float = 0.1,
        recognition: nn.Module | None = None,
        **solver: Any,
    ) -> None:
        super().__init__(**solver)
        self.func = func
        self.decoder = decoder
        self.recognition = recognition or RecognitionRNN(obs_dim, latent_dim, hidden_dim)
        self.noise_std = noise_std

    def encode(self, y: Tensor, t: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of ``z(t[0])``, of shape ``(B, latent_dim)``.

        Raises
        ------
        ValueError
            If shapes do not fit or times do not increase.
        """
        _check(y, t, mask)
        found: tuple[Tensor, Tensor] = self.recognition(y, t, mask)
        return found

    def decode(self, z0: Tensor, t: Tensor) -> Tensor:
        """Means of observations at times ``t``, the first of which is that of ``z0``."""
        means: Tensor = self.decoder(self.solve(of_time(self.func), z0, t))
        return means

    @eager
    def forward(
        self, y: Tensor, t: Tensor, at: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Predictions from the most likely initial state.

        Parameters
        ----------
        y : torch.Tensor
            Observations, of shape ``(T, B, obs_dim)``.
        t : torch.Tensor
            Their times, of shape ``(T,)``, increasing.
        at : torch.Tensor, optional
            Times of the predictions, of shape ``(S,)``, increasing and not before ``t[0]``; by
            default ``t``.
        mask : torch.Tensor, optional
            Of bool and shape ``(T, B)``: which observations there are.

        Returns
        -------
        torch.Tensor
            Of shape ``(S, B, obs_dim)``.
        """
        mean, _ = self.encode(y, t, mask)
        if at is None:
            return self.decode(mean, t)
        if bool(at[0] < t[0]):
            raise ValueError(f"at starts at {at[0]:g}, before the first time, {t[0]:g}.")
        if bool(at[0] == t[0]):
            return self.decode(mean, at)
        return self.decode(mean, torch.cat([t[:1].to(at), at]))[1:]

    def elbo(
        self,
        y: Tensor,
        t: Tensor,
        mask: Tensor | None = None,
        *,
        kl_weight: float = 1.0,
    ) -> Tensor:
        """The evidence's lower bound, estimated by one latent state a series; mean of the batch.

        Parameters
        ----------
        y, t, mask
            As for :meth:`forward`.
        kl_weight : float, optional
            Less than 1 early in a training keeps the latent state in use.

        Returns
        -------
        torch.Tensor
            A number, to be maximized.
        """
        mean, logvar = self.encode(y, t, mask)
        z0 = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        means = self.decode(z0, t)
        # What is not there may be NaN, which must not come near a gradient.
        observed = y if mask is None else torch.where(mask[..., None], y, 0.0)
        errors = (observed - means) / self.noise_std
        log_likelihoods = -0.5 * errors.square() - log(self.noise_std) - 0.5 * log(2 * pi)
        if mask is not None:
            log_likelihoods = torch.where(mask[..., None], log_likelihoods, 0.0)
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(-1)
        return (log_likelihoods.sum((0, 2)) - kl_weight * divergence).mean()


def _check(y: Tensor, t: Tensor, mask: Tensor | None) -> None:
    if y.dim() != 3 or t.shape != y.shape[:1]:
        raise ValueError(
            f"y must be (T, B, obs_dim) and t (T,), not {tuple(y.shape)} and {tuple(t.shape)}."
        )
    if bool((t[1:] <= t[:-1]).any()):
        raise ValueError("The times of the observations must increase.")
    if mask is not None and (mask.shape != y.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(
            f"mask must be of bool and shape {tuple(y.shape[:2])}, not {mask.dtype} and "
            f"{tuple(mask.shape)}."
        )
