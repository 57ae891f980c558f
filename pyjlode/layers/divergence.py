"""Traces of a vector field's Jacobian, by vector-Jacobian products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Field = Callable[[Tensor, Tensor], Tensor]


def exact_trace(func: Field, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A field of independent rows, and of each row's Jacobian the trace and the squared norm.

    Takes as many products as a row has numbers.

    Returns
    -------
    value : torch.Tensor
        ``func(t, z)``, of shape ``(B, *dims)``.
    trace, norm : torch.Tensor
        Of shape ``(B,)``; the norm is Frobenius's, squared.

    Examples
    --------
    >>> import torch
    >>> A = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> exact_trace(lambda t, z: z @ A.T, torch.tensor(0.0), torch.ones(1, 2))[1:]
    (tensor([5.]), tensor([30.]))
    """
    value, product = _linearized(func, t, z)
    numbers = z[0].numel()
    units = torch.eye(numbers, dtype=z.dtype)
    traces, norms = [], []
    for i in range(numbers):
        (row,) = product(units[i].view(z.shape[1:]).expand_as(z))
        row = row.flatten(1)
        traces.append(row[:, i])
        norms.append(row.square().sum(1))
    return value, torch.stack(traces).sum(0), torch.stack(norms).sum(0)


def hutchinson_trace(
    func: Field, t: Tensor, z: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`exact_trace`, both estimated with one product by ``noise``, of the shape of ``z``.

    Unbiased where the noise's numbers are independent, of mean 0 and variance 1.
    """
    value, product = _linearized(func, t, z)
    (row,) = product(noise)
    return value, (row * noise).flatten(1).sum(1), row.flatten(1).square().sum(1)


def _linearized(func: Field, t: Tensor, z: Tensor) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """``func(t, z)``, and what takes a vector to its product with the Jacobian."""
    found: Any = torch.func.vjp(lambda z: func(t, z), z)
    return found[0], found[1]
