"""Products with sparse matrices, traced as reads and sums of rows.

A trace knows dense tensors only. So a sparse matrix that a function gets from outside is taken
apart into the row, the column and the value of each of its elements, which are dense and are read
at each solve as other tensors are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True)
class Elements:
    """A sparse matrix's elements, one after the other; those at one place count as their sum.

    Attributes
    ----------
    rows, columns, values : torch.Tensor
        Of shape ``(count,)``.
    digest : bytes
        Of the rows and columns: where the elements are.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor
    digest: bytes


# Rows and columns of matrices: functions of other ones are traced anew.
_places: WeakIdKeyDictionary = WeakIdKeyDictionary()

# By matrix: a trace knows a tensor by its identity, and each look makes new ones.
_taken_apart: WeakIdKeyDictionary = WeakIdKeyDictionary()


def is_sparse_matrix(x: object) -> bool:
    """Whether it is one in coordinates (COO), or in compressed rows or columns (CSR, CSC)."""
    if not isinstance(x, Tensor) or x.layout not in _LOOKS or x.dim() != 2:
        return False
    with no_dispatch():  # a trace would note the question
        return x.dense_dim() == 0


def is_place(x: Tensor) -> bool:
    """Whether a tensor is of the rows or columns of a matrix's elements."""
    return x in _places


def elements(matrix: Tensor) -> Elements:
    """The matrix's elements, as the same tensors for as long as its memory is the same.

    Examples
    --------
    >>> import torch
    >>> found = elements(torch.eye(2).to_sparse())
    >>> found.rows.tolist(), found.columns.tolist(), found.values.tolist()
    ([0, 1], [0, 1], [1.0, 1.0])
    """
    with torch.no_grad(), no_dispatch():
        parts = _LOOKS[matrix.layout](matrix)
        memory = [(x.data_ptr(), len(x)) for x in parts], [x._version for x in parts[:2]]
        known = _taken_apart.get(matrix)
        if known is None or known[0] != memory:
            # With the parts, so that their memory is not given to others.
            known = memory, parts, _expanded(matrix.layout, *parts)
            _taken_apart[matrix] = known
    return known[-1]


_LOOKS: dict[torch.layout, Any] = {
    torch.sparse_coo: lambda x: (*x._indices().unbind(0), x._values()),
    torch.sparse_csr: lambda x: (x.crow_indices(), x.col_indices(), x.values()),
    torch.sparse_csc: lambda x: (x.row_indices(), x.ccol_indices(), x.values()),
}


def _expanded(layout: torch.layout, rows: Tensor, columns: Tensor, values: Tensor) -> Elements:
    if layout is torch.sparse_csr:
        rows = _repeated(rows)
    elif layout is torch.sparse_csc:
        columns = _repeated(columns)
    places = torch.stack((rows, columns)).long()
    digest = hashlib.blake2b(places.numpy().tobytes(), digest_size=16).digest()
    found = Elements(places[0], places[1], values.detach(), digest)
    _places[found.rows] = _places[found.columns] = True
    return found


def _repeated(ends: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(ends) - 1), ends.diff())


# By name, as one function has several: what stands for ``@`` is not ``torch.matmul`` itself.
_PRODUCTS = {"matmul", "mm", "mv", "_sparse_mm"}


class SparseProducts(TorchFunctionMode):
    """Products of which a factor is a sparse matrix that requires no gradient."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _PRODUCTS and len(args) == 2 and not kwargs:
            x, y = args
            if _multiplies(x, y):
                return _product(elements(x), len(x), y)
            if _multiplies(y, x):
                found = elements(y)
                turned = replace(found, rows=found.columns, columns=found.rows)
                return _product(turned, y.shape[1], x.t()).t()
        return func(*args, **(kwargs or {}))


def _multiplies(matrix: Any, other: Any) -> bool:
    return (
        is_sparse_matrix(matrix)
        and not matrix.requires_grad
        and isinstance(other, Tensor)
        and other.layout is torch.strided
        and other.dim() in (1, 2)
        and other.dtype == matrix.dtype
    )


def _product(matrix: Elements, size: int, x: Tensor) -> Tensor:
    values = matrix.values.unsqueeze(1) if x.dim() == 2 else matrix.values
    terms = values * x.index_select(0, matrix.columns)
    return x.new_zeros(size, *x.shape[1:]).index_add(0, matrix.rows, terms)
