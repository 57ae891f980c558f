"""``TensorLayer``: a linear map of the products of basis functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor, nn

from .bases import Basis


class TensorLayer(nn.Module):
    """Linear in all products of one basis function of each input.

    A right-hand side whose terms can be read off the weights, where few variables matter.

    Parameters
    ----------
    bases : sequence of Basis
        One for each input, such as :func:`pyjlode.layers.chebyshev_basis`; or callables with a
        number of functions ``n``.
    out_features : int

    Attributes
    ----------
    weight : torch.nn.Parameter
        Of shape ``(out_features, n_1, n_2, ...)``: the coefficient of each product.

    References
    ----------
    DiffEqFlux.jl's ``TensorLayer``.

    Examples
    --------
    >>> import torch
    >>> from pyjlode.layers import polynomial_basis
    >>> layer = TensorLayer([polynomial_basis(3), polynomial_basis(2)], 1)
    >>> _ = torch.nn.init.zeros_(layer.weight)
    >>> layer.weight.data[0, 2, 1] = 1.0
    >>> layer(torch.tensor([[3.0, 2.0]])).detach()  # 3^2 times 2
    tensor([[18.]])
    """

    def __init__(self, bases: Sequence[Basis], out_features: int) -> None:
        super().__init__()
        self.bases: list[Callable[[Tensor], Tensor]] = list(bases)
        sizes = [basis.n for basis in bases]
        self.weight = nn.Parameter(torch.randn(out_features, *sizes) / prod(sizes) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of inputs of shape ``(..., len(bases))``, ``(..., out_features)``.

        Raises
        ------
        ValueError
            If there is not one basis for each input.
        """
        if x.shape[-1] != len(self.bases):
            raise ValueError(f"There are {len(self.bases)} bases and {x.shape[-1]} inputs.")
        products = self.bases[0](x[..., 0])
        for i, basis in enumerate(self.bases[1:], start=1):
            products = (products[..., :, None] * basis(x[..., i])[..., None, :]).flatten(-2)
        return products @ self.weight.flatten(1).T
