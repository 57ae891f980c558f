"""What a function's behaviour rests on, so that a trace is used again only while it still holds.

Values of tensors are left out: they are read at each solve, and a trace knows a tensor by the way
that leads to it, so that another one may take its place (a closure over a context computed anew, a
copy of a module). Of everything else, that is taken in which the function's code names, in any of
its branches: globals, attributes, closed-over variables, and what these hold in turn. What no code
names is not read, and may change. What cannot be looked into (see ``opaque``) makes the summary
good for one solve only: what is not understood is never used again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
import types
from collections import namedtuple
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .code import Names, names_of
from .kinds import (
    has_hidden_state,
    is_library,
    is_pure,
    kind_of,
    kinds,
    library_bases,
    library_of,
    slots,
    users_bases,
)
from .scope import CONTAINERS, Scope, scope_of
from .sparse import elements, is_sparse_matrix

_MODULE_STATE = frozenset(vars(nn.Module()))

# Python calls these by itself, so that no code names them; not those that make or show an object.
_NOT_CALLED = {
    "__class_getitem__", "__copy__", "__deepcopy__", "__del__", "__delattr__", "__dir__",
    "__eq__", "__format__", "__getnewargs__", "__getstate__", "__hash__", "__init__",
    "__init_subclass__", "__ne__", "__new__", "__post_init__", "__reduce__", "__reduce_ex__",
    "__replace__", "__repr__", "__set_name__", "__setattr__", "__setstate__", "__sizeof__",
    "__str__", "__subclasshook__",
}  # fmt: skip
_MAKING = {"__init__", "__new__", "__post_init__"}
_COMPARING = {"__eq__", "__ne__", "__hash__"}
_VALUES = {"plain", "float", "number", "tensor", "array", "bytes", "mapping", "sequence"}
# What of ``sys`` can change.
_OF_SYS = {"argv", "modules", "path", "stdin"}


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
    arrays : list of numpy.ndarray
        Arrays, whose values are part of the key.
    opaque : str
        What the function may read and the key does not show, in words; empty if there is nothing.
    """

    key: tuple[Hashable, ...] = ()
    tensors: list[Tensor] = field(default_factory=list)
    arrays: list[np.ndarray] = field(default_factory=list)
    opaque: str = ""


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
    visitor: Visitor = look(func, Visitor)
    visitor.entries.append(torch.get_default_dtype())
    return Structure(tuple(visitor.entries), visitor.tensors, visitor.arrays, visitor.opaque)


def look(func: object, make: type[Visitor]) -> Any:
    """A visitor that walked ``func`` with all the names that its code has."""
    scope = scope_of(func)
    while True:
        before = scope.size
        visitor = make(scope)
        visitor.visit(func)
        if scope.size == before:
            return visitor


@dataclass(frozen=True, eq=False)
class _Same:
    """An object that is equal to itself alone, and stays alive as long as this does."""

    held: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.held is self.held

    def __hash__(self) -> int:
        return id(self.held)


class Visitor:
    """Walks what a function can read, each object once.

    One that ``keeps`` is shown by :meth:`read` where each value was found.
    """

    keeps = False

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.entries: list[Hashable] = []
        self.tensors: list[Tensor] = []
        self.arrays: list[np.ndarray] = []
        self.opaque = ""
        self._seen: dict[Hashable, int] = {}
        # What a property or the like gives may be made anew: no other object may get its id.
        self._alive: list[object] = []

    def visit(self, obj: Any) -> None:
        cls: Any = type(obj)
        kind = kinds.get(cls) or kind_of(cls)
        entries = self.entries
        if kind == "plain":
            entries += (cls, obj)
            return
        if kind == "float":
            entries += (cls, obj if obj and obj == obj else repr(obj))
            return
        seen = self._seen.get(id(obj))
        if seen is not None:
            # The same object again: which one it is counts, as two parts may share a weight.
            entries.append(seen)
            return
        self._seen[id(obj)] = len(self._seen)
        self._alive.append(obj)
        entries.append(cls)
        if kind == "tensor":
            self._tensor(obj)
        elif kind == "module":
            self._module(obj)
        elif kind == "callable":
            self._callable(obj)
        elif kind == "mapping":
            self._mapping(obj)
        elif kind == "sequence":
            self._sequence(obj)
        else:
            getattr(self, f"_{kind}")(obj)

    def read(self, namespace: Any, name: Any, value: Any) -> None:
        """Visit what has a name in a namespace: a dictionary, an object or a cell."""
        self.entries.append(name)
        self.visit(value)

    def unknown(self, what: str) -> None:
        """Note something that cannot be looked into; the first of them is told."""
        self.opaque = self.opaque or what

    # Numbers and containers.

    def _tensor(self, obj: Tensor) -> None:
        self.entries += (obj.shape, obj.dtype, obj.requires_grad)
        self.tensors.append(obj)
        if obj.layout is not torch.strided:
            self._sparse(obj)
        if obj.__dict__:
            for name, value in list(obj.__dict__.items()):
                if self.scope.reads(name, value):
                    self.read(obj.__dict__, name, value)

    def _sparse(self, matrix: Tensor) -> None:
        self.entries.append(matrix.layout)
        if is_sparse_matrix(matrix):
            found = elements(matrix)
            self.entries += (len(found.values), found.digest)
            self.tensors += (found.rows, found.columns, found.values)

    def _array(self, obj: np.ndarray) -> None:
        self.entries += (obj.shape, obj.dtype.str)
        if obj.dtype.hasobject:
            self.visit(obj.tolist())
        else:
            self.arrays.append(obj)
            self.entries.append(_digest(np.ascontiguousarray(obj).tobytes()))
        if type(obj) is not np.ndarray:
            self._object(obj)

    def _number(self, obj: np.generic) -> None:
        self.entries += (obj.dtype.str, obj.tobytes())

    def _bytes(self, obj: Any) -> None:
        self.entries.append(_digest(bytes(obj)))

    def _slice(self, obj: slice) -> None:
        for part in (obj.start, obj.stop, obj.step):
            self.visit(part)

    def _mapping(self, obj: Mapping[Any, Any]) -> None:
        self.entries.append(len(obj))
        for key, value in list(obj.items()):
            self.visit(key)
            self.visit(value)
        factory = getattr(obj, "default_factory", None)
        if factory is not None:
            self.visit(factory)

    def _sequence(self, obj: Iterable[Any]) -> None:
        values = list(obj)
        self.entries.append(len(values))
        for value in values:
            self.visit(value)

    def _derived(self, obj: Any) -> None:
        """An object of a class that is derived from one of Python's own."""
        if isinstance(obj, dict):
            self._mapping(obj)
        elif isinstance(obj, (int, float, complex, str, bytes)):
            bases = (int, float, complex, str, bytes)
            base: Any = next(b for b in bases if isinstance(obj, b))
            self.visit(base(obj) if base is not str else str.__str__(obj))
        else:
            self._sequence(obj)
        self._attributes(obj)

    def _enum(self, obj: Any) -> None:
        self.entries.append(obj._name_)
        self.visit(obj._value_)
        self._attributes(obj)

    # Code.

    def _callable(self, obj: Any) -> None:
        if isinstance(obj, types.MethodType):
            self.visit(obj.__self__)
            self.visit(obj.__func__)
        elif isinstance(obj, functools.partial):
            for part in (obj.func, obj.args, obj.keywords):
                self.visit(part)
        else:
            self._function(obj)

    def _function(self, function: Any) -> None:
        code = function.__code__
        # What torch's compiler made runs as it was written.
        original = getattr(function, "_torchdynamo_orig_callable", None)
        if original is not None:
            self.visit(original)
            return
        self.entries.append(code)
        names = names_of(code)
        library = library_of(function)
        if id(code) not in self.scope.known:
            self.scope.take(code, names, library=bool(library))
        for part in (function.__defaults__, function.__kwdefaults__):
            self.visit(part)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # a name not bound yet
                self.entries.append("unbound")
                continue
            changed = name in names.changed and type(value) in CONTAINERS
            if library or ((name in names.variables or name in names.changed) and not changed):
                self.read(cell, name, value)
        if function.__dict__:
            for name, value in list(function.__dict__.items()):
                if name == "__wrapped__" or self.scope.reads(name, value):
                    self.read(function.__dict__, name, value)
        if library:
            if not is_pure(library):
                self.unknown(f"{library}.{function.__name__}")
            return
        if names.opaque:
            self.unknown(f"{names.opaque} in {function.__qualname__}")
        self._globals(function, names)
        for level, module in names.imports:
            self._imported(function, level, module)

    def _globals(self, function: Any, names: Names) -> None:
        held = function.__globals__
        for name in sorted(names.globals):
            if name not in held:
                continue
            value = held[name]
            if name in names.changed and type(value) in CONTAINERS:
                continue
            self.read(held, name, value)
            if value is sys and names.attributes & _OF_SYS:
                self.unknown("sys")
            elif value is np and "random" in names.attributes:
                self.unknown("numpy.random")

    def _imported(self, function: Any, level: int, name: str) -> None:
        """A module that code imports when it runs."""
        if level:
            package = function.__globals__.get("__package__") or ""
            name = importlib.util.resolve_name("." * level + name, package)
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            module = sys.modules.get(".".join(parts[:end]))
            if module is not None:
                self.visit(module)

    def _namespace(self, module: types.ModuleType) -> None:
        """A module: of the user's, what any code that is reached may read from it."""
        self.entries.append(module.__name__)
        if is_library(module.__name__):
            if not is_pure(module.__name__):
                self.unknown(f"the module {module.__name__}")
            return
        held, scope = vars(module), self.scope
        for name, value in list(held.items()):
            if name in scope.attributes or name == "__getattr__":
                self.read(held, name, value)
            elif scope.dynamic and not name.startswith("__"):
                of: Any = type(value)
                if (kinds.get(of) or kind_of(of)) in _VALUES:
                    self.read(held, name, value)

    def _builtin(self, obj: Any) -> None:
        """A function of a compiled library, or a method of an object of Python's own."""
        owner, name = obj.__self__, obj.__name__
        self.entries.append(name)
        if owner is None or isinstance(owner, types.ModuleType):
            self.entries.append(_Same(obj))
            module = obj.__module__ or getattr(owner, "__name__", "builtins")
            if is_library(module) and not is_pure(module):
                self.unknown(f"{module}.{name}")
        else:
            self.visit(owner)

    def _cached(self, obj: Any) -> None:
        self.visit(obj.__wrapped__)

    def _weak(self, obj: Any) -> None:
        self.visit(obj())

    def _context(self, obj: Any) -> None:
        self.visit(obj.get(None))

    def _constant(self, obj: Any) -> None:
        self.entries.append(_Same(obj))

    def _ignored(self, obj: Any) -> None:
        """What changes no number: locks, and what writes a log."""

    # Objects.

    def _class(self, cls: Any) -> None:
        """A class that code may make objects of."""
        self.entries.append(cls)
        if is_library(cls.__module__):
            if not is_pure(cls.__module__):
                self.unknown(f"{cls.__module__}.{cls.__name__}")
            return
        self._code(cls, _MAKING)
        if type(cls) is not type:
            self._code(type(cls), set())

    def _module(self, module: Any) -> None:
        cls: Any = type(module)
        state, scope = vars(module), self.scope
        if isinstance(module, torch.jit.ScriptModule):
            self.unknown("what torch.jit compiled")
            self.visit(list(module.state_dict(keep_vars=True).values()))
            return
        if "_modules" not in state:  # its __init__ never called super().__init__()
            self._attributes(module)
            return
        if "_orig_mod" in state["_modules"]:  # what torch's compiler made
            self.visit(state["_modules"]["_orig_mod"])
            return
        self.entries.append(module.training)
        library = not users_bases(cls)
        everything = library or scope.members or scope.dynamic
        for name in ("_parameters", "_buffers", "_modules"):
            held = state[name]
            for key, value in list(held.items()):
                if everything or key in scope.attributes:
                    self.read(held, key, value)
        for name in ("_forward_pre_hooks", "_forward_hooks"):
            for value in list(state[name].values()):  # a hook's key counts up with every hook made
                self.visit(value)
        if len(state) > len(_MODULE_STATE) or not library:
            for name, value in list(state.items()):
                if name not in _MODULE_STATE and (
                    library or name == "forward" or scope.reads(name, value)
                ):
                    self.read(state, name, value)
        self._code_of(cls)

    def _object(self, obj: Any) -> None:
        cls: Any = type(obj)
        if has_hidden_state(cls):
            self.unknown(f"an object of {cls.__module__}.{cls.__qualname__}")
            self.entries.append(_Same(obj))
            return
        self._attributes(obj)

    def _attributes(self, obj: Any) -> None:
        cls: Any = type(obj)
        entries, scope = self.entries, self.scope
        # Code of a library's class is not looked into: any of its objects' attributes may count.
        everything = scope.dynamic or (bool(library_bases(cls)) and not users_bases(cls))
        state = getattr(obj, "__dict__", None)
        if state:
            for name, value in list(state.items()):
                if everything or scope.reads(name, value):
                    of: Any = type(value)
                    if (kinds.get(of) or kind_of(of)) == "plain" and not self.keeps:
                        entries += (name, of, value)
                    else:
                        self.read(state, name, value)
        for name in slots(cls):
            if everything or name in scope.attributes or name in scope.changed:
                value = _slot(obj, name)
                if value is not None:
                    self.read(obj, name, value)
        self._code_of(cls)

    def _code_of(self, cls: Any) -> None:
        """The code of an object's class, once for all its objects."""
        if ("of", cls) not in self._seen:
            self._seen["of", cls] = len(self._seen)
            self.entries.append(cls)
            derived = bool(users_bases(cls))
            for base in library_bases(cls):
                if derived or base.__module__.startswith("pyjlode."):  # ours call the user's
                    self._names_in(base)
            self._code(cls, _MAKING if "__class__" in self.scope.attributes else set())

    def _names_in(self, base: type) -> None:
        """What a library's class reads of objects of a user's class that is derived from it."""
        for value in vars(base).values():
            code = getattr(_unwrapped(value), "__code__", None)
            if code is not None and id(code) not in self.scope.known:
                self.scope.take(code, names_of(code), library=True)

    def _code(self, cls: Any, more: set[str]) -> None:
        """The code of the user's classes that is named, and the values that the classes hold."""
        scope = self.scope
        called = more | _COMPARING if scope.compares else more
        is_module = issubclass(cls, nn.Module)
        for base in users_bases(cls):
            held = vars(base)
            for name, value in list(held.items()):
                if name.startswith("__") and name.endswith("__"):
                    if name in _NOT_CALLED and name not in called:
                        continue
                    if not isinstance(_unwrapped(value), types.FunctionType):
                        continue
                elif not scope.reads(name, value) and not (is_module and name == "forward"):
                    continue
                code = _unwrapped(value)
                if type(code) not in _DESCRIPTORS:
                    self.entries.append(name)
                    self.visit(code)


# Of the values in an object, which are looked at there.
_DESCRIPTORS = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    type(vars(namedtuple("Named", "value"))["value"]),
)


def _unwrapped(value: Any) -> Any:
    """What a class's attribute runs: the function in a property or a method."""
    if isinstance(value, property):
        return value.fget
    if isinstance(value, functools.cached_property):
        return value.func
    if isinstance(value, (classmethod, staticmethod)):
        return value.__func__
    return value


def _slot(obj: object, name: str) -> Any:
    try:
        return object.__getattribute__(obj, name)
    except AttributeError:
        return None


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
