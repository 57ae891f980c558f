"""Bases of functions of one variable, for :class:`pyjlode.layers.TensorLayer`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Basis:
    """``n`` functions of one variable.

    Attributes
    ----------
    n : int
    functions : callable
        ``functions(x, n)``, of shape ``(*x.shape, n)``.
    """

    n: int
    functions: Callable[[Tensor, int], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """The functions' values, of shape ``(*x.shape, n)``."""
        return self.functions(x, self.n)


def chebyshev_basis(n: int) -> Basis:
    """Chebyshev's polynomials of the first kind, of degrees 0 to ``n - 1``.

    Examples
    --------
    >>> import torch
    >>> chebyshev_basis(4)(torch.tensor(0.5))
    tensor([ 1.0000,  0.5000, -0.5000, -1.0000])
    """
    return Basis(n, _chebyshev)


def legendre_basis(n: int) -> Basis:
    """Legendre's polynomials, of degrees 0 to ``n - 1``."""
    return Basis(n, _legendre)


def polynomial_basis(n: int) -> Basis:
    """The powers 0 to ``n - 1``."""
    return Basis(n, _powers)


def sin_basis(n: int) -> Basis:
    """``sin(x)`` to ``sin(n x)``."""
    return Basis(n, _sines)


def cos_basis(n: int) -> Basis:
    """``cos(x)`` to ``cos(n x)``."""
    return Basis(n, _cosines)


def fourier_basis(n: int) -> Basis:
    """``sin(x / 2)``, ``cos(x)``, ``sin(3 x / 2)``, ``cos(2 x)`` ... as in DiffEqFlux.jl."""
    return Basis(n, _fourier)


def _recursive(x: Tensor, n: int, following: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
    values = [torch.ones_like(x), x]
    for k in range(1, n - 1):
        values.append(following(k, values[-1], values[-2]))
    return torch.stack(values[:n], -1)


def _chebyshev(x: Tensor, n: int) -> Tensor:
    return _recursive(x, n, lambda k, last, before: 2 * x * last - before)


def _legendre(x: Tensor, n: int) -> Tensor:
    return _recursive(x, n, lambda k, last, before: ((2 * k + 1) * x * last - k * before) / (k + 1))


def _powers(x: Tensor, n: int) -> Tensor:
    return _recursive(x, n, lambda k, last, before: x * last)


def _sines(x: Tensor, n: int) -> Tensor:
    return torch.stack([torch.sin(k * x) for k in range(1, n + 1)], -1)


def _cosines(x: Tensor, n: int) -> Tensor:
    return torch.stack([torch.cos(k * x) for k in range(1, n + 1)], -1)


def _fourier(x: Tensor, n: int) -> Tensor:
    return torch.stack(
        [torch.cos(k * x / 2) if k % 2 == 0 else torch.sin(k * x / 2) for k in range(1, n + 1)], -1
    )
