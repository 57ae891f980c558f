"""Strided views of flat buffers: how every tensor of a traced graph is addressed in Julia.

A torch tensor is a flat piece of memory, an offset and a stride a dimension. The generated Julia
code keeps exactly that picture: all data lies in flat vectors, and a reshape, permutation, slice
or expansion is arithmetic on strides, done here once and costing nothing during the solve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import prod

_numbers = count()


@dataclass(eq=False)
class Buffer:
    """A flat Julia vector, or a piece of one, that holds the elements of one tensor.

    Parameters
    ----------
    size : int
        Number of elements.
    kind : str
        ``"f"`` for the model's floating point type, ``"b"`` for truth values.
    name : str
        The Julia variable. A temporary gets its name and offset when memory is assigned.
    offset : int
        Where the piece starts in that variable, counted from zero.
    scalar : bool
        True for a zero-dimensional intermediate: it lives in a local variable, not in memory.
    """

    size: int
    kind: str = "f"
    name: str = ""
    offset: int = 0
    scalar: bool = False
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def variable(self) -> str:
        """The local variable that holds one element inside a loop."""
        return f"x{self.number}"


@dataclass(frozen=True)
class View:
    """A tensor: a buffer (or one literal for all elements), an offset, a shape and strides."""

    buffer: Buffer | None
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    kind: str = "f"
    literal: str = ""

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def is_uniform(self) -> bool:
        """Whether every element is the same element of memory (or a literal)."""
        return all(s == 0 or n == 1 for n, s in zip(self.shape, self.strides, strict=True))

    @property
    def is_whole(self) -> bool:
        """Whether the view is its buffer, first element to last, in order."""
        return (
            self.buffer is not None
            and self.offset == 0
            and self.size == self.buffer.size
            and is_contiguous(self.shape, self.strides)
        )


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides.

    >>> contiguous_strides((4, 3, 2))
    (6, 2, 1)
    """
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the strides are row-major; those of dimensions of length one don't matter."""
    expected = contiguous_strides(shape)
    return all(n == 1 or s == e for n, s, e in zip(shape, strides, expected, strict=True))


def whole(buffer: Buffer, shape: Sequence[int]) -> View:
    """All of a buffer as a row-major tensor."""
    return View(buffer, tuple(shape), contiguous_strides(shape), 0, buffer.kind)


def uniform(literal: str, shape: Sequence[int] = (), kind: str = "f") -> View:
    """One value for every element, written into the source."""
    return View(None, tuple(shape), (0,) * len(shape), 0, kind, literal)


def permute(view: View, dims: Sequence[int]) -> View:
    dims = [d % len(view.shape) for d in dims]
    return replace(
        view,
        shape=tuple(view.shape[d] for d in dims),
        strides=tuple(view.strides[d] for d in dims),
    )


def expand(view: View, shape: Sequence[int]) -> View:
    """Broadcast to a shape, as ``torch.Tensor.expand`` (where -1 keeps a length)."""
    missing = len(shape) - len(view.shape)
    old = (1,) * missing + view.shape
    strides = (0,) * missing + view.strides
    new = tuple(o if n == -1 else n for o, n in zip(old, shape, strict=True))
    return replace(
        view,
        shape=new,
        strides=tuple(
            0 if o == 1 and n != 1 else s for o, n, s in zip(old, new, strides, strict=True)
        ),
    )


def reverse(view: View, dim: int) -> View:
    """The elements along ``dim`` from last to first."""
    dim = dim % len(view.shape)
    strides = list(view.strides)
    offset = view.offset + strides[dim] * max(0, view.shape[dim] - 1)
    strides[dim] = -strides[dim]
    return replace(view, strides=tuple(strides), offset=offset)


def select(view: View, dim: int, index: int) -> View:
    dim %= len(view.shape)
    index %= view.shape[dim]
    return replace(
        view,
        offset=view.offset + index * view.strides[dim],
        shape=view.shape[:dim] + view.shape[dim + 1 :],
        strides=view.strides[:dim] + view.strides[dim + 1 :],
    )


def slice_(view: View, dim: int, start: int | None, end: int | None, step: int) -> View:
    dim %= len(view.shape)
    start, end, step = slice(start, end, step).indices(view.shape[dim])
    length = len(range(start, end, step))
    shape, strides = list(view.shape), list(view.strides)
    shape[dim] = length
    offset = view.offset + start * strides[dim]
    strides[dim] *= step
    return replace(view, offset=offset, shape=tuple(shape), strides=tuple(strides))


def unsqueeze(view: View, dim: int) -> View:
    dim %= len(view.shape) + 1
    return replace(
        view,
        shape=(*view.shape[:dim], 1, *view.shape[dim:]),
        strides=(*view.strides[:dim], 0, *view.strides[dim:]),
    )


def squeeze(view: View, dims: Sequence[int] | None = None) -> View:
    """Drop dimensions of length one: all of them, or those named."""
    rank = len(view.shape)
    named = set(range(rank)) if dims is None else {d % rank for d in dims}
    keep = [d for d in range(rank) if view.shape[d] != 1 or d not in named]
    return permute(view, keep)


def unfold(view: View, dim: int, size: int, step: int) -> View:
    """Windows of ``size`` along ``dim``, ``step`` apart; the place in a window comes last."""
    if not view.shape:
        return replace(view, shape=(size,), strides=(1,))
    dim %= len(view.shape)
    shape, strides = list(view.shape), list(view.strides)
    shape[dim] = (shape[dim] - size) // step + 1
    strides[dim] *= step
    return replace(view, shape=(*shape, size), strides=(*strides, view.strides[dim]))


def diagonal(view: View, offset: int, dim1: int, dim2: int) -> View:
    rank = len(view.shape)
    dim1, dim2 = dim1 % rank, dim2 % rank
    rows, columns = view.shape[dim1], view.shape[dim2]
    length = max(min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns), 0)
    start = offset * view.strides[dim2] if offset >= 0 else -offset * view.strides[dim1]
    rest = [d for d in range(rank) if d not in (dim1, dim2)]
    kept = permute(view, rest)
    return replace(
        kept,
        offset=view.offset + start,
        shape=(*kept.shape, length),
        strides=(*kept.strides, view.strides[dim1] + view.strides[dim2]),
    )


def reshape(view: View, shape: Sequence[int]) -> View | None:
    """The same memory under another shape, or None where that takes a copy."""
    if -1 in shape:
        known = prod(n for n in shape if n != -1)
        shape = [view.size // known if n == -1 else n for n in shape]
    shape = tuple(shape)
    if view.is_uniform:
        return replace(view, shape=shape, strides=(0,) * len(shape))
    if view.size == 0:
        return replace(view, shape=shape, strides=contiguous_strides(shape))
    runs = _merge_runs(view)
    strides: list[int] = []
    remaining = list(reversed(shape))
    for length, step in reversed(runs):
        while length > 1 and remaining:
            n = remaining.pop(0)
            if length % n:
                return None
            strides.append(step)
            step *= n
            length //= n
        if length > 1:
            return None
    strides.extend(0 for _ in remaining)
    if prod(remaining) != 1:
        return None
    return replace(view, shape=shape, strides=tuple(reversed(strides)))


def _merge_runs(view: View) -> list[tuple[int, int]]:
    """The view as the fewest (length, stride) runs, outermost first."""
    runs: list[tuple[int, int]] = []
    for n, s in zip(view.shape, view.strides, strict=True):
        if n == 1:
            continue
        if runs and runs[-1][1] == n * s:
            runs[-1] = (runs[-1][0] * n, s)
        else:
            runs.append((n, s))
    return runs


def collapse(
    shape: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[list[int], list[list[int]]]:
    """Join neighbouring dimensions that every operand walks through as one.

    Parameters
    ----------
    shape : sequence of int
        The loop's lengths, outermost first.
    strides : sequence of sequence of int
        For each operand, its stride in each dimension.

    Returns
    -------
    lengths : list of int
    strides : list of list of int
        The joined loop; never empty (a single element is a loop of length one).

    Examples
    --------
    >>> collapse((4, 3), [(3, 1), (3, 1)])
    ([12], [[1], [1]])
    >>> collapse((4, 3), [(3, 1), (0, 1)])
    ([4, 3], [[3, 1], [0, 1]])
    """
    lengths: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for d, n in enumerate(shape):
        if n == 1:
            continue
        if lengths and all(st[-1] == s[d] * n for st, s in zip(steps, strides, strict=True)):
            lengths[-1] *= n
            for st, s in zip(steps, strides, strict=True):
                st[-1] = s[d]
        else:
            lengths.append(n)
            for st, s in zip(steps, strides, strict=True):
                st.append(s[d])
    if not lengths:
        return [1], [[0] for _ in strides]
    return lengths, steps
