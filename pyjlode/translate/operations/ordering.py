"""Largest and smallest elements, sorted elements, and running results along a dimension.

Julia finds positions; values are gathered from there, as their gradients are scattered.
"""

from __future__ import annotations

from typing import Any

from .. import layout
from ..layout import View
from ..program import Program
from .arithmetic import where
from .indexing import around, gather
from .reductions import amax, amin, sum_
from .table import elementwise, in_memory, operation
from .views import view


def _along(
    b: Program, function: str, x: View, dim: int, *options: int, folds: bool = False
) -> View:
    """Call a routine that works along a dimension, and keeps it or folds it to length one."""
    if not x.shape:
        return layout.squeeze(_along(b, function, layout.unsqueeze(x, 0), 0, *options, folds=folds))
    dim %= len(x.shape)
    shape = list(x.shape)
    if folds:
        shape[dim] = 1
    return b.call(function, [in_memory(b, x)], (*around(x, dim), *options), shape)


def _fold(b: Program, x: View, dim: int | None, keepdim: bool, sign: int) -> View:
    if dim is None:
        flat = _along(b, "argmax!", view(b, x, [x.size]), 0, sign, folds=True)
        return view(b, flat, [1] * len(x.shape) if keepdim else [])
    return _without(_along(b, "argmax!", x, dim, sign, folds=True), dim, keepdim)


def _without(x: View, dim: int, keepdim: bool) -> View:
    return x if keepdim or not x.shape else layout.squeeze(x, [dim])


@operation("aten.argmax")
def argmax(b: Program, x: View, dim: int | None = None, keepdim: bool = False) -> View:
    return _fold(b, x, dim, keepdim, 1)


@operation("aten.argmin")
def argmin(b: Program, x: View, dim: int | None = None, keepdim: bool = False) -> View:
    return _fold(b, x, dim, keepdim, -1)


def _at(b: Program, x: View, dim: int, index: View, keepdim: bool) -> tuple[View, View]:
    """Values at indices of one element along ``dim``, and the indices."""
    found = gather(b, x, dim, index)
    return _without(found, dim, keepdim), _without(index, dim, keepdim)


@operation("aten.max")
def max_(b: Program, x: View, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, View):
        return elementwise(b, "nmax({0}, {1})", [x, dim])
    return amax(b, x) if dim is None else _at(b, x, dim, _fold(b, x, dim, True, 1), keepdim)


@operation("aten.min")
def min_(b: Program, x: View, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, View):
        return elementwise(b, "nmin({0}, {1})", [x, dim])
    return amin(b, x) if dim is None else _at(b, x, dim, _fold(b, x, dim, True, -1), keepdim)


# Running results.


@operation("aten.cumsum")
def cumsum(b: Program, x: View, dim: int, **_: Any) -> View:
    return _along(b, "scan!", x, dim, 0)


@operation("aten.cumprod")
def cumprod(b: Program, x: View, dim: int, **_: Any) -> View:
    return _along(b, "scan!", x, dim, 1)


@operation("aten.logcumsumexp")
def logcumsumexp(b: Program, x: View, dim: int) -> View:
    return _along(b, "scan!", x, dim, 2)


@operation("aten.cummax")
def cummax(b: Program, x: View, dim: int) -> tuple[View, View]:
    index = _along(b, "cumargmax!", x, dim, 1)
    return gather(b, x, dim, index), index


@operation("aten.cummin")
def cummin(b: Program, x: View, dim: int) -> tuple[View, View]:
    index = _along(b, "cumargmax!", x, dim, -1)
    return gather(b, x, dim, index), index


# Sorting.


@operation("aten.sort")
def sort(
    b: Program, x: View, dim: int = -1, descending: bool = False, stable: bool | None = None
) -> tuple[View, View]:
    index = _along(b, "sort_order!", x, dim, int(descending))
    return gather(b, x, dim, index), index


@operation("aten.topk")
def topk(
    b: Program, x: View, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[View, View]:
    values, index = sort(b, x, dim, descending=largest)
    if not x.shape:
        return values, index
    return layout.slice_(values, dim, 0, k, 1), layout.slice_(index, dim, 0, k, 1)


@operation("aten.kthvalue")
def kthvalue(
    b: Program, x: View, k: int, dim: int = -1, keepdim: bool = False
) -> tuple[View, View]:
    order = _along(b, "sort_order!", x, dim, 0)
    index = layout.slice_(order, dim, k - 1, k, 1) if x.shape else order
    return _at(b, x, dim, index, keepdim)


@operation("aten.median")
def median(b: Program, x: View, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower of the two in the middle; NaN where there is one."""
    if dim is None:
        return median(b, view(b, x, [x.size]), 0)[0]
    if not x.shape:
        return x, _along(b, "sort_order!", x, dim, 0)
    order = _along(b, "sort_order!", x, dim, 0)
    n = x.shape[dim]
    missing = sum_(b, elementwise(b, "isnan({0})", [x], "b"), dim, True)
    place = elementwise(b, "{1} - {0}", [missing, n])
    some = elementwise(b, "{0} > {1}", [missing, 0.0], "b")
    middle = where(b, some, place, elementwise(b, "{0}", [float((n - 1) // 2)]))
    return _at(b, x, dim, gather(b, order, dim, middle), keepdim)
