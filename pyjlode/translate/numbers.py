"""Types of numbers: generated code computes in the state's type alone, and torch's in several.

Integers are floating point numbers there, exact up to where that type has every integer, and
complex numbers are pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import TraceError
from .layout import View
from .operations.complex import ComplexView
from .operations.table import as_float, elementwise, to_bool, to_float
from .program import Program

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

# Operations that can make larger integers than they get.
_GROWING = {
    "aten.add", "aten.rsub", "aten.sub", "aten.mul", "aten.pow", "aten.square", "aten.prod",
    "aten.cumsum", "aten.cumprod", "aten.mm", "aten.bmm", "aten.addmm", "aten.dot", "aten.mv",
    "aten.scatter_add", "aten.scatter_reduce", "aten.bitwise_left_shift", "aten.__lshift__",
    "prims.add", "prims.sub", "prims.mul", "prims.pow", "prims.prod",
}  # fmt: skip


def exact_integers(dtype: torch.dtype) -> int:
    """Up to where a floating point type has every integer."""
    return 2**24 if dtype == torch.float32 else 2**53


def check_exact(tensor: Tensor, limit: int) -> None:
    """Refuse integers that the model's floating point type does not have.

    Raises
    ------
    TraceError
        If there are any.
    """
    if tensor.dtype not in (torch.int32, torch.int64) or not tensor.numel():
        return
    low, high = (int(x) for x in tensor.aminmax())
    if max(-low, high) > limit:
        raise TraceError(
            f"it uses the integer {high if high > limit else low}, beyond {limit}, up to which "
            "the state's type has every integer"
        )


def check_types(node: fx.Node, name: str, dtype: torch.dtype) -> None:
    """Refuse results of a type that cannot be had exactly.

    Raises
    ------
    TraceError
        If there is one.
    """
    if name == "aten.as_strided" and not tensors_of(node.all_input_nodes[0])[0].is_contiguous():
        raise TraceError("it takes as_strided of a tensor that is not contiguous", operation=name)
    for value in tensors_of(node):
        known = value.dtype in (dtype, dtype.to_complex(), torch.bool, *INTEGERS)
        if not known and (value.dtype != torch.float32 or name.endswith("_")):
            raise TraceError(
                f"{name} makes a tensor of {value.dtype}, and the state is of {dtype}",
                operation=name,
            )


def conform(
    b: Program, node: fx.Node, name: str, values: Any, taken: Sequence[Any], dtype: torch.dtype
) -> Any:
    """Results as numbers or truth values, whichever torch's type says, and exact integers.

    Raises
    ------
    TraceError
        If a result has not the shape of torch's: it would be read outside its memory.
    """
    results = list(values) if isinstance(values, (tuple, list)) else [values]
    buffers = {x.buffer for x in taken if isinstance(x, View)}
    for i, (found, tensor) in enumerate(zip(results, tensors_of(node), strict=False)):
        if not isinstance(found, (View, ComplexView)):
            continue
        if tuple(found.shape) != tuple(tensor.shape):
            shapes = f"{tuple(found.shape)} where torch makes {tuple(tensor.shape)}"
            raise TraceError(f"{name} would make a tensor of shape {shapes}", operation=name)
        # What an operation in place wrote into keeps its type.
        if isinstance(found, View) and not name.endswith("_"):
            results[i] = _conform(b, name, found, tensor, found.buffer in buffers, dtype)
    return type(values)(results) if isinstance(values, (tuple, list)) else results[0]


def _conform(
    b: Program, name: str, found: View, tensor: Tensor, is_argument: bool, dtype: torch.dtype
) -> View:
    if tensor.dtype == torch.bool:
        return to_bool(b, found)
    if found.kind == "b":
        return to_float(b, as_float(found))
    if found.buffer is None or is_argument:
        return found  # a view of what is right already
    if tensor.dtype != dtype and tensor.is_floating_point():
        return elementwise(b, "T(Float32({0}))", [found])
    if tensor.dtype in INTEGERS and name in _GROWING:
        limit = float(min(b.exact, torch.iinfo(tensor.dtype).max))
        return elementwise(b, "exact({0}, {1})", [found, limit])
    return found


def tensors_of(node: fx.Node) -> list[Tensor]:
    """The fake tensors that stand for a node's results."""
    values = node.meta.get("val")
    values = values if isinstance(values, (tuple, list)) else [values]
    return [v for v in values if isinstance(v, Tensor)]
