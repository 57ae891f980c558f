"""Which elements of the Jacobian can differ from zero, and how few products show them all.

The pattern follows from the program alone: for every element of every buffer, the set of elements
of the state that it can depend on, as a row of bits. It holds at every state and time, where a
pattern found by trying values would miss what is zero at those values only.

References
----------
Curtis, Powell and Reid, On the estimation of sparse Jacobian matrices, 1974.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from .layout import Buffer, View
from .program import BOUNDED, Call, Operation, Pointwise, Program, Reduce
from .schedule import live

Bits = NDArray[np.uint8]
Places = NDArray[np.int64]

# Bits of one buffer; above it the pattern would cost more than it saves.
_LARGEST = 1 << 31


@dataclass(frozen=True)
class Pattern:
    """A sparsity pattern in compressed columns, its diagonal included, and a colouring of its rows.

    Attributes
    ----------
    colptr, rowval : numpy.ndarray of int64
        Column ``j`` has the rows ``rowval[colptr[j]:colptr[j + 1]]``, counted from zero.
    colors : numpy.ndarray of int64
        For each row, the number of its colour, from zero. Rows of one colour share no column, so
        one vector-Jacobian product shows all of them.
    """

    colptr: NDArray[np.int64]
    rowval: NDArray[np.int64]
    colors: NDArray[np.int64]


def jacobian_pattern(
    program: Program, value: View, states: int, places: Mapping[Buffer, Places]
) -> Pattern | None:
    """The pattern of ``d value / d u``, or None where it is too large to be found.

    Parameters
    ----------
    program : Program
    value : View
        The right-hand side's result.
    states : int
        The length of the state ``u``.
    places : mapping
        Of constants that are indices and never change, the values.
    """
    finder = _Finder(program, states, places)
    operations = live(program, [value])
    sizes = [op.out.buffer.size for op in operations if op.out.buffer is not None]
    if max([states, *sizes]) * states > _LARGEST:
        return None
    for op in operations:
        finder.follow(op)
    rows = np.unpackbits(finder.bits(value), axis=1, count=states).astype(bool)
    np.fill_diagonal(rows, True)
    columns, rowval = np.nonzero(rows.T)
    colptr = np.searchsorted(columns, np.arange(states + 1))
    return Pattern(colptr.astype(np.int64), rowval.astype(np.int64), _color(rows))


def _color(rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Greedily: each row gets the first colour none of whose rows shares a column with it."""
    packed = np.packbits(rows, axis=1)
    taken = np.zeros((0, packed.shape[1]), dtype=np.uint8)
    colors = np.zeros(len(rows), dtype=np.int64)
    for i, row in enumerate(packed):
        free = np.flatnonzero(~np.any(taken & row, axis=1))
        if not len(free):
            taken = np.vstack([taken, np.zeros_like(row)])
        color = free[0] if len(free) else len(taken) - 1
        taken[color] |= row
        colors[i] = color
    return colors


class _Finder:
    def __init__(self, program: Program, states: int, places: Mapping[Buffer, Places]) -> None:
        self.width = (states + 7) // 8
        self.places = dict(places)
        self.known: dict[Buffer, Bits] = {}
        for buffer, name in program.inputs.items():
            if name == "u":
                self.known[buffer] = np.packbits(np.eye(states, dtype=bool), axis=1)

    def bits(self, view: View) -> Bits:
        """For each element of a view, in row-major order, what it depends on."""
        known = self.known.get(view.buffer) if view.buffer is not None else None
        if known is None or view.kind == "b":
            # Inputs but the state, literals, and truth values, which have no derivative.
            return np.zeros((prod(view.shape), self.width), dtype=np.uint8)
        return known[_positions(view)]

    def follow(self, op: Operation) -> None:
        target = op.out.buffer
        assert target is not None
        result = self._result(op)
        if target not in self.known:
            self.known[target] = np.zeros((target.size, self.width), dtype=np.uint8)
        if isinstance(op, Call) and op.in_place:  # the elements that it leaves alone
            result = result | self.bits(op.out)
        self.known[target][_positions(op.out)] = result
        if isinstance(op, Pointwise) and op.template == BOUNDED:
            places = self.known_places(op.args[0])
            if places is not None and len(places) == target.size:
                self.places[target] = places

    def known_places(self, index: View) -> Places | None:
        """The values of an index, if they are known."""
        return None if index.buffer is None else self.places.get(index.buffer)

    def _result(self, op: Operation) -> Bits:
        if isinstance(op, Pointwise):
            result = np.zeros((prod(op.out.shape), self.width), dtype=np.uint8)
            for arg in op.args:
                result |= self.bits(arg)
            return result
        if isinstance(op, Reduce):
            bits = self.bits(op.arg).reshape(*op.arg.shape, self.width)
            return np.bitwise_or.reduce(bits, axis=op.dims).reshape(-1, self.width)
        return CALLS.get(op.function, _everything)(self, op)


def _positions(view: View) -> NDArray[np.int64]:
    positions = np.full((), view.offset, dtype=np.int64)
    for n, s in zip(view.shape, view.strides, strict=True):
        positions = positions[..., None] + s * np.arange(n)
    return positions.reshape(-1)


def _everything(finder: _Finder, op: Call) -> Bits:
    """Of a routine that is not known here, each element may depend on all arguments."""
    union = np.zeros((1, finder.width), dtype=np.uint8)
    for arg in op.args:
        union |= np.bitwise_or.reduce(finder.bits(arg), axis=0, keepdims=True)
    return np.repeat(union, prod(op.out.shape), axis=0)


def _matmul(finder: _Finder, op: Call) -> Bits:
    x, y = (finder.bits(a).reshape(-1, *a.shape[-2:], finder.width) for a in op.args)
    rows = np.bitwise_or.reduce(x, axis=2)[:, :, None, :]
    columns = np.bitwise_or.reduce(y, axis=1)[:, None, :, :]
    return (rows | columns).reshape(-1, finder.width)


class _Convolution:
    """What sees what in a convolution, from the integers that its Julia routine gets."""

    def __init__(self, finder: _Finder, op: Call) -> None:
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


def _convolve(finder: _Finder, op: Call) -> Bits:
    c = _Convolution(finder, op)
    c.padded[c.inside] = c.sum_channels(c.channels, c.lengths)
    seen = np.zeros((c.batch, c.groups, *c.places, c.width), dtype=np.uint8)
    for under in c.under_kernel():
        seen |= c.padded[under]
    return c.each_channel(seen, c.results)


def _convolve_transposed(finder: _Finder, op: Call) -> Bits:
    c = _Convolution(finder, op)
    results = c.sum_channels(c.results, c.places)
    for under in c.under_kernel():
        c.padded[under] |= results
    return c.each_channel(c.padded[c.inside], c.channels)


def _take_rows(finder: _Finder, op: Call) -> Bits:
    source, index = op.args
    places = finder.known_places(index)
    if places is None:
        return _everything(finder, op)
    outer, rows, _, inner = op.integers
    bits = finder.bits(source).reshape(outer, rows, inner, finder.width)
    return bits[:, places].reshape(-1, finder.width)


def _put_rows(finder: _Finder, op: Call) -> Bits:
    values, index = op.args
    places = finder.known_places(index)
    if places is None:
        return _everything(finder, op)
    outer, rows, count, inner, _ = op.integers
    bits = finder.bits(values).reshape(outer, count, inner, finder.width)
    result = np.zeros((outer, rows, inner, finder.width), dtype=np.uint8)
    for k, place in enumerate(places):
        result[:, place] |= bits[:, k]
    return result.reshape(-1, finder.width)


# What the compiled routines of julia/src make of their arguments.
CALLS: dict[str, Callable[[_Finder, Call], Bits]] = {
    "take_rows!": _take_rows,
    "put_rows!": _put_rows,
    "matmul!": _matmul,
    "convolve!": _convolve,
    "convolve_transposed!": _convolve_transposed,
}
