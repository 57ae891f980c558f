"""Mass matrices in Julia: the model with the matrix, and the consistent initial state as a node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SolverError, UnsupportedError
from ..mass_matrix import MassMatrix
from ..problem import Problem, tightest
from ..sensealg import DiscreteAdjoint
from ..translate.draws import Draw
from .arrays import as_array, flatten, in_memory
from .models import Model

_SHOWN = 5


def discrete_adjoint(problem: Problem, has_discrete: bool) -> DiscreteAdjoint:
    """The only sensitivity algorithm that there is with a mass matrix."""
    sensealg = problem.sensealg
    if sensealg is None:
        return DiscreteAdjoint()
    if not isinstance(sensealg, DiscreteAdjoint):
        raise UnsupportedError(
            f"{type(sensealg).__name__} has no mass_matrix; use DiscreteAdjoint, or leave sensealg "
            "out."
        )
    if not has_discrete:
        raise UnsupportedError(
            "DiscreteAdjoint has no tableau of this method; with a mass_matrix use Rodas4 or "
            "Rodas5P, or leave sensealg out for the gradient of Rodas5P's solution."
        )
    return sensealg


def with_mass(
    module: Any, model: Model, problem: Problem, parameters: tuple[Tensor, ...]
) -> tuple[Model, Problem]:
    """The model with the matrix, and the problem from a consistent initial state."""
    mass = problem.mass
    assert mass is not None
    if any(isinstance(x, Draw) for x in model.constants):
        raise UnsupportedError(
            "func draws random numbers, and the algebraic equations of a mass_matrix would change "
            "after the initial state was fitted to them; draw them before the solve."
        )
    if torch.is_grad_enabled() and not model.has_second:
        inputs = (problem.y0, problem.t, *parameters)
        if any(x.requires_grad for x in inputs):
            raise UnsupportedError(
                "The gradient with a mass_matrix needs second derivatives of func, and it has none "
                "in Julia (pyjlode.explain says what runs there). Solve under torch.no_grad(), or "
                "write func without what stands in the way."
            )
    matrix = mass.matrix.numpy()
    model = replace(model, handle=module.with_mass(model.handle, matrix))
    start = Start(module, model, problem, mass)
    y0 = ConsistentStart.apply(start, problem.y0, problem.t[:1], *parameters)
    return model, replace(problem, y0=y0)


@dataclass(frozen=True)
class Start:
    """What finds a consistent initial state."""

    module: Any
    model: Model
    problem: Problem
    mass: MassMatrix

    def find(self, y0: Tensor, t: Tensor, parameters: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
        """The state, and Julia's handle for its gradient."""
        problem, dtype = self.problem, y0.dtype
        rtol, atol = tightest(problem.rtol), tightest(problem.atol)
        self.model.refresh()
        with self.model.errors():
            found = self.module.initialize(
                self.model.handle,
                as_array(in_memory(y0)),
                flatten(parameters, dtype).numpy(),
                float(t),
                rtol,
                atol,
                self.mass.correct,
            )
        residual = torch.from_numpy(np.array(found.residual)).view(y0.shape)
        message = str(found.message)
        if not message and not self.mass.correct and bool((residual.abs() > atol).any()):
            message = "off"
        if message:
            raise self._failure(message, residual, float(t), atol)
        return torch.from_numpy(np.array(found.u)).view(y0.shape), found

    def _failure(self, message: str, residual: Tensor, time: float, atol: float) -> SolverError:
        off = _listed(residual, atol)
        says = {
            "off": f"does not satisfy the algebraic equations: func has there {off}. Give a y0 "
            'that does, or leave initializealg="CheckInit" out',
            "singular": "does not determine the algebraic variables: the algebraic equations have "
            "a singular derivative by them. The index of the equation may be above one: "
            "differentiate the constraints by time first",
            "not converged": "was not brought to one that satisfies the algebraic equations: func "
            f"has there {off}. Give a y0 that is nearer",
            "not finite": "is one at which func is not finite",
        }
        return SolverError(
            f"The initial state {says[message]}.", retcode="InitialFailure",
            t=self.problem.direction * time,
        )  # fmt: skip

    def pull_back(
        self, found: Any, cotangent: Tensor, shapes: list[torch.Size]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Gradients by the initial state given, the time and each of the parameters."""
        dtype = cotangent.dtype
        sizes = [shape.numel() for shape in shapes]
        by_u = torch.empty(cotangent.shape, dtype=dtype)
        by_p, by_t = torch.empty(sum(sizes), dtype=dtype), torch.empty(1, dtype=dtype)
        with self.model.errors():
            self.module.initialize_back_b(
                found, *(as_array(x) for x in (in_memory(cotangent), by_u, by_p, by_t))
            )
        parts = [x.view(s) for x, s in zip(torch.split(by_p, sizes), shapes, strict=True)]
        return by_u, by_t, parts


class ConsistentStart(torch.autograd.Function):
    """The initial state whose algebraic variables satisfy the algebraic equations."""

    @staticmethod
    def forward(ctx: Any, start: Start, y0: Tensor, t: Tensor, *parameters: Tensor) -> Tensor:
        state, ctx.found = start.find(y0, t, parameters)
        ctx.start = start
        ctx.shapes = (t.dtype, [p.shape for p in parameters])
        return state

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        t_dtype, shapes = ctx.shapes
        by_u, by_t, gradients = ctx.start.pull_back(ctx.found, cotangent, shapes)
        return None, by_u, by_t.to(t_dtype), *gradients


def _listed(residual: Tensor, atol: float) -> str:
    """Which elements of ``func(t, y)`` are off, and by how much."""
    places = (~(residual.abs() <= atol)).nonzero().tolist()
    shown = [f"{residual[tuple(i)]:.3g} at {i}" for i in places[:_SHOWN]]
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return ", ".join(shown) + more
