"""Element-wise operations: the one-line table, and those that need more than a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..layout import View
from ..pointwise import ARITHMETIC, BITWISE, COMPARISON, LOGIC, SPECIAL
from ..program import Program
from .table import (
    TABLE,
    as_view,
    elementwise,
    operation,
    to_bool,
    to_float,
)


def _enter_pointwise() -> None:
    for name, template in {**ARITHMETIC, **SPECIAL}.items():
        _enter(name, template, "f")
    for name, template in COMPARISON.items():
        _enter(name, template, "b")
    for name, template in LOGIC.items():
        _enter(name, template, "b", prepare=to_bool)


def _enter(
    name: str,
    template: str,
    kind: str,
    prepare: Callable[[Program, Any], Any] = lambda b, x: x,
) -> None:
    count = 1 + max(i for i in range(3) if f"{{{i}}}" in template)

    def handler(b: Program, *args: Any, **_: Any) -> View:
        return elementwise(b, template, [prepare(b, x) for x in args[:count]], kind)

    TABLE[name] = handler
    TABLE[_PRIMS.get(name, name.replace("aten.", "prims."))] = handler


_PRIMS = {"aten.erfinv": "prims.erf_inv", "aten.special_zeta": "prims.zeta"}

_enter_pointwise()


def _enter_bitwise() -> None:
    for name, function in BITWISE.items():

        def handler(b: Program, x: Any, y: Any, _function: str = function) -> View:
            if as_view(x).kind == "b" and as_view(y).kind == "b":
                template = "xor({0}, {1})" if _function == "xor" else f"{{0}} {_function} {{1}}"
                return elementwise(b, template, [x, y], "b")
            return elementwise(b, f"on_integers({_function}, {{0}}, {{1}})", [x, y])

        TABLE[name] = TABLE[name.replace("aten.", "prims.")] = handler


_enter_bitwise()


@operation("aten.__lshift__")
def left_shift(b: Program, x: Any, y: Any) -> View:
    return TABLE["aten.bitwise_left_shift"](b, x, y)


@operation("aten.__rshift__")
def right_shift(b: Program, x: Any, y: Any) -> View:
    return TABLE["aten.bitwise_right_shift"](b, x, y)


@operation("aten.bitwise_not", "prims.bitwise_not")
def bitwise_not(b: Program, x: View) -> View:
    return elementwise(b, "!{0}", [x], "b") if x.kind == "b" else elementwise(b, "-1 - {0}", [x])


@operation("aten.polygamma")
def polygamma(b: Program, n: int, x: View) -> View:
    return elementwise(b, f"polygamma({n}, {{0}})", [x])


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
    outer = {None: "{0} / {1}", "floor": "floor_divide({0}, {1})", "trunc": "trunc({0} / {1})"}
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
    if dtype == torch.bool:
        result = to_bool(b, x)
    elif dtype is None or dtype.is_floating_point or x.kind == "b":
        result = x if dtype is None else to_float(b, x)
    else:
        return elementwise(b, "to_integer({0}, {1})", [x, float(torch.iinfo(dtype).max)])
    # A copy by its meaning; it must be one where something may write into either.
    return b.pointwise("{0}", [x], x.shape, x.kind) if result is x and b.mutates else result


@operation("aten.hardshrink_backward")
def hardshrink_backward(b: Program, g: View, x: View, limit: float) -> View:
    return elementwise(b, "ifelse(abs({1}) <= {2}, T(0), {0})", [g, x, limit])


@operation("aten.softshrink_backward")
def softshrink_backward(b: Program, g: View, x: View, limit: float) -> View:
    return hardshrink_backward(b, g, x, limit)
