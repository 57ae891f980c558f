"""What a function's behaviour rests on, so that a trace is used again only while it still holds.

Values of tensors are left out: they are read at each solve, and a trace knows a tensor by the way
that leads to it, so that another one may take its place (a closure over a context computed anew, a
copy of a module). Everything else that Python code can branch on is taken in: numbers, strings,
the training flag, which modules and functions there are, the globals that their code names, and
shapes, dtypes and ``requires_grad`` of the tensors.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import sys
import types
from collections.abc import Hashable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .sparse import elements, is_sparse_matrix

_PLAIN = (
    type(None), bool, int, float, complex, str, bytes, range, torch.dtype, torch.device, torch.Size,
)  # fmt: skip
_LIBRARIES = sys.stdlib_module_names | {"builtins", "numpy", "pyjlode", "scipy", "torch"}
_MODULE_STATE = frozenset(vars(nn.Module()))

# Attributes that a function changes itself whenever it runs, such as counters of evaluations.
_volatile: set[tuple[type, str]] = set()


@dataclass
class Structure:
    """All that a function can read but the values of tensors.

    Attributes
    ----------
    key : tuple
        Equal for functions that trace to the same graph.
    tensors : list of torch.Tensor
        What the function can reach, in the order in which it is reached: for equal keys, tensors
        at the same place play the same part.
    attributes : dict
        The plain attributes, by class, object and name.
    """

    key: tuple[Hashable, ...] = ()
    tensors: list[Tensor] = field(default_factory=list)
    attributes: dict[tuple[type, int, str], Hashable] = field(default_factory=dict)


def fingerprint(func: object) -> Structure:
    """Summarise what ``func`` can read.

    Examples
    --------
    >>> import torch
    >>> layer = torch.nn.Linear(2, 2)
    >>> before = fingerprint(layer)
    >>> _ = layer.weight.data.mul_(2)
    >>> fingerprint(layer).key == before.key
    True
    >>> layer.weight.requires_grad_(False) is before.tensors[0]
    True
    >>> fingerprint(layer).key == before.key
    False
    """
    visitor = Visitor()
    visitor.visit(func)
    visitor.entries.append(torch.get_default_dtype())
    return Structure(tuple(visitor.entries), visitor.tensors, visitor.attributes)


def ignore_own_changes(before: Structure, after: Structure) -> bool:
    """Remember the attributes that ``func`` wrote itself between the two; whether there were any.

    Examples
    --------
    >>> ignore_own_changes(Structure(), Structure())
    False
    """
    changed = {
        (key[0], key[2])
        for key, value in after.attributes.items()
        if key in before.attributes and before.attributes[key] != value
    }
    _volatile.update(changed)
    return bool(changed)


# What objects of each class are to a visitor: looked up, as a training step on a small model is
# not much longer than the tests.
_kinds: dict[type, str] = {}
_CLASSES: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("plain", _PLAIN),
    ("tensor", (Tensor,)),
    ("array", (np.ndarray,)),
    ("callable", (types.FunctionType, types.MethodType, functools.partial)),
    ("mapping", (Mapping,)),
    ("sequence", (list, tuple, Set, collections.deque)),
    ("class", (type,)),
    ("module", (nn.Module,)),
)


def _kind(cls: type) -> str:
    kind = next((name for name, classes in _CLASSES if issubclass(cls, classes)), "object")
    if len(_kinds) > 4096:  # classes made anew all the time
        _kinds.clear()
    _kinds[cls] = kind
    return kind


class Visitor:
    """Walks everything that a function holds, each object once."""

    def __init__(self) -> None:
        self.entries: list[Hashable] = []
        self.tensors: list[Tensor] = []
        self.attributes: dict[tuple[type, int, str], Hashable] = {}
        self._seen: dict[int, int] = {}

    def visit(self, obj: Any) -> None:
        cls: Any = type(obj)
        kind = _kinds.get(cls) or _kind(cls)
        if kind == "plain":
            self.entries.append(cls)
            self.entries.append(obj)
            return
        seen = self._seen.get(id(obj))
        if seen is not None:
            # The same object again: which one it is counts, as two parts may share a weight.
            self.entries.append(seen)
            return
        self._seen[id(obj)] = len(self._seen)
        self.entries.append(cls)
        if kind == "tensor":
            self.entries += (obj.shape, obj.dtype, obj.requires_grad)
            self.tensors.append(obj)
            if obj.layout is not torch.strided:
                self._sparse(obj)
        elif kind == "array":
            digest = hashlib.blake2b(np.ascontiguousarray(obj).tobytes(), digest_size=16).digest()
            self.entries += (obj.shape, obj.dtype.str, digest)
        elif kind == "callable":
            self._callable(obj)
        elif kind == "mapping":
            for key, value in list(obj.items()):
                self.visit(key)
                self.visit(value)
        elif kind == "sequence":
            self.entries.append(len(obj))
            for value in list(obj):
                self.visit(value)
        elif kind == "class":
            self.entries.append(obj)
            self._class(obj)
        elif kind == "module":
            self._module(obj)
        elif hasattr(obj, "__dict__") and not isinstance(obj, types.ModuleType):
            self._object(obj)
        else:
            self.entries.append(id(obj))

    def _sparse(self, matrix: Tensor) -> None:
        self.entries.append(matrix.layout)
        if is_sparse_matrix(matrix):
            found = elements(matrix)
            self.entries += (len(found.values), found.digest)
            self.tensors += (found.rows, found.columns, found.values)

    def _callable(self, obj: Any) -> None:
        if isinstance(obj, types.MethodType):
            self.visit(obj.__self__)
            self.visit(obj.__func__)
        elif isinstance(obj, functools.partial):
            for part in (obj.func, obj.args, obj.keywords):
                self.visit(part)
        else:
            self._function(obj)

    def _function(self, function: types.FunctionType) -> None:
        self.entries.append(function.__code__)
        for part in (function.__defaults__, function.__kwdefaults__):
            self.visit(part)
        for cell in function.__closure__ or ():
            try:
                self.visit(cell.cell_contents)
            except ValueError:  # a name not bound yet
                self.entries.append("unbound")
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self.visit(wrapped)
        if _is_library(function.__module__):
            return
        names = list(_names(function.__code__))
        for name in names:
            if name in function.__globals__:
                self.entries.append(name)
                self._global(function.__globals__[name], names)

    def _global(self, value: object, names: list[str]) -> None:
        """A global's value; of a module of the user's, what the same code may read from it."""
        if not isinstance(value, types.ModuleType):
            self.visit(value)
        elif not _is_library(value.__name__):
            for name in names:
                if name in vars(value) and not isinstance(vars(value)[name], types.ModuleType):
                    self.entries.append(name)
                    self.visit(vars(value)[name])

    def _module(self, module: nn.Module) -> None:
        state = vars(module)
        self.entries.append(module.training)
        for name in ("_parameters", "_buffers", "_modules"):
            for key, value in state[name].items():
                self.entries.append(key)
                self.visit(value)
        for name in ("_forward_pre_hooks", "_forward_hooks"):
            for value in state[name].values():  # a hook's key counts up with every hook made
                self.visit(value)
        plain = state.keys() == _MODULE_STATE
        own = {} if plain else {k: v for k, v in state.items() if k not in _MODULE_STATE}
        self._object(module, own)

    def _object(self, obj: object, state: Mapping[str, Any] | None = None) -> None:
        cls, entries = type(obj), self.entries
        for name, value in list((vars(obj) if state is None else state).items()):
            of: Any = type(value)
            if (_kinds.get(of) or _kind(of)) == "plain":
                if (cls, name) not in _volatile:
                    self.attributes[cls, id(obj), name] = value
                    entries += (name, of, value)  # as visit has it, without the call
                continue
            entries.append(name)
            self.visit(value)
        for name in getattr(cls, "__slots__", ()):
            if hasattr(obj, name):
                self.visit(getattr(obj, name))
        self.visit(cls)

    def _class(self, cls: type) -> None:
        """The code of the user's classes, and what that code and the classes themselves hold."""
        for base in cls.__mro__:
            if _is_library(base.__module__):
                continue
            for name, value in list(vars(base).items()):
                code = value.fget if isinstance(value, property) else value
                code = getattr(code, "__func__", code)
                if isinstance(code, (types.FunctionType, Tensor, *_PLAIN)) and (
                    name == "__call__" or not name.startswith("__")
                ):
                    self.entries.append(name)
                    self.visit(code)


def _names(code: types.CodeType) -> Iterator[str]:
    """The names of globals and attributes in a function and the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


@functools.cache
def _is_library(module: object) -> bool:
    # A class of a compiled library can have something else there than a name.
    return not isinstance(module, str) or module.partition(".")[0] in _LIBRARIES
