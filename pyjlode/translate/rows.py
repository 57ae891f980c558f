"""Programs that treat the rows of a batch apart, and how rows lie in the memory of a block.

The state is a batch: its leading dimension counts rows. Where no operation mixes rows, a function
can be computed for some rows at a time, whose numbers stay in the cache. In a block's memory the
rows are the fastest dimension, whatever the tensor: every loop ends in one over rows, which
vectorises without remainder or sum across it, and a product with a matrix of weights reads each
weight as a single number.

Three kinds of numbers occur: free ones, the same for all rows; those with a part for each row; and
sums over all rows, of which only the results may be made (the gradients of weights).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from .layout import Buffer, View, unsqueeze
from .program import Call, Operation, Pointwise, Program, Reduce

# A dimension of a view, and how many neighbouring elements of one row it runs through for each row.
Place = tuple[int, int]


CONVOLUTIONS = ("convolve!", "convolve_transposed!", "convolve_weights!")


class RowsMixedError(Exception):
    """The program is none that treats rows apart, as far as this analysis sees."""


@dataclass(eq=False)
class RowProgram:
    """The operations of one function, in three parts.

    Attributes
    ----------
    batch : int
        Number of rows.
    inner : dict of Buffer to int
        Buffers with a part for each row: an element's index is
        ``(outer * batch + row) * inner + i``.
    sums : set of Buffer
        Sums over rows.
    early, inside, late : list of Operation
        What is computed before the rows, for each block of rows, and after them.
    """

    batch: int
    inner: dict[Buffer, int] = field(default_factory=dict)
    sums: set[Buffer] = field(default_factory=set)
    early: list[Operation] = field(default_factory=list)
    inside: list[Operation] = field(default_factory=list)
    late: list[Operation] = field(default_factory=list)

    def place(self, view: View) -> Place | None:
        """Where the view has its rows; None for a view of what is free.

        Raises
        ------
        RowsMixedError
            If the view takes some rows only, or puts elements of several side by side.
        """
        if view.buffer is None or view.buffer not in self.inner:
            return None
        inner, span = self.inner[view.buffer], self.batch * self.inner[view.buffer]
        found = [
            d
            for d, (n, s) in enumerate(zip(view.shape, view.strides, strict=True))
            if s > 0 and n % self.batch == 0 and n * s == span
        ]
        if len(found) != 1:
            raise RowsMixedError("a view of some rows")
        d = found[0]
        repeat = view.shape[d] // self.batch
        low = high = view.offset % span
        high += (repeat - 1) * view.strides[d]
        for e, (n, s) in enumerate(zip(view.shape, view.strides, strict=True)):
            if e != d and s % span:
                low, high = low + min(0, (n - 1) * s), high + max(0, (n - 1) * s)
        if low < 0 or high >= inner:
            raise RowsMixedError("a view across rows")
        return d, repeat

    def blocked(self, view: View, place: Place, block: int) -> View:
        """The view as it lies in a block's memory, with the rows as a further, last dimension."""
        d, repeat = place
        strides = list(view.strides)
        offset, along = view.offset, 0
        if view.buffer in self.inner:
            assert view.buffer is not None
            span = self.batch * self.inner[view.buffer]
            offset = offset // span * self.inner[view.buffer] + offset % span
            strides = [
                (s if e == d or s % span else s // self.batch) * block
                for e, s in enumerate(strides)
            ]
            offset, along = offset * block, 1
        shape = (*view.shape[:d], repeat, *view.shape[d + 1 :], block)
        return replace(view, shape=shape, strides=(*strides, along), offset=offset)

    def width(self, buffer: Buffer) -> int:
        """How many numbers a row has of it."""
        return buffer.size // self.batch


def analyse(
    program: Program, operations: Sequence[Operation], batch: int, states: Iterable[str]
) -> RowProgram:
    """Take the operations of a function apart into what is done once and what for each row.

    Parameters
    ----------
    program : Program
    operations : sequence of Operation
        In order.
    batch : int
        Number of rows.
    states : iterable of str
        The arguments that have a part for each row. Parameters and constants are found out by
        their use.

    Raises
    ------
    RowsMixedError
        If rows are mixed, or an operation is none that is known to keep them apart.
    """
    states = set(states)
    given = {
        b: b.size // batch
        for b, name in program.inputs.items()
        if name in states and b.size % batch == 0
    }
    while True:
        # A buffer may turn out to have rows after it was taken to be free: then all begins anew.
        walk = _Walk(program, RowProgram(batch, dict(given)))
        for op in operations:
            walk.visit(op)
        if walk.found == given:
            _check_order(walk.rows, operations)
            return walk.rows
        given = walk.found


class _Walk:
    """One pass over the operations; what is known of each buffer grows."""

    def __init__(self, program: Program, rows: RowProgram) -> None:
        self.program = program
        self.rows = rows
        self.found = dict(rows.inner)
        self.late: set[Buffer] = set()

    def visit(self, op: Operation) -> None:
        reads = {v.buffer for v in op.reads if v.buffer is not None}
        target = op.out.buffer
        assert target is not None
        if op.in_place:
            reads.add(target)
        places = [self.rows.place(v) for v in op.reads]
        has_rows = any(p is not None for p in places) or target in self.rows.inner
        if reads & (self.late | self.rows.sums):
            if has_rows:
                raise RowsMixedError("rows depend on a sum over rows")
            self.late.add(target)
            self.rows.late.append(op)
        elif not has_rows:
            self.rows.early.append(op)
        else:
            if isinstance(op, Pointwise):
                self._pointwise(op, places)
            elif isinstance(op, Reduce):
                self._reduce(op, places[0])
            else:
                self._call(op)
            self.rows.inside.append(op)

    def _pointwise(self, op: Pointwise, places: Sequence[Place | None]) -> None:
        known = {p for p in places if p is not None}
        if op.out.buffer in self.rows.inner:
            known.add(_given(self.rows.place(op.out)))
        if len(known) != 1:
            raise RowsMixedError("rows in two dimensions")
        (place,) = known
        for view in op.args:
            self._broadcast(view, place)
        self._result(op.out, place)

    def _broadcast(self, view: View, place: Place) -> None:
        """An operand is the same for all rows, or it has a part for each."""
        d, repeat = place
        buffer = view.buffer
        if buffer in self.rows.inner or view.strides[d] == 0:
            return
        inner = view.strides[d] * repeat
        if buffer is None or inner <= 0 or buffer.size % (inner * self.rows.batch):
            raise RowsMixedError("numbers that are not the same for all rows")
        if buffer in self.program.inputs and buffer.size != inner * self.rows.batch:
            raise RowsMixedError("an input whose leading dimension does not count rows")
        self.found[buffer] = self.rows.inner[buffer] = inner
        if self.rows.place(view) != place:
            raise RowsMixedError("rows in two dimensions")

    def _result(self, out: View, place: Place) -> None:
        d, repeat = place
        assert out.buffer is not None
        inner = out.strides[d] * repeat
        if inner <= 0 or out.buffer.size % (inner * self.rows.batch):
            raise RowsMixedError("a result that has not a part for each row")
        self.found[out.buffer] = self.rows.inner[out.buffer] = inner
        if self.rows.place(out) != place:
            raise RowsMixedError("a result across rows")

    def _reduce(self, op: Reduce, place: Place | None) -> None:
        if place is None:
            raise RowsMixedError("a sum into rows")
        if place[0] in op.dims:
            self._sum(op.out)
        else:
            self._result(op.out, place)

    def _sum(self, out: View) -> None:
        assert out.buffer is not None
        self.rows.sums.add(out.buffer)

    def _call(self, op: Call) -> None:
        if op.function in CONVOLUTIONS:
            self._convolution(op)
            return
        if op.function != "matmul!":
            raise RowsMixedError(f"{op.function} of rows")
        x, y = (as_batch(v) for v in op.args)
        px, py = self.rows.place(x), self.rows.place(y)
        if px and py and (px[0], py[0]) == (2, 1) and px[1] == py[1]:
            self._sum(op.out)
            return
        if (px and px[0] == 2) or (py and py[0] == 1):
            raise RowsMixedError("a product over rows")
        if px and py and not px == py == (0, px[1]):
            raise RowsMixedError("a product of rows with rows")
        place = _given(px or py)
        if place[0] == 0:
            self._broadcast(x, place)
            self._broadcast(y, place)
        self._result(as_batch(op.out), place)

    def _convolution(self, op: Call) -> None:
        """A row has images of its own, in the first dimension; the weights are free."""
        x, y, _ = op.args
        px, py = self.rows.place(x), self.rows.place(y)
        place = _given(px or py)
        if place[0] != 0:
            raise RowsMixedError("a convolution over rows")
        if op.function == "convolve_weights!":
            self._broadcast(x, place)
            self._broadcast(y, place)
            self._sum(op.out)
        elif py is None:
            self._result(op.out, place)
        else:
            raise RowsMixedError("weights of a row")


def as_batch(view: View) -> View:
    """A matrix as a batch of one."""
    return view if len(view.shape) == 3 else unsqueeze(view, 0)


def _given(place: Place | None) -> Place:
    if place is None:
        raise RowsMixedError("rows that are not there")
    return place


def _check_order(rows: RowProgram, operations: Sequence[Operation]) -> None:
    """What is computed early, in place, must not be read before by what is computed later."""
    early = set(rows.early)
    read: set[Buffer | None] = set()
    for op in operations:
        if op in early:
            if op.in_place and op.out.buffer in read:
                raise RowsMixedError("memory is written again after it was read")
        else:
            read.update(v.buffer for v in op.reads)
