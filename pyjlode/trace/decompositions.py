"""How torch operations are traced as simpler ones, where torch's own rules don't suit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..translate.operations import is_covered, plain_name

Rule = Callable[..., Any]

_rules: dict[Any, Rule] = {}


def _rule(op: Any) -> Callable[[Rule], Rule]:
    def enter(function: Rule) -> Rule:
        _rules[op] = function
        return function

    return enter


@functools.cache
def decompositions() -> dict[Any, Rule]:
    """Every decomposition that torch has, but for operations of the table, and the rules here.

    What draws random numbers stays whole, so that a draw gives the numbers that torch would give.
    """
    from torch._decomp import core_aten_decompositions, decomposition_table

    chosen = {**decomposition_table, **core_aten_decompositions()}
    kept = {
        op: rule
        for op, rule in chosen.items()
        if isinstance(op, torch._ops.OpOverload)
        and not is_covered(plain_name(op))
        and (torch.Tag.nondeterministic_seeded not in op.tags or "dropout" in plain_name(op))
    }
    return {**kept, **_rules}


@functools.cache
def _factors_transposed(op: Any) -> bool:
    """Whether this torch factorises the transpose of a row-major matrix.

    The operation's derivative reads the factors, so that they must be of the same matrix here.
    """
    matrix = torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.float64)
    if op is torch.ops.aten._linalg_solve_ex.default:
        factors = op(matrix, matrix[:, 0])[1]
    else:
        factors = op(matrix)[-2]
    return not torch.equal(factors, torch.linalg.lu_factor(matrix)[0])


# Now, and not while tracing: fake tensors have no values.
_TRANSPOSED = {
    op: _factors_transposed(op)
    for op in (
        torch.ops.aten._linalg_solve_ex.default,
        torch.ops.aten._linalg_det.default,
        torch.ops.aten._linalg_slogdet.default,
    )
}


def _factorise(op: Any, a: Tensor) -> tuple[Tensor, Tensor, Tensor, bool]:
    """``LU``, pivots and info as the operation saves them, and whether they are of ``a.mT``."""
    transposed = _TRANSPOSED[op] and a.is_contiguous() and not a.is_complex()
    return (*torch.ops.aten.linalg_lu_factor_ex(a.mT if transposed else a), transposed)


@_rule(torch.ops.aten._linalg_solve_ex.default)
def _solve(
    a: Tensor, b: Tensor, *, left: bool = True, check_errors: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    lu, pivots, info, transposed = _factorise(torch.ops.aten._linalg_solve_ex.default, a)
    vector = b.dim() == 1 or (b.dim() == a.dim() - 1 and b.shape == a.shape[:-1])
    right = b.unsqueeze(-1) if vector else b
    x = torch.ops.aten.linalg_lu_solve(lu, pivots, right, left=left, adjoint=transposed)
    return x.squeeze(-1) if vector else x, lu, pivots, info


@_rule(torch.ops.aten.linalg_inv_ex.default)
def _inverse(a: Tensor, *, check_errors: bool = False) -> tuple[Tensor, Tensor]:
    lu, pivots, info = torch.ops.aten.linalg_lu_factor_ex(a)
    one = torch.eye(a.shape[-1], dtype=a.dtype).expand(a.shape)
    return torch.ops.aten.linalg_lu_solve(lu, pivots, one), info


def _sign_of(pivots: Tensor, dtype: torch.dtype) -> Tensor:
    """The determinant of the permutation."""
    unmoved = torch.arange(1, pivots.shape[-1] + 1, dtype=pivots.dtype)
    one = torch.ones((), dtype=dtype)
    return torch.where(pivots != unmoved, -one, one).prod(-1)


@_rule(torch.ops.aten._linalg_det.default)
def _determinant(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    lu, pivots, _, _ = _factorise(torch.ops.aten._linalg_det.default, a)
    return _sign_of(pivots, a.dtype) * lu.diagonal(dim1=-2, dim2=-1).prod(-1), lu, pivots


@_rule(torch.ops.aten._linalg_slogdet.default)
def _log_determinant(a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    lu, pivots, _, _ = _factorise(torch.ops.aten._linalg_slogdet.default, a)
    diagonal = lu.diagonal(dim1=-2, dim2=-1)
    sign = _sign_of(pivots, a.dtype) * diagonal.sign().prod(-1)
    return sign, diagonal.abs().log().sum(-1), lu, pivots


@_rule(torch.ops.aten.cholesky_solve.default)
def _cholesky_solve(b: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    lower = factor.mT if upper else factor
    half = torch.linalg.solve_triangular(lower, b, upper=False)
    return torch.linalg.solve_triangular(lower.mT, half, upper=True)


@_rule(torch.ops.aten.lu_unpack.default)
def _unpack(
    lu: Tensor, pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    if lu.shape[-1] != lu.shape[-2]:
        raise NotImplementedError("lu_unpack of matrices that are not square")
    one = torch.eye(lu.shape[-1], dtype=lu.dtype).expand(lu.shape)
    permutation = torch.ops.aten.linalg_lu_solve(one.contiguous(), pivots, one).mT
    return permutation, lu.tril(-1) + one, lu.triu()


@_rule(torch.ops.aten.linalg_pinv.atol_rtol_tensor)
def _pseudo_inverse(
    a: Tensor, *, atol: Tensor | None = None, rtol: Tensor | None = None, hermitian: bool = False
) -> Tensor:
    u, s, vh = torch.ops.aten._linalg_svd(a)
    if rtol is None:
        relative = torch.finfo(a.dtype).eps * max(a.shape[-2:]) if atol is None else 0.0
        rtol = torch.full((), relative, dtype=a.dtype)
    cutoff = s.amax(-1, keepdim=True) * rtol.unsqueeze(-1)
    if atol is not None:
        cutoff = torch.maximum(atol.unsqueeze(-1), cutoff)
    inverse = torch.where(s > cutoff, s.reciprocal(), torch.zeros_like(s))
    return vh.mT @ (inverse.unsqueeze(-1) * u.mT)


@_rule(torch.ops.aten._trilinear.default)
def _trilinear(
    x: Tensor,
    y: Tensor,
    z: Tensor,
    expand_x: Sequence[int],
    expand_y: Sequence[int],
    expand_z: Sequence[int],
    sum_dims: Sequence[int],
    unroll_dim: int = 1,
) -> Tensor:
    for d in expand_x:
        x = x.unsqueeze(d)
    for d in expand_y:
        y = y.unsqueeze(d)
    for d in expand_z:
        z = z.unsqueeze(d)
    product = x * y * z
    return product.sum(list(sum_dims)) if sum_dims else product


@_rule(torch.ops.aten._cdist_forward.default)
def _distances(x: Tensor, y: Tensor, p: float, mode: int | None = None) -> Tensor:
    gaps = (x.unsqueeze(-2) - y.unsqueeze(-3)).abs()
    if p == 0:
        return (gaps != 0).to(x.dtype).sum(-1)
    if p == float("inf"):
        return gaps.amax(-1)
    if p == 2:
        return (gaps * gaps).sum(-1).sqrt()
    return gaps.sum(-1) if p == 1 else (gaps**p).sum(-1) ** (1 / p)


@_rule(torch.ops.aten._cdist_backward.default)
def _distances_backward(v: Tensor, x: Tensor, y: Tensor, p: float, distances: Tensor) -> Tensor:
    gaps = x.unsqueeze(-2) - y.unsqueeze(-3)
    v, d = v.unsqueeze(-1), distances.unsqueeze(-1)
    if p == 0:
        return torch.zeros_like(x)
    if p == 1:
        terms = v * gaps.sign()
    elif p == 2:
        terms = torch.where(d == 0, torch.zeros_like(d), v / d) * gaps
    elif p == float("inf"):
        terms = v * gaps.sign() * (gaps.abs() == d)
    else:
        size = gaps.abs()
        terms = v * gaps.sign() * (size / torch.where(d == 0, torch.ones_like(d), d)) ** (p - 1)
    return terms.sum(-2)


@_rule(torch.ops.aten._weight_norm_interface_backward.default)
def _weight_norm_backward(
    gradient: Tensor, v: Tensor, g: Tensor, norms: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    others = [d for d in range(v.dim()) if d != dim % v.dim()]
    gradient_g = (gradient * v).sum(others, keepdim=True) / norms
    return g / norms * (gradient - v * (gradient_g / norms)), gradient_g


@_rule(torch.ops.aten._efficientzerotensor.default)
def _zeros(size: Sequence[int], *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return torch.zeros(size, dtype=dtype)


@_rule(torch.ops.aten._new_zeros_with_same_feature_meta.default)
def _zeros_like_features(x: Tensor, other: Tensor, *, self_num_batch_dims: int = 0) -> Tensor:
    return x.new_zeros([*x.shape[:self_num_batch_dims], *other.shape])
