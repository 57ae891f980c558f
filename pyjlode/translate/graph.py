"""From a traced ATen graph to a program: walk the nodes, look each operation up in the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import TraceError
from . import layout
from .layout import View, uniform
from .operations import TABLE, in_place, literal, plain_name
from .operations.arithmetic import where
from .operations.table import Handler, as_float, elementwise, to_bool, to_float
from .program import Program

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class GraphTranslator:
    """Translate one graph.

    Parameters
    ----------
    graph : torch.fx.GraphModule
        ATen operations on fake tensors, with tensors from outside as ``get_attr`` nodes.
    placeholders : dict of str to Any
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
        placeholders: Mapping[str, Any],
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
        self.constants: list[tuple[Tensor, View]] = []

    def run(self) -> list[Any]:
        """Translate every node; the views of the graph's outputs, None where it gives None."""
        self.program.mutates |= _mutates(self.graph)
        needed = _needed(self.graph)
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self.placeholders[node.target]
            elif node.op == "get_attr":
                self.values[node] = self._outside(node.target)
            elif node.op == "call_function" and node in needed:
                self._call(node)
            elif node.op == "output":
                return [None if a is None else self._value(a) for a in node.args[0]]
        raise AssertionError("a graph without an output")

    def _outside(self, name: object) -> View | fx.GraphModule:
        value = getattr(self.graph, str(name))
        return value if isinstance(value, fx.GraphModule) else self.tensors[id(value)]

    def _call(self, node: fx.Node) -> None:
        name = _plain_name(node)
        if name == "getitem":
            self._get_item(node)
            return
        if node.target is torch.ops.higher_order.cond:
            self.values[node] = self._conditional(*fx.map_arg(node.args, self._value))
            return
        if self._fold(node):
            return
        handler = TABLE.get(name) or in_place(name)
        if handler is None:
            raise TraceError(f"Julia code for {name} is not in the table of operations")
        self._check_types(node, name)
        values = self._apply(node, name, handler)
        self.values[node] = self._conform(node, name, values)

    def _apply(self, node: fx.Node, name: str, handler: Handler) -> Any:
        args = fx.map_arg(node.args, self._value)
        kwargs = fx.map_arg(node.kwargs, self._value)
        try:
            return handler(self.program, *args, **kwargs)
        except TraceError as error:
            raise TraceError(f"{name}: {error}") from None
        except (TypeError, KeyError, AttributeError, ValueError, RuntimeError) as error:
            raise TraceError(f"{name} is used in a form that is not covered ({error})") from error

    def _conditional(self, predicate: Any, *branches: Any) -> list[Any]:
        """``torch.cond``: both branches, and of each result the one that the predicate chooses."""
        *graphs, operands = branches
        results = [self._branch(graph, operands) for graph in graphs]
        if not isinstance(predicate, View):
            return results[0 if predicate else 1]
        return [
            None if yes is None and no is None else where(self.program, predicate, yes, no)
            for yes, no in zip(*results, strict=True)
        ]

    def _branch(self, graph: fx.GraphModule, operands: Any) -> list[Any]:
        names = [str(n.target) for n in graph.graph.nodes if n.op == "placeholder"]
        placeholders = dict(zip(names, operands, strict=True))
        branch = GraphTranslator(graph, self.program, placeholders, self.tensors, self.dtype)
        branch.constants = self.constants
        return branch.run()

    def _get_item(self, node: fx.Node) -> None:
        source, index = node.args
        assert isinstance(source, fx.Node)
        if source in self.folded:
            self.folded[node] = self.folded[source][index]
        else:
            self.values[node] = self.values[source][index]

    def _fold(self, node: fx.Node) -> bool:
        """Compute now what rests on no input: shapes' worth of zeros, ranges, masks."""
        if any(n not in self.folded for n in node.all_input_nodes):
            return False
        assert isinstance(node.target, torch._ops.OpOverload)
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            raise TraceError(f"{_plain_name(node)} draws random numbers during the solve")
        name = _plain_name(node)
        fresh = self.program.mutates and not node.all_input_nodes and name in TABLE
        if fresh or name.endswith("_"):
            return False  # later operations may write into it, and this one may be such
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
        check_exact(value, self.program.exact)
        kind = "b" if value.dtype == torch.bool else "f"
        if value.numel() and bool((value == value.reshape(-1)[0]).all()):
            return layout.expand(literal(value.reshape(-1)[0].item()), value.shape)
        if not value.numel():
            return uniform("T(0)", tuple(value.shape), kind)
        view = self.program.input("c", 0, value.shape, kind)
        self.constants.append((value, view))
        return view

    def _check_types(self, node: fx.Node, name: str) -> None:
        if name == "aten.as_strided" and not _tensors(node.all_input_nodes[0])[0].is_contiguous():
            raise TraceError("it takes as_strided of a tensor that is not contiguous")
        for value in _tensors(node):
            known = value.dtype in (self.dtype, torch.bool) or value.dtype in INTEGERS
            if known or (value.dtype == torch.float32 and not name.endswith("_")):
                continue
            raise TraceError(
                f"{name} makes a tensor of {value.dtype}, and the state is of {self.dtype}"
            )

    def _conform(self, node: fx.Node, name: str, values: Any) -> Any:
        """Results as numbers or truth values, whichever torch's type says, and exact integers."""
        results = list(values) if isinstance(values, (tuple, list)) else [values]
        for view, tensor in zip(results, _tensors(node), strict=False):
            if isinstance(view, View) and view.shape != tuple(tensor.shape):
                raise TraceError(
                    f"{name} got the shape {view.shape}, and torch says {tensor.shape}"
                )
        if name.endswith("_"):
            return values  # what it wrote into keeps its type
        taken = {a.buffer for a in map(self._value, node.all_input_nodes) if isinstance(a, View)}
        for i, (view, tensor) in enumerate(zip(results, _tensors(node), strict=False)):
            if not isinstance(view, View):
                continue
            if tensor.dtype == torch.bool:
                results[i] = to_bool(self.program, view)
            elif view.kind == "b":
                results[i] = to_float(self.program, as_float(view))
            elif view.buffer is None or view.buffer in taken:
                pass  # a view of what is right already
            elif tensor.dtype != self.dtype and tensor.is_floating_point():
                results[i] = elementwise(self.program, "T(Float32({0}))", [view])
            elif tensor.dtype in INTEGERS and name in _GROWING:
                limit = float(min(self.program.exact, torch.iinfo(tensor.dtype).max))
                results[i] = elementwise(self.program, "exact({0}, {1})", [view, limit])
        return type(values)(results) if isinstance(values, (tuple, list)) else results[0]


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


def _mutates(graph: fx.GraphModule) -> bool:
    """Whether operations write into tensors, in the graph or in a branch of it."""
    calls = (n for n in graph.graph.nodes if n.op == "call_function")
    branches = (m for m in graph.children() if isinstance(m, fx.GraphModule))
    return any(_plain_name(n).endswith("_") for n in calls) or any(map(_mutates, branches))


def _needed(graph: fx.GraphModule) -> set[fx.Node]:
    """The nodes that the outputs, or writes into tensors, rest on."""
    needed: set[fx.Node] = set()
    for node in reversed(graph.graph.nodes):
        writes = node.op == "call_function" and _plain_name(node).endswith("_")
        if node.op == "output" or writes or node in needed:
            needed.add(node)
            needed.update(node.all_input_nodes)
    return needed


def _tensors(node: fx.Node) -> list[Tensor]:
    values = node.meta.get("val")
    values = values if isinstance(values, (tuple, list)) else [values]
    return [v for v in values if isinstance(v, Tensor)]


def _plain_name(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return plain_name(target)
    return getattr(target, "__name__", str(target))
