"""The names by which all the code that a function can run reads anything."""

from __future__ import annotations

import functools
import types
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from .code import Names

CONTAINERS = (list, dict, set, deque)
"""What may get more elements where code only appends to it."""


@dataclass
class Scope:
    """The names by which the code that a function reaches reads anything."""

    attributes: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    dynamic: bool = False
    members: bool = False
    compares: bool = False
    known: dict[int, types.CodeType] = field(default_factory=dict)

    def take(self, code: types.CodeType, names: Names, *, library: bool) -> None:
        """Add what a piece of code reads; a library's reads names that others give it too."""
        self.known[id(code)] = code
        self.attributes |= names.attributes
        self.changed |= names.changed
        if library:
            return
        self.dynamic |= names.dynamic
        self.members |= names.members
        self.compares |= names.compares

    @property
    def size(self) -> tuple[int, ...]:
        """It grows as code is found, and never shrinks."""
        flags = (self.dynamic, self.members, self.compares)
        return (len(self.attributes), len(self.changed), *flags)

    def reads(self, name: str, value: object) -> bool:
        """Whether an attribute's value counts."""
        if self.dynamic or name in self.attributes:
            return True
        # What only gets more elements is not read, unless it is of a class that does more.
        return name in self.changed and type(value) not in CONTAINERS


# By the code or the class that is looked at: the walk that finds all names is made once.
_scopes: OrderedDict[int, tuple[object, Scope]] = OrderedDict()


def scope_of(func: object) -> Scope:
    """The scope in which ``func`` is looked at, as far as it is known."""
    root: Any = func
    while isinstance(root, functools.partial):
        root = root.func
    root = getattr(root, "__func__", root)
    root = getattr(root, "__code__", None) or type(root)
    known = _scopes.get(id(root))
    if known is None:
        known = _scopes[id(root)] = (root, Scope())
        if len(_scopes) > 1024:
            _scopes.popitem(last=False)
    return known[1]
