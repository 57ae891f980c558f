"""Tensors from outside whose values a function reads as Python numbers while it is traced.

``k.item()``, ``float(k)``, ``table[int(k)]`` and the like make a number of a tensor, which then
stands in the trace as it was. Each such read is noted here, and the trace is used again only while
the tensor has the value that was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch._C._functorch import is_functorch_wrapped_tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from ..errors import TraceError

_aten = torch.ops.aten
NEEDS_VALUE = "it needs the value of a tensor (a branch, float(), item() or numpy())"
SCALAR = _aten._local_scalar_dense.default

# What gives Python or numpy the values of a tensor. In a trace some would see no values at all.
_READERS = {
    "__array__", "__format__", "__repr__", "__str__", "allclose", "equal", "is_nonzero", "numpy",
    "tolist",
}  # fmt: skip

# Those that show a tensor, and would show one without values.
_TEXT = {"__format__", "__repr__", "__str__"}

# Where Python's arithmetic with numbers, and torch's own with those of a trace, is from.
_ARITHMETIC = {"_operator", "math", "operator", "torch"}

# What makes a tensor of numbers, among which there may be tensors.
_MAKERS = {"asarray", "as_tensor", "new_tensor", "tensor"}


class Reads(TorchFunctionMode):
    """Notes the tensors whose values are read while it is active, in ``found``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, Tensor] = {}
        self.made: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _READERS and args:
            tensors = [x for x in args if isinstance(x, Tensor)]
            if all(_is_real(x) for x in tensors):
                self._note(tensors)
                with _disable_current_modes(), torch.no_grad():
                    return func(*(x.detach() if isinstance(x, Tensor) else x for x in args))
            if name in _TEXT:
                raise TraceError("it makes text of a tensor (print(), str() or an f-string)")
        elif name in _MAKERS:
            self._note(x for x in _nested(args[name == "new_tensor" :]))
        result = func(*args, **kwargs)
        of_numbers = not any(isinstance(x, Tensor) for x in args)
        if of_numbers and isinstance(result, Tensor) and _is_real(result):
            self.made[id(result)] = result
        return result

    def rule(self) -> Callable[[Any], Any]:
        """What stands for the operation by which torch itself reads a number: the same, noted."""

        def read(x: Any) -> Any:
            if isinstance(x, Tensor) and _is_real(x):
                self._note([x])
            elif _is_of_inputs(x):
                raise TraceError(NEEDS_VALUE)
            return NotImplemented

        return read

    def resolve(self, graph: fx.GraphModule) -> None:
        """Numbers that were computed from tensors from outside alone become what they are now."""
        changed = False
        for node in list(graph.graph.nodes):
            if node.op != "call_function" or node.target is not SCALAR:
                continue
            self._note(_held(graph, n) for n in _origins(node) if n.op == "get_attr")
            _put(graph, node, _value(graph, node) if node.users else None)
            changed = True
        if changed:
            graph.recompile()

    def _note(self, tensors: Iterable[Tensor]) -> None:
        for x in tensors:
            if _is_real(x) and id(x) not in self.made:
                self.found[id(x)] = x


def _is_of_inputs(x: Tensor) -> bool:
    """Whether a tensor of the trace depends on the time, the state or random numbers."""
    from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot

    mode = get_proxy_mode()
    found = None if mode is None else get_proxy_slot(x, mode.tracer, None)
    if found is None:
        return False
    return any(n.op == "placeholder" or _draws(n) for n in _origins(found.proxy.node))


def _is_real(x: Tensor) -> bool:
    return not isinstance(x, FakeTensor) and not is_functorch_wrapped_tensor(x)


def _nested(values: Any) -> Iterator[Tensor]:
    """Tensors in lists of numbers; a tensor that is given itself stays a tensor."""
    for value in values:
        if isinstance(value, (list, tuple)):
            for x in value:
                if isinstance(x, Tensor):
                    yield x
            yield from _nested(value)


def _origins(node: fx.Node) -> Iterator[fx.Node]:
    """A node, and the nodes that it was computed from."""
    pending, seen = [node], set()
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending += node.all_input_nodes
            yield node


def _draws(node: fx.Node) -> bool:
    target = node.target
    return (
        isinstance(target, torch._ops.OpOverload)
        and torch.Tag.nondeterministic_seeded in target.tags
    )


def _held(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    held: Tensor = getattr(graph, str(node.target))
    return held


def _put(graph: fx.GraphModule, node: fx.Node, number: Any) -> None:
    """Put a number in a node's place, and in that of Python's arithmetic with it."""
    users = list(node.users)
    for user in users:
        user.args = fx.map_arg(user.args, lambda n: number if n is node else n)
        user.kwargs = fx.map_arg(user.kwargs, lambda n: number if n is node else n)
    graph.graph.erase_node(node)
    for user in users:
        in_python = getattr(user.target, "__module__", "") in _ARITHMETIC
        if user.op == "call_function" and in_python and not user.all_input_nodes:
            _put(graph, user, _value(graph, user))


def _value(graph: fx.GraphModule, node: fx.Node) -> Any:
    """What a node that rests on no input computes."""
    if node.op == "get_attr":
        return _held(graph, node)
    target: Any = node.target
    args = fx.map_arg(node.args, lambda n: _value(graph, n))
    kwargs = fx.map_arg(node.kwargs, lambda n: _value(graph, n))
    with torch.no_grad():
        return target(*args, **kwargs)
