"""Copies for functions that write into their arguments, and none for those that don't."""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx

_CLONE = torch.ops.aten.clone.default


def on_copies(func: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The function, whose arguments are its own to write into.

    Examples
    --------
    >>> import torch
    >>> y = torch.ones(2)
    >>> on_copies(lambda t, y: y.mul_(3))(torch.tensor(0.0), y), y
    (tensor([3., 3.]), tensor([1., 1.]))
    """
    return lambda t, y: func(t.clone(), y.clone())


def leave_out_copies(graph: fx.GraphModule) -> None:
    """Remove the copies of a traced graph's inputs into which nothing is written."""
    while _left_out(graph):
        pass  # a copy of a copy is one of an input now
    graph.recompile()


def _left_out(graph: fx.GraphModule) -> bool:
    """Remove the copies of inputs themselves; whether there were any."""
    root = _roots(graph)
    written = set()
    for node in graph.graph.nodes:
        schema = _schema(node)
        if schema is not None and schema.is_mutable:
            written |= {root[arg] for arg in node.all_input_nodes if arg in root}
    unwritten = [n for n, copy in root.items() if copy is n and n not in written]
    for node in unwritten:
        node.replace_all_uses_with(node.all_input_nodes[0])
        graph.graph.erase_node(node)
    return bool(unwritten)


def _roots(graph: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Copies of inputs, and views of them: the copy that each belongs to."""
    root: dict[fx.Node, fx.Node] = {}
    inputs = set()
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            inputs.add(node)
        elif node.op == "call_function" and node.args and isinstance(node.args[0], fx.Node):
            source = node.args[0]
            if node.target is _CLONE and source in inputs and not node.kwargs:
                root[node] = node
            elif _is_view(node) and source in root:
                root[node] = root[source]
            elif _is_view(node) and source in inputs:
                inputs.add(node)
    return root


def _is_view(node: fx.Node) -> bool:
    """Whether a result may be of the memory of its first argument."""
    schema = _schema(node)
    if schema is None:
        return node.target is operator.getitem
    return bool(schema.returns) and schema.returns[0].alias_info is not None


def _schema(node: fx.Node) -> torch._C.FunctionSchema | None:
    return node.target._schema if isinstance(node.target, torch._ops.OpOverload) else None
