"""What a function's behaviour rests on, so that a trace is used again only while it still holds.

Values of tensors are left out: they are read at each solve. Everything else that Python code can
branch on is taken in: numbers, strings, the training flag, which modules, tensors and functions
there are, and shapes, dtypes and ``requires_grad`` of the tensors.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Hashable, Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
_LARGE = 4096

# A lambda in a training loop is another object each time; only what these hold counts.
_MADE_ANEW = (
    types.FunctionType,
    types.MethodType,
    functools.partial,
    Mapping,
    list,
    tuple,
    Set,
)

# Attributes that a function changes itself whenever it runs, such as counters of evaluations.
_volatile: set[tuple[type, str]] = set()


def fingerprint(func: object) -> tuple[Hashable, ...]:
    """A hashable summary of all that ``func`` can read but the values of tensors.

    Examples
    --------
    >>> import torch
    >>> layer = torch.nn.Linear(2, 2)
    >>> before = fingerprint(layer)
    >>> _ = layer.weight.data.mul_(2)
    >>> fingerprint(layer) == before
    True
    >>> layer.weight.requires_grad_(False) is layer.weight and fingerprint(layer) == before
    False
    """
    entries: list[Hashable] = []
    _visit(func, entries, set())
    return tuple(entries)


def ignore_own_changes(func: object, before: dict[tuple[type, int, str], Hashable]) -> None:
    """Remember the attributes that differ from ``before``: ``func`` wrote them itself."""
    for key, value in attributes(func).items():
        if key in before and before[key] != value:
            _volatile.add((key[0], key[2]))


def attributes(func: object) -> dict[tuple[type, int, str], Hashable]:
    """The plain attributes of the objects that ``func`` consists of."""
    found: dict[tuple[type, int, str], Hashable] = {}
    seen: set[int] = set()
    _visit(func, [], seen, found)
    return found


def _visit(
    obj: Any,
    entries: list[Hashable],
    seen: set[int],
    found: dict[tuple[type, int, str], Hashable] | None = None,
) -> None:
    if isinstance(obj, _PLAIN):
        entries.append((type(obj).__name__, obj))
        return
    entries.append(type(obj).__name__ if isinstance(obj, _MADE_ANEW) else id(obj))
    if id(obj) in seen:
        return
    seen.add(id(obj))
    if isinstance(obj, Tensor):
        entries.append((obj.shape, obj.dtype, obj.requires_grad))
    elif isinstance(obj, np.ndarray):
        entries.append((obj.shape, obj.tobytes() if obj.size <= _LARGE else obj.dtype.str))
    elif isinstance(obj, (types.ModuleType, type, types.BuiltinFunctionType)):
        pass
    elif isinstance(obj, nn.Module):
        _visit_module(obj, entries, seen, found)
    elif isinstance(obj, types.FunctionType):
        _visit_function(obj, entries, seen, found)
    elif isinstance(obj, types.MethodType):
        _visit(obj.__self__, entries, seen, found)
        _visit(obj.__func__, entries, seen, found)
    elif isinstance(obj, functools.partial):
        for part in (obj.func, obj.args, obj.keywords):
            _visit(part, entries, seen, found)
    elif isinstance(obj, Mapping):
        for key, value in list(obj.items())[:_LARGE]:
            entries.append(key if isinstance(key, Hashable) else id(key))
            _visit(value, entries, seen, found)
    elif isinstance(obj, (list, tuple, Set)):
        for value in list(obj)[:_LARGE]:
            _visit(value, entries, seen, found)
    elif hasattr(obj, "__dict__"):
        _visit_attributes(obj, vars(obj), entries, seen, found)


def _visit_module(
    module: nn.Module,
    entries: list[Hashable],
    seen: set[int],
    found: dict[tuple[type, int, str], Hashable] | None,
) -> None:
    state = vars(module)
    entries.append(module.training)
    for name in ("_parameters", "_buffers", "_modules", "_forward_pre_hooks", "_forward_hooks"):
        for key, value in state[name].items():
            entries.append(key)
            _visit(value, entries, seen, found)
    own = {k: v for k, v in state.items() if not k.startswith("_") and k != "training"}
    _visit_attributes(module, own, entries, seen, found)


def _visit_function(
    function: types.FunctionType,
    entries: list[Hashable],
    seen: set[int],
    found: dict[tuple[type, int, str], Hashable] | None,
) -> None:
    entries.append(id(function.__code__))
    for part in (function.__defaults__, function.__kwdefaults__):
        _visit(part, entries, seen, found)
    for cell in function.__closure__ or ():
        try:
            _visit(cell.cell_contents, entries, seen, found)
        except ValueError:  # a name not bound yet
            entries.append("empty")
    for name in function.__code__.co_names:
        if name in function.__globals__:
            entries.append(name)
            _visit(function.__globals__[name], entries, seen, found)


def _visit_attributes(
    owner: object,
    state: Mapping[str, Any],
    entries: list[Hashable],
    seen: set[int],
    found: dict[tuple[type, int, str], Hashable] | None,
) -> None:
    for name, value in state.items():
        if isinstance(value, _PLAIN):
            if (type(owner), name) in _volatile:
                continue
            if found is not None:
                found[type(owner), id(owner), name] = value
        entries.append(name)
        _visit(value, entries, seen, found)
