"""Reads and writes at positions that tensors of integers give.

Bounds are checked where the Julia routines use an index: a read out of bounds gives NaN there, a
write out of bounds makes its whole result NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from ...errors import TraceError
from .. import layout
from ..layout import View
from ..program import BOUNDED, Program
from .arithmetic import where
from .reductions import sum_
from .table import as_view, copied, elementwise, filled, in_memory, operation, to_float
from .views import view

_MODES = {"sum": 1, "add": 1, "prod": 2, "multiply": 2, "amax": 3, "amin": 4, "mean": 1}


def around(x: View, dim: int) -> tuple[int, int, int]:
    """Elements before, along and after a dimension: a row-major tensor as three dimensions.

    >>> around(View(None, (2, 3, 5, 7), (0,) * 4), 1)
    (2, 3, 35)
    """
    return prod(x.shape[:dim]), x.shape[dim], prod(x.shape[dim + 1 :])


def _countable(b: Program, n: int) -> None:
    if n > b.exact:
        raise TraceError(f"it indexes {n} elements, more than numbers of the state's type count")


def _one_dimensional(x: View) -> View:
    return x if x.shape else layout.unsqueeze(x, 0)


@operation("aten.index_select")
def index_select(b: Program, x: View, dim: int, index: View) -> View:
    if not x.shape:
        return layout.squeeze(index_select(b, _one_dimensional(x), 0, index))
    dim %= len(x.shape)
    x, index = in_memory(b, x), in_memory(b, _one_dimensional(index))
    outer, rows, inner = around(x, dim)
    _countable(b, rows)
    shape = (*x.shape[:dim], index.size, *x.shape[dim + 1 :])
    return b.call("take_rows!", [x, index], (outer, rows, index.size, inner), shape)


@operation("aten.embedding")
def embedding(b: Program, weight: View, index: View, *_: Any) -> View:
    rows = index_select(b, weight, 0, view(b, index, [index.size]))
    return view(b, rows, [*index.shape, *weight.shape[1:]])


# Several index tensors at once.


def _indexed(b: Program, x: View, indices: Sequence[View | None]) -> tuple[View, list[int], int]:
    """Indices of some dimensions as one index of all of them, row-major.

    Returns the index, ``x``'s dimensions in the order in which the indexed ones are neighbours,
    and the place of the first of them. They stay where they are if they are neighbours already,
    and go to the front otherwise; that is where torch puts the dimensions of the result.
    """
    dims = [d for d, i in enumerate(indices) if i is not None]
    given = [i for i in indices if i is not None]
    if any(i.kind == "b" for i in given):
        raise TraceError("it indexes with a mask that the dynamics compute")
    _countable(b, prod(x.shape[d] for d in dims))
    index: View | None = None
    for d, i in zip(dims, given, strict=True):
        place = elementwise(b, BOUNDED, [i, x.shape[d]])
        if index is None:
            index = place
        else:
            index = elementwise(b, "{0} * {1} + {2}", [index, x.shape[d], place])
    assert index is not None
    if dims == list(range(dims[0], dims[0] + len(dims))):
        return index, list(range(len(x.shape))), dims[0]
    return index, [*dims, *(d for d in range(len(x.shape)) if d not in dims)], 0


@operation("aten.index", "aten._unsafe_index")
def index(b: Program, x: View, indices: Sequence[View | None]) -> View:
    count = sum(i is not None for i in indices)
    if count == 0:
        return copied(b, x)
    position, order, first = _indexed(b, x, indices)
    x = layout.permute(x, order)
    before, rows, after = x.shape[:first], x.shape[first : first + count], x.shape[first + count :]
    integers = (prod(before), prod(rows), position.size, prod(after))
    shape = (*before, *position.shape, *after)
    return b.call("take_rows!", [in_memory(b, x), in_memory(b, position)], integers, shape)


@operation("aten.index_put", "aten._unsafe_index_put", "aten._index_put_impl")
def index_put(
    b: Program,
    x: View,
    indices: Sequence[View | None],
    values: View,
    accumulate: bool = False,
    unsafe: bool = False,
) -> View:
    count = sum(i is not None for i in indices)
    if count == 1 and indices[0] is not None and indices[0].kind == "b" and values.size == 1:
        return _masked_put(b, x, indices[0], view(b, values, []), accumulate)
    position, order, first = _indexed(b, x, indices)
    x = layout.permute(x, order)
    before, rows, after = x.shape[:first], x.shape[first : first + count], x.shape[first + count :]
    values = in_memory(b, layout.expand(values, (*before, *position.shape, *after)))
    out = copied(b, to_float(b, x))
    integers = (prod(before), prod(rows), position.size, prod(after), int(accumulate))
    b.update("put_rows!", out, [values, in_memory(b, position)], integers)
    return layout.permute(out, [order.index(d) for d in range(len(order))])


def _masked_put(b: Program, x: View, mask: View, value: View, accumulate: bool) -> View:
    mask = view(b, mask, [*mask.shape, *[1] * (len(x.shape) - len(mask.shape))])
    return where(b, mask, elementwise(b, "{0} + {1}", [x, value]) if accumulate else value, x)


@operation("aten.put")
def put(b: Program, x: View, index: View, source: View, accumulate: bool = False) -> View:
    flat = view(b, x, [x.size])
    values = view(b, source, [source.size])
    out = index_put(b, flat, [view(b, index, [index.size])], values, accumulate)
    return view(b, out, x.shape)


@operation(*(f"aten.replication_pad{rank}d_backward" for rank in (1, 2, 3)))
def replication_pad_backward(b: Program, v: View, x: View, padding: Sequence[int]) -> View:
    """Each element gets what its copies got; the padding begins with the last dimension's."""
    for k in range(0, len(padding), 2):
        dim = len(x.shape) - 1 - k // 2
        n = x.shape[dim]
        index = torch.arange(-padding[k], n + padding[k + 1]).clamp(0, n - 1)
        start = filled(b, 0.0, [*v.shape[:dim], n, *v.shape[dim + 1 :]])
        v = index_put(b, start, [*[None] * dim, b.constant(index)], v, accumulate=True)
    return v


# One index an element.


def _cropped(x: View, shape: Sequence[int], but: int | None = None) -> View:
    """The part of a tensor that another, smaller one lies on; dimension ``but`` stays whole."""
    for d, n in enumerate(shape):
        if d != but:
            x = layout.slice_(x, d, 0, n, 1)
    return x


@operation("aten.gather")
def gather(b: Program, x: View, dim: int, index: View, *, sparse_grad: bool = False) -> View:
    if not index.shape:
        return layout.squeeze(gather(b, _one_dimensional(x), 0, _one_dimensional(index)))
    x = _one_dimensional(x)
    dim %= len(x.shape)
    x = in_memory(b, _cropped(x, index.shape, but=dim))
    outer, count, inner = around(index, dim)
    _countable(b, x.shape[dim])
    integers = (outer, x.shape[dim], count, inner)
    return b.call("gather!", [x, in_memory(b, index)], integers, index.shape)


def _scatter(b: Program, x: View, dim: int, index: View, source: View, mode: int) -> View:
    if not x.shape:
        source = layout.expand(source, index.shape)
        x, index, source = (_one_dimensional(v) for v in (x, index, source))
        return layout.squeeze(_scatter(b, x, 0, index, source, mode))
    dim %= len(x.shape)
    index = _one_dimensional(index)
    source = _cropped(source, index.shape) if source.shape else layout.expand(source, index.shape)
    out = copied(b, to_float(b, x))
    target = _cropped(out, index.shape, but=dim)
    part = out if target.shape == out.shape else copied(b, target)
    outer, count, inner = around(index, dim)
    _countable(b, x.shape[dim])
    integers = (outer, x.shape[dim], count, inner, mode)
    b.update("scatter!", part, [in_memory(b, source), in_memory(b, index)], integers)
    if part is not out:
        b.write(target, part)
    return out


@operation("aten.scatter")
def scatter(
    b: Program, x: View, dim: int, index: View, source: Any, *, reduce: str | None = None
) -> View:
    mode = 0 if reduce is None else _MODES[reduce]
    return _scatter(b, x, dim, index, as_view(source), mode)


@operation("aten.scatter_add")
def scatter_add(b: Program, x: View, dim: int, index: View, source: View) -> View:
    return _scatter(b, x, dim, index, source, 1)


@operation("aten.scatter_reduce")
def scatter_reduce(
    b: Program,
    x: View,
    dim: int,
    index: View,
    source: View,
    reduce: str,
    *,
    include_self: bool = True,
) -> View:
    if not include_self:  # begin with what changes nothing, where something will be combined
        neutral = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "amax": -torch.inf, "amin": torch.inf}
        x = _scatter(b, x, dim, index, as_view(neutral[reduce]), 0)
    out = _scatter(b, x, dim, index, source, _MODES[reduce])
    if reduce == "mean":
        start = filled(b, 1.0 if include_self else 0.0, x.shape)
        count = _scatter(b, start, dim, index, as_view(1.0), 1)
        out = elementwise(b, "{0} / nmax({1}, T(1))", [out, count])
    return out


# Masks.


@operation("aten.masked_scatter")
def masked_scatter(b: Program, x: View, mask: View, source: View) -> View:
    shape = torch.broadcast_shapes(x.shape, mask.shape)
    place = _rank(b, layout.expand(mask, shape))
    flat = view(b, source, [source.size])
    found = index_select(b, flat, 0, place)
    return where(b, mask, view(b, found, shape), x)


@operation("aten.masked_scatter_backward")
def masked_scatter_backward(b: Program, g: View, mask: View, sizes: Sequence[int]) -> View:
    size = prod(sizes)
    mask = view(b, layout.expand(mask, g.shape), [g.size])
    # What the mask leaves out goes behind the end.
    place = where(b, mask, _rank(b, mask), as_view(float(size)))
    out = _scatter(b, filled(b, 0.0, [size + 1]), 0, place, view(b, g, [g.size]), 0)
    return view(b, layout.slice_(out, 0, 0, size, 1), sizes)


def _rank(b: Program, mask: View) -> View:
    """For each true element of a mask, flat, how many true ones come before it."""
    flat = view(b, to_float(b, mask), [mask.size])
    counted = b.call("scan!", [in_memory(b, flat)], (1, mask.size, 1, 0), [mask.size])
    return elementwise(b, "{0} - T(1)", [counted])


@operation("aten.nonzero_static")
def nonzero_static(b: Program, x: View, *, size: int, fill_value: int = -1) -> View:
    """The positions of exactly ``size`` elements: as many as there were when it was traced."""
    _countable(b, x.size)
    flat = b.call("nonzero!", [in_memory(b, x)], (x.size, size), [size])
    columns, left = [], flat
    for n in reversed(x.shape):
        columns.append(elementwise(b, "nmod({0}, {1})", [left, n]))
        left = elementwise(b, "floor({0} / {1})", [left, n])
    out = b.new([size, len(x.shape)], "f", scalar=False)
    for d, column in enumerate(reversed(columns)):
        b.write(layout.select(out, 1, d), column)
    return out


@operation("aten.repeat_interleave")
def repeat_interleave(b: Program, counts: View, *, output_size: int | None = None) -> View:
    if output_size is None:
        raise TraceError("it repeats by counts without output_size")
    integers = (counts.size, output_size)
    return b.call("repeats!", [in_memory(b, counts)], integers, [output_size])


# Positions among sorted numbers.


@operation("aten.searchsorted")
def searchsorted(
    b: Program,
    edges: View,
    values: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: View | None = None,
) -> View:
    values = as_view(values)
    if sorter is not None:
        edges = gather(b, edges, -1, sorter)
    shared = len(edges.shape) == 1
    outer = 1 if shared else prod(edges.shape[:-1])
    count = values.size if shared else values.shape[-1]
    n = edges.shape[-1]
    _countable(b, n)
    integers = (outer, count, int(shared), n, int(right or side == "right"))
    arguments = [in_memory(b, edges), in_memory(b, values)]
    return b.call("searchsorted!", arguments, integers, values.shape)


@operation("aten.bucketize")
def bucketize(
    b: Program, values: Any, edges: View, *, out_int32: bool = False, right: bool = False
) -> View:
    return searchsorted(b, edges, values, right=right)


@operation("aten.count_nonzero")
def count_nonzero(b: Program, x: View, dim: Any = None) -> View:
    return sum_(b, elementwise(b, "!iszero({0})", [x], "b"), dim)
