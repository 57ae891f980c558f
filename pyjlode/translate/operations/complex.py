"""Complex numbers: a complex tensor is a pair of real ones.

The table here has the operations that take or give complex tensors; the parts are real tensors,
combined by the operations of the other table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import TraceError
from .. import layout
from ..layout import View
from ..program import Program
from .arithmetic import where as real_where
from .memory import stack
from .products import matmul
from .table import TABLE, Handler, as_view, assign, elementwise, empty

COMPLEX: dict[str, Handler] = {}


@dataclass(frozen=True)
class ComplexView:
    """A complex tensor: its real and imaginary parts."""

    real: View
    imag: View

    @property
    def shape(self) -> tuple[int, ...]:
        return self.real.shape


def complex_operation(*names: str) -> Callable[[Handler], Handler]:
    """Enter a function in the table of complex operations."""

    def enter(handler: Handler) -> Handler:
        for name in names:
            COMPLEX[name] = handler
        return handler

    return enter


def parts(x: Any) -> tuple[Any, Any]:
    """Real and imaginary part; None for the imaginary part of what is real."""
    if isinstance(x, ComplexView):
        return x.real, x.imag
    if isinstance(x, complex):
        return as_view(x.real), as_view(x.imag)
    return as_view(x), None


def paired(b: Program, real: View, imag: View | None) -> ComplexView:
    zero = layout.uniform("T(0)", real.shape)
    return ComplexView(real, zero if imag is None else layout.expand(imag, real.shape))


def as_pairs(b: Program, z: ComplexView) -> View:
    """The parts side by side in memory, as torch has them; where they lie so, the same memory."""
    r, i = z.real, z.imag
    together = r.buffer is i.buffer and i.offset == r.offset + 1 and i.strides == r.strides
    if r.buffer is not None and together:
        return View(r.buffer, (*r.shape, 2), (*r.strides, 1), r.offset)
    return stack(b, [r, i], -1)


def from_pairs(x: View) -> ComplexView:
    return ComplexView(layout.select(x, -1, 0), layout.select(x, -1, 1))


def complex_handler(name: str) -> Handler | None:
    """The handler of a complex operation, in-place ones from that of the plain form."""
    if name in COMPLEX:
        return COMPLEX[name]
    plain = COMPLEX.get(name.removesuffix("_")) if name.endswith("_") else None
    if plain is None:
        return None

    def handler(b: Program, target: ComplexView, *args: Any, **kwargs: Any) -> ComplexView:
        return _assign(b, target, plain(b, target, *args, **kwargs))

    return handler


def _assign(b: Program, target: ComplexView, source: Any) -> ComplexView:
    if not isinstance(target, ComplexView):
        raise TraceError("it writes complex numbers into a real tensor")
    real, imag = parts(source)
    # Both parts are known before either is written: the source may be a view of the target.
    real = elementwise(b, "{0}", [real])
    imag = elementwise(b, "{0}", [0.0 if imag is None else imag])
    assign(b, target.real, real)
    assign(b, target.imag, imag)
    return target


# What moves numbers, or adds them up, does the same to both parts.

_BOTH_PARTS = (
    "alias", "cat", "clone", "constant_pad_nd", "contiguous", "detach", "diagonal",
    "diagonal_backward", "expand", "flip", "lift_fresh_copy", "mean", "neg", "permute", "reshape",
    "roll", "select", "select_backward", "select_scatter", "slice", "slice_backward",
    "slice_scatter", "split", "split_with_sizes", "squeeze", "squeeze_", "stack", "sum", "t", "t_",
    "transpose", "transpose_", "unbind", "unsqueeze", "unsqueeze_", "view", "_unsafe_view",
)  # fmt: skip


def _enter_both_parts(name: str) -> None:
    def handler(b: Program, *args: Any, **kwargs: Any) -> Any:
        def part(i: int) -> Any:
            def of(x: Any) -> Any:
                if isinstance(x, (list, tuple)):
                    return type(x)(of(e) for e in x)
                if isinstance(x, View):
                    return x if i == 0 else layout.uniform("T(0)", x.shape)
                return parts(x)[i] if isinstance(x, (ComplexView, complex)) else x

            kwargs.pop("dtype", None)
            return TABLE[name](b, *(of(a) for a in args), **kwargs)

        real, imag = part(0), part(1)
        if isinstance(real, (list, tuple)):
            return [ComplexView(r, i) for r, i in zip(real, imag, strict=True)]
        return ComplexView(real, imag)

    COMPLEX[name] = handler


for _name in _BOTH_PARTS:
    if f"aten.{_name}" in TABLE:
        _enter_both_parts(f"aten.{_name}")


# Arithmetic.


def _sum(b: Program, x: View | None, y: View | None, sign: str) -> View | None:
    if x is None:
        return y if y is None or sign == "+" else elementwise(b, "-{0}", [y])
    return x if y is None else elementwise(b, f"{{0}} {sign} {{1}}", [x, y])


def _scaled(b: Program, x: Any, alpha: float | complex) -> Any:
    return x if alpha == 1 else mul(b, x, alpha)


@complex_operation("aten.add", "prims.add")
def add(b: Program, x: Any, y: Any, *, alpha: float | complex = 1) -> ComplexView:
    return _combine(b, x, _scaled(b, y, alpha), "+")


@complex_operation("aten.sub", "prims.sub")
def sub(b: Program, x: Any, y: Any, *, alpha: float | complex = 1) -> ComplexView:
    return _combine(b, x, _scaled(b, y, alpha), "-")


@complex_operation("aten.rsub")
def rsub(b: Program, x: Any, y: Any, alpha: float | complex = 1) -> ComplexView:
    return sub(b, y, x, alpha=alpha)


def _combine(b: Program, x: Any, y: Any, sign: str) -> ComplexView:
    (xr, xi), (yr, yi) = parts(x), parts(y)
    real = _sum(b, xr, yr, sign)
    assert real is not None
    return paired(b, real, _sum(b, xi, yi, sign))


@complex_operation("aten.mul", "prims.mul")
def mul(b: Program, x: Any, y: Any) -> ComplexView:
    (xr, xi), (yr, yi) = parts(x), parts(y)
    if xi is None:
        (xr, xi), (yr, yi) = (yr, yi), (xr, xi)
    if yi is None:
        if xi is None:
            return paired(b, elementwise(b, "{0} * {1}", [xr, yr]), None)
        return ComplexView(*(elementwise(b, "{0} * {1}", [p, yr]) for p in (xr, xi)))
    args = [xr, xi, yr, yi]
    return ComplexView(
        elementwise(b, "{0} * {2} - {1} * {3}", args), elementwise(b, "{0} * {3} + {1} * {2}", args)
    )


@complex_operation("aten.reciprocal")
def reciprocal(b: Program, z: ComplexView) -> ComplexView:
    size = elementwise(b, "{0} * {0} + {1} * {1}", [z.real, z.imag])
    return ComplexView(
        elementwise(b, "{0} / {1}", [z.real, size]), elementwise(b, "-{0} / {1}", [z.imag, size])
    )


@complex_operation("aten.div", "prims.div")
def div(b: Program, x: Any, y: Any) -> ComplexView:
    (xr, xi), (yr, yi) = parts(x), parts(y)
    if yi is None:
        real = elementwise(b, "{0} / {1}", [xr, yr])
        return paired(b, real, None if xi is None else elementwise(b, "{0} / {1}", [xi, yr]))
    return mul(b, x, reciprocal(b, ComplexView(yr, yi)))


@complex_operation("aten.pow", "prims.pow")
def power(b: Program, x: Any, y: Any) -> ComplexView:
    if isinstance(y, (int, float)) and float(y).is_integer() and abs(y) <= 16:
        result: Any = 1.0
        for _ in range(abs(int(y))):
            result = mul(b, result, x)
        return reciprocal(b, paired(b, *parts(result))) if y < 0 else paired(b, *parts(result))
    return exp(b, mul(b, log(b, paired(b, *parts(x))), y))


@complex_operation("aten.square")
def square(b: Program, z: ComplexView) -> ComplexView:
    return mul(b, z, z)


@complex_operation(
    "aten._conj", "aten._conj_physical", "prims.conj_physical", "aten.conj_physical", "aten.conj"
)
def conj(b: Program, z: Any) -> Any:
    if not isinstance(z, ComplexView):
        return z
    return ComplexView(z.real, elementwise(b, "-{0}", [z.imag]))


@complex_operation("aten.resolve_conj", "aten.resolve_neg")
def resolve(b: Program, z: Any) -> Any:
    return z


@complex_operation("aten.exp")
def exp(b: Program, z: ComplexView) -> ComplexView:
    args = [z.real, z.imag]
    return ComplexView(
        elementwise(b, "vexp({0}) * ncos({1})", args), elementwise(b, "vexp({0}) * nsin({1})", args)
    )


@complex_operation("aten.log")
def log(b: Program, z: ComplexView) -> ComplexView:
    return ComplexView(elementwise(b, "vlog({0})", [absolute(b, z)]), angle(b, z))


@complex_operation("aten.sqrt")
def sqrt(b: Program, z: ComplexView) -> ComplexView:
    args = [absolute(b, z), z.real, z.imag]
    return ComplexView(
        elementwise(b, "nsqrt(({0} + {1}) / 2)", args),
        elementwise(b, "copysign(nsqrt(({0} - {1}) / 2), {2})", args),
    )


@complex_operation("aten.sin")
def sin(b: Program, z: ComplexView) -> ComplexView:
    args = [z.real, z.imag]
    return ComplexView(
        elementwise(b, "nsin({0}) * cosh({1})", args), elementwise(b, "ncos({0}) * sinh({1})", args)
    )


@complex_operation("aten.cos")
def cos(b: Program, z: ComplexView) -> ComplexView:
    args = [z.real, z.imag]
    return ComplexView(
        elementwise(b, "ncos({0}) * cosh({1})", args),
        elementwise(b, "-nsin({0}) * sinh({1})", args),
    )


@complex_operation("aten.tanh")
def tanh(b: Program, z: ComplexView) -> ComplexView:
    args = [z.real, z.imag]
    size = elementwise(b, "cosh(2 * {0}) + ncos(2 * {1})", args)
    return ComplexView(
        elementwise(b, "sinh(2 * {0}) / {1}", [z.real, size]),
        elementwise(b, "nsin(2 * {0}) / {1}", [z.imag, size]),
    )


@complex_operation("aten.sigmoid")
def sigmoid(b: Program, z: ComplexView) -> ComplexView:
    return reciprocal(b, add(b, exp(b, mul(b, z, -1.0)), 1.0))


# From complex to real numbers and back.


@complex_operation("aten.abs", "prims.abs")
def absolute(b: Program, z: ComplexView) -> View:
    return elementwise(b, "hypot({0}, {1})", [z.real, z.imag])


@complex_operation("aten.angle")
def angle(b: Program, z: ComplexView) -> View:
    return elementwise(b, "atan({0}, {1})", [z.imag, z.real])


@complex_operation("aten.sgn")
def sgn(b: Program, z: ComplexView) -> ComplexView:
    size = absolute(b, z)
    return ComplexView(
        *(elementwise(b, "ifelse(iszero({1}), zero(T), {0} / {1})", [p, size]) for p in parts(z))
    )


@complex_operation("aten.real", "prims.real")
def real(b: Program, z: ComplexView) -> View:
    return z.real


@complex_operation("aten.imag", "prims.imag")
def imag(b: Program, z: ComplexView) -> View:
    return z.imag


@complex_operation("aten.view_as_real")
def view_as_real(b: Program, z: ComplexView) -> View:
    return as_pairs(b, z)


@complex_operation("aten.view_as_complex")
def view_as_complex(b: Program, x: View) -> ComplexView:
    return from_pairs(x)


@complex_operation("aten.complex")
def complex_(b: Program, x: View, y: View) -> ComplexView:
    shape = torch.broadcast_shapes(x.shape, y.shape)
    return ComplexView(layout.expand(x, shape), layout.expand(y, shape))


@complex_operation("aten.polar")
def polar(b: Program, size: View, phase: View) -> ComplexView:
    args = [size, phase]
    return ComplexView(
        elementwise(b, "{0} * ncos({1})", args), elementwise(b, "{0} * nsin({1})", args)
    )


@complex_operation("aten._to_copy", "prims.convert_element_type")
def convert(b: Program, x: Any, dtype: torch.dtype | None = None, **_: Any) -> Any:
    real_part, imag_part = parts(x)
    if dtype is not None and not dtype.is_complex:
        return real_part
    return paired(b, as_float_view(b, real_part), imag_part)


def as_float_view(b: Program, x: View) -> View:
    return elementwise(b, "{0}", [x]) if x.kind == "b" else x


@complex_operation("aten.eq")
def eq(b: Program, x: Any, y: Any) -> View:
    (xr, xi), (yr, yi) = parts(x), parts(y)
    zero = as_view(0.0)
    args = [xr, zero if xi is None else xi, yr, zero if yi is None else yi]
    return elementwise(b, "({0} == {2}) & ({1} == {3})", args, "b")


@complex_operation("aten.ne")
def ne(b: Program, x: Any, y: Any) -> View:
    return elementwise(b, "!{0}", [eq(b, x, y)], "b")


@complex_operation("aten.isnan")
def isnan(b: Program, z: ComplexView) -> View:
    return elementwise(b, "isnan({0}) | isnan({1})", [z.real, z.imag], "b")


@complex_operation("aten.where")
def where(b: Program, condition: View, x: Any, y: Any) -> ComplexView:
    (xr, xi), (yr, yi) = parts(x), parts(y)
    zero = as_view(0.0)
    imaginary = real_where(b, condition, zero if xi is None else xi, zero if yi is None else yi)
    return paired(b, real_where(b, condition, xr, yr), imaginary)


# New tensors and writes.


def _filled(b: Program, shape: Sequence[int], value: Any = 0.0) -> ComplexView:
    value_real, value_imag = parts(value)
    out = from_pairs(empty(b, (*shape, 2)))
    b.write(out.real, layout.expand(value_real, shape))
    b.write(out.imag, layout.expand(as_view(0.0) if value_imag is None else value_imag, shape))
    return out


@complex_operation("aten.zeros", "aten.empty", "aten.empty_strided")
def zeros(b: Program, shape: Sequence[int], *_: Any, **__: Any) -> ComplexView:
    return _filled(b, shape)


@complex_operation("aten.new_zeros", "aten.new_empty", "aten.new_empty_strided")
def new_zeros(b: Program, x: Any, shape: Sequence[int], *_: Any, **__: Any) -> ComplexView:
    return _filled(b, shape)


@complex_operation("aten.zeros_like", "aten.empty_like")
def zeros_like(b: Program, x: Any, **_: Any) -> ComplexView:
    return _filled(b, x.shape)


@complex_operation("aten.ones_like")
def ones_like(b: Program, x: Any, **_: Any) -> ComplexView:
    return _filled(b, x.shape, 1.0)


@complex_operation("aten.full", "aten.new_full")
def full(b: Program, *args: Any, **_: Any) -> ComplexView:
    return _filled(b, args[-2], args[-1])


@complex_operation("aten.full_like")
def full_like(b: Program, x: Any, value: Any, **_: Any) -> ComplexView:
    return _filled(b, x.shape, value)


@complex_operation("aten.scalar_tensor")
def scalar_tensor(b: Program, value: Any, **_: Any) -> ComplexView:
    return _filled(b, (), value)


@complex_operation("aten.copy_", "aten.fill_")
def copy_(b: Program, target: Any, source: Any, non_blocking: bool = False) -> Any:
    if isinstance(target, View):  # torch drops the imaginary part
        return assign(b, target, parts(source)[0])
    return _assign(b, target, source)


@complex_operation("aten.zero_")
def zero_(b: Program, target: ComplexView) -> ComplexView:
    return _assign(b, target, 0.0)


# Products of matrices.


@complex_operation("aten.mm", "aten.bmm", "aten.matmul")
def complex_matmul(b: Program, x: Any, y: Any) -> ComplexView:
    return _bilinear(b, matmul, x, y)


@complex_operation("aten.mv")
def mv(b: Program, x: Any, y: Any) -> ComplexView:
    return _bilinear(b, TABLE["aten.mv"], x, y)


@complex_operation("aten.dot")
def dot(b: Program, x: Any, y: Any) -> ComplexView:
    return _bilinear(b, TABLE["aten.dot"], x, y)


@complex_operation("aten.vdot")
def vdot(b: Program, x: Any, y: Any) -> ComplexView:
    return dot(b, conj(b, x), y)


@complex_operation("aten.addmm", "aten.baddbmm")
def addmm(b: Program, bias: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> ComplexView:
    product = _scaled(b, complex_matmul(b, x, y), alpha)
    return product if beta == 0 else add(b, product, bias, alpha=beta)


def _bilinear(b: Program, product: Handler, x: Any, y: Any) -> ComplexView:
    (xr, xi), (yr, yi) = parts(x), parts(y)

    def times(p: View | None, q: View | None) -> View | None:
        return None if p is None or q is None else product(b, p, q)

    real_part = _sum(b, times(xr, yr), times(xi, yi), "-")
    assert real_part is not None
    return paired(b, real_part, _sum(b, times(xr, yi), times(xi, yr), "+"))


def as_real(x: Tensor) -> Tensor:
    """A tensor's numbers as real ones; of complex numbers, both parts."""
    return torch.view_as_real(x) if x.is_complex() else x
