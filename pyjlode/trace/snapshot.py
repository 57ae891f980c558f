"""What a Python function read in a solve, kept for the backward pass, which calls it again.

A tensor or a number that was put somewhere else since (``func.u = u2``) is put back while the
backward pass runs. What was written into cannot be, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CellType
from typing import Any

from torch import Tensor

from ..errors import UnsupportedError
from .fingerprint import Visitor, look
from .scope import Scope


class _Places(Visitor):
    """Notes where each value was found."""

    keeps = True

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self.places: list[tuple[Any, Any, Any]] = []

    def read(self, namespace: Any, name: Any, value: Any) -> None:
        self.places.append((namespace, name, value))
        super().read(namespace, name, value)


class Snapshot:
    """What ``func`` can read, when a solve begins and when it has ended.

    What it changes itself in the solve, such as running statistics, is not looked at.

    Parameters
    ----------
    func : object
        The caller's function.
    more : sequence of torch.Tensor
        Tensors that its result rests on beside those that are found.

    Examples
    --------
    >>> import functools
    >>> import types
    >>> import torch
    >>> model = types.SimpleNamespace(u=1.0)
    >>> kept = Snapshot(functools.partial(lambda m, t, y: m.u * y, model))
    >>> kept.end()
    >>> model.u = 2.0
    >>> with kept.restored():
    ...     model.u
    1.0
    >>> model.u
    2.0
    """

    def __init__(self, func: object, more: Sequence[Tensor] = ()) -> None:
        self._func = func
        self._more = tuple(more)
        self._before = self._look()
        self._versions = {id(x): x._version for x in self._tensors(self._before)}
        self._after = self._before
        self._ended = False

    def end(self) -> None:
        """The solve has ended: what the function changed itself until now is its own matter."""
        if self._ended:
            return
        self._ended = True
        self._after = self._look()
        held = self._versions
        # Changed in the solve, such as running statistics: this says nothing of others' changes.
        self._versions = {
            id(x): x._version
            for x in self._tensors(self._after)
            if held.get(id(x), x._version) == x._version
        }

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Around the backward pass: the function reads what it read in the solve.

        Raises
        ------
        UnsupportedError
            If something that it reads was written into since.
        """
        moved = [
            (namespace, name, current)
            for namespace, name, value in self._after.places
            if (current := _get(namespace, name)) is not value
        ]
        for namespace, name, value in self._after.places:
            _set(namespace, name, value)
        try:
            self._check()
            yield
        finally:
            for namespace, name, current in reversed(moved):
                _set(namespace, name, current)

    def _look(self) -> _Places:
        found: _Places = look(self._func, _Places)
        return found

    def _tensors(self, found: _Places) -> tuple[Tensor, ...]:
        return (*found.tensors, *self._more)

    def _check(self) -> None:
        now, after, before = self._look(), self._after, self._before
        what = ""
        if len(before.entries) == len(after.entries):
            triples = zip(before.entries, after.entries, now.entries, strict=False)
            same = all((b is not a and b != a) or a is n or a == n for b, a, n in triples)
            kept = {id(x) for x in before.tensors}
            others = {id(x) for x in now.tensors}
            same = same and all(id(x) in others for x in after.tensors if id(x) in kept)
            if not same or len(now.entries) != len(after.entries):
                what = "a list, a dictionary, an array or the like that it reads"
        for x in self._tensors(after):
            if self._versions.get(id(x), x._version) != x._version:
                what = f"a tensor of shape {tuple(x.shape)} that it reads"
        if what:
            name = getattr(self._func, "__qualname__", type(self._func).__name__)
            raise UnsupportedError(
                f"{name} runs in Python, and the backward pass calls it again: but {what} was "
                "changed in place since the solve. Give each solve its own (assign a new one, or "
                "clone()), or call backward() before the change."
            )


_MISSING = object()


def _get(namespace: Any, name: Any) -> Any:
    if isinstance(namespace, dict):
        return namespace.get(name, _MISSING)
    if isinstance(namespace, CellType):
        try:
            return namespace.cell_contents
        except ValueError:
            return _MISSING
    return getattr(namespace, name, _MISSING)


def _set(namespace: Any, name: Any, value: Any) -> None:
    if _get(namespace, name) is value:
        return
    if isinstance(namespace, dict):
        if value is _MISSING:
            del namespace[name]
        else:
            namespace[name] = value
    elif isinstance(namespace, CellType):
        if value is _MISSING:
            del namespace.cell_contents
        else:
            namespace.cell_contents = value
    elif value is _MISSING:
        object.__delattr__(namespace, name)
    else:
        object.__setattr__(namespace, name, value)
