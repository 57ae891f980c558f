"""From a traced ATen graph to a program: walk the nodes, look each operation up in the table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ..errors import TraceError
from . import layout
from .draws import draw_of, is_draw
from .layout import View, uniform
from .operations import TABLE, assign, in_place, literal, plain_name
from .operations.complex import ComplexView, as_pairs, complex_handler, from_pairs
from .program import Program


class GraphTranslator:
    """Translate one graph.

    Parameters
    ----------
    graph : torch.fx.GraphModule
        ATen operations on fake tensors, with tensors from outside as ``get_attr`` nodes.
    placeholders : dict of str to View
        What each placeholder of the graph is in the generated function.
    tensors : dict of int to View
        By ``id``, the view of each tensor from outside.
    dtype : torch.dtype
        The one floating point type that the generated function computes in.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        program: Program,
        placeholders: dict[str, View],
        tensors: dict[int, View],
        dtype: torch.dtype,
    ) -> None:
        self.graph = graph
        self.program = program
        self.placeholders = placeholders
        self.tensors = tensors
        self.dtype = dtype
        self.values: dict[fx.Node, Any] = {}
        self.folded: dict[fx.Node, Any] = {}

    def run(self) -> list[Any]:
        """Translate every node; the views of the graph's outputs, None where it gives None."""
        self.program.mutates = any(
            n.op == "call_function" and _plain_name(n).endswith("_") for n in self.graph.graph.nodes
        )
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self.placeholders[node.target]
            elif node.op == "get_attr":
                self.values[node] = self._outside(node)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                return [None if a is None else self._result(a) for a in node.args[0]]
        raise AssertionError("a graph without an output")

    def _result(self, node: fx.Node) -> View:
        value = self._value(node)
        return as_pairs(self.program, value) if isinstance(value, ComplexView) else value

    def _outside(self, node: fx.Node) -> View | ComplexView:
        tensor = getattr(self.graph, str(node.target))
        view = self.tensors[id(tensor)]
        return from_pairs(view) if tensor.is_complex() else view

    def _call(self, node: fx.Node) -> None:
        name = _plain_name(node)
        if name == "getitem":
            self._get_item(node)
            return
        if is_draw(node):
            self._draw(node, name)
            return
        if self._fold(node):
            return
        if _is_complex(node):
            handler, what = complex_handler(name), f"{name} of complex numbers"
        else:
            handler, what = TABLE.get(name) or in_place(name), name
        if handler is None:
            raise TraceError(
                f"Julia code for {what} is not in the table of operations", operation=name
            )
        self._check_types(node, name)
        args = fx.map_arg(node.args, self._value)
        kwargs = fx.map_arg(node.kwargs, self._value)
        before = len(self.program.operations)
        try:
            self.values[node] = handler(self.program, *args, **kwargs)
        except TraceError as error:
            raise TraceError(f"{name}: {error}", operation=name) from None
        except (TypeError, KeyError, AttributeError) as error:
            raise TraceError(
                f"{name} is used in a form that is not covered ({error})", operation=name
            ) from error
        _check_shapes(name, self.values[node], node.meta.get("val"))
        for op in self.program.operations[before:]:
            self.program.origins[op] = name

    def _get_item(self, node: fx.Node) -> None:
        source, index = node.args
        assert isinstance(source, fx.Node)
        if source in self.folded:
            self.folded[node] = self.folded[source][index]
        else:
            self.values[node] = self.values[source][index]

    def _draw(self, node: fx.Node, name: str) -> None:
        drawn = self.program.constant(draw_of(node, name, self.folded))
        if name.endswith("_"):
            drawn = assign(self.program, self._value(node.args[0]), drawn)
        self.values[node] = drawn

    def _fold(self, node: fx.Node) -> bool:
        """Compute now what rests on no input: shapes' worth of zeros, ranges, masks."""
        if any(n not in self.folded for n in node.all_input_nodes):
            return False
        assert isinstance(node.target, torch._ops.OpOverload)
        fresh = self.program.mutates and not node.all_input_nodes and _plain_name(node) in TABLE
        if fresh and _is_float_or_bool(node.meta.get("val")):
            return False  # later operations may write into it
        args = fx.map_arg(node.args, self.folded.__getitem__)
        kwargs = fx.map_arg(node.kwargs, self.folded.__getitem__)
        self.folded[node] = node.target(*args, **kwargs)
        return True

    def _value(self, node: Any) -> Any:
        if not isinstance(node, fx.Node):
            return node
        if node not in self.values:
            self.values[node] = fx.node.map_aggregate(self.folded[node], self._constant)
        return self.values[node]

    def _constant(self, value: Any) -> Any:
        """A folded tensor: a literal where its elements are equal, else one more input."""
        if not isinstance(value, Tensor):
            return value
        if value.is_complex():
            pairs = self._constant(torch.view_as_real(value.resolve_conj()))
            return from_pairs(pairs)
        kind = "b" if value.dtype == torch.bool else "f"
        if value.numel() and bool((value == value.reshape(-1)[0]).all()):
            return layout.expand(literal(value.reshape(-1)[0].item()), value.shape)
        if not value.numel():
            return uniform("T(0)", tuple(value.shape), kind)
        return self.program.constant(value)

    def _check_types(self, node: fx.Node, name: str) -> None:
        values = node.meta.get("val")
        for value in values if isinstance(values, (tuple, list)) else [values]:
            if not isinstance(value, Tensor) or value.dtype in (self.dtype, torch.bool):
                continue
            if value.dtype == self.dtype.to_complex():
                continue
            if value.dtype in (torch.int32, torch.int64) and name in _COUNTING:
                continue  # small counts and signs, exact as floating point numbers
            if value.is_floating_point() and name in _MOVING:
                continue  # nothing is computed in it, so that nothing is rounded
            raise TraceError(
                f"{name} makes a tensor of {value.dtype}, and the state is of {self.dtype}",
                operation=name,
            )


# Operations on integers that give the same on floating point numbers.
_COUNTING = {
    "aten.add", "aten.clone", "aten.expand", "aten.linalg_cholesky_ex",
    "aten.linalg_lu_factor_ex", "aten.max_pool2d_with_indices", "aten.max_pool3d_with_indices",
    "aten.mul", "aten.neg", "aten.scalar_tensor", "aten.squeeze", "aten.sub", "aten.sum",
    "aten.unsqueeze", "aten.view", "aten.where", "prims.sum",
}  # fmt: skip


# Operations that only move numbers.
_MOVING = {
    "aten.clone", "aten.expand", "aten.permute", "aten.squeeze", "aten.unsqueeze", "aten.view",
    "aten.where",
}  # fmt: skip


def _check_shapes(name: str, found: Any, expected: Any) -> None:
    """A result of another shape than torch's would be read outside its memory."""
    if isinstance(found, (tuple, list)) and isinstance(expected, (tuple, list)):
        for f, e in zip(found, expected, strict=False):
            _check_shapes(name, f, e)
    elif not isinstance(found, (View, ComplexView)) or not isinstance(expected, Tensor):
        return
    elif found.shape != expected.shape:
        shapes = f"{found.shape} where torch makes {tuple(expected.shape)}"
        raise TraceError(f"{name} would make a tensor of shape {shapes}")


def _is_complex(node: fx.Node) -> bool:
    """Whether complex numbers go in or come out."""
    values = [n.meta.get("val") for n in (node, *node.all_input_nodes)]
    flat = [v for value in values for v in (value if isinstance(value, (list, tuple)) else [value])]
    return any(isinstance(v, Tensor) and v.is_complex() for v in flat)


def _is_float_or_bool(value: Any) -> bool:
    if not isinstance(value, Tensor):
        return False
    return value.is_floating_point() or value.is_complex() or value.dtype == torch.bool


def _plain_name(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return plain_name(target)
    return getattr(target, "__name__", str(target))
