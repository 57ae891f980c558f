"""``RecognitionRNN``: from a series of observations to a distribution of its initial state."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RecognitionRNN(nn.Module):
    """A recurrent net that reads observations backwards in time.

    Each observation is read with the time that passes to the next one read later, so that
    irregular times count; what is missing of a series leaves its hidden state as it is.

    Parameters
    ----------
    obs_dim, latent_dim, hidden_dim : int
        Numbers in an observation, in the latent state and in the hidden state.
    cell : type, optional
        ``torch.nn.RNNCell`` or ``torch.nn.GRUCell``.

    References
    ----------
    Chen et al., Neural Ordinary Differential Equations, 2018, section 5.

    Examples
    --------
    >>> import torch
    >>> mean, logvar = RecognitionRNN(2, 4, 25)(torch.ones(10, 3, 2), torch.linspace(0, 1, 10))
    >>> mean.shape, logvar.shape
    (torch.Size([3, 4]), torch.Size([3, 4]))
    """

    def __init__(
        self,
        obs_dim: int,
        latent_dim: int,
        hidden_dim: int,
        cell: type[nn.RNNCell | nn.GRUCell] = nn.GRUCell,
    ) -> None:
        super().__init__()
        self.cell = cell(obs_dim + 1, hidden_dim)
        self.out = nn.Linear(hidden_dim + 1, 2 * latent_dim)

    def forward(self, y: Tensor, t: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latent state at ``t[0]``.

        Parameters
        ----------
        y : torch.Tensor
            Observations, of shape ``(T, B, obs_dim)``.
        t : torch.Tensor
            Their times, of shape ``(T,)``, increasing.
        mask : torch.Tensor, optional
            Of bool and shape ``(T, B)``: which there are. The others' values do not count.

        Returns
        -------
        mean, logvar : torch.Tensor
            Of shape ``(B, latent_dim)``.
        """
        steps, batch = y.shape[:2]
        there = y.new_ones(steps, batch, dtype=torch.bool) if mask is None else mask
        hidden = y.new_zeros(batch, self.cell.hidden_size)
        times = t.to(y.dtype)
        last_read = times.new_full((batch,), float("nan"))  # nothing is read yet
        for i in reversed(range(steps)):
            gap = torch.nan_to_num(last_read - times[i])
            observed = torch.where(there[i, :, None], y[i], 0.0)
            new = self.cell(torch.cat([observed, gap[:, None]], 1), hidden)
            hidden = torch.where(there[i, :, None], new, hidden)
            last_read = torch.where(there[i], times[i], last_read)
        # The state asked for is that at t[0], which may be before a series' first observation.
        gap = torch.nan_to_num(last_read - times[0])
        mean, logvar = self.out(torch.cat([hidden, gap[:, None]], 1)).chunk(2, dim=-1)
        return mean, logvar
