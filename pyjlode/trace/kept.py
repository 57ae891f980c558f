"""Functions that keep a tensor which they made, such as noise drawn at the first evaluation.

In a trace that would be a tensor without values, and it would stay behind on the user's object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from ..errors import TraceError
from .fingerprint import Visitor, look
from .scope import Scope


@contextmanager
def nothing_kept(func: object) -> Iterator[None]:
    """Around a trace of ``func``: what it keeps of the trace is taken away again.

    Raises
    ------
    TraceError
        If it kept something: then it has to run as it is.
    """
    finder = look(func, _Namespaces)
    before = [(namespace, dict(namespace)) for namespace in finder.found]
    try:
        yield
    finally:
        kept = [name for namespace, old in before for name in _put_back(namespace, old)]
    if kept:
        raise TraceError(f"it keeps a tensor that it makes itself, as {kept[0]}")


def _put_back(namespace: dict[Any, Any], old: Mapping[Any, Any]) -> Iterator[str]:
    for name, value in list(namespace.items()):
        if isinstance(value, FakeTensor):
            yield str(name)
            if name in old:
                namespace[name] = old[name]
            else:
                del namespace[name]


class _Namespaces(Visitor):
    """Finds where the objects that a function holds have their attributes."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self.found: list[dict[Any, Any]] = []

    def _attributes(self, obj: Any) -> None:
        if hasattr(obj, "__dict__"):
            self.found.append(vars(obj))
        super()._attributes(obj)

    def _module(self, module: nn.Module) -> None:
        state = vars(module)
        self.found += (x for x in (state, state.get("_buffers")) if isinstance(x, dict))
        super()._module(module)

    def _mapping(self, obj: Any) -> None:
        if isinstance(obj, dict):
            self.found.append(obj)
        super()._mapping(obj)
