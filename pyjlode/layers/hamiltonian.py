"""``HamiltonianNN`` and ``NeuralHamiltonianDE``: dynamics that keep a learnt energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..neural_ode import NeuralODE


class HamiltonianNN(nn.Module):
    """The vector field ``dq/dt = dH/dp``, ``dp/dt = -dH/dq`` of a learnt energy ``H(q, p)``.

    Parameters
    ----------
    model : torch.nn.Module
        From states of shape ``(..., 2 n)``, positions first and then momenta, to energies of shape
        ``(..., 1)``, each of its own state only; differentiable twice.

    References
    ----------
    Greydanus, Dzamba and Yosinski, Hamiltonian Neural Networks, 2019; DiffEqFlux.jl's
    ``HamiltonianNN``.

    Examples
    --------
    A harmonic oscillator:

    >>> import torch
    >>> class Energy(torch.nn.Module):
    ...     def forward(self, y):
    ...         return y.square().sum(-1, keepdim=True) / 2
    >>> HamiltonianNN(Energy())(torch.tensor(0.0), torch.tensor([[1.0, 2.0]]))
    tensor([[ 2., -1.]])
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def energy(self, y: Tensor) -> Tensor:
        """``H`` of states, of shape ``(...)``."""
        energy: Tensor = self.model(y)
        return energy.squeeze(-1)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The field at states ``y``; it does not rest on ``t``.

        Raises
        ------
        ValueError
            If the last dimension of ``y`` is odd.
        """
        if y.shape[-1] % 2:
            raise ValueError(
                f"A state has positions and momenta, an even number; y has shape {tuple(y.shape)}."
            )
        slope = torch.func.grad(lambda y: self.model(y).sum())(y)
        by_position, by_momentum = slope.chunk(2, dim=-1)
        return torch.cat([by_momentum, -by_position], dim=-1)


class NeuralHamiltonianDE(NeuralODE):
    """States at times ``t`` of a Hamiltonian system whose energy is learnt.

    Parameters
    ----------
    model : torch.nn.Module
        The energy, as for :class:`HamiltonianNN`, or a :class:`HamiltonianNN`.
    t : torch.Tensor or sequence of float, optional
        As for :class:`pyjlode.NeuralODE`.
    **solver
        Likewise.

    References
    ----------
    DiffEqFlux.jl's ``NeuralHamiltonianDE``.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    ... )
    >>> layer = NeuralHamiltonianDE(net, [0.0, 1.0], engine="torch")
    >>> y = layer(torch.ones(3, 2))
    >>> drift = layer.func.energy(y[-1]) - layer.func.energy(y[0])
    >>> bool(drift.abs().max() < 1e-4)
    True
    """

    func: HamiltonianNN

    def __init__(
        self, model: nn.Module, t: Tensor | Sequence[float] | None = None, **solver: Any
    ) -> None:
        func = model if isinstance(model, HamiltonianNN) else HamiltonianNN(model)
        super().__init__(func, t, **solver)
