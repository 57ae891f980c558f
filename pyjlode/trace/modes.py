"""Torch without the shortcuts that a trace cannot look into."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch

from .sparse import SparseProducts


@contextmanager
def without_compilation() -> Iterator[None]:
    """Functions that ``torch.compile`` made run as they were written."""
    # Where torch's compiler was never loaded nothing can have been compiled by it.
    if "torch._dynamo.eval_frame" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _traced_as_written() -> Iterator[None]:
    """The same in a trace, where torch's compiler steps aside by itself if it is not to complain.

    The stance above would take ``torch.cond`` apart too.
    """
    if "torch._dynamo.eval_frame" not in sys.modules:
        yield
        return
    import torch._dynamo

    with torch._dynamo.config.patch(error_on_nested_fx_trace=False):
        yield


_OPERATORS = {
    "__setitem__", "__set__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__",
    "__imod__", "__ipow__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__",
}  # fmt: skip


def is_in_place(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name in _OPERATORS or (name.endswith("_") and not name.endswith("__"))


def put_back(held: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Give each tensor the values of the one beside it, and write nothing where it has them.

    To torch, what was written to since it was saved for a gradient is of no use for that any more.
    """
    with torch.no_grad():
        for tensor, original in held:
            if tensor.layout is not torch.strided or not torch.equal(tensor, original):
                tensor.copy_(original)


class _Originals(TorchFunctionMode):
    """Undo what a trace changes in place: torch really counts in zero-dimensional tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        target: Any = args[0] if args else None
        changes = type(target) is Tensor and is_in_place(func)
        # What torch.func wraps was made in the trace.
        if changes and not is_functorch_wrapped_tensor(target):
            with no_dispatch():
                self.found.setdefault(id(target), (target, target.detach().clone()))
        return func(*args, **(kwargs or {}))


@contextmanager
def traceable() -> Iterator[None]:
    """Attention as products and a softmax, sparse products of dense tensors, nothing compiled."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    originals = _Originals()
    try:
        with _traced_as_written(), sdpa_kernel(SDPBackend.MATH), originals, SparseProducts():
            yield
    finally:
        put_back(originals.found.values())
        torch.backends.mha.set_fastpath_enabled(fast_path)
