"""Average pooling and interpolation: along each dimension, a product with a constant matrix.

Torch itself makes the matrices, from the unit vectors, so that every option means what it means
in torch. The backward operation is the product with the transposed matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import View
from ..program import Program
from .products import along
from .table import elementwise, operation


def _resample(b: Program, x: View, matrices: Sequence[Tensor]) -> View:
    """Multiply the last dimensions, one after the other, each with its ``(out, in)`` matrix."""
    for d, matrix in enumerate(matrices, len(x.shape) - len(matrices)):
        if not torch.equal(matrix, torch.eye(x.shape[d], dtype=matrix.dtype)):
            x = along(b, x, d, matrix)
    return x


def _matrix(n: int, along_line: Callable[[Tensor], Tensor]) -> Tensor:
    """The matrix of a linear map of lines of length ``n``, given on a ``(lines, 1, n)`` batch."""
    unit = torch.eye(n, dtype=torch.float64).unsqueeze(1)
    return along_line(unit).squeeze(1).T.contiguous()


def _each(values: Any, rank: int) -> list[Any]:
    values = list(values)
    return values * rank if len(values) == 1 else values


def _average(
    lengths: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    include_pad: bool,
) -> list[Tensor]:
    rank = len(lengths)
    sizes = (_each(kernel, rank), _each(stride or kernel, rank), _each(padding, rank))
    return [
        _matrix(n, partial(_average_line, k, s, p, ceil_mode, include_pad))
        for n, k, s, p in zip(lengths, *sizes, strict=True)
    ]


def _average_line(k: int, s: int, p: int, ceil_mode: bool, include_pad: bool, x: Tensor) -> Tensor:
    return F.avg_pool1d(x, k, s, p, ceil_mode, include_pad)


def _enter_average_pooling(rank: int) -> None:
    def forward(
        b: Program,
        x: View,
        kernel: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0,),
        ceil_mode: bool = False,
        include_pad: bool = True,
        divisor: int | None = None,
    ) -> View:
        matrices = _average(x.shape[-rank:], kernel, stride, padding, ceil_mode, include_pad)
        return _scaled(b, _resample(b, x, matrices), kernel, divisor, include_pad, ceil_mode)

    def backward(
        b: Program,
        v: View,
        x: View,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        ceil_mode: bool,
        include_pad: bool,
        divisor: int | None,
    ) -> View:
        matrices = _average(x.shape[-rank:], kernel, stride, padding, ceil_mode, include_pad)
        v = _scaled(b, v, kernel, divisor, include_pad, ceil_mode)
        return _resample(b, v, [m.T.contiguous() for m in matrices])

    def _scaled(
        b: Program,
        x: View,
        kernel: Sequence[int],
        divisor: int | None,
        include_pad: bool,
        ceil_mode: bool,
    ) -> View:
        if divisor is None:
            return x
        if ceil_mode or not include_pad:
            raise TypeError("divisor_override with ceil_mode or without the padding")
        return elementwise(b, "{0} * {1}", [x, prod(_each(kernel, rank)) / divisor])

    operation(f"aten.avg_pool{rank}d")(forward)
    operation(f"aten.avg_pool{rank}d_backward")(backward)


def _enter_adaptive_pooling(name: str, rank: int) -> None:
    def matrices(lengths: Sequence[int], sizes: Sequence[int]) -> list[Tensor]:
        return [
            _matrix(n, partial(F.adaptive_avg_pool1d, output_size=m))
            for n, m in zip(lengths, sizes, strict=True)
        ]

    def forward(b: Program, x: View, sizes: Sequence[int]) -> View:
        return _resample(b, x, matrices(x.shape[-rank:], sizes))

    def backward(b: Program, v: View, x: View) -> View:
        forward_matrices = matrices(x.shape[-rank:], v.shape[-rank:])
        return _resample(b, v, [m.T.contiguous() for m in forward_matrices])

    operation(f"aten.{name}")(forward)
    operation(f"aten.{name}_backward")(backward)


def _enter_interpolation(name: str, mode: str, rank: int, corners: bool) -> None:
    def matrices(
        lengths: Sequence[int], sizes: Sequence[int], align: bool, scales: Sequence[float | None]
    ) -> list[Tensor]:
        one_dimensional = {"bilinear": "linear", "trilinear": "linear"}.get(mode, mode)
        return [
            _matrix(n, partial(_line, m, s, one_dimensional, align))
            for n, m, s in zip(lengths, sizes, scales, strict=True)
        ]

    def options(args: Sequence[Any]) -> tuple[bool, list[float | None]]:
        align = bool(args[0]) if corners else False
        scales = list(args[1:] if corners else args)
        return align, scales + [None] * (rank - len(scales))

    def forward(b: Program, x: View, sizes: Sequence[int], *args: Any) -> View:
        align, scales = options(args)
        return _resample(b, x, matrices(x.shape[-rank:], sizes, align, scales))

    def backward(
        b: Program, v: View, sizes: Sequence[int], shape: Sequence[int], *args: Any
    ) -> View:
        align, scales = options(args)
        forward_matrices = matrices(shape[-rank:], sizes, align, scales)
        return _resample(b, v, [m.T.contiguous() for m in forward_matrices])

    operation(f"aten.{name}")(forward)
    operation(f"aten.{name}_backward")(backward)


def _line(m: int, scale: float | None, mode: str, align: bool, x: Tensor) -> Tensor:
    """Interpolate lines; what torch has in two dimensions only is done on columns."""
    aten = torch.ops.aten
    if mode == "nearest":
        return aten.upsample_nearest1d.default(x, [m], scale)
    if mode == "nearest-exact":
        return aten._upsample_nearest_exact1d.default(x, [m], scale)
    if mode == "linear":
        return aten.upsample_linear1d.default(x, [m], align, scale)
    columns = aten.upsample_bicubic2d.default(x.unsqueeze(-1), [m, 1], align, scale, None)
    return columns.squeeze(-1)


for _rank in (1, 2, 3):
    _enter_interpolation(f"upsample_nearest{_rank}d", "nearest", _rank, corners=False)
    _enter_interpolation(f"_upsample_nearest_exact{_rank}d", "nearest-exact", _rank, corners=False)
for _name, _rank in (("linear1d", 1), ("bilinear2d", 2), ("trilinear3d", 3), ("bicubic2d", 2)):
    _enter_interpolation(f"upsample_{_name}", _name[:-2], _rank, corners=True)
for _rank in (2, 3):
    _enter_average_pooling(_rank)
    _enter_adaptive_pooling(f"_adaptive_avg_pool{_rank}d", _rank)
