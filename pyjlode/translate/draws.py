"""Random numbers in a function: one draw a solve.

The right-hand side of an ordinary differential equation must not change while it is solved, so a
dropout mask, or noise, is drawn when a solve begins and stays for that solve and its gradient. The
draws are torch's own, in the order of the function's: ``torch.manual_seed`` repeats them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import TraceError
from .layout import View

# Operations that read nothing of their first argument but its shape and type.
_LIKE = {
    "aten.bernoulli_", "aten.cauchy_", "aten.exponential_", "aten.geometric_", "aten.log_normal_",
    "aten.normal_", "aten.rand_like", "aten.randint_like", "aten.randn_like", "aten.random_",
    "aten.uniform_",
}  # fmt: skip


@dataclass(frozen=True)
class _Example:
    """A tensor of which only the form counts."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def make(self) -> Tensor:
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype)


@dataclass(frozen=True)
class Draw:
    """An operation that draws random numbers, to be done again for every solve."""

    operation: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    shape: torch.Size
    dtype: torch.dtype

    def __call__(self) -> Tensor:
        args = [a.make() if isinstance(a, _Example) else a for a in self.args]
        drawn: Tensor = self.operation(*args, **self.kwargs)
        return drawn

    def numel(self) -> int:
        return self.shape.numel()


def is_draw(node: fx.Node) -> bool:
    target = node.target
    return (
        isinstance(target, torch._ops.OpOverload)
        and torch.Tag.nondeterministic_seeded in target.tags
    )


def draw_of(node: fx.Node, name: str, known: Mapping[fx.Node, Any]) -> Draw:
    """The draw that a node makes, where it rests on no input.

    Raises
    ------
    TraceError
        If its distribution depends on the state, the time or a tensor from outside.
    """
    args: list[Any] = list(node.args)
    if name in _LIKE and isinstance(args[0], fx.Node):
        value = args[0].meta["val"]
        args[0] = _Example(tuple(value.shape), value.stride(), value.dtype)
    nodes = [n for n in node.all_input_nodes if n is not node.args[0] or name not in _LIKE]
    if any(n not in known for n in nodes):
        raise TraceError(f"{name} draws random numbers whose distribution the state changes")
    result = node.meta["val"]
    if not isinstance(result, Tensor):
        raise TraceError(f"{name} draws random numbers in a form that is not covered")

    def value_of(n: fx.Node) -> Any:
        return known[n]

    return Draw(
        node.target,
        fx.map_arg(tuple(args), value_of),
        fx.map_arg(node.kwargs, value_of),
        result.shape,
        result.dtype,
    )


Constant = Tensor | Draw


def place(constants: Sequence[tuple[Constant, View]], end: int) -> tuple[Constant, ...]:
    """Give constants their places in the vector of constants, from ``end`` on."""
    for constant, view in constants:
        assert view.buffer is not None
        view.buffer.offset = end
        end += constant.numel()
    return tuple(constant for constant, _ in constants)
