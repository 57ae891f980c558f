"""States that solve algebraic equations, as nodes of autograd's graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..problem import Problem
from ..runtime import in_julia
from .arrays import as_array, in_memory, unflatten
from .models import Model
from .node import once

_SHOWN = 5


@dataclass(frozen=True)
class AlgebraicSolve:
    """What finds a state; a subclass says how.

    Attributes
    ----------
    module : Any
        The Julia package.
    model : Model
    problem : Problem
    """

    module: Any
    model: Model
    problem: Problem

    def find(self, y0: Tensor, t: Tensor, parameters: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
        """The state, and Julia's ``Start`` for its gradient."""
        raise NotImplementedError

    @in_julia
    def pull_back(
        self, found: Any, cotangent: Tensor, shapes: list[torch.Size]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Gradients by the state given, the time and each of the parameters."""
        dtype = cotangent.dtype
        by_u, by_t = torch.empty(cotangent.shape, dtype=dtype), torch.empty(1, dtype=dtype)
        by_p = torch.empty(sum(shape.numel() for shape in shapes), dtype=dtype)
        with self.model.errors():
            self.module.initialize_back_b(
                found, *(as_array(x) for x in (in_memory(cotangent), by_u, by_p, by_t))
            )
        return by_u, by_t, unflatten(by_p, shapes)


class AlgebraicState(torch.autograd.Function):
    """The state that an :class:`AlgebraicSolve` finds, with the implicit function theorem."""

    @staticmethod
    def forward(
        ctx: Any, solve: AlgebraicSolve, y0: Tensor, t: Tensor, *parameters: Tensor
    ) -> Tensor:
        state, ctx.found = solve.find(y0, t, parameters)
        ctx.save_for_backward(y0, t, *parameters)
        ctx.solve = solve
        ctx.shapes = (t.dtype, [p.shape for p in parameters])
        return state

    @staticmethod
    @once("A state that solves algebraic equations (steady states, DAEs)")
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        t_dtype, shapes = ctx.shapes
        by_u, by_t, gradients = ctx.solve.pull_back(ctx.found, cotangent, shapes)
        return None, by_u, by_t.to(t_dtype), *gradients


def listed(residual: Tensor, atol: float) -> str:
    """Which elements of ``func(t, y)`` are off, and by how much."""
    places = (~(residual.abs() <= atol)).nonzero().tolist()
    shown = [f"{residual[tuple(i)]:.3g} at {i}" for i in places[:_SHOWN]]
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return ", ".join(shown) + more
