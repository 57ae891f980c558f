"""Functions that keep a value which they computed, such as noise drawn at the first evaluation.

In a trace that would be a tensor or a number without a value, which would stay behind in the user's
objects, lists and variables.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from ..errors import TraceError
from .fingerprint import Visitor, look
from .kinds import library_of
from .scope import CONTAINERS, Scope

_SYMBOLS = (FakeTensor, torch.SymFloat, torch.SymInt, torch.SymBool)


@contextmanager
def nothing_kept(func: object) -> Iterator[None]:
    """Around a trace of ``func``: what it keeps of the trace is taken away again.

    Raises
    ------
    TraceError
        If it kept something: then it has to run as it is.
    """
    before = look(func, _Places).found
    try:
        yield
    finally:
        kept = [name for place in before for name in place.put_back()]
    if kept:
        raise TraceError(f"it keeps a value that it computes, as {kept[0]}")


def _is_of_trace(value: Any) -> bool:
    """Whether a value, or one in it, is a symbol of a trace."""
    if isinstance(value, _SYMBOLS):
        return True
    if isinstance(value, dict):
        return any(map(_is_of_trace, (*value, *value.values())))
    return type(value) in (tuple, *CONTAINERS) and any(map(_is_of_trace, value))


@dataclass
class _Namespace:
    """Names and their values, as of an object or a module."""

    held: dict[Any, Any]
    before: dict[Any, Any]

    def put_back(self) -> Iterator[str]:
        for name, value in list(self.held.items()):
            old = self.before.get(name)
            if _is_of_trace(name) or (value is not old and _is_of_trace(value)):
                yield str(name)
                if name in self.before:
                    self.held[name] = old
                else:
                    del self.held[name]


@dataclass
class _Cell:
    """A variable of a function around."""

    name: str
    held: types.CellType
    before: Any

    def put_back(self) -> Iterator[str]:
        if self.held.cell_contents is not self.before and _is_of_trace(self.held.cell_contents):
            yield self.name
            self.held.cell_contents = self.before


@dataclass
class _Elements:
    """The elements of a list, a set or a deque."""

    name: str
    held: Any
    before: tuple[Any, ...]

    def put_back(self) -> Iterator[str]:
        if _is_of_trace(self.held):
            yield self.name
            self.held.clear()
            add: Callable[..., None] = getattr(self.held, "extend", None) or self.held.update
            add(self.before)


class _Places(Visitor):
    """Finds where a function can keep something."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self.found: list[_Namespace | _Cell | _Elements] = []
        self._noted: set[int] = set()

    def _note(self, name: Any, value: Any) -> None:
        """A container, and those in it: what is only appended to is not visited otherwise."""
        if type(value) not in CONTAINERS or id(value) in self._noted:
            return
        self._noted.add(id(value))
        if isinstance(value, dict):
            self._namespace_of(value)
        else:
            self.found.append(_Elements(str(name), value, tuple(value)))
            for element in value:
                self._note(name, element)

    def _namespace_of(self, held: dict[Any, Any]) -> None:
        self.found.append(_Namespace(held, dict(held)))
        for name, value in list(held.items()):
            self._note(name, value)

    def _attributes(self, obj: Any) -> None:
        if hasattr(obj, "__dict__"):
            self._namespace_of(vars(obj))
        super()._attributes(obj)

    def _module(self, module: nn.Module) -> None:
        state = vars(module)
        self._namespace_of(state)
        if isinstance(state.get("_buffers"), dict):
            self._namespace_of(state["_buffers"])
        super()._module(module)

    def _function(self, function: Any) -> None:
        variables, default = function.__code__.co_freevars, function.__defaults__
        for name, cell in zip(variables, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # a name not bound yet
                continue
            self.found.append(_Cell(name, cell, value))
            self._note(name, value)
        self._namespace_of(function.__dict__)
        for value in default or ():
            self._note("a default argument", value)
        held = function.__globals__
        if id(held) not in self._noted and not library_of(function):
            self._noted.add(id(held))
            self._namespace_of(held)
        super()._function(function)

    def read(self, namespace: Any, name: Any, value: Any) -> None:
        self._note(name, value)
        super().read(namespace, name, value)

    def _mapping(self, obj: Any) -> None:
        if isinstance(obj, dict) and id(obj) not in self._noted:
            self._noted.add(id(obj))
            self._namespace_of(obj)
        super()._mapping(obj)
