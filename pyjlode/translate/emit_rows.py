"""Julia source that computes a function for some rows of the batch, a block of them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from .emit import Emitted, Emitter, Output, touched
from .layout import Buffer, View, collapse, permute, whole
from .program import Call, Pointwise, Program, Reduce
from .rows import CONVOLUTIONS, RowProgram, RowsMixedError, analyse, as_batch
from .schedule import Loop, Step, live, schedule

STATES = ("u", "v")


@dataclass(frozen=True)
class EmittedRows:
    """A Julia function of rows, and about how many operations a row takes."""

    function: Emitted
    work: int


def emit_row_function(
    name: str, arguments: str, program: Program, outputs: Sequence[Output], batch: int, block: int
) -> EmittedRows:
    """Write one function that computes some results for some of the rows.

    Beside its arguments it takes ``offset``, ``first`` and ``rows``: the first row in the vectors
    that are like the state, the first row in all others, and how many. Sums are over these rows.

    Parameters
    ----------
    name, arguments, program, outputs
        As for :func:`~pyjlode.translate.emit.emit_function`.
    batch : int
        Number of rows of the state.
    block : int
        How many rows are computed at a time.

    Raises
    ------
    RowsMixedError
        If a row's results rest on another row.
    """
    emitter = RowEmitter(program, outputs, batch, block)
    emitted = emitter.emit(name, f"{arguments}, offset, first, rows")
    return EmittedRows(emitted, emitter.work)


class RowEmitter(Emitter):
    """As :class:`~pyjlode.translate.emit.Emitter`, of three parts: before, in and after blocks."""

    def __init__(self, program: Program, outputs: Sequence[Output], batch: int, block: int) -> None:
        super().__init__(program, outputs)
        self.block = block
        operations = live(program, [o.view for o in outputs if o.view is not None])
        self.rows: RowProgram = analyse(program, operations, batch, STATES)
        self.work = 0
        self._scratch_sizes: list[int] = []
        self._starts = {
            op.out.buffer: op.start for op in self.rows.inside if isinstance(op, Reduce)
        }

    def emit(self, name: str, arguments: str) -> Emitted:
        rows = self.rows
        stores = [s for output in self.outputs for s in self._hand_over(output)]
        early, late = schedule(rows.early), schedule(rows.late)
        inside = schedule(rows.inside, self._place_of)
        inside = [*self._loads(inside), *inside, *stores]
        self.scratch = workspace = self._assign(early, inside, late)
        for step in early:
            self._step(step)
        for buffer in sorted(rows.sums, key=lambda b: b.number):
            variable, offset = self.place[buffer]
            start = self._starts.get(buffer, "T(0)")
            self.lines.append(f"fill_range!({variable}, {offset + 1}, {buffer.size}, {start})")
        if inside:
            self._blocks(inside)
        for step in late:
            self._step(step)
        workspace += max(self._scratch_sizes, default=0)
        steps = [s for s in (*early, *inside, *late) if not _is_transfer(s)]
        return Emitted(
            self._function(name, arguments), workspace, tuple(self._describe(s) for s in steps)
        )

    def _blocks(self, steps: Sequence[Step]) -> None:
        before, self.lines = self.lines, []
        for step in steps:
            self._inside(step)
        body, self.lines = self.lines, before
        self.lines.append(f"for start in 0:{self.block}:(rows - 1)")
        self.lines.append(f"    n = min({self.block}, rows - start)")
        self.lines += ["    " + line for line in body]
        self.lines.append("end")

    # Results.

    def _hand_over(self, output: Output) -> list[Step]:
        """Have a result delivered; what stores its rows, if it has any."""
        view, rows = output.view, self.rows
        buffer = None if view is None else view.buffer
        if output.rows or buffer in rows.inner:
            return [self._store_rows(output)]
        if buffer in rows.sums and view is not None and view.is_whole and buffer not in self.place:
            assert buffer is not None
            self.place[buffer] = (output.name, output.offset)
        else:
            rows.late += self._deliver(output)
        return []

    def _store_rows(self, output: Output) -> Step:
        rows, view = self.rows, output.view
        width = output.size // rows.batch
        if view is None:
            view = View(None, (output.size,), (0,), 0, "f", "T(0)")
        if view.buffer in rows.sums or any(view.buffer is op.out.buffer for op in rows.late):
            raise RowsMixedError("a result of rows that depends on a sum over rows")
        buffer = view.buffer
        if buffer is None or not self._is_ready(view, width):
            buffer = Buffer(output.size)
            rows.inner[buffer] = width
            template = "T({0})" if view.kind == "b" else "{0}"
            target = whole(buffer, view.shape)
            place = rows.place(target)
            assert place is not None
            if rows.place(view) not in (place, None) or (
                view.buffer not in rows.inner and view.strides[place[0]] != 0
            ):
                raise RowsMixedError("a result in another order than the state")
            rows.inside.append(Pointwise(target, template, [view], in_place=True))
        if not output.rows:
            # Of a tensor with a part for each row; those of other rows are computed elsewhere.
            zeros = Buffer(output.size)
            self.place[zeros] = (output.name, output.offset)
            zero = View(None, (output.size,), (0,), 0, "f", "T(0)")
            rows.early.append(Pointwise(whole(zeros, zero.shape), "{0}", [zero], in_place=True))
        assert buffer is not None
        outside = Buffer(output.size)
        self.place[outside] = (output.name, output.offset)
        position = "offset" if output.rows else "first"
        return Call(
            whole(outside, (output.size,)),
            f"store_rows! {position}",
            [whole(buffer, (buffer.size,))],
            (width,),
            in_place=True,
        )

    def _is_ready(self, view: View, width: int) -> bool:
        """Whether a block's memory of a buffer is as the rows are to be stored."""
        buffer = view.buffer
        return (
            view.is_whole
            and view.kind == "f"
            and buffer is not None
            and self.rows.inner.get(buffer) == width
            and buffer not in self.program.inputs
        )

    # Memory.

    def _loads(self, steps: Sequence[Step]) -> list[Step]:
        """What brings the rows of inputs into the block's memory."""
        read = {b for step in steps for b in touched(step)}
        loads: list[Step] = []
        for buffer, name in self.program.inputs.items():
            if buffer in self.rows.inner and buffer in read:
                _, offset = self.place.pop(buffer)
                position = "offset" if name in STATES else "first"
                loads.append(
                    Call(
                        whole(buffer, (buffer.size,)), f"load_rows! {position} {name} {offset}", [],
                        (self.rows.width(buffer),),
                    )
                )  # fmt: skip
        return loads

    def _assign(self, early: list[Step], inside: list[Step], late: list[Step]) -> int:
        self._find_stored([*early, *inside, *late])
        self.stored |= self.rows.sums
        parts = [[touched(s) & self.stored for s in part] for part in (early, inside, late)]
        in_rows = set(self.rows.inner)
        # What is free must outlive all blocks, and sums begin before them.
        free = [*parts[0], set().union(*parts[1], self.rows.sums), *parts[2]]
        top = self._allocate([part - in_rows for part in free], 0)
        return self._allocate([part & in_rows for part in parts[1]], top)

    def _size(self, buffer: Buffer) -> int:
        if buffer in self.rows.inner:
            return self.rows.width(buffer) * self.block
        return buffer.size

    # What is done in a block.

    def _place_of(self, op: Pointwise) -> tuple[int, int] | None:
        return self.rows.place(op.out)

    def _inside(self, step: Step) -> None:
        if isinstance(step, Loop):
            self._row_loop(step)
        elif isinstance(step, Reduce):
            self._row_reduce(step)
        elif _is_transfer(step):
            self._transfer(step)
        else:
            assert isinstance(step, Call)
            self._convolve(step) if step.function in CONVOLUTIONS else self._product(step)

    def _row_loop(self, loop: Loop) -> None:
        rows, block = self.rows, self.block
        blocked = []
        for op in loop.operations:
            place = rows.place(op.out)
            assert place is not None
            views = [rows.blocked(v, place, block) for v in (op.out, *op.args)]
            blocked.append(Pointwise(views[0], op.template, views[1:], op.in_place))
            self.work += op.out.size // rows.batch * _cost(op.template)
        self._loop(Loop(blocked[0].out.shape, blocked, loop.kind, loop.produced, loop.read))

    def _row_reduce(self, op: Reduce) -> None:
        rows = self.rows
        place = rows.place(op.arg)
        assert place is not None
        arg = rows.blocked(op.arg, place, self.block)
        self.work += op.arg.size // rows.batch * 2
        if place[0] not in op.dims:
            out = rows.blocked(op.out, place, self.block)
            self._reduce(Reduce(out, arg, op.dims, op.template, op.start))
            return
        out_strides = [0 if d in op.dims else s for d, s in enumerate(op.out.strides)]
        lengths, (step_in, step_out) = collapse(
            arg.shape[:-1], [arg.strides[:-1], tuple(out_strides)]
        )
        target = f"{self._variable(op.out)}[{_position(self._start(op.out), step_out)}]"
        load = self._load(arg, f"{_position(self._start(arg), step_in)} + r")
        body = [
            f"acc = {op.start}",
            "@simd for r in 0:(n - 1)",
            f"    acc = {op.template.format('acc', load)}",
            "end",
            f"{target} = {op.template.format(target, 'acc')}",
        ]
        depth = len(lengths)
        for d, length in enumerate(lengths):
            self.lines.append("    " * d + f"for i{d} in 0:{length - 1}")
        self.lines += ["    " * depth + line for line in body]
        self.lines += ["    " * d + "end" for d in reversed(range(depth))]

    def _transfer(self, step: Step) -> None:
        assert isinstance(step, Call)
        (width,) = step.integers
        function, position, *source = step.function.split()
        inside = step.out.buffer if source else step.args[0].buffer
        assert inside is not None and step.out.buffer is not None
        name, offset = source or self.place[step.out.buffer]
        self.lines.append(
            f"{function}(w, {self.place[inside][1]}, {name}, {offset}, {position} + start, "
            f"{width}, n, {self.block})"
        )

    def _product(self, op: Call) -> None:
        rows, block = self.rows, self.block
        x, y, out = (as_batch(v) for v in (*op.args, op.out))
        px, py = rows.place(x), rows.place(y)
        x, y, out = (self._in_block(v) for v in (x, y, out))
        batch, m, n, k = *out.shape[:3], x.shape[2]
        self.work += 2 * batch * m * n * k
        if op.out.buffer in rows.sums:
            # Room for the second factor turned round, its columns filled up to whole vectors.
            self._scratch_sizes.append(block * (n + 16))
            self._write_call("rows_contract!", [out, x, y], [batch, m, n, k], f"n, {block}")
        elif px and py:
            self._write_call("rows_multiply!", [out, x, y], [batch, m, n, k], str(block))
        elif px:
            self._write_call("rows_product!", [out, x, y], [batch, m, n, k], str(block))
        else:
            # The second factor has the rows: Cᵀ = Yᵀ Xᵀ.
            turned = [_turned(v) for v in (out, y, x)]
            self._write_call("rows_product!", turned, [batch, n, m, k], str(block))

    def _convolve(self, op: Call) -> None:
        rows, block = self.rows, self.block
        first = rows.place(op.args[0])
        assert first is not None
        images = first[1]  # of a row
        places = [self._address(self._in_block(v)) for v in (op.out, *op.args[:2])]
        _, groups, outputs, inputs, *lengths = op.integers
        pixels, kernel, results = (prod(lengths[i : i + 3]) for i in (0, 3, 6))
        image, result = (images * groups * n * block for n in (inputs * pixels, outputs * results))
        self.work += 2 * images * groups * outputs * inputs * kernel * results
        # Room for what is laid out anew: the image that is read, and the weights in panels of four.
        if op.function == "convolve_weights!":
            self._scratch_sizes.append(image + result)
            count = f"n, {block}"
        else:
            read, units, terms = image, outputs, inputs
            if op.function == "convolve_transposed!":
                read, units, terms = result, inputs, outputs
            self._scratch_sizes.append(read + -(-units // 4) * 4 * terms * kernel)
            count = str(block)
        integers = ", ".join(map(str, (images, *op.integers[1:])))
        self.lines.append(
            f"rows_{op.function}({', '.join(places)}, w, {self.scratch}, {integers}, {count})"
        )

    def _in_block(self, view: View) -> View:
        """The view as it lies in the block's memory, if it has rows."""
        place = self.rows.place(view)
        return view if place is None else self.rows.blocked(view, place, self.block)

    def _write_call(
        self, function: str, views: Sequence[View], lengths: Sequence[int], rows: str
    ) -> None:
        places = [self._address(v) for v in views]
        if function == "rows_contract!":
            places.append(f"w, {self.scratch}")
        integers = map(str, (*lengths, *(s for v in views for s in v.strides[:3])))
        self.lines.append(f"{function}({', '.join((*places, *integers, rows))})")


def _turned(view: View) -> View:
    """A batch of matrices, transposed; its rows, if it has any, stay the last dimension."""
    return permute(view, (0, 2, 1, *range(3, len(view.shape))))


def _is_transfer(step: Step) -> bool:
    return isinstance(step, Call) and step.function.split("_rows!")[0] in ("load", "store")


def _position(start: int, strides: Sequence[int]) -> str:
    return " + ".join([str(start), *(f"{s} * i{d}" for d, s in enumerate(strides) if s)])


def _cost(template: str) -> int:
    """Of an element, in about the unit of a multiplication."""
    return 20 if "(" in template and not template.startswith("muladd") else 1
