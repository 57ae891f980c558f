"""Tensors that were computed outside a function, cut off from what they were computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


class Cut(TorchFunctionMode):
    """Have a function see a leaf instead of each tensor that has a history.

    Autograd would follow that history: the derivative by what the tensor was computed from, if the
    function uses that too, would be of both ways, and the caller's backward pass adds the second of
    them again.

    Parameters
    ----------
    tensors : sequence of torch.Tensor
        What a function closes over; those without a history stay as they are.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self._tensors = {id(x): x for x in tensors if x.grad_fn is not None}
        self._leaves = {key: x.detach().requires_grad_() for key, x in self._tensors.items()}

    def leaf(self, x: Any) -> Any:
        """What stands for ``x``; itself, if nothing does."""
        return self._leaves.get(id(x), x) if isinstance(x, Tensor) else x

    def original(self, x: Tensor) -> Tensor:
        """The tensor that a leaf stands for; itself, if it is none."""
        stood_for = (self._tensors[key] for key, leaf in self._leaves.items() if leaf is x)
        return next(stood_for, x)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._leaves:
            args, kwargs = tree_map(self.leaf, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def restore(self, graph: fx.GraphModule) -> None:
        """Have a traced graph hold the tensors again."""
        known = {id(leaf): self._tensors[key] for key, leaf in self._leaves.items()}
        for node in graph.graph.nodes:
            if node.op != "get_attr":
                continue
            value = getattr(graph, str(node.target))
            if isinstance(value, fx.GraphModule):  # a branch of torch.cond
                self.restore(value)
            elif id(value) in known:
                setattr(graph, str(node.target), known[id(value)])
