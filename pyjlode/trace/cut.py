"""Other tensors in the place of those that a function closes over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


class Substitution(TorchFunctionMode):
    """Have a function see other tensors than those that it closes over.

    Parameters
    ----------
    substitutes : mapping of int to torch.Tensor
        By the ids of the tensors that they stand in for.
    """

    def __init__(self, substitutes: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.substitutes = dict(substitutes)

    def stand_in(self, x: Any) -> Any:
        """What stands for ``x``; itself, if nothing does."""
        return self.substitutes.get(id(x), x) if isinstance(x, Tensor) else x

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(self.stand_in, (args, kwargs or {}))
        return func(*args, **kwargs)


class Cut(Substitution):
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
        self._tensors = {id(x): x for x in tensors if x.grad_fn is not None}
        leaves = {key: x.detach().requires_grad_() for key, x in self._tensors.items()}
        super().__init__(leaves)

    def original(self, x: Tensor) -> Tensor:
        """The tensor that a leaf stands for; itself, if it is none."""
        stood_for = (self._tensors[key] for key, leaf in self.substitutes.items() if leaf is x)
        return next(stood_for, x)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.substitutes:
            return func(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)

    def restore(self, graph: fx.GraphModule) -> None:
        """Have a traced graph hold the tensors again."""
        known = {id(leaf): self._tensors[key] for key, leaf in self.substitutes.items()}
        for node in graph.graph.nodes:
            if node.op != "get_attr":
                continue
            value = getattr(graph, str(node.target))
            if isinstance(value, fx.GraphModule):  # a branch of torch.cond
                self.restore(value)
            elif id(value) in known:
                setattr(graph, str(node.target), known[id(value)])
