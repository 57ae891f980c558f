"""Tensors as the flat numpy arrays that Julia reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def flatten(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    """One vector of all tensors, in the numbers that generated code computes with."""
    if not tensors:
        return torch.empty(0, dtype=dtype)
    return torch.cat([x.detach().reshape(-1).to(dtype) for x in tensors])


def unflatten(values: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """The tensors of these shapes that :func:`flatten` made a vector of."""
    pieces = values.split([shape.numel() for shape in shapes])
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def as_array(x: Tensor) -> Any:
    """The tensor's memory as a flat numpy array; a copy only where it is not contiguous."""
    return x.detach().contiguous().view(-1).numpy()


def in_memory(x: Tensor) -> Tensor:
    """The tensor as Julia reads it at its address: a copy only where it lies there otherwise."""
    return x if x.is_contiguous() and not x.is_neg() else x.detach().resolve_neg().contiguous()
