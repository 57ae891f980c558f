"""``multiple_shoot``: the loss of short solves from data, which hang together at their ends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import ArgumentError

Loss = Callable[[Tensor, Tensor], Tensor]


def multiple_shoot(
    layer: Callable[[Tensor, Tensor], Tensor],
    data: Tensor,
    t: Tensor,
    group_size: int,
    *,
    loss: Loss | None = None,
    continuity_loss: Loss | None = None,
    continuity_term: float = 100.0,
) -> tuple[Tensor, list[Tensor]]:
    """A loss of solves over groups of times, each from the data at its start.

    Over a long time a solve of an untrained model is far from the data, and its loss has many
    local minima; over short ones it has not. The last time of a group is the first of the next.

    Parameters
    ----------
    layer : callable
        ``layer(y0, t)`` gives states of shape ``(T, *y0.shape)``, such as
        :class:`pyjlode.NeuralODE`.
    data : torch.Tensor
        Of shape ``(T, *state)``; there may be a batch in front of the state's dimensions.
    t : torch.Tensor
        Times, of shape ``(T,)``.
    group_size : int
        How many times a group has; the last may have less.
    loss : callable, optional
        ``loss(data, prediction)`` of one group; by default the sum of squared differences.
    continuity_loss : callable, optional
        ``continuity_loss(end, start)`` of a group's last state and the data from which the next
        starts; by default the sum of absolute differences.
    continuity_term : float, optional
        What the continuity's loss is multiplied by.

    Returns
    -------
    loss : torch.Tensor
        A number.
    predictions : list of torch.Tensor
        For each group, of shape ``(group_size, *state)``.

    Raises
    ------
    ArgumentError
        If ``group_size`` is not from 2 to ``T``, or shapes do not fit.
    SolverError
        If a solve fails (DiffEqFlux.jl returns an infinite loss).

    References
    ----------
    DiffEqFlux.jl's ``multiple_shoot``; Bock and Plitt, A Multiple Shooting Algorithm for Direct
    Solution of Optimal Control Problems, 1984.

    Examples
    --------
    >>> import torch
    >>> from pyjlode import NeuralODE
    >>> layer = NeuralODE(lambda t, y: -y, engine="torch")
    >>> t = torch.linspace(0.0, 1.0, 10)
    >>> loss, groups = multiple_shoot(layer, torch.exp(-t)[:, None], t, 5)
    >>> bool(loss < 1e-3), [len(group) for group in groups]
    (True, [5, 5, 2])
    """
    if t.shape != data.shape[:1]:
        raise ArgumentError(
            f"data must have one state for each time, not {len(data)} for {len(t)}."
        )
    if not 2 <= group_size <= len(t):
        raise ArgumentError(f"group_size must be from 2 to {len(t)}, not {group_size}.")
    loss = loss or _squares
    continuity_loss = continuity_loss or _absolute
    groups = [slice(i, i + group_size) for i in range(0, len(t) - 1, group_size - 1)]
    predictions = [layer(data[group.start], t[group]) for group in groups]
    total = torch.stack(
        [loss(data[group], states) for group, states in zip(groups, predictions, strict=True)]
    ).sum()
    for (_, after), states in zip(pairwise(groups), predictions, strict=False):
        total = total + continuity_term * continuity_loss(states[-1], data[after.start])
    return total, predictions


def _squares(data: Tensor, prediction: Tensor) -> Tensor:
    return (data - prediction).square().sum()


def _absolute(end: Tensor, start: Tensor) -> Tensor:
    return (end - start).abs().sum()
