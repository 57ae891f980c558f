"""Views: strides change, memory does not.

In-place forms such as ``squeeze_`` are the same operations: the trace goes on with their result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import TraceError
from .. import layout
from ..layout import View
from ..program import Program
from .table import (
    operation,
)


@operation("aten.alias", "aten.detach", "aten.lift_fresh_copy", "aten.lift_fresh")
def alias(b: Program, x: View) -> View:
    return x


@operation("aten.clone", "aten.contiguous")
def clone(b: Program, x: View, **_: Any) -> View:
    return b.pointwise("{0}", [x], x.shape, x.kind)


@operation("aten.view", "aten._unsafe_view", "aten.reshape")
def view(b: Program, x: View, shape: Sequence[int]) -> View:
    result = layout.reshape(x, shape)
    if result is None:
        result = layout.reshape(clone(b, x), shape)
    assert result is not None
    return result


@operation("aten.permute")
def permute(b: Program, x: View, dims: Sequence[int]) -> View:
    return layout.permute(x, dims)


@operation("aten.transpose", "aten.transpose_")
def transpose(b: Program, x: View, dim0: int, dim1: int) -> View:
    dims = list(range(len(x.shape)))
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return layout.permute(x, dims)


@operation("aten.t", "aten.t_")
def t(b: Program, x: View) -> View:
    return layout.permute(x, range(len(x.shape))[::-1])


@operation("aten.expand")
def expand(b: Program, x: View, shape: Sequence[int], **_: Any) -> View:
    return layout.expand(x, shape)


@operation("prims.broadcast_in_dim")
def broadcast_in_dim(b: Program, x: View, shape: Sequence[int], dims: Sequence[int]) -> View:
    for d in range(len(shape)):
        if d not in dims:
            x = layout.unsqueeze(x, d)
    return layout.expand(x, shape)


@operation("aten.flip", "prims.rev")
def flip(b: Program, x: View, dims: Sequence[int]) -> View:
    for d in dims:
        x = layout.reverse(x, d)
    return x


@operation("aten.select")
def select(b: Program, x: View, dim: int, index: int) -> View:
    return layout.select(x, dim, index)


@operation("aten.slice")
def slice_(
    b: Program,
    x: View,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> View:
    return layout.slice_(x, dim, start, end, step)


@operation("aten.unsqueeze", "aten.unsqueeze_")
def unsqueeze(b: Program, x: View, dim: int) -> View:
    return layout.unsqueeze(x, dim)


@operation("aten.squeeze", "aten.squeeze_")
def squeeze(b: Program, x: View, dim: int | Sequence[int] | None = None) -> View:
    return layout.squeeze(x, [dim] if isinstance(dim, int) else dim)


@operation("aten.split_with_sizes", "aten.split")
def split(b: Program, x: View, sizes: int | Sequence[int], dim: int = 0) -> list[View]:
    if isinstance(sizes, int):
        n = x.shape[dim]
        sizes = [min(sizes, n - i) for i in range(0, n, sizes)]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [layout.slice_(x, dim, e - n, e, 1) for n, e in zip(sizes, ends, strict=True)]


@operation("aten.unbind")
def unbind(b: Program, x: View, dim: int = 0) -> list[View]:
    return [layout.select(x, dim, i) for i in range(x.shape[dim])]


@operation("aten.diagonal")
def diagonal(b: Program, x: View, offset: int = 0, dim1: int = 0, dim2: int = 1) -> View:
    return layout.diagonal(x, offset, dim1, dim2)


@operation("aten.unfold")
def unfold(b: Program, x: View, dim: int, size: int, step: int) -> View:
    return layout.unfold(x, dim, size, step)


@operation("aten.as_strided")
def as_strided(
    b: Program, x: View, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> View:
    if not x.is_whole:
        raise TraceError("it takes as_strided of a tensor that is itself a view")
    return View(x.buffer, tuple(size), tuple(stride), offset or 0, x.kind)


@operation("aten._has_same_storage_numel")
def has_same_storage_numel(b: Program, *_: Any) -> bool:
    """A check that forward-mode differentiation leaves behind; its result is not used."""
    return True
