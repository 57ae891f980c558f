"""Values that are known when code is generated, for what follows from them: a sparsity pattern.

Constants that the function makes itself never change. Of those from outside, what the pattern
follows from becomes part of what the generated code depends on: of integers and truth values all,
of other numbers which of them are zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Known:
    """Values of a buffer.

    Attributes
    ----------
    values : numpy.ndarray
        Flat; of numbers from outside, 0 where they are zero and 1 elsewhere.
    origins : frozenset of int
        The ids of the tensors from outside that they follow from.
    """

    values: NDArray[Any]
    origins: frozenset[int] = _NONE

    def __getitem__(self, places: Any) -> Known:
        return Known(self.values[places], self.origins)


def is_discrete(x: Tensor) -> bool:
    """Whether a tensor has integers or truth values."""
    return x.dtype in _INTEGERS or x.dtype is torch.bool


def of_tensor(x: Tensor, fixed: bool = True) -> Known | None:
    """What is known of a constant; ``fixed`` says that it never changes."""
    if x.is_complex():
        return None
    values = x.detach().reshape(-1).numpy()
    if not (fixed or is_discrete(x)):
        values = values != 0
    return Known(values, _NONE if fixed else frozenset({id(x)}))


def union(known: Iterable[Known]) -> frozenset[int]:
    """The tensors from outside that any of them follow from."""
    return frozenset().union(*(x.origins for x in known))
