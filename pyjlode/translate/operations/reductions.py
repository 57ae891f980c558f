"""Reductions."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import layout
from ..layout import View
from ..program import Program
from .table import (
    as_float,
    elementwise,
    operation,
    to_float,
)
from .views import clone


def _dims(x: View, dims: Any) -> list[int]:
    rank = len(x.shape)
    if dims is None or dims == []:
        return list(range(rank))
    if isinstance(dims, int):
        dims = [dims]
    return [d % rank for d in dims] if rank else []


def _reduce(b: Program, x: View, dims: Any, keepdim: bool, template: str, start: str) -> View:
    axes = _dims(x, dims)
    if not axes:
        return clone(b, x)
    out = b.reduce(to_float(b, as_float(x)), axes, template, start)
    return out if keepdim else layout.squeeze(out, axes)


@operation("aten.sum", "prims.sum")
def sum_(b: Program, x: View, dim: Any = None, keepdim: bool = False, **_: Any) -> View:
    return _reduce(b, x, dim, keepdim, "{0} + {1}", "T(0)")


@operation("aten.var", "prims.var")
def var(
    b: Program, x: View, dim: Any = None, correction: Any = 1, keepdim: bool = False, **_: Any
) -> View:
    if isinstance(dim, bool):  # the old form, var(x, unbiased)
        dim, correction = None, float(dim)
    correction = 1 if correction is None else correction
    count = prod(x.shape[d] for d in _dims(x, dim))
    centred = elementwise(b, "{0} - {1}", [x, mean(b, x, dim, True)])
    squares = sum_(b, elementwise(b, "{0} * {0}", [centred]), dim, keepdim)
    return elementwise(b, "{0} / {1}", [squares, max(0.0, count - float(correction))])


@operation("aten.var_mean")
def var_mean(b: Program, x: View, dim: Any = None, **options: Any) -> tuple[View, View]:
    return var(b, x, dim, **options), mean(b, x, dim, options.get("keepdim", False))


@operation("aten.mean")
def mean(b: Program, x: View, dim: Any = None, keepdim: bool = False, **_: Any) -> View:
    count = prod(x.shape[d] for d in _dims(x, dim))
    return elementwise(b, "{0} / {1}", [sum_(b, x, dim, keepdim), count])


@operation("aten.amax", "prims.amax")
def amax(b: Program, x: View, dim: Any = None, keepdim: bool = False) -> View:
    return _reduce(b, x, dim, keepdim, "nmax({0}, {1})", "T(-Inf)")


@operation("aten.amin", "prims.amin")
def amin(b: Program, x: View, dim: Any = None, keepdim: bool = False) -> View:
    return _reduce(b, x, dim, keepdim, "nmin({0}, {1})", "T(Inf)")


@operation("aten.prod", "prims.prod")
def product(b: Program, x: View, dim: Any = None, keepdim: bool = False, **_: Any) -> View:
    return _reduce(b, x, dim, keepdim, "{0} * {1}", "T(1)")
