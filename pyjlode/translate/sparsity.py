"""Which elements of the Jacobian can differ from zero, and how few products show them all.

The pattern follows from the program alone: for every element of every buffer, the set of elements
of the state that it can depend on, as a row of bits. It holds at every state and time, where a
pattern found by trying values would miss what is zero at those values only.

References
----------
Curtis, Powell and Reid, On the estimation of sparse Jacobian matrices, 1974.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from . import pattern_rules
from .known import Known
from .layout import Buffer, View
from .program import Call, Operation, Pointwise, Program, Reduce
from .schedule import live, sum_of_products

Bits = NDArray[np.uint8]

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
    origins : frozenset of int
        The ids of the tensors from outside that it follows from, as far as their values count.
    """

    colptr: NDArray[np.int64]
    rowval: NDArray[np.int64]
    colors: NDArray[np.int64]
    origins: frozenset[int] = frozenset()


def jacobian_pattern(program: Program, value: View, states: int) -> Pattern | None:
    """The pattern of ``d value / d u``, or None where it is too large to be found.

    Parameters
    ----------
    program : Program
    value : View
        The right-hand side's result.
    states : int
        The length of the state ``u``.
    """
    finder = Finder(program, states)
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
    origins = frozenset(finder.origins)
    return Pattern(colptr.astype(np.int64), rowval.astype(np.int64), _color(rows), origins)


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


class Finder:
    """Follows a program's operations, with what each element so far depends on.

    Attributes
    ----------
    width : int
        Bytes in a row of bits.
    origins : set of int
        The ids of the tensors from outside whose values were used.
    """

    def __init__(self, program: Program, states: int) -> None:
        self.width = (states + 7) // 8
        self.origins: set[int] = set()
        self._given = program.known
        self._copies: dict[Buffer, Known] = {}
        self._bits: dict[Buffer, Bits] = {}
        for buffer, name in program.inputs.items():
            if name == "u":
                self._bits[buffer] = np.packbits(np.eye(states, dtype=bool), axis=1)

    def bits(self, view: View) -> Bits:
        """For each element of a view, in row-major order, what it depends on."""
        known = self._bits.get(view.buffer) if view.buffer is not None else None
        if known is None or view.kind == "b":
            # Inputs but the state, literals, and truth values, which have no derivative.
            return self.nothing(prod(view.shape))
        return known[_positions(view)]

    def nothing(self, count: int) -> Bits:
        """The bits of so many elements that depend on nothing."""
        return np.zeros((count, self.width), dtype=np.uint8)

    def depends(self, view: View) -> bool:
        """Whether a view depends on the state at all."""
        held = view.buffer is not None and view.kind != "b" and view.buffer in self._bits
        return held and bool(self.bits(view).any())

    def known(self, view: View) -> Known | None:
        """A view's values, flat, if they are known."""
        if view.buffer is None:
            return None
        held = self._given.get(view.buffer) or self._copies.get(view.buffer)
        return None if held is None else held[_positions(view)]

    def follow(self, op: Operation) -> None:
        target = op.out.buffer
        assert target is not None
        if op.in_place:
            self._copies.pop(target, None)
        elif isinstance(op, Pointwise):
            found = pattern_rules.computed(op, self.known)
            if found is not None:
                self._copies[target] = found
        result = self._result(op)
        if target not in self._bits:
            if not result.any():
                return
            self._bits[target] = self.nothing(target.size)
        if isinstance(op, Call) and op.in_place:  # the elements that it leaves alone
            result = result | self.bits(op.out)
        self._bits[target][_positions(op.out)] = result

    def _result(self, op: Operation) -> Bits:
        if isinstance(op, Pointwise):
            return self._pointwise(op)
        if isinstance(op, Reduce):
            bits = self.bits(op.arg).reshape(*op.arg.shape, self.width)
            return np.bitwise_or.reduce(bits, axis=op.dims).reshape(-1, self.width)
        if not any(self.depends(x) for x in op.args):
            return self.nothing(prod(op.out.shape))
        return pattern_rules.CALLS.get(op.function, pattern_rules.everything)(self, op)

    def _pointwise(self, op: Pointwise) -> Bits:
        result = self.nothing(prod(op.out.shape))
        products = op.template == sum_of_products(len(op.args) // 2)
        for i, arg in enumerate(op.args):
            bits = self.bits(arg)
            if products and self.depends(arg):
                factors = self.known(op.args[i ^ 1])
                if factors is not None and not factors.values.all():
                    self.origins |= factors.origins
                    bits[factors.values == 0] = 0
            result |= bits
        return result


def _positions(view: View) -> NDArray[np.int64]:
    positions = np.full((), view.offset, dtype=np.int64)
    for n, s in zip(view.shape, view.strides, strict=True):
        positions = positions[..., None] + s * np.arange(n)
    return positions.reshape(-1)
