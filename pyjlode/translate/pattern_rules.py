"""What each element of a compiled routine's result can depend on, for a Jacobian's pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .known import Known, union
from .layout import View
from .program import BOUNDED, Call, Pointwise

if TYPE_CHECKING:
    from .sparsity import Bits, Finder

    Places = NDArray[np.int64]
    Rule = Callable[[Finder, Call], Bits]


def everything(finder: Finder, op: Call) -> Bits:
    """Of a routine that is not known here, each element may depend on all arguments."""
    union = np.zeros((1, finder.width), dtype=np.uint8)
    for arg in op.args:
        union |= np.bitwise_or.reduce(finder.bits(arg), axis=0, keepdims=True)
    return np.repeat(union, prod(op.out.shape), axis=0)


def _matmul(finder: Finder, op: Call) -> Bits:
    x, y = op.args
    if not finder.depends(y):
        found = _sparse_product(finder, y, x, turned=True)
    else:
        found = None if finder.depends(x) else _sparse_product(finder, x, y, turned=False)
    if found is not None:
        return found
    left, right = (finder.bits(a).reshape(-1, *a.shape[-2:], finder.width) for a in op.args)
    rows = np.bitwise_or.reduce(left, axis=2)[:, :, None, :]
    columns = np.bitwise_or.reduce(right, axis=1)[:, None, :, :]
    return (rows | columns).reshape(-1, finder.width)


def _sparse_product(finder: Finder, constant: View, other: View, turned: bool) -> Bits | None:
    """A product with a constant matrix, of which the zeros count; None where they are unknown.

    ``turned`` says that the constant is the second factor: then all is transposed.
    """
    known = finder.known(constant)
    if known is None:
        return None
    # What may change is checked at each solve, which a few zeros are not worth.
    if known.origins and 2 * np.count_nonzero(known.values) > known.values.size:
        return None
    finder.origins |= known.origins
    matrices = known.values.reshape(-1, *constant.shape[-2:]) != 0
    bits = finder.bits(other).reshape(-1, *other.shape[-2:], finder.width)
    if turned:
        matrices, bits = matrices.swapaxes(1, 2), bits.swapaxes(1, 2)
    results = []
    for b in range(max(len(matrices), len(bits))):
        matrix, seen = matrices[b % len(matrices)], bits[b % len(bits)]
        result = np.zeros((len(matrix), *seen.shape[1:]), dtype=np.uint8)
        for row, nonzero in zip(result, matrix, strict=True):
            np.bitwise_or.reduce(seen[nonzero], axis=0, out=row)
        results.append(result)
    found = np.stack(results)
    return (found.swapaxes(1, 2) if turned else found).reshape(-1, finder.width)


class _Convolution:
    """What sees what in a convolution, from the integers that its Julia routine gets."""

    def __init__(self, finder: Finder, op: Call) -> None:
        self.batch, self.groups, self.results, self.channels, *rest = op.integers
        grid = np.reshape(rest, (6, 3)).tolist()
        self.lengths, self.kernel, self.places, self.stride, padding, self.dilation = grid
        self.argument = finder.bits(op.args[0])
        self.width = finder.width
        # A kernel that depends on the state itself is seen by all.
        self.weight = np.bitwise_or.reduce(finder.bits(op.args[1]), axis=0)
        self.padded = np.zeros(
            (
                *(self.batch, self.groups),
                *(n + 2 * p for n, p in zip(self.lengths, padding, strict=True)),
                self.width,
            ),
            dtype=np.uint8,
        )
        inside = (slice(p, p + n) for n, p in zip(self.lengths, padding, strict=True))
        self.inside = (slice(None), slice(None), *inside)

    def sum_channels(self, channels: int, lengths: list[int]) -> Bits:
        shape = (self.batch, self.groups, channels, *lengths, self.width)
        return np.bitwise_or.reduce(self.argument.reshape(shape), axis=2)

    def under_kernel(self) -> Iterator[tuple[slice, ...]]:
        """For each element of the kernel, where it lies for all places."""
        for offset in np.ndindex(*self.kernel):
            steps = zip(offset, self.dilation, self.stride, self.places, strict=True)
            yield (
                slice(None),
                slice(None),
                *(slice(k * d, k * d + s * (n - 1) + 1, s) for k, d, s, n in steps),
            )

    def each_channel(self, bits: Bits, channels: int) -> Bits:
        full = np.repeat(bits[:, :, None], channels, axis=2)
        return (full | self.weight).reshape(-1, self.width)


def _convolve(finder: Finder, op: Call) -> Bits:
    c = _Convolution(finder, op)
    c.padded[c.inside] = c.sum_channels(c.channels, c.lengths)
    seen = np.zeros((c.batch, c.groups, *c.places, c.width), dtype=np.uint8)
    for under in c.under_kernel():
        seen |= c.padded[under]
    return c.each_channel(seen, c.results)


def _convolve_transposed(finder: Finder, op: Call) -> Bits:
    c = _Convolution(finder, op)
    results = c.sum_channels(c.results, c.places)
    for under in c.under_kernel():
        c.padded[under] |= results
    return c.each_channel(c.padded[c.inside], c.channels)


def _at_places(rule: Callable[[Finder, Call, Places], Bits]) -> Rule:
    """The rule of a routine that has an index, of the rows of its second integer."""

    def found(finder: Finder, op: Call) -> Bits:
        index, rows = op.args[1], op.integers[1]
        known = finder.known(index)
        # Unknown, or outside, where a read gives NaN.
        if known is None or not ((known.values >= 0) & (known.values < rows)).all():
            return everything(finder, op)
        finder.origins |= known.origins
        return rule(finder, op, known.values.astype(np.int64))

    return found


def _take_rows(finder: Finder, op: Call, places: Places) -> Bits:
    outer, rows, _, inner = op.integers
    bits = finder.bits(op.args[0]).reshape(outer, rows, inner, finder.width)
    return bits[:, places].reshape(-1, finder.width)


def _put_rows(finder: Finder, op: Call, places: Places) -> Bits:
    outer, rows, count, inner, _ = op.integers
    bits = finder.bits(op.args[0]).reshape(outer, count, inner, finder.width)
    result = finder.nothing(outer * rows * inner).reshape(outer, rows, inner, finder.width)
    for k, place in enumerate(places):
        result[:, place] |= bits[:, k]
    return result.reshape(-1, finder.width)


def _gather(finder: Finder, op: Call, places: Places) -> Bits:
    outer, rows, count, inner = op.integers
    bits = finder.bits(op.args[0]).reshape(outer, rows, inner, finder.width)
    a, _, i = np.ogrid[:outer, :count, :inner]
    return bits[a, places.reshape(outer, count, inner), i].reshape(-1, finder.width)


def _scatter(finder: Finder, op: Call, places: Places) -> Bits:
    outer, rows, count, inner, _ = op.integers
    result = finder.nothing(outer * rows * inner).reshape(outer, rows, inner, finder.width)
    bits = finder.bits(op.args[0]).reshape(outer, count, inner, finder.width)
    each = places.reshape(outer, count, inner)
    a, i = np.ogrid[:outer, :inner]
    for k in range(count):
        result[a, each[:, k], i] |= bits[:, k]
    return result.reshape(-1, finder.width)


# What the compiled routines of julia/src make of their arguments.
CALLS: dict[str, Rule] = {
    "take_rows!": _at_places(_take_rows),
    "put_rows!": _at_places(_put_rows),
    "gather!": _at_places(_gather),
    "scatter!": _at_places(_scatter),
    "matmul!": _matmul,
    "convolve!": _convolve,
    "convolve_transposed!": _convolve_transposed,
}


_COPIES = {"{0}", "T({0})"}
_ROW_MAJOR = "{0} * {1} + {2}"


def computed(op: Pointwise, known: Callable[[View], Known | None]) -> Known | None:
    """The values of the index arithmetic that operations make; None for anything else."""
    if op.template not in (*_COPIES, BOUNDED, _ROW_MAJOR):
        return None
    found = [_literal(x) if x.buffer is None else known(x) for x in op.args]
    held = [x for x in found if x is not None]
    if len(held) < len(found):
        return None
    first, *rest = (x.values for x in held)
    if op.template == _ROW_MAJOR:
        first = first * rest[0] + rest[1]
    elif op.template == BOUNDED:
        first = np.where(first < 0, first + rest[0], first)
    return Known(first, union(held))


def _literal(x: View) -> Known | None:
    found = re.fullmatch(r"T\((.+)\)", x.literal)
    return Known(np.full(prod(x.shape), float(found.group(1)))) if found else None
