"""The tensors that a function's result depends on, found by autograd instead of by a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def gradient_leaves(
    func: Callable[[Tensor, Tensor], Tensor], t: Tensor, y: Tensor
) -> tuple[Tensor, ...]:
    """Leaf tensors that require a gradient and that ``func(t, y)`` depends on.

    A tensor computed outside ``func`` and closed over counts as what it was computed from.

    Examples
    --------
    >>> import torch
    >>> k = torch.tensor(2.0, requires_grad=True)
    >>> gradient_leaves(lambda t, y: -k * y, torch.tensor(0.0), torch.ones(2)) == (k,)
    True
    """
    inputs = (t.detach().clone(), y.detach().clone())  # func may write into them
    with torch.enable_grad():
        out = func(*inputs)
    return tuple(_leaves(out.grad_fn))


def _leaves(node: Any) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    pending, seen = [node], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found[id(leaf)] = leaf
        pending.extend(parent for parent, _ in node.next_functions)
    return list(found.values())


def depends_on(x: Tensor, wanted: set[int]) -> bool:
    """Whether ``x`` was computed from a leaf whose id is wanted.

    Examples
    --------
    >>> import torch
    >>> k = torch.tensor(2.0, requires_grad=True)
    >>> depends_on(2 * k, {id(k)}), depends_on(k.detach(), {id(k)})
    (True, False)
    """
    return any(id(leaf) in wanted for leaf in _leaves(x.grad_fn))
