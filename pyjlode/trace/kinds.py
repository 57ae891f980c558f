"""What objects of each class are to a look at a function."""

from __future__ import annotations

import collections
import contextvars
import datetime
import decimal
import enum
import functools
import logging
import re
import sys
import threading
import types
import uuid
import weakref
from array import array
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Of the standard library, what gives the same for the same arguments. What others read, such as
# the time or the environment, cannot be told.
_PURE = {
    "_collections", "_collections_abc", "_functools", "_operator", "abc", "argparse", "array",
    "ast", "base64", "bisect", "builtins", "cmath", "collections", "colorsys", "contextlib",
    "copy", "csv", "dataclasses", "decimal", "_decimal", "difflib", "dis", "enum", "fractions",
    "functools", "graphlib", "hashlib", "heapq", "inspect", "itertools", "json", "keyword",
    "logging", "math", "numbers", "operator", "pprint", "re", "reprlib", "statistics", "string",
    "struct", "sys", "textwrap", "types", "typing", "unicodedata", "uuid", "warnings", "weakref",
    "zlib",
}  # fmt: skip
_LIBRARIES = sys.stdlib_module_names | {
    "beartype", "builtins", "einops", "jaxtyping", "lightning", "numpy", "opt_einsum", "pyjlode",
    "pytorch_lightning", "scipy", "torch", "torch_geometric", "torchcde", "torchdiffeq", "torchsde",
    "torchvision", "typeguard",
}  # fmt: skip

# Values that do not change and are equal when they mean the same.
_PLAIN: tuple[type, ...] = (
    type(None), bool, int, str, bytes, range, torch.dtype, torch.device, torch.Size, torch.layout,
    torch.memory_format, type(...), type(NotImplemented), decimal.Decimal, datetime.date,
    datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone, uuid.UUID, re.Pattern,
    types.CodeType,
)  # fmt: skip
# Zeros have signs, and what is not a number is not equal to itself.
_FLOATS = (float, complex)

# Classes of which an object is known by itself alone, and has nothing that changes.
_CONSTANT: tuple[type, ...] = (
    np.ufunc, torch._ops.OpOverload, torch._ops.OpOverloadPacket, types.MethodDescriptorType,
    types.WrapperDescriptorType, types.ClassMethodDescriptorType, types.GetSetDescriptorType,
    types.MemberDescriptorType, torch.finfo, torch.iinfo, type(np.sum),
)  # fmt: skip
_IGNORED: tuple[type, ...] = (
    type(threading.Lock()), type(threading.RLock()), logging.Logger, logging.LoggerAdapter,
)  # fmt: skip
_MAPPINGS = (
    dict, collections.OrderedDict, collections.defaultdict, collections.Counter,
    types.MappingProxyType,
)  # fmt: skip
_SEQUENCES = (list, tuple, set, frozenset, collections.deque)

# By class, and by a base class; the first that fits counts.
_BY_CLASS: dict[type, str] = {
    **dict.fromkeys(_PLAIN, "plain"),
    **dict.fromkeys(_FLOATS, "float"),
    **dict.fromkeys(_MAPPINGS, "mapping"),
    **dict.fromkeys(_SEQUENCES, "sequence"),
    slice: "slice",
    types.BuiltinFunctionType: "builtin",
    types.MethodWrapperType: "builtin",
    functools._lru_cache_wrapper: "cached",
}
_BY_BASE: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("tensor", (Tensor,)),
    ("array", (np.ndarray,)),
    ("number", (np.generic,)),
    ("plain", (np.dtype,)),
    ("bytes", (array, bytearray, memoryview)),
    ("callable", (types.FunctionType, types.MethodType, functools.partial)),
    ("class", (type,)),
    ("namespace", (types.ModuleType,)),
    ("module", (nn.Module,)),
    ("weak", (weakref.ref,)),
    ("context", (contextvars.ContextVar,)),
    ("constant", _CONSTANT),
    ("ignored", _IGNORED),
    ("enum", (enum.Enum,)),
    ("derived", (*_MAPPINGS[:1], *_SEQUENCES, int, float, complex, str, bytes)),
    ("object", (object,)),
)

# Objects of these hold what others put there, and read nothing of it themselves.
_RECORDS = ("argparse.Namespace", "types.SimpleNamespace")

kinds: dict[type, str] = {}


def kind_of(cls: type) -> str:
    """The kind of a class's objects; ``kinds`` has those that were asked for."""
    kind = _BY_CLASS.get(cls)
    if kind is None:
        kind = next(name for name, bases in _BY_BASE if issubclass(cls, bases))
    if len(kinds) > 4096:  # classes made anew all the time
        kinds.clear()
    kinds[cls] = kind
    return kind


@functools.cache
def is_library(module: object) -> bool:
    """Whether code of a module is not the user's, and not looked into."""
    # A class of a compiled library can have something else there than a name.
    return not isinstance(module, str) or module.partition(".")[0] in _LIBRARIES


def library_of(function: types.FunctionType) -> str:
    """The library's module that a function was written in; empty for the user's.

    By its globals: ``wraps`` gives a function the other's module, and code that was executed in a
    namespace of its own, as a documentation's examples are, belongs to no module.
    """
    held = function.__globals__
    name = held.get("__name__")
    if not isinstance(name, str) or not is_library(name):
        return ""
    module = sys.modules.get(name)
    return name if module is not None and vars(module) is held else ""


@functools.cache
def is_pure(module: object) -> bool:
    """Whether a library's functions read nothing but their arguments."""
    if not isinstance(module, str) or module.startswith("numpy.random"):
        return False
    top = module.partition(".")[0]
    return top in _PURE or top not in sys.stdlib_module_names


@functools.lru_cache(maxsize=4096)
def users_bases(cls: type) -> tuple[type, ...]:
    """The classes among a class and its bases whose code is the user's."""
    return tuple(base for base in cls.__mro__ if not is_library(base.__module__))


@functools.lru_cache(maxsize=4096)
def library_bases(cls: type) -> tuple[type, ...]:
    """The others, whose code may read any attribute; a module's own are known."""
    skipped = (object, nn.Module, *_SEQUENCES, *_MAPPINGS, int, float, complex, str, bytes)
    found = (base for base in cls.__mro__ if is_library(base.__module__) and base not in skipped)
    return tuple(base for base in found if f"{base.__module__}.{base.__name__}" not in _RECORDS)


@functools.lru_cache(maxsize=4096)
def slots(cls: type) -> tuple[str, ...]:
    """The names of the attributes that objects have outside a dictionary."""
    found: list[str] = []
    for base in cls.__mro__:
        own: Any = vars(base).get("__slots__", ())
        for name in (own,) if isinstance(own, str) else tuple(own):
            private = name.startswith("__") and not name.endswith("__")
            found.append(f"_{base.__name__.lstrip('_')}{name}" if private else name)
    return tuple(name for name in found if name not in ("__dict__", "__weakref__"))


@functools.lru_cache(maxsize=4096)
def has_hidden_state(cls: type) -> bool:
    """Whether objects hold more than attributes: something of a compiled library's."""
    extra = (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0) + len(slots(cls))
    return cls.__basicsize__ > object.__basicsize__ + 8 * extra
