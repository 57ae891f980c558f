"""Linear algebra, through the routines of ``julia/src/linalg.jl``."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from .. import layout
from ..layout import View, whole
from ..program import Program
from .table import in_memory, operation


def _pieces(packed: View, *shapes: Sequence[int]) -> list[View]:
    """Results that a routine leaves one after the other."""
    assert packed.buffer is not None
    views, offset = [], 0
    for shape in shapes:
        view = whole(packed.buffer, shape)
        views.append(View(view.buffer, view.shape, view.strides, offset))
        offset += view.size
    return views


def _batch(x: View) -> int:
    return prod(x.shape[:-2])


def _transposed(x: View) -> View:
    rank = len(x.shape)
    return layout.permute(x, (*range(rank - 2), rank - 1, rank - 2))


def _together(b: Program, x: View, y: View) -> tuple[View, View]:
    """Matrices of one batch."""
    batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = (layout.expand(z, (*batch, *z.shape[-2:])) for z in (x, y))
    return in_memory(b, x), in_memory(b, y)


def _success(x: View) -> View:
    """Torch's code of errors; here a failure is NaN in the result."""
    return layout.uniform("T(0)", x.shape[:-2])


@operation("aten.linalg_lu_factor_ex")
def lu_factor(
    b: Program, a: View, *, pivot: bool = True, check_errors: bool = False
) -> tuple[View, View, View]:
    n = a.shape[-1]
    if not pivot or a.shape[-2] != n:
        raise TypeError("a matrix that is not square, or without pivots")
    size = _batch(a) * n * (n + 1)
    packed = b.call("lu_factor!", [in_memory(b, a)], (_batch(a), n), (size,))
    factors, pivots = _pieces(packed, a.shape, a.shape[:-1])
    return factors, pivots, _success(a)


@operation("aten.linalg_lu_solve")
def lu_solve(
    b: Program, lu: View, pivots: View, right: View, *, left: bool = True, adjoint: bool = False
) -> View:
    if not left:
        # X A = B is Aᵀ Xᵀ = Bᵀ.
        solved = lu_solve(b, lu, pivots, _transposed(right), left=True, adjoint=not adjoint)
        return _transposed(solved)
    lu, right = _together(b, lu, right)
    n, m = right.shape[-2:]
    pivots = in_memory(b, layout.expand(pivots, (*lu.shape[:-2], n)))
    integers = (_batch(right), n, m, int(adjoint))
    return b.call("lu_solve!", [lu, pivots, right], integers, right.shape)


@operation("aten.linalg_solve_triangular")
def solve_triangular(
    b: Program, a: View, right: View, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> View:
    if not left:
        solved = solve_triangular(
            b, _transposed(a), _transposed(right), upper=not upper, unitriangular=unitriangular
        )
        return _transposed(solved)
    a, right = _together(b, a, right)
    n, m = right.shape[-2:]
    integers = (_batch(right), n, m, int(upper), int(unitriangular))
    return b.call("triangular_solve!", [a, right], integers, right.shape)


@operation("aten.linalg_cholesky_ex")
def cholesky(
    b: Program, a: View, *, upper: bool = False, check_errors: bool = False
) -> tuple[View, View]:
    if upper:
        return _transposed(cholesky(b, _transposed(a))[0]), _success(a)
    factor = b.call("cholesky!", [in_memory(b, a)], (_batch(a), a.shape[-1]), a.shape)
    return factor, _success(a)


@operation("aten._linalg_check_errors")
def check_errors(b: Program, *_: Any, **__: Any) -> None:
    """Nothing: what torch raises for is NaN here."""


@operation("aten.linalg_matrix_exp")
def matrix_exp(b: Program, a: View) -> View:
    return b.call("matrix_exponential!", [in_memory(b, a)], (_batch(a), a.shape[-1]), a.shape)


@operation("aten._linalg_eigh")
def eigh(b: Program, a: View, UPLO: str = "L", compute_v: bool = True) -> tuple[View, View]:
    n = a.shape[-1]
    integers = (_batch(a), n, int(UPLO.upper() == "U"))
    size = _batch(a) * n * (n + 1)
    packed = b.call("symmetric_eigen!", [in_memory(b, a)], integers, (size,))
    values, vectors = _pieces(packed, a.shape[:-1], a.shape)
    return values, vectors if compute_v else layout.uniform("T(0)", (0,))


@operation("aten.linalg_qr")
def qr(b: Program, a: View, mode: str = "reduced") -> tuple[View, View]:
    m, n = a.shape[-2:]
    if mode != "reduced" and not (mode == "complete" and m <= n):
        raise TypeError(f"mode {mode!r}")
    k, batch = min(m, n), a.shape[:-2]
    size = _batch(a) * k * (m + n)
    packed = b.call("qr!", [in_memory(b, a)], (_batch(a), m, n), (size,))
    q, r = _pieces(packed, (*batch, m, k), (*batch, k, n))
    return q, r


@operation("aten._linalg_svd")
def svd(
    b: Program,
    a: View,
    full_matrices: bool = False,
    compute_uv: bool = True,
    *,
    driver: str | None = None,
) -> tuple[View, View, View]:
    m, n = a.shape[-2:]
    if full_matrices and compute_uv and m != n:
        raise TypeError("full_matrices of a matrix that is not square")
    k, batch = min(m, n), a.shape[:-2]
    size = _batch(a) * k * (m + n + 1)
    packed = b.call("svd!", [in_memory(b, a)], (_batch(a), m, n), (size,))
    u, s, vh = _pieces(packed, (*batch, m, k), (*batch, k), (*batch, k, n))
    if not compute_uv:
        u, vh = layout.uniform("T(0)", (0,)), layout.uniform("T(0)", (0,))
    return u, s, vh
