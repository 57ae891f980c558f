"""The sparsity pattern that the trace gives, and torch's Jacobian."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pyjlode.trace.capture import trace
from pyjlode.translate import translate
from pyjlode.translate.sparsity import Pattern

Func = Callable[[Tensor, Tensor], Tensor]
TIME = torch.tensor(0.7, dtype=torch.float64)


def pattern_of(func: Func, y: Tensor) -> Pattern:
    found = translate(trace(func, y, derivatives=True, jacobian=True)).pattern
    assert found is not None
    return found


def dense(pattern: Pattern) -> np.ndarray:
    n = len(pattern.colors)
    full = np.zeros((n, n), dtype=bool)
    for j in range(n):
        full[pattern.rowval[pattern.colptr[j] : pattern.colptr[j + 1]], j] = True
    return full


def nonzeros(func: Func, y: Tensor) -> np.ndarray:
    """Which elements of torch's Jacobian are not zero at one of some states."""
    n = y.numel()
    found = np.zeros((n, n), dtype=bool)
    for state in (y, torch.randn_like(y), torch.randn_like(y)):
        exact = torch.autograd.functional.jacobian(lambda x: func(TIME, x), state)
        found |= exact.reshape(n, n).numpy() != 0
    return found
