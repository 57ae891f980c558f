"""Julia source from the steps of a function: memory, loops and calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .layout import Buffer, View, collapse, whole
from .program import Call, Operation, Pointwise, Program, Reduce
from .schedule import Loop, Step, live, schedule


@dataclass(frozen=True)
class Output:
    """Where a result goes: the argument ``name`` from ``offset``; ``view`` None means zeros.

    With ``rows`` it is like the state, which may be cut into rows.
    """

    name: str
    offset: int
    size: int
    view: View | None
    rows: bool = False


@dataclass(frozen=True)
class Emitted:
    """A Julia function: its source, the scratch memory it uses, and its steps in words."""

    source: str
    workspace: int
    steps: tuple[str, ...]


def emit_function(
    name: str, arguments: str, program: Program, outputs: Sequence[Output]
) -> Emitted:
    """Write one function that computes some results of a program.

    Parameters
    ----------
    name, arguments : str
        The Julia function's name and argument list.
    program : Program
        The translated graph; only what the outputs rest on is computed.
    outputs : sequence of Output
        What to compute and where to put it.

    Returns
    -------
    Emitted
    """
    return Emitter(program, outputs).emit(name, arguments)


class Emitter:
    """The text of a function as it grows, and where each buffer lies."""

    def __init__(self, program: Program, outputs: Sequence[Output]) -> None:
        self.program = program
        self.outputs = outputs
        self.place: dict[Buffer, tuple[str, int]] = {b: (b.name, b.offset) for b in program.inputs}
        self.lines: list[str] = []

    def emit(self, name: str, arguments: str) -> Emitted:
        operations: list[Operation] = live(
            self.program, [o.view for o in self.outputs if o.view is not None]
        )
        for output in self.outputs:
            operations += self._deliver(output)
        steps = schedule(operations)
        workspace = self._assign_memory(steps)
        for step in steps:
            self._step(step)
        return Emitted(
            self._function(name, arguments), workspace, tuple(self._describe(s) for s in steps)
        )

    def _step(self, step: Step) -> None:
        if isinstance(step, Loop):
            self._loop(step)
        elif isinstance(step, Reduce):
            self._reduce(step)
        else:
            self._call(step)

    def _function(self, name: str, arguments: str) -> str:
        body = "\n".join("        " + line for line in self.lines)
        return (
            f"function {name}({arguments})\n    T = eltype(p)\n    t = T(time)\n"
            f"    @inbounds begin\n{body}\n    end\n    return nothing\nend\n"
        )

    def _describe(self, step: Step) -> str:
        operations = step.operations if isinstance(step, Loop) else [step]
        names = [self.program.origins.get(op, "copy").removeprefix("aten.") for op in operations]
        if isinstance(step, Call):
            return f"{step.function:<10} {step.out.shape}: {names[0]}"
        kind = "reduce" if isinstance(step, Reduce) else "loop"
        shape = step.arg.shape if isinstance(step, Reduce) else step.shape
        return f"{kind:<10} {shape}: {', '.join(names)}"

    def _deliver(self, output: Output) -> list[Pointwise]:
        """Have a result computed in place where possible, else copied there at the end."""
        view = output.view
        if view is not None and view.is_whole and view.buffer not in self.place:
            assert view.buffer is not None
            if not view.buffer.scalar and view.kind == "f":
                self.place[view.buffer] = (output.name, output.offset)
                return []
        if view is None:
            view = View(None, (output.size,), (0,), 0, "f", "T(0)")
        target = Buffer(output.size)
        self.place[target] = (output.name, output.offset)
        template = "T({0})" if view.kind == "b" else "{0}"
        return [Pointwise(whole(target, view.shape), template, [view], in_place=True)]

    def _assign_memory(self, steps: Sequence[Step]) -> int:
        """Give every buffer that outlives its loop a place in the workspace; reuse freed places."""
        self._find_stored(steps)
        return self._allocate([touched(s) & self.stored for s in steps], 0)

    def _find_stored(self, steps: Sequence[Step]) -> None:
        last_read: dict[Buffer, int] = {}
        for i, step in enumerate(steps):
            for buffer in touched(step):
                last_read[buffer] = i
        self.stored: set[Buffer] = set(self.place)
        for i, step in enumerate(steps):
            inside = step.produced if isinstance(step, Loop) else set()
            for op in step.operations if isinstance(step, Loop) else [step]:
                target = op.out.buffer
                assert target is not None
                outlives = last_read[target] > i and not target.scalar
                if not isinstance(step, Loop) or op.in_place or outlives:
                    self.stored.add(target)
                self.stored.update(
                    v.buffer
                    for v in op.reads
                    if v.buffer is not None and v.buffer not in inside and not v.buffer.scalar
                )

    def _allocate(self, steps: Sequence[set[Buffer]], top: int) -> int:
        """Places from ``top`` for the buffers that each step touches; the end of the last."""
        last_read = {buffer: i for i, step in enumerate(steps) for buffer in step}
        free: dict[int, list[int]] = {}
        for i, step in enumerate(steps):
            ordered = sorted(step, key=lambda b: b.number)
            for buffer in ordered:
                if buffer not in self.place:
                    size = self._size(buffer)
                    if free.get(size):
                        self.place[buffer] = ("w", free[size].pop())
                    else:
                        self.place[buffer] = ("w", top)
                        top += size
            for buffer in ordered:
                variable, offset = self.place[buffer]
                if variable == "w" and last_read[buffer] == i:
                    free.setdefault(self._size(buffer), []).append(offset)
        return top

    def _size(self, buffer: Buffer) -> int:
        return buffer.size

    # One loop nest.

    def _loop(self, loop: Loop) -> None:
        local: set[Buffer] = set()
        loads: dict[tuple[object, ...], tuple[str, View]] = {}
        body: list[str] = []
        stores: list[View] = []
        for op in loop.operations:
            names = [self._operand(v, local, loads) for v in op.args]
            target = op.out.buffer
            assert target is not None
            body.append(f"{target.variable} = {op.template.format(*names)}")
            if target in self.stored:
                stores.append(op.out)
            if not op.in_place:
                local.add(target)
        if not loop.shape and not any(op.in_place for op in loop.operations):
            self._straight(loads, body, stores)
            return
        strided = [(n, v) for n, v in loads.values() if not v.is_uniform]
        for n, v in loads.values():
            if v.is_uniform:
                self.lines.append(f"{n} = {self._load(v, str(self._start(v)))}")
        lengths, strides = collapse(
            loop.shape, [v.strides for _, v in strided] + [v.strides for v in stores]
        )
        loads_inside: list[str] = []
        fixed: list[str] = []
        for (n, v), s in zip(strided, strides, strict=False):
            # What stays the same along the innermost loop is read before it.
            where = loads_inside if s[-1] or len(s) == 1 else fixed
            where.append(f"{n} = {self._load(v, _index(self._start(v), s))}")
        inner = loads_inside + body
        for v, s in zip(stores, strides[len(strided) :], strict=True):
            inner.append(self._store(v, _index(self._start(v), s)))
        self._nest(lengths, inner, fixed)

    def _straight(
        self,
        loads: dict[tuple[object, ...], tuple[str, View]],
        body: list[str],
        stores: list[View],
    ) -> None:
        """Zero-dimensional operations: plain assignments to local variables."""
        for n, v in loads.values():
            self.lines.append(f"{n} = {self._load(v, str(self._start(v)))}")
        self.lines += body
        self.lines += [self._store(v, str(self._start(v))) for v in stores]

    def _nest(
        self, lengths: Sequence[int], inner: Sequence[str], fixed: Sequence[str] = ()
    ) -> None:
        depth = len(lengths)
        for d, n in enumerate(lengths):
            if d == depth - 1:
                self.lines += ["    " * d + line for line in fixed]
            simd = "@simd ivdep " if d == depth - 1 else ""
            self.lines.append("    " * d + f"{simd}for i{d} in 0:{n - 1}")
        self.lines += ["    " * depth + line for line in inner]
        self.lines += ["    " * d + "end" for d in reversed(range(depth))]

    def _operand(
        self,
        view: View,
        local: set[Buffer],
        loads: dict[tuple[object, ...], tuple[str, View]],
    ) -> str:
        if view.buffer is None:
            return view.literal
        if view.buffer in local or (view.buffer.scalar and view.buffer not in self.program.inputs):
            return view.buffer.variable
        if view.buffer.scalar:
            return "t"
        key = (view.buffer, view.offset, view.shape, view.strides)
        if key not in loads:
            loads[key] = (f"a{view.buffer.number}_{len(loads)}", view)
        return loads[key][0]

    # Reductions and calls.

    def _reduce(self, op: Reduce) -> None:
        arg, shape = op.arg, op.arg.shape
        out = tuple(0 if d in op.dims else s for d, s in enumerate(op.out.strides))
        target, start = self._variable(op.out), self._start(op.out)
        size = op.out.size
        self.lines.append(f"fill_range!({target}, {start}, {size}, {op.start})")
        value = arg.literal or "a"
        lengths, (step_in, step_out) = collapse(shape, [arg.strides, out])
        position = _index(start, step_out)
        load = [] if arg.literal else [f"a = {self._load(arg, _index(self._start(arg), step_in))}"]
        if 0 in lengths:
            return
        if step_out[-1] != 0:
            fold = op.template.format(f"{target}[{position}]", value)
            self._nest(lengths, [*load, f"{target}[{position}] = {fold}"])
            return
        outer, n = lengths[:-1], lengths[-1]
        for d, m in enumerate(outer):
            self.lines.append("    " * d + f"for i{d} in 0:{m - 1}")
        pad = "    " * len(outer)
        self.lines.append(pad + f"acc = {target}[{position}]")
        self.lines.append(pad + f"@simd for i{len(outer)} in 0:{n - 1}")
        self.lines += [pad + "    " + line for line in load]
        self.lines.append(pad + f"    acc = {op.template.format('acc', value)}")
        self.lines.append(pad + "end")
        self.lines.append(pad + f"{target}[{position}] = acc")
        self.lines += ["    " * d + "end" for d in reversed(range(len(outer)))]

    def _call(self, op: Call) -> None:
        places = [self._address(v) for v in (op.out, *op.args)]
        self.lines.append(f"{op.function}({', '.join([*places, *map(str, op.integers)])})")

    # Memory.

    def _variable(self, view: View) -> str:
        assert view.buffer is not None
        return self.place[view.buffer][0]

    def _address(self, view: View) -> str:
        """Where a view begins, as routines take it: a vector, and an offset from zero."""
        return f"{self._variable(view)}, {self._start(view) - 1}"

    def _start(self, view: View) -> int:
        """The Julia index of the view's first element."""
        assert view.buffer is not None
        return self.place[view.buffer][1] + view.offset + 1

    def _load(self, view: View, index: str) -> str:
        element = f"{self._variable(view)}[{index}]"
        return f"!iszero({element})" if view.kind == "b" else element

    def _store(self, view: View, index: str) -> str:
        assert view.buffer is not None
        value = view.buffer.variable
        if view.kind == "b":
            value = f"T({value})"
        return f"{self._variable(view)}[{index}] = {value}"


def touched(step: Step) -> set[Buffer]:
    """The buffers that a step reads or writes."""
    operations = step.operations if isinstance(step, Loop) else [step]
    views = [v for op in operations for v in (op.out, *op.reads)]
    return {v.buffer for v in views if v.buffer is not None}


def _index(start: int, strides: Sequence[int]) -> str:
    terms = [str(start)]
    terms += [f"i{d}" if s == 1 else f"{s} * i{d}" for d, s in enumerate(strides) if s != 0]
    return " + ".join(terms)
