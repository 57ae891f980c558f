"""The table of operations: how each ATen operation is added to a program.

To add an element-wise operation, add a line to :mod:`pyjlode.translate.pointwise`. To add any
other, write a function here under ``@operation(name)``; it gets the program and the arguments of
the graph's node, tensors as views, and returns the view of its result. What is not in the table
and has a decomposition in torch is traced as that decomposition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

from ..errors import TraceError
from . import layout
from .layout import View, uniform
from .pointwise import ARITHMETIC, COMPARISON, LOGIC
from .program import Program

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


def _enter_pointwise() -> None:
    for table, kind in ((ARITHMETIC, "f"), (COMPARISON, "b"), (LOGIC, "b")):
        for name, template in table.items():
            count = 1 + max(i for i in range(3) if f"{{{i}}}" in template)

            def handler(
                b: Program,
                *args: Any,
                _template: str = template,
                _kind: str = kind,
                _count: int = count,
                **_: Any,
            ) -> View:
                return elementwise(b, _template, args[:_count], _kind)

            TABLE[name] = handler
            TABLE[name.replace("aten.", "prims.")] = handler


_enter_pointwise()


@operation("aten.add", "prims.add")
def add(b: Program, x: Any, y: Any, *, alpha: float = 1) -> View:
    if alpha == 1:
        return elementwise(b, "{0} + {1}", [x, y])
    return elementwise(b, "{0} + {2} * {1}", [x, y, alpha])


@operation("aten.mul", "prims.mul")
def mul(b: Program, x: Any, y: Any) -> View:
    if as_view(x).kind == "b" and as_view(y).kind == "b":
        return elementwise(b, "{0} & {1}", [x, y], "b")
    return elementwise(b, "{0} * {1}", [x, y])


@operation("aten.sub", "prims.sub")
def sub(b: Program, x: Any, y: Any, *, alpha: float = 1) -> View:
    if alpha == 1:
        return elementwise(b, "{0} - {1}", [x, y])
    return elementwise(b, "{0} - {2} * {1}", [x, y, alpha])


@operation("aten.rsub")
def rsub(b: Program, x: Any, y: Any, alpha: float = 1) -> View:
    return sub(b, y, x, alpha=alpha)


@operation("aten.div", "prims.div")
def div(b: Program, x: Any, y: Any, *, rounding_mode: str | None = None) -> View:
    outer = {None: "{0} / {1}", "floor": "floor({0} / {1})", "trunc": "trunc({0} / {1})"}
    return elementwise(b, outer[rounding_mode], [x, y])


@operation("aten.pow", "prims.pow")
def power(b: Program, x: Any, y: Any) -> View:
    if not isinstance(y, View):
        products = {1.0: "{0}", 2.0: "{0} * {0}", 3.0: "{0} * {0} * {0}", 0.5: "nsqrt({0})"}
        products |= {-1.0: "inv({0})", -2.0: "inv({0} * {0})"}
        if float(y) in products:
            return elementwise(b, products[float(y)], [x])
    return elementwise(b, "npow({0}, {1})", [x, y])


@operation("aten.where", "prims.where")
def where(b: Program, condition: View, x: Any, y: Any) -> View:
    x, y = as_view(x), as_view(y)
    kind = "b" if x.kind == y.kind == "b" else "f"
    if kind == "f":
        x, y = (to_float(b, v) if v.kind == "b" else v for v in (x, y))
    shape = torch.broadcast_shapes(condition.shape, x.shape, y.shape)
    return b.pointwise("ifelse({0}, {1}, {2})", [condition, x, y], shape, kind)


@operation("aten.clamp")
def clamp(b: Program, x: View, low: Any = None, high: Any = None) -> View:
    if low is not None:
        x = elementwise(b, "nmax({0}, {1})", [x, low])
    return x if high is None else elementwise(b, "nmin({0}, {1})", [x, high])


@operation("aten.gelu")
def gelu(b: Program, x: View, *, approximate: str = "none") -> View:
    return elementwise(b, "gelu({0})" if approximate == "none" else "gelu_tanh({0})", [x])


@operation("aten._to_copy", "prims.convert_element_type")
def convert(b: Program, x: View, dtype: torch.dtype | None = None, **_: Any) -> View:
    if dtype is None:
        return x
    if dtype == torch.bool:
        return x if x.kind == "b" else elementwise(b, "!iszero({0})", [x], "b")
    return to_float(b, x)


def to_float(b: Program, x: View) -> View:
    return b.pointwise("T({0})", [x], x.shape) if x.kind == "b" else x


# Views: strides change, memory does not.


@operation("aten.alias", "aten.detach", "aten.lift_fresh_copy", "aten.lift_fresh")
def alias(b: Program, x: View) -> View:
    return x


@operation("aten.clone", "aten.contiguous")
def clone(b: Program, x: View, **_: Any) -> View:
    return b.pointwise("{0}", [x], x.shape, x.kind)


@operation("aten.view", "aten._unsafe_view", "aten.reshape")
def view(b: Program, x: View, shape: Sequence[int]) -> View:
    result = layout.reshape(x, shape)
    if result is None:
        result = layout.reshape(clone(b, x), shape)
    assert result is not None
    return result


@operation("aten.permute")
def permute(b: Program, x: View, dims: Sequence[int]) -> View:
    return layout.permute(x, dims)


@operation("aten.transpose")
def transpose(b: Program, x: View, dim0: int, dim1: int) -> View:
    dims = list(range(len(x.shape)))
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return layout.permute(x, dims)


@operation("aten.t")
def t(b: Program, x: View) -> View:
    return layout.permute(x, range(len(x.shape))[::-1])


@operation("aten.expand")
def expand(b: Program, x: View, shape: Sequence[int], **_: Any) -> View:
    return layout.expand(x, shape)


@operation("prims.broadcast_in_dim")
def broadcast_in_dim(b: Program, x: View, shape: Sequence[int], dims: Sequence[int]) -> View:
    for d in range(len(shape)):
        if d not in dims:
            x = layout.unsqueeze(x, d)
    return layout.expand(x, shape)


@operation("aten.flip", "prims.rev")
def flip(b: Program, x: View, dims: Sequence[int]) -> View:
    for d in dims:
        x = layout.reverse(x, d)
    return x


@operation("aten.select")
def select(b: Program, x: View, dim: int, index: int) -> View:
    return layout.select(x, dim, index)


@operation("aten.slice")
def slice_(
    b: Program,
    x: View,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> View:
    return layout.slice_(x, dim, start, end, step)


@operation("aten.unsqueeze")
def unsqueeze(b: Program, x: View, dim: int) -> View:
    return layout.unsqueeze(x, dim)


@operation("aten.squeeze")
def squeeze(b: Program, x: View, dim: int | Sequence[int] | None = None) -> View:
    return layout.squeeze(x, [dim] if isinstance(dim, int) else dim)


@operation("aten.split_with_sizes", "aten.split")
def split(b: Program, x: View, sizes: int | Sequence[int], dim: int = 0) -> list[View]:
    if isinstance(sizes, int):
        n = x.shape[dim]
        sizes = [min(sizes, n - i) for i in range(0, n, sizes)]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [layout.slice_(x, dim, e - n, e, 1) for n, e in zip(sizes, ends, strict=True)]


@operation("aten.unbind")
def unbind(b: Program, x: View, dim: int = 0) -> list[View]:
    return [layout.select(x, dim, i) for i in range(x.shape[dim])]


@operation("aten.diagonal")
def diagonal(b: Program, x: View, offset: int = 0, dim1: int = 0, dim2: int = 1) -> View:
    return layout.diagonal(x, offset, dim1, dim2)


# Copies into memory: joining, padding, the derivatives of views, and in-place operations.


@operation("aten.cat")
def cat(b: Program, tensors: Sequence[View], dim: int = 0) -> View:
    tensors = [x for x in tensors if x.shape != (0,)] or list(tensors[:1])
    dim %= len(tensors[0].shape)
    shape = list(tensors[0].shape)
    shape[dim] = sum(x.shape[dim] for x in tensors)
    out = empty(b, shape, tensors[0].kind)
    start = 0
    for x in tensors:
        b.write(layout.slice_(out, dim, start, start + x.shape[dim], 1), x)
        start += x.shape[dim]
    return out


@operation("aten.stack")
def stack(b: Program, tensors: Sequence[View], dim: int = 0) -> View:
    return cat(b, [layout.unsqueeze(x, dim % (len(x.shape) + 1)) for x in tensors], dim)


def empty(b: Program, shape: Sequence[int], kind: str = "f") -> View:
    """New memory that the operations after it fill."""
    return b.new(shape, kind, scalar=False)


def filled(b: Program, value: Any, shape: Sequence[int], kind: str = "f") -> View:
    """New memory with one value everywhere, for later writes into it."""
    out = empty(b, shape, kind)
    b.write(out, layout.expand(as_view(value), shape))
    return out


@operation("aten.select_backward")
def select_backward(b: Program, g: View, shape: Sequence[int], dim: int, index: int) -> View:
    out = filled(b, 0.0, shape)
    b.write(layout.select(out, dim, index), g)
    return out


@operation("aten.slice_backward")
def slice_backward(
    b: Program, g: View, shape: Sequence[int], dim: int, start: int, end: int, step: int
) -> View:
    out = filled(b, 0.0, shape)
    b.write(layout.slice_(out, dim, start, end, step), g)
    return out


@operation("aten.diagonal_backward")
def diagonal_backward(
    b: Program, g: View, shape: Sequence[int], offset: int, dim1: int, dim2: int
) -> View:
    out = filled(b, 0.0, shape)
    b.write(layout.diagonal(out, offset, dim1, dim2), g)
    return out


@operation("aten.select_scatter")
def select_scatter(b: Program, x: View, source: View, dim: int, index: int) -> View:
    out = _copy(b, x)
    b.write(layout.select(out, dim, index), source)
    return out


@operation("aten.slice_scatter")
def slice_scatter(
    b: Program,
    x: View,
    source: View,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> View:
    out = _copy(b, x)
    b.write(layout.slice_(out, dim, start, end, step), source)
    return out


@operation("aten.constant_pad_nd")
def constant_pad(b: Program, x: View, pad: Sequence[int], value: float = 0.0) -> View:
    rank = len(x.shape)
    before = [0] * (rank - len(pad) // 2) + list(pad[0::2])[::-1]
    after = [0] * (rank - len(pad) // 2) + list(pad[1::2])[::-1]
    shape = [n + p + q for n, p, q in zip(x.shape, before, after, strict=True)]
    out = filled(b, value, shape)
    target, source = out, x
    for d, (p, q) in enumerate(zip(before, after, strict=True)):
        target = layout.slice_(target, d, max(p, 0), shape[d] - max(q, 0), 1)
        source = layout.slice_(source, d, max(-p, 0), x.shape[d] - max(-q, 0), 1)
    b.write(target, source)
    return out


def _copy(b: Program, x: View) -> View:
    out = empty(b, x.shape, x.kind)
    b.write(out, x)
    return out


@operation("aten.copy_")
def copy_(b: Program, target: View, source: Any, non_blocking: bool = False) -> View:
    return _assign(b, target, as_view(source))


@operation("aten.copy")
def copy(b: Program, target: View, source: Any, non_blocking: bool = False) -> View:
    return layout.expand(as_view(source), target.shape)


@operation("aten.fill_", "aten.zero_")
def fill_(b: Program, target: View, value: Any = 0.0) -> View:
    return _assign(b, target, as_view(value))


def is_covered(name: str) -> bool:
    """Whether the table has an operation, or the plain form of an in-place one."""
    return name in TABLE or in_place(name) is not None


def in_place(name: str) -> Handler | None:
    """The handler of an in-place operation, from that of its plain form (``add_`` from ``add``)."""
    plain = TABLE.get(name.removesuffix("_")) if name.endswith("_") else None
    if plain is None:
        return None

    def handler(b: Program, target: View, *args: Any, **kwargs: Any) -> View:
        return _assign(b, target, plain(b, target, *args, **kwargs))

    return handler


def _assign(b: Program, target: View, source: View) -> View:
    if target.buffer is None or target.buffer in b.inputs:
        raise TraceError("it changes in place a tensor that it did not create")
    if target.kind == "f":
        source = to_float(b, as_float(source))
    b.write(target, source)
    return target


@operation("aten.as_strided")
def as_strided(
    b: Program, x: View, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> View:
    if not x.is_whole:
        raise TraceError("it takes as_strided of a tensor that is itself a view")
    return View(x.buffer, tuple(size), tuple(stride), offset or 0, x.kind)


# Reductions.


def _dims(x: View, dims: Any) -> list[int]:
    rank = len(x.shape)
    if dims is None or dims == []:
        return list(range(rank))
    if isinstance(dims, int):
        dims = [dims]
    return [d % rank for d in dims] if rank else []


def _reduce(b: Program, x: View, dims: Any, keepdim: bool, template: str, start: str) -> View:
    axes = _dims(x, dims)
    if not axes:
        return clone(b, x)
    out = b.reduce(to_float(b, as_float(x)), axes, template, start)
    return out if keepdim else layout.squeeze(out, axes)


@operation("aten.sum", "prims.sum")
def sum_(b: Program, x: View, dim: Any = None, keepdim: bool = False, **_: Any) -> View:
    return _reduce(b, x, dim, keepdim, "{0} + {1}", "T(0)")


@operation("aten.var", "prims.var")
def var(
    b: Program, x: View, dim: Any = None, correction: Any = 1, keepdim: bool = False, **_: Any
) -> View:
    if isinstance(dim, bool):  # the old form, var(x, unbiased)
        dim, correction = None, float(dim)
    correction = 1 if correction is None else correction
    count = prod(x.shape[d] for d in _dims(x, dim))
    centred = elementwise(b, "{0} - {1}", [x, mean(b, x, dim, True)])
    squares = sum_(b, elementwise(b, "{0} * {0}", [centred]), dim, keepdim)
    return elementwise(b, "{0} / {1}", [squares, max(0.0, count - float(correction))])


@operation("aten.var_mean")
def var_mean(b: Program, x: View, dim: Any = None, **options: Any) -> tuple[View, View]:
    return var(b, x, dim, **options), mean(b, x, dim, options.get("keepdim", False))


@operation("aten.mean")
def mean(b: Program, x: View, dim: Any = None, keepdim: bool = False, **_: Any) -> View:
    count = prod(x.shape[d] for d in _dims(x, dim))
    return elementwise(b, "{0} / {1}", [sum_(b, x, dim, keepdim), count])


@operation("aten.amax", "prims.amax")
def amax(b: Program, x: View, dim: Any = None, keepdim: bool = False) -> View:
    return _reduce(b, x, dim, keepdim, "nmax({0}, {1})", "T(-Inf)")


@operation("aten.amin", "prims.amin")
def amin(b: Program, x: View, dim: Any = None, keepdim: bool = False) -> View:
    return _reduce(b, x, dim, keepdim, "nmin({0}, {1})", "T(Inf)")


@operation("aten.prod", "prims.prod")
def product(b: Program, x: View, dim: Any = None, keepdim: bool = False, **_: Any) -> View:
    return _reduce(b, x, dim, keepdim, "{0} * {1}", "T(1)")


# Products of matrices, through BLAS.


@operation("aten.mm", "aten.bmm", "aten.matmul")
def matmul(b: Program, x: View, y: View) -> View:
    """``(..., M, K) @ (..., K, N)``; the leading dimension of a batch is looped over."""
    x, y = _blas_ready(b, x), _blas_ready(b, y)
    batch = x.shape[0] if len(x.shape) == 3 else 1
    (m, k), n = x.shape[-2:], y.shape[-1]
    steps = [v.strides[0] if len(v.shape) == 3 else 0 for v in (x, y)]
    integers = (batch, m, n, k, steps[0], *x.strides[-2:], steps[1], *y.strides[-2:])
    return b.call("matmul!", [x, y], integers, (*x.shape[:-1], n))


def _blas_ready(b: Program, x: View) -> View:
    """BLAS wants one of a matrix's two strides to be one."""
    (rows, columns), (s0, s1) = x.shape[-2:], x.strides[-2:]
    if x.buffer is not None and not x.buffer.scalar and x.kind == "f":
        if (s1 == 1 and s0 >= columns) or (s0 == 1 and s1 >= rows):
            return x
        if (rows == 1 and s1 == 1) or (columns == 1 and s0 == 1):
            # The stride of a dimension of length one is never walked; BLAS still checks it.
            s = (columns, 1) if rows == 1 else (1, rows)
            return View(x.buffer, x.shape, (*x.strides[:-2], *s), x.offset)
    return _copy(b, x)


@operation("aten.addmm", "aten.baddbmm")
def addmm(b: Program, bias: View, x: View, y: View, *, beta: float = 1, alpha: float = 1) -> View:
    product_ = matmul(b, x, y)
    if alpha != 1:
        product_ = elementwise(b, "{0} * {1}", [product_, alpha])
    return add(b, product_, bias, alpha=beta) if beta != 0 else product_


@operation("aten.mv")
def mv(b: Program, x: View, y: View) -> View:
    return layout.squeeze(matmul(b, x, layout.unsqueeze(y, 1)), [1])


@operation("aten.dot", "aten.vdot")
def dot(b: Program, x: View, y: View) -> View:
    return sum_(b, elementwise(b, "{0} * {1}", [x, y]))


@operation("aten.addmv")
def addmv(b: Program, bias: View, x: View, y: View, *, beta: float = 1, alpha: float = 1) -> View:
    return add(b, elementwise(b, "{0} * {1}", [mv(b, x, y), alpha]), bias, alpha=beta)


# New tensors.


def constant(b: Program, value: Any, shape: Sequence[int]) -> View:
    """A tensor of one value: a literal, unless the graph writes into tensors later on."""
    view_ = as_view(value)
    return filled(b, value, shape, view_.kind) if b.mutates else layout.expand(view_, shape)


@operation("aten.full_like")
def full_like(b: Program, x: View, value: Any, **_: Any) -> View:
    return constant(b, value, x.shape)


@operation("aten.zeros_like", "aten.empty_like")
def zeros_like(b: Program, x: View, **_: Any) -> View:
    return constant(b, 0.0, x.shape)


@operation("aten.ones_like")
def ones_like(b: Program, x: View, **_: Any) -> View:
    return constant(b, 1.0, x.shape)


@operation("aten.new_full")
def new_full(b: Program, x: View, shape: Sequence[int], value: Any, **_: Any) -> View:
    return constant(b, value, shape)


@operation("aten.new_zeros", "aten.new_empty", "aten.new_empty_strided")
def new_zeros(b: Program, x: View, shape: Sequence[int], *_: Any, **__: Any) -> View:
    return constant(b, 0.0, shape)


@operation("aten.new_ones")
def new_ones(b: Program, x: View, shape: Sequence[int], **_: Any) -> View:
    return constant(b, 1.0, shape)


@operation("aten.full")
def full(b: Program, shape: Sequence[int], value: Any, **_: Any) -> View:
    return constant(b, value, shape)


@operation("aten.zeros", "aten.empty", "aten.empty_strided")
def zeros(b: Program, shape: Sequence[int], *_: Any, **__: Any) -> View:
    return constant(b, 0.0, shape)


@operation("aten.ones")
def ones(b: Program, shape: Sequence[int], **_: Any) -> View:
    return constant(b, 1.0, shape)


@operation("aten.scalar_tensor")
def scalar_tensor(b: Program, value: Any, **_: Any) -> View:
    return constant(b, value, ())
