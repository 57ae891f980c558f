"""Convolutions and max pooling, through the routines of ``julia/src/convolution.jl``."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from .. import layout
from ..layout import View
from ..program import Program
from .reductions import sum_
from .table import elementwise, empty, in_memory, operation


class _Geometry:
    """What the Julia routines need to know, of a convolution or of the one that it transposes."""

    def __init__(
        self,
        image: Sequence[int],
        weight: Sequence[int],
        result: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int = 1,
    ) -> None:
        rank = len(image) - 2
        if not 1 <= rank <= 3:
            raise TypeError(f"a convolution over {rank} dimensions")
        ones, zeros = [1] * (3 - rank), [0] * (3 - rank)
        kernel = [*ones, *weight[2:]]
        places = [*ones, *result[2:]]
        self.integers = (
            *(image[0], groups, weight[0] // groups, weight[1]),
            *(*ones, *image[2:], *kernel, *places),
            *(*ones, *_each(stride, rank), *zeros, *_each(padding, rank)),
            *(*ones, *_each(dilation, rank)),
        )
        self.patches = max(1, weight[1] * prod(kernel) * prod(places))

    def scratch(self, b: Program) -> View:
        return empty(b, (self.patches,))


def _each(values: Sequence[int], rank: int) -> list[int]:
    """One value a dimension; torch lets one stand for all."""
    return list(values) * (rank if len(values) == 1 else 1)


@operation("aten.convolution")
def convolution(
    b: Program,
    x: View,
    weight: View,
    bias: View | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> View:
    rank = len(x.shape) - 2
    steps = zip(
        *(x.shape[2:], weight.shape[2:]),
        *(_each(v, rank) for v in (stride, padding, dilation, output_padding)),
        strict=True,
    )
    x, weight = in_memory(b, x), in_memory(b, weight)
    if transposed:
        lengths = [(n - 1) * s - 2 * p + d * (k - 1) + 1 + o for n, k, s, p, d, o in steps]
        shape = (x.shape[0], weight.shape[1] * groups, *lengths)
        g = _Geometry(shape, weight.shape, x.shape, stride, padding, dilation, groups)
        routine = "convolve_transposed!"
    else:
        lengths = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, _ in steps]
        shape = (x.shape[0], weight.shape[0], *lengths)
        g = _Geometry(x.shape, weight.shape, shape, stride, padding, dilation, groups)
        routine = "convolve!"
    out = b.call(routine, [x, weight, g.scratch(b)], g.integers, shape)
    if bias is None:
        return out
    for _ in lengths:
        bias = layout.unsqueeze(bias, len(bias.shape))
    return elementwise(b, "{0} + {1}", [out, bias])


@operation("aten.convolution_backward")
def convolution_backward(
    b: Program,
    v: View,
    x: View,
    weight: View,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[View | None, View | None, View | None]:
    v, x, weight = in_memory(b, v), in_memory(b, x), in_memory(b, weight)
    # Of a transposed convolution, the result is the image of the convolution that it transposes.
    image, result = (v, x) if transposed else (x, v)
    g = _Geometry(image.shape, weight.shape, result.shape, stride, padding, dilation, groups)
    gradients: list[View | None] = [None, None, None]
    if output_mask[0]:
        routine = "convolve!" if transposed else "convolve_transposed!"
        gradients[0] = b.call(routine, [v, weight, g.scratch(b)], g.integers, x.shape)
    if output_mask[1]:
        args = [result, image, g.scratch(b)]
        gradients[1] = b.call("convolve_weights!", args, g.integers, weight.shape)
    if output_mask[2]:
        gradients[2] = sum_(b, v, [d for d in range(len(v.shape)) if d != 1])
    return gradients[0], gradients[1], gradients[2]


def _windows(
    x: View,
    result: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> _Geometry:
    """Pooling sees every channel as an image of its own."""
    rank = len(kernel)
    batch = prod(x.shape[:-rank])
    image, places = (batch, 1, *x.shape[-rank:]), (batch, 1, *result)
    return _Geometry(image, (1, 1, *kernel), places, stride, padding, dilation)


@operation("aten.max_pool2d_with_indices", "aten.max_pool3d_with_indices")
def max_pool(
    b: Program,
    x: View,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> tuple[View, View]:
    """The largest values, and their places as numbers of the model's type."""
    rank = 2 if len(kernel) == 2 else 3
    kernel = _each(kernel, rank)
    stride = _each(stride, rank) if stride else kernel
    padding, dilation = _each(padding, rank), _each(dilation, rank)
    sizes = zip(x.shape[-rank:], kernel, stride, padding, dilation, strict=True)
    result = [_pooled(*along, ceil_mode) for along in sizes]
    g = _windows(x, result, kernel, stride, padding, dilation)
    shape = (*x.shape[:-rank], *result)
    both = b.call("max_pool!", [in_memory(b, x)], g.integers, (2, *shape))
    return layout.select(both, 0, 0), layout.select(both, 0, 1)


def _pooled(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    span = n + 2 * p - d * (k - 1) - 1
    count = -(-span // s) + 1 if ceil_mode else span // s + 1
    # The last window must start inside the image or the padding before it.
    return count - 1 if ceil_mode and (count - 1) * s >= n + p else count


@operation("aten.max_pool2d_with_indices_backward", "aten.max_pool3d_with_indices_backward")
def max_pool_backward(
    b: Program,
    v: View,
    x: View,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    places: View,
) -> View:
    rank = 2 if len(kernel) == 2 else 3
    integers = (prod(x.shape[:-rank]), prod(x.shape[-rank:]), prod(v.shape[-rank:]))
    args = [in_memory(b, v), in_memory(b, places)]
    return b.call("max_pool_backward!", args, integers, x.shape)
