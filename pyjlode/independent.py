"""Steps for each row of a batch alone: what is asked of ``y0`` and of ``func``.

The engines solve every row as a problem of its own, with ``func`` on batches of one. That is the
same equation only if ``func`` treats rows alike and apart from each other, which is looked at here
on the whole batch, once for each trace. What does not: batch norm in training, a mean over the
batch, a context with a batch dimension of its own, random numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.random import fork_rng

from .errors import UnsupportedError
from .problem import Problem
from .trace.fingerprint import fingerprint
from .trace.modes import put_back, without_compilation

_LOOKED_AT = 8
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}


def count_rows(y0: Any, batch: str | None) -> int | None:
    """How many trajectories ``y0`` has; None where the state is solved as one.

    Raises
    ------
    ValueError
        If there is no such ``batch``, or ``y0`` has no leading dimension that its tensors share.

    Examples
    --------
    >>> import torch
    >>> count_rows((torch.ones(3, 2), torch.ones(3)), "independent")
    3
    """
    if batch is None or batch == "joint":
        return None
    if batch != "independent":
        raise ValueError(f"There is no batch {batch!r}; there are 'joint' and 'independent'.")
    parts = y0 if isinstance(y0, (tuple, list)) else (y0,)
    shapes = [tuple(p.shape) for p in parts if isinstance(p, Tensor)]
    lengths = {shape[0] if shape else None for shape in shapes}
    if len(lengths) > 1 or None in lengths:
        raise ValueError(
            'With batch="independent" the tensors of y0 share a leading dimension that counts the '
            f"trajectories; their shapes are {', '.join(map(str, shapes))}."
        )
    return lengths.pop() if lengths else None


def check_alone(problem: Problem) -> None:
    """Refuse what needs Python while rows are solved in threads.

    Raises
    ------
    UnsupportedError
        For a norm of the caller's own, and for callbacks on steps.
    """
    if problem.norm is not None or problem.watch:
        what = "the option norm" if problem.norm is not None else "callbacks on steps"
        raise UnsupportedError(
            f'batch="independent" does not support {what}: rows are solved in threads, which '
            'cannot call Python. Use batch="joint", or leave it out.'
        )


def check_rows(problem: Problem) -> None:
    """Look whether ``func`` treats rows apart: by values, and by the gradient between rows.

    Values of single rows are compared with those of the batch. Rows that begin alike say little
    by their values, so the derivative of every second row's by the others must be zero too.

    Raises
    ------
    ValueError
        If it does not, or draws random numbers.
    """
    if problem.rows is None or problem.rows < 2:
        return
    y0 = problem.y0.detach()
    t = problem.t[0].detach().to(y0.dtype)
    with nothing_changed(problem), without_compilation():
        together, mixing = _evaluate_together(problem, t, y0)
        apart = _evaluate_rows(problem, t, y0)
    if mixing:
        raise ValueError(_mixes("the derivative of some rows depends on other rows"))
    tolerance = _TOLERANCES[y0.dtype]
    scale = float(together.abs().nan_to_num(0, 0, 0).max())
    for i, row in apart.items():
        same = torch.allclose(
            row[0], together[i], rtol=tolerance, atol=tolerance * max(scale, 1e-30), equal_nan=True
        )
        if not same:
            raise ValueError(_mixes(f"it gives another result for row {i} alone"))


def _evaluate_together(problem: Problem, t: Tensor, y0: Tensor) -> tuple[Tensor, bool]:
    """The derivative of the whole batch, and whether rows of it depend on others."""
    before = torch.get_rng_state()
    with torch.enable_grad():
        leaf = y0.clone().requires_grad_()
        values = problem.func(t, leaf.clone())
    if not torch.equal(before, torch.get_rng_state()):
        raise ValueError(
            'With batch="independent", and by jumpint, a function must not draw random numbers: '
            "rows are solved one by one, and each would get the same. Switch dropout off (eval()), "
            "or draw before the solve and give the numbers as part of y0, with derivative zero."
        )
    if not values.requires_grad:
        return values.detach(), False
    seed = torch.zeros_like(values)
    seed[::2] = torch.rand(seed[::2].shape, generator=torch.Generator().manual_seed(0)) + 0.5
    try:
        (gradient,) = torch.autograd.grad(values, leaf, seed, allow_unused=True)
    except RuntimeError:  # func has no derivative: a solve that needs it says so
        return values.detach(), False
    # Zero times an infinite slope is NaN, which says nothing.
    return values.detach(), gradient is not None and bool((gradient[1::2].nan_to_num() != 0).any())


def _evaluate_rows(problem: Problem, t: Tensor, y0: Tensor) -> dict[int, Tensor]:
    last, looked_at = len(y0) - 1, min(len(y0), _LOOKED_AT)
    indices = sorted({round(i * last / (looked_at - 1)) for i in range(looked_at)})
    with torch.no_grad():
        try:
            return {i: problem.func(t, y0[i : i + 1].clone()) for i in indices}
        except Exception as error:
            raise ValueError(
                _mixes(f"it works on {len(y0)} rows and fails on one ({_first_line(error)})")
            ) from error


@contextlib.contextmanager
def nothing_changed(problem: Problem) -> Iterator[None]:
    """What evaluations change, such as running statistics, is as it was afterwards."""
    held = [(x, x.detach().clone()) for x in _constants(problem)]
    with fork_rng(devices=[]):
        try:
            yield
        finally:
            put_back(held)


def _constants(problem: Problem) -> list[Tensor]:
    # A sparse matrix's values are among them as a tensor of their own.
    found = fingerprint(problem.owner).tensors
    return [x for x in found if not x.requires_grad and x.layout is torch.strided]


def _mixes(how: str) -> str:
    return (
        'Every row is solved alone (with batch="independent", and by jumpint), and func mixes '
        f"rows: {how}. Batch norm belongs into eval(); a tensor with one entry a row (a context) "
        "into y0, as a further "
        'tensor with derivative zero; else batch="joint" solves the rows as one.'
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
