"""The table of operations: how each ATen operation is added to a program.

To add an element-wise operation, add a line to :mod:`pyjlode.translate.pointwise`. To add any
other, write a function here under ``@operation(name)``; it gets the program and the arguments of
the graph's node, tensors as views, and returns the view of its result. What is not in the table
and has a decomposition in torch is traced as that decomposition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...errors import TraceError
from .. import layout
from ..layout import View, uniform
from ..program import Program

Handler = Callable[..., Any]
TABLE: dict[str, Handler] = {}


def plain_name(op: torch._ops.OpOverload) -> str:
    """``aten.add`` for ``aten.add.Tensor``."""
    return f"{op.namespace}.{op._schema.name.split('::')[1]}"


def operation(*names: str) -> Callable[[Handler], Handler]:
    """Enter a function in the table under ATen names without overload, such as ``aten.cat``."""

    def enter(handler: Handler) -> Handler:
        for name in names:
            TABLE[name] = handler
        return handler

    return enter


def literal(value: float | bool | int) -> View:
    """A Python number as a view."""
    if isinstance(value, bool):
        return uniform("true" if value else "false", kind="b")
    value = float(value)
    if value != value:
        return uniform("T(NaN)")
    if value in (float("inf"), float("-inf")):
        return uniform("T(Inf)" if value > 0 else "T(-Inf)")
    return uniform(f"T({value!r})")


def as_view(x: Any) -> View:
    return x if isinstance(x, View) else literal(x)


def as_float(x: Any) -> View:
    """An argument of arithmetic: truth values count as 0 and 1."""
    view = as_view(x)
    if view.kind == "b" and view.literal:
        return uniform("T(1)" if view.literal == "true" else "T(0)", view.shape)
    return view


def elementwise(b: Program, template: str, args: Sequence[Any], kind: str = "f") -> View:
    """Broadcast the arguments and apply the template to every element."""
    views = [as_float(a) if kind == "f" else as_view(a) for a in args]
    shape = torch.broadcast_shapes(*(v.shape for v in views))
    if kind == "f":
        for i, v in enumerate(views):
            if v.kind == "b":
                template = template.replace(f"{{{i}}}", f"T({{{i}}})")
    return b.pointwise(template, views, shape, kind)


def to_float(b: Program, x: View) -> View:
    return b.pointwise("T({0})", [x], x.shape) if x.kind == "b" else x


def to_bool(b: Program, x: Any) -> View:
    """Truth values: whether each number differs from zero."""
    view = as_view(x)
    return view if view.kind == "b" else b.pointwise("!iszero({0})", [view], view.shape, "b")


def empty(b: Program, shape: Sequence[int], kind: str = "f") -> View:
    """New memory that the operations after it fill."""
    return b.new(shape, kind, scalar=False)


def filled(b: Program, value: Any, shape: Sequence[int], kind: str = "f") -> View:
    """New memory with one value everywhere, for later writes into it."""
    out = empty(b, shape, kind)
    b.write(out, layout.expand(as_view(value), shape))
    return out


def copied(b: Program, x: View) -> View:
    out = empty(b, x.shape, x.kind)
    b.write(out, x)
    return out


def in_memory(b: Program, x: View) -> View:
    """A tensor as compiled routines read it: numbers in memory, row-major."""
    ready = x.buffer is not None and not x.buffer.scalar and x.kind == "f"
    return x if ready and layout.is_contiguous(x.shape, x.strides) else copied(b, to_float(b, x))


def is_covered(name: str) -> bool:
    """Whether the table has an operation, or the plain form of an in-place one."""
    return name in TABLE or in_place(name) is not None


def in_place(name: str) -> Handler | None:
    """The handler of an in-place operation, from that of its plain form (``add_`` from ``add``)."""
    plain = TABLE.get(name.removesuffix("_")) if name.endswith("_") else None
    if plain is None or name in _RESHAPING:
        return plain

    def handler(b: Program, target: View, *args: Any, **kwargs: Any) -> View:
        return assign(b, target, plain(b, target, *args, **kwargs))

    return handler


# In place, these change how a tensor looks at its memory, and not the memory.
_RESHAPING = {
    "aten.squeeze_", "aten.unsqueeze_", "aten.transpose_", "aten.t_", "aten.as_strided_",
    "aten.detach_",
}  # fmt: skip


def assign(b: Program, target: View, source: View) -> View:
    if target.buffer is None or target.buffer in b.inputs:
        raise TraceError("it changes in place a tensor that it did not create")
    source = to_float(b, as_float(source)) if target.kind == "f" else to_bool(b, source)
    b.write(target, source)
    return target
