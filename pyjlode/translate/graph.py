"""From a traced ATen graph to a program: walk the nodes, look each operation up in the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import TraceError
from . import layout
from .constants import Constants
from .draws import draw_of, is_draw
from .known import Known
from .layout import View, uniform
from .numbers import check_exact, check_types, conform, tensors_of
from .operations import TABLE, assign, in_place, literal, plain_name
from .operations.arithmetic import where
from .operations.complex import ComplexView, as_pairs, complex_handler, from_pairs
from .operations.table import Handler
from .program import Program


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
    known : mapping of int to Known, optional
        By ``id``, tensors from outside whose values may be used.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        program: Program,
        placeholders: Mapping[str, Any],
        tensors: dict[int, View],
        dtype: torch.dtype,
        known: Mapping[int, Known] | None = None,
    ) -> None:
        self.graph = graph
        self.program = program
        self.placeholders = placeholders
        self.tensors = tensors
        self.dtype = dtype
        self.values: dict[fx.Node, Any] = {}
        self.folded: dict[fx.Node, Any] = {}
        self.constants = Constants(known or {})

    def run(self) -> list[Any]:
        """Translate every node; the views of the graph's outputs, None where it gives None."""
        self.program.mutates |= _mutates(self.graph)
        needed = _needed(self.graph)
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self.placeholders[node.target]
            elif node.op == "get_attr":
                self.values[node] = self._outside(node)
            elif node.op == "call_function" and node in needed:
                self._call(node)
            elif node.op == "output":
                return [None if a is None else self._result(a) for a in node.args[0]]
        raise AssertionError("a graph without an output")

    def _result(self, node: fx.Node) -> View:
        value = self._value(node)
        return as_pairs(self.program, value) if isinstance(value, ComplexView) else value

    def _outside(self, node: fx.Node) -> View | ComplexView | fx.GraphModule:
        value = getattr(self.graph, str(node.target))
        if isinstance(value, fx.GraphModule):  # a branch of torch.cond
            return value
        self.constants.tensor(node, value)
        view = self.tensors[id(value)]
        return from_pairs(view) if value.is_complex() else view

    def _call(self, node: fx.Node) -> None:
        name = _plain_name(node)
        if name == "getitem":
            self._get_item(node)
            return
        if node.target is torch.ops.higher_order.cond:
            self.values[node] = self._conditional(*fx.map_arg(node.args, self._value))
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
        check_types(node, name, self.dtype)
        before = len(self.program.operations)
        values = self._apply(node, name, handler)
        taken = [self._value(n) for n in node.all_input_nodes]
        self.values[node] = conform(self.program, node, name, values, taken, self.dtype)
        self._learn(node, self.constants.call(node, self.folded))
        for op in self.program.operations[before:]:
            self.program.origins[op] = name

    def _learn(self, node: fx.Node, known: Known | None) -> None:
        """Note what is known of a result, and that it is no more where it was written into."""
        result = self.values[node]
        if not isinstance(result, View) or result.buffer is None:
            return
        if _plain_name(node).endswith("_"):
            self.program.known.pop(result.buffer, None)
        else:
            self.program.learn(result, known)

    def _apply(self, node: fx.Node, name: str, handler: Handler) -> Any:
        args = fx.map_arg(node.args, self._value)
        kwargs = fx.map_arg(node.kwargs, self._value)
        try:
            return handler(self.program, *args, **kwargs)
        except TraceError as error:
            raise TraceError(f"{name}: {error}", operation=name) from None
        except (TypeError, KeyError, AttributeError, ValueError, RuntimeError) as error:
            raise TraceError(
                f"{name} is used in a form that is not covered ({error})", operation=name
            ) from error

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
        if any(isinstance(x, ComplexView) for x in operands):
            raise TraceError("torch.cond gets complex numbers")
        return GraphTranslator(graph, self.program, placeholders, self.tensors, self.dtype).run()

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
        if value.is_complex():
            return from_pairs(self._constant(torch.view_as_real(value.resolve_conj())))
        check_exact(value, self.program.exact)
        kind = "b" if value.dtype == torch.bool else "f"
        if value.numel() and bool((value == value.reshape(-1)[0]).all()):
            return layout.expand(literal(value.reshape(-1)[0].item()), value.shape)
        if not value.numel():
            return uniform("T(0)", tuple(value.shape), kind)
        return self.program.constant(value)


def _is_complex(node: fx.Node) -> bool:
    """Whether complex numbers go in or come out."""
    return any(v.is_complex() for n in (node, *node.all_input_nodes) for v in tensors_of(n))


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


def _plain_name(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return plain_name(target)
    return getattr(target, "__name__", str(target))
