"""Indexing that would look at a tensor's values, in a form that leaves them to the solve.

``x[i]`` with a zero-dimensional tensor ``i`` reads the number out of it, and ``x[mask]`` has as
many elements as the mask has true ones. A trace has no values to look at. An index can become one
operation more; of a mask from outside only the number of true elements is fixed, and it is checked
during the solve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8)


class StaticIndexing(TorchFunctionMode):
    """While active, indexing needs no tensor's values wherever that is possible."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        rule = _RULES.get(func)
        result = NotImplemented if rule is None else rule(*args, **kwargs)
        return func(*args, **kwargs) if result is NotImplemented else result


def _get(x: Tensor, index: Any) -> Any:
    entries = _entries(x, index)
    if not any(_is_number(e) or _is_mask(e) for e in entries):
        return NotImplemented
    dim = 0
    new: list[Any] = []
    for entry in entries:
        if _is_number(entry):
            x = x.index_select(dim, _in_bounds(entry, x.shape[dim]).reshape(1))
            new.append(0)
        else:
            new.extend(_positions(entry) if _is_mask(entry) else [entry])
        dim += _consumed(entry)
    return x[tuple(new)]


def _set(x: Tensor, index: Any, value: Any) -> Any:
    entries = _entries(x, index)
    value = torch.as_tensor(value, dtype=x.dtype)
    tensors = [e for e in entries if isinstance(e, Tensor)]
    if len(tensors) != 1:
        return NotImplemented
    (only,) = tensors
    if only.dtype == torch.bool and value.numel() == 1 and len(entries) == 1:
        mask = only.reshape(*only.shape, *[1] * (x.dim() - only.dim()))
        x.copy_(torch.where(mask, value.reshape(()), x))
        return None
    if _is_mask(only):
        x[tuple(p for e in entries for p in (_positions(e) if e is only else [e]))] = value
        return None
    if not _is_number(only):
        return NotImplemented
    place = next(i for i, e in enumerate(entries) if e is only)
    after = len([e for e in entries[place + 1 :] if not isinstance(e, int)])
    after += x.dim() - sum(map(_consumed, entries))
    if value.dim() > after:
        value = value.unsqueeze(value.dim() - after)
    x[tuple(e.reshape(1) if e is only else e for e in entries)] = value
    return None


def _masked_select(x: Tensor, mask: Tensor) -> Any:
    fits = _is_mask(mask) and torch.broadcast_shapes(x.shape, mask.shape) == mask.shape
    return _get(x.expand(mask.shape), mask) if fits else NotImplemented


def _nonzero(x: Tensor, *, as_tuple: bool = False) -> Any:
    if isinstance(x, FakeTensor):
        return NotImplemented
    columns = _positions(x)
    return tuple(columns) if as_tuple else torch.stack(columns, dim=1)


_RULES: dict[Any, Callable[..., Any]] = {
    Tensor.__getitem__: _get,
    Tensor.__setitem__: _set,
    Tensor.masked_select: _masked_select,
    torch.masked_select: _masked_select,
    Tensor.nonzero: _nonzero,
    torch.nonzero: _nonzero,
}


def _entries(x: Tensor, index: Any) -> list[Any]:
    """The index as a list without an ellipsis."""
    entries = list(index) if isinstance(index, tuple) else [index]
    places = [i for i, e in enumerate(entries) if e is Ellipsis]
    if places:
        missing = x.dim() - sum(map(_consumed, entries))
        entries[places[0] : places[0] + 1] = [slice(None)] * missing
    return entries


def _consumed(entry: Any) -> int:
    """How many dimensions an entry of an index stands for."""
    if entry is None or entry is Ellipsis or isinstance(entry, bool):
        return 0
    return entry.dim() if isinstance(entry, Tensor) and entry.dtype == torch.bool else 1


def _is_number(entry: Any) -> bool:
    return isinstance(entry, Tensor) and entry.dim() == 0 and entry.dtype in _INTEGERS


def _is_mask(entry: Any) -> bool:
    """A mask from outside, which has values."""
    known = isinstance(entry, Tensor) and entry.dtype == torch.bool and entry.dim() > 0
    return known and not isinstance(entry, FakeTensor)


def _positions(mask: Tensor) -> list[Tensor]:
    """Where a mask is true, one index a dimension."""
    with _disable_current_modes():
        count = int(torch.count_nonzero(mask))
    return list(torch.nonzero_static(mask, size=count).unbind(1))


def _in_bounds(index: Tensor, length: int) -> Tensor:
    """Negative ones counted from the end, as indexing does and ``index_select`` does not."""
    return torch.where(index < 0, index + length, index)
