"""New tensors, joined tensors, and writes into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import layout
from ..layout import View
from ..program import Program
from .table import (
    as_view,
    assign,
    copied,
    empty,
    filled,
    operation,
)


@operation("aten.cat")
def cat(b: Program, tensors: Sequence[View], dim: int = 0) -> View:
    tensors = [x for x in tensors if x.shape != (0,)] or list(tensors[:1])
    dim %= len(tensors[0].shape)
    shape = list(tensors[0].shape)
    shape[dim] = sum(x.shape[dim] for x in tensors)
    out = empty(b, shape, tensors[0].kind)
    start = 0
    for x in tensors:
        b.write(layout.slice_(out, dim, start, start + x.shape[dim], 1), x)
        start += x.shape[dim]
    return out


@operation("aten.stack")
def stack(b: Program, tensors: Sequence[View], dim: int = 0) -> View:
    return cat(b, [layout.unsqueeze(x, dim % (len(x.shape) + 1)) for x in tensors], dim)


@operation("aten.select_backward")
def select_backward(b: Program, g: View, shape: Sequence[int], dim: int, index: int) -> View:
    out = filled(b, 0.0, shape)
    b.write(layout.select(out, dim, index), g)
    return out


@operation("aten.slice_backward")
def slice_backward(
    b: Program, g: View, shape: Sequence[int], dim: int, start: int, end: int, step: int
) -> View:
    out = filled(b, 0.0, shape)
    b.write(layout.slice_(out, dim, start, end, step), g)
    return out


@operation("aten.diagonal_backward")
def diagonal_backward(
    b: Program, g: View, shape: Sequence[int], offset: int, dim1: int, dim2: int
) -> View:
    out = filled(b, 0.0, shape)
    b.write(layout.diagonal(out, offset, dim1, dim2), g)
    return out


@operation("aten.select_scatter")
def select_scatter(b: Program, x: View, source: View, dim: int, index: int) -> View:
    out = copied(b, x)
    b.write(layout.select(out, dim, index), source)
    return out


@operation("aten.slice_scatter")
def slice_scatter(
    b: Program,
    x: View,
    source: View,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> View:
    out = copied(b, x)
    b.write(layout.slice_(out, dim, start, end, step), source)
    return out


@operation("aten.constant_pad_nd")
def constant_pad(b: Program, x: View, pad: Sequence[int], value: float = 0.0) -> View:
    rank = len(x.shape)
    before = [0] * (rank - len(pad) // 2) + list(pad[0::2])[::-1]
    after = [0] * (rank - len(pad) // 2) + list(pad[1::2])[::-1]
    shape = [n + p + q for n, p, q in zip(x.shape, before, after, strict=True)]
    out = filled(b, value, shape)
    target, source = out, x
    for d, (p, q) in enumerate(zip(before, after, strict=True)):
        target = layout.slice_(target, d, max(p, 0), shape[d] - max(q, 0), 1)
        source = layout.slice_(source, d, max(-p, 0), x.shape[d] - max(-q, 0), 1)
    b.write(target, source)
    return out


@operation("aten.copy_")
def copy_(b: Program, target: View, source: Any, non_blocking: bool = False) -> View:
    return assign(b, target, as_view(source))


@operation("aten.copy")
def copy(b: Program, target: View, source: Any, non_blocking: bool = False) -> View:
    return layout.expand(as_view(source), target.shape)


@operation("aten.fill_", "aten.zero_")
def fill_(b: Program, target: View, value: Any = 0.0) -> View:
    return assign(b, target, as_view(value))


def constant(b: Program, value: Any, shape: Sequence[int]) -> View:
    """A tensor of one value: a literal, unless the graph writes into tensors later on."""
    view_ = as_view(value)
    return filled(b, value, shape, view_.kind) if b.mutates else layout.expand(view_, shape)


@operation("aten.full_like")
def full_like(b: Program, x: View, value: Any, **_: Any) -> View:
    return constant(b, value, x.shape)


@operation("aten.zeros_like", "aten.empty_like")
def zeros_like(b: Program, x: View, **_: Any) -> View:
    return constant(b, 0.0, x.shape)


@operation("aten.ones_like")
def ones_like(b: Program, x: View, **_: Any) -> View:
    return constant(b, 1.0, x.shape)


@operation("aten.new_full")
def new_full(b: Program, x: View, shape: Sequence[int], value: Any, **_: Any) -> View:
    return constant(b, value, shape)


@operation("aten.new_zeros", "aten.new_empty", "aten.new_empty_strided")
def new_zeros(b: Program, x: View, shape: Sequence[int], *_: Any, **__: Any) -> View:
    return constant(b, 0.0, shape)


@operation("aten.new_ones")
def new_ones(b: Program, x: View, shape: Sequence[int], **_: Any) -> View:
    return constant(b, 1.0, shape)


@operation("aten.full")
def full(b: Program, shape: Sequence[int], value: Any, **_: Any) -> View:
    return constant(b, value, shape)


@operation("aten.zeros", "aten.empty", "aten.empty_strided")
def zeros(b: Program, shape: Sequence[int], *_: Any, **__: Any) -> View:
    return constant(b, 0.0, shape)


@operation("aten.ones")
def ones(b: Program, shape: Sequence[int], **_: Any) -> View:
    return constant(b, 1.0, shape)


@operation("aten.scalar_tensor")
def scalar_tensor(b: Program, value: Any, **_: Any) -> View:
    return constant(b, value, ())
