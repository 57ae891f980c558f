"""From a program to the steps of one function: what is needed, in one loop where it can be."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from .layout import Buffer, View, expand, slice_
from .program import Call, Operation, Pointwise, Program, Reduce


@dataclass(eq=False)
class Loop:
    """Element-wise operations of one shape that share a loop, in order."""

    shape: tuple[int, ...]
    operations: list[Pointwise] = field(default_factory=list)
    kind: Hashable = None
    produced: set[Buffer] = field(default_factory=set)
    read: set[Buffer] = field(default_factory=set)


Step = Loop | Reduce | Call

# Products of so few terms take less time than the memory that they write to and read from.
_FEW_TERMS = 4


def live(program: Program, outputs: Iterable[View]) -> list[Operation]:
    """The operations that the outputs rest on, products of few terms as element-wise ones."""
    needed = {v.buffer for v in outputs if v.buffer is not None}
    kept: list[Operation] = []
    for op in reversed(program.operations):
        if op.out.buffer in needed:
            kept.append(op)
            needed.update(v.buffer for v in op.reads if v.buffer is not None)
    return [_written_out(program, op) for op in reversed(kept)]


def _written_out(program: Program, op: Operation) -> Operation:
    """A product of few terms as an element-wise operation, which shares a loop with others."""
    if not isinstance(op, Call) or op.function != "matmul!":
        return op
    x, y = op.args
    terms = x.shape[-1]
    if not 1 <= terms <= _FEW_TERMS:
        return op
    args = []
    for k in range(terms):
        args.append(expand(slice_(x, -1, k, k + 1, 1), op.out.shape))
        args.append(expand(slice_(y, -2, k, k + 1, 1), op.out.shape))
    product = Pointwise(op.out, sum_of_products(terms), args)
    program.origins[product] = program.origins.get(op, "matmul")
    return product


def sum_of_products(terms: int) -> str:
    """The template of a sum of so many products of neighbouring arguments.

    >>> sum_of_products(2)
    'muladd({2}, {3}, {0} * {1})'
    """
    template = "{0} * {1}"
    for k in range(1, terms):
        template = f"muladd({{{2 * k}}}, {{{2 * k + 1}}}, {template})"
    return template


def schedule(
    operations: Iterable[Operation], kind_of: Callable[[Pointwise], Hashable] = lambda op: None
) -> list[Step]:
    """Gather element-wise operations of equal shape, and of one kind, into loops.

    A loop stays open, to take further operations, until something needs its results other than
    element by element. What is not element-wise goes before the loops that are still open, which
    it does not depend on.
    """
    steps: list[Step] = []
    open_loops: dict[tuple[tuple[int, ...], Hashable], Loop] = {}

    def close(loop: Loop) -> None:
        steps.append(loop)
        del open_loops[loop.shape, loop.kind]

    for op in operations:
        shape = op.out.shape
        target = op.out.buffer
        kind = kind_of(op) if isinstance(op, Pointwise) else None
        mergeable = isinstance(op, Pointwise) and not op.in_place
        for loop in list(open_loops.values()):
            taken = [v for v in op.reads if v.buffer in loop.produced]
            own = mergeable and (loop.shape, loop.kind) == (shape, kind)
            elementwise = own and all(v.is_whole and v.shape == shape for v in taken)
            overwrites = op.in_place and target in loop.read | loop.produced
            if (taken and not elementwise) or overwrites:
                close(loop)
        if not mergeable:
            assert not (isinstance(op, Pointwise) and not op.in_place)
            steps.append(_alone(op, kind))
            continue
        assert isinstance(op, Pointwise) and target is not None
        loop = open_loops.setdefault((shape, kind), Loop(shape, kind=kind))
        loop.operations.append(op)
        loop.produced.add(target)
        loop.read.update(v.buffer for v in op.reads if v.buffer is not None)
    for loop in list(open_loops.values()):
        close(loop)
    return steps


def _alone(op: Operation, kind: Hashable) -> Step:
    if not isinstance(op, Pointwise):
        return op
    reads = {v.buffer for v in op.reads if v.buffer is not None}
    assert op.out.buffer is not None
    return Loop(op.out.shape, [op], kind, {op.out.buffer}, reads)
