"""Writes into tensors from outside on which no result rests, such as running statistics.

A batch norm in training mode adds to its running mean at every evaluation, and normalises by the
batch alone. Such a write does not belong into a solve, where evaluations are tried, rejected and
repeated. It is taken out of the graph; the engine makes up for it after the solve, by one
evaluation of the function at each saved state.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx


def take_out_updates(graph: fx.GraphModule) -> tuple[Tensor, ...]:
    """Remove the writes, with all that serves them alone; the tensors that they wrote into."""
    updated = []
    for tensor in _written(graph):
        nodes = _resting_on(graph, tensor)
        if _is_closed(nodes):
            updated.append(tensor)
            for node in reversed([n for n in graph.graph.nodes if n in nodes]):
                graph.graph.erase_node(node)
    if updated:
        graph.recompile()
    return tuple(updated)


def _written(graph: fx.GraphModule) -> list[Tensor]:
    """Tensors from outside that an operation of the graph changes, through views or directly."""
    root: dict[fx.Node, Tensor] = {}
    found: dict[int, Tensor] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            root[node] = getattr(graph, str(node.target))
        elif node.op == "call_function" and node.args and node.args[0] in root:
            source = node.args[0]
            if _changes_first_argument(node):
                found[id(root[source])] = root[source]
            if _returns_view(node):
                root[node] = root[source]
    return list(found.values())


def _resting_on(graph: fx.GraphModule, tensor: Tensor) -> set[fx.Node]:
    reached: set[fx.Node] = set()
    for node in graph.graph.nodes:
        is_tensor = node.op == "get_attr" and getattr(graph, str(node.target)) is tensor
        if is_tensor or any(n in reached for n in node.all_input_nodes):
            reached.add(node)
    return reached


def _is_closed(nodes: set[fx.Node]) -> bool:
    """Whether nothing leaves: no output is among them and they write into nothing else."""
    for node in nodes:
        if node.op == "output":
            return False
        if _changes_first_argument(node) and node.args[0] not in nodes:
            return False
    return True


def _changes_first_argument(node: fx.Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _returns_view(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.returns:
        return False
    return target._schema.returns[0].alias_info is not None
