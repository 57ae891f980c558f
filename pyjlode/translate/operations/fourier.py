"""Discrete Fourier transforms, as products with matrices of cosines and sines.

Lengths above ``_DIRECT`` that have a divisor are split by it, as Cooley and Tukey did.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, pi, prod, sqrt

import torch
from torch import Tensor

from ...errors import TraceError
from .. import layout
from ..layout import View
from ..program import Program
from .complex import ComplexView, complex_operation, mul, paired, parts
from .memory import cat
from .products import along
from .table import elementwise, in_memory

_DIRECT = 64
_LONGEST_PRIME = 1024


def _angles(rows: Tensor, columns: Tensor, n: int) -> Tensor:
    """``2 π r c / n``, reduced first so that the sines and cosines are right to the last digit."""
    return (rows.unsqueeze(1) * columns % n).to(torch.float64) * (2 * pi / n)


def _cosines_and_sines(rows: Tensor, columns: Tensor, n: int) -> tuple[Tensor, Tensor]:
    angles = _angles(rows, columns, n)
    quarters = 4 * (rows.unsqueeze(1) * columns % n)
    cosines = torch.where((quarters == n) | (quarters == 3 * n), 0.0, angles.cos())
    sines = torch.where((quarters == 0) | (quarters == 2 * n), 0.0, angles.sin())
    return cosines, sines


def _divisor(n: int) -> int:
    """The largest divisor up to the square root."""
    return next(d for d in range(isqrt(n), 0, -1) if n % d == 0)


def _transform(b: Program, real: View, imag: View | None, dim: int, sign: int) -> tuple[View, View]:
    """``Σ x[j] exp(sign 2πi jk / n)`` along a dimension."""
    n = real.shape[dim]
    d = _divisor(n)
    if n > _DIRECT and d > 1:
        return _split(b, real, imag, dim, sign, d)
    if n > _LONGEST_PRIME:
        raise TraceError(f"the length {n} of a Fourier transform has no small divisors")
    k = torch.arange(n)
    cosines, sines = _cosines_and_sines(k, k, n)
    return _rotate(b, real, imag, dim, cosines, sign * sines)


def _rotate(
    b: Program, real: View, imag: View | None, dim: int, cosines: Tensor, sines: Tensor
) -> tuple[View, View]:
    """The product with the complex matrix ``cosines + i sines``."""
    both = torch.cat([cosines, sines])
    m = len(cosines)

    def product(x: View) -> tuple[View, View]:
        stacked = along(b, x, dim, both)
        return layout.slice_(stacked, dim, 0, m, 1), layout.slice_(stacked, dim, m, 2 * m, 1)

    c_real, s_real = product(real)
    if imag is None:
        return c_real, s_real
    c_imag, s_imag = product(imag)
    return (
        elementwise(b, "{0} - {1}", [c_real, s_imag]),
        elementwise(b, "{0} + {1}", [s_real, c_imag]),
    )


def _split(
    b: Program, real: View, imag: View | None, dim: int, sign: int, p: int
) -> tuple[View, View]:
    """Transforms of length ``p``, a rotation, and transforms of length ``q = n / p``."""
    n = real.shape[dim]
    q = n // p
    shape = real.shape
    before, after = shape[:dim], shape[dim + 1 :]

    def reshaped(x: View, new: Sequence[int]) -> View:
        result = layout.reshape(in_memory(b, x), new)
        assert result is not None
        return result

    # x[q i + j] becomes [i, j]; the result is at k + p l.
    grid = (*before, p, q, *after)
    imag = None if imag is None else reshaped(imag, grid)
    real, imag = _transform(b, reshaped(real, grid), imag, dim, sign)
    cosines, sines = _cosines_and_sines(torch.arange(p), torch.arange(q), n)
    tail = (1,) * len(after)
    twiddle = ComplexView(
        reshaped(b.constant(cosines), (p, q, *tail)),
        reshaped(b.constant(sign * sines), (p, q, *tail)),
    )
    rotated = mul(b, ComplexView(real, imag), twiddle)
    real, imag = _transform(b, rotated.real, rotated.imag, dim + 1, sign)
    order = list(range(len(grid)))
    order[dim], order[dim + 1] = dim + 1, dim
    real, imag = (reshaped(layout.permute(x, order), shape) for x in (real, imag))
    return real, imag


def _normalised(b: Program, z: ComplexView, count: int, normalization: int) -> ComplexView:
    factor = {0: 1.0, 1: 1 / sqrt(count), 2: 1 / count}[normalization]
    return z if factor == 1.0 else mul(b, z, factor)


def _axes(rank: int, dims: Sequence[int]) -> list[int]:
    return [d % rank for d in dims]


@complex_operation("aten._fft_c2c")
def c2c(
    b: Program, z: ComplexView, dims: Sequence[int], normalization: int, forward: bool
) -> ComplexView:
    real, imag = parts(z)
    axes = _axes(len(z.shape), dims)
    for d in axes:
        real, imag = _transform(b, real, imag, d, -1 if forward else 1)
    return _normalised(b, ComplexView(real, imag), prod(z.shape[d] for d in axes), normalization)


@complex_operation("aten._fft_r2c")
def r2c(
    b: Program, x: View, dims: Sequence[int], normalization: int, onesided: bool
) -> ComplexView:
    *others, last = _axes(len(x.shape), dims)
    n = x.shape[last]
    kept = n // 2 + 1 if onesided else n
    if n <= _DIRECT:
        cosines, sines = _cosines_and_sines(torch.arange(kept), torch.arange(n), n)
        real, imag = _rotate(b, x, None, last, cosines, -sines)
    else:
        real, imag = _transform(b, x, None, last, -1)
        real, imag = (layout.slice_(v, last, 0, kept, 1) for v in (real, imag))
    for d in others:
        real, imag = _transform(b, real, imag, d, -1)
    count = prod(x.shape[d] for d in (*others, last))
    return _normalised(b, ComplexView(real, imag), count, normalization)


@complex_operation("aten._fft_c2r")
def c2r(b: Program, z: ComplexView, dims: Sequence[int], normalization: int, n: int) -> View:
    *others, last = _axes(len(z.shape), dims)
    real, imag = parts(paired(b, *parts(z)))
    for d in others:
        real, imag = _transform(b, real, imag, d, 1)
    real, imag = (layout.slice_(v, last, 0, n // 2 + 1, 1) for v in (real, imag))
    if n <= _DIRECT:
        out = _from_half(b, real, imag, last, n)
    else:
        real, imag = _whole_spectrum(b, real, imag, last, n)
        out = _transform(b, real, imag, last, 1)[0]
    count = n * prod(z.shape[d] for d in others)
    return _normalised(b, ComplexView(out, out), count, normalization).real


def _from_half(b: Program, real: View, imag: View, dim: int, n: int) -> View:
    k = torch.arange(n // 2 + 1)
    cosines, sines = _cosines_and_sines(torch.arange(n), k, n)
    # All but the first frequency and, of an even length, the last stand for two.
    weights = torch.where((k == 0) | (2 * k == n), 1.0, 2.0)
    from_real = along(b, real, dim, cosines * weights)
    return elementwise(b, "{0} - {1}", [from_real, along(b, imag, dim, sines * weights)])


def _whole_spectrum(b: Program, real: View, imag: View, dim: int, n: int) -> tuple[View, View]:
    """The spectrum of a real signal from its first half."""
    k = torch.arange(n // 2 + 1)
    shape = [1] * len(real.shape)
    shape[dim] = len(k)
    # The imaginary parts of these frequencies mean nothing for a real signal.
    mask = b.constant(torch.where((k == 0) | (2 * k == n), 0.0, 1.0).reshape(shape))
    imag = elementwise(b, "{0} * {1}", [imag, mask])
    mirrored_real, mirrored_imag = (
        layout.reverse(layout.slice_(v, dim, 1, (n + 1) // 2, 1), dim) for v in (real, imag)
    )
    mirrored_imag = elementwise(b, "-{0}", [mirrored_imag])
    return cat(b, [real, mirrored_real], dim), cat(b, [imag, mirrored_imag], dim)
