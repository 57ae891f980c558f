"""Products of matrices, through BLAS."""

from __future__ import annotations

from math import prod

from torch import Tensor

from .. import layout
from ..layout import View
from ..program import Program
from .arithmetic import add
from .reductions import sum_
from .table import (
    copied,
    elementwise,
    in_memory,
    operation,
)


@operation("aten.mm", "aten.bmm", "aten.matmul")
def matmul(b: Program, x: View, y: View) -> View:
    """``(..., M, K) @ (..., K, N)``; the leading dimension of a batch is looped over."""
    x, y = _blas_ready(b, x), _blas_ready(b, y)
    batch = x.shape[0] if len(x.shape) == 3 else 1
    (m, k), n = x.shape[-2:], y.shape[-1]
    steps = [v.strides[0] if len(v.shape) == 3 else 0 for v in (x, y)]
    integers = (batch, m, n, k, steps[0], *x.strides[-2:], steps[1], *y.strides[-2:])
    return b.call("matmul!", [x, y], integers, (*x.shape[:-1], n))


def _blas_ready(b: Program, x: View) -> View:
    """BLAS wants one of a matrix's two strides to be one."""
    (rows, columns), (s0, s1) = x.shape[-2:], x.strides[-2:]
    if x.buffer is not None and not x.buffer.scalar and x.kind == "f":
        if (s1 == 1 and s0 >= columns) or (s0 == 1 and s1 >= rows):
            return x
        if (rows == 1 and s1 == 1) or (columns == 1 and s0 == 1):
            # The stride of a dimension of length one is never walked; BLAS still checks it.
            s = (columns, 1) if rows == 1 else (1, rows)
            return View(x.buffer, x.shape, (*x.strides[:-2], *s), x.offset)
    return copied(b, x)


@operation("aten.addmm", "aten.baddbmm")
def addmm(b: Program, bias: View, x: View, y: View, *, beta: float = 1, alpha: float = 1) -> View:
    product_ = matmul(b, x, y)
    if alpha != 1:
        product_ = elementwise(b, "{0} * {1}", [product_, alpha])
    return add(b, product_, bias, alpha=beta) if beta != 0 else product_


@operation("aten.mv")
def mv(b: Program, x: View, y: View) -> View:
    return layout.squeeze(matmul(b, x, layout.unsqueeze(y, 1)), [1])


@operation("aten.dot", "aten.vdot")
def dot(b: Program, x: View, y: View) -> View:
    return sum_(b, elementwise(b, "{0} * {1}", [x, y]))


@operation("aten.addmv")
def addmv(b: Program, bias: View, x: View, y: View, *, beta: float = 1, alpha: float = 1) -> View:
    return add(b, elementwise(b, "{0} * {1}", [mv(b, x, y), alpha]), bias, alpha=beta)


def along(b: Program, x: View, dim: int, matrix: Tensor) -> View:
    """Multiply every line along a dimension with a constant matrix."""
    dim %= len(x.shape)
    n_out, n_in = matrix.shape
    before, after = prod(x.shape[:dim]), prod(x.shape[dim + 1 :])
    flat = layout.reshape(in_memory(b, x), (before, n_in, after))
    assert flat is not None
    if after == 1:
        lines = layout.squeeze(flat, [2])
        product = matmul(b, lines, layout.permute(b.constant(matrix), (1, 0)))
    else:
        product = matmul(b, layout.expand(b.constant(matrix), (before, n_out, n_in)), flat)
    result = layout.reshape(product, (*x.shape[:dim], n_out, *x.shape[dim + 1 :]))
    assert result is not None
    return result
