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
from .algebraic import AlgebraicSolve, AlgebraicState, listed
from .arrays import as_array, flatten, in_memory
from .models import Model


def discrete_adjoint(problem: Problem, has_discrete: bool) -> DiscreteAdjoint:
    """The only sensitivity algorithm that there is with a mass matrix."""
    sensealg = problem.sensealg
    if sensealg is None:
        return DiscreteAdjoint()
    if not isinstance(sensealg, DiscreteAdjoint):
        raise UnsupportedError(
            f"{type(sensealg).__name__} is not there with {_name(problem)}; use DiscreteAdjoint, "
            "or leave sensealg out."
        )
    if not has_discrete:
        raise UnsupportedError(
            f"DiscreteAdjoint has no tableau of this method; with {_name(problem)} use Rodas4 or "
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
            f"func draws random numbers, and {mass.equations} would change after the initial state "
            "was fitted to them; draw them before the solve."
        )
    if torch.is_grad_enabled() and not model.has_second:
        inputs = (problem.y0, problem.t, *parameters)
        if any(x.requires_grad for x in inputs):
            raise UnsupportedError(
                f"The gradient with {mass.name} needs second derivatives of func, and it has none "
                "in Julia (pyjlode.explain says what runs there). Solve under torch.no_grad(), or "
                "write func without what stands in the way."
            )
    model = replace(model, handle=module.with_mass(model.handle, *_arrays(mass.matrix)))
    start = ConsistentStart(module, model, problem, mass)
    y0 = AlgebraicState.apply(start, problem.y0, problem.t[:1], *parameters)
    return model, replace(problem, y0=y0)


def _arrays(matrix: Tensor) -> tuple[Any, ...]:
    """A dense matrix, or the columns' starts, the rows and the values of a sparse one."""
    if not matrix.is_sparse:
        return (matrix.numpy(),)
    rows, columns = matrix.indices().numpy()
    order = np.lexsort((rows, columns))
    starts = np.searchsorted(columns[order], np.arange(len(matrix) + 1))
    return starts, rows[order], matrix.values().numpy()[order]


def _name(problem: Problem) -> str:
    return "a mass_matrix" if problem.mass is None else problem.mass.name


@dataclass(frozen=True)
class ConsistentStart(AlgebraicSolve):
    """An initial state whose algebraic variables satisfy the algebraic equations."""

    mass: MassMatrix

    def find(self, y0: Tensor, t: Tensor, parameters: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
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
        values = torch.from_numpy(np.array(found.residual)).view(y0.shape)
        residual = self.mass.residual(problem.direction * values)
        message = str(found.message)
        if not message and not self.mass.correct and bool((residual.abs() > atol).any()):
            message = "off"
        if message:
            raise self._failure(message, residual, float(t), atol)
        return torch.from_numpy(np.array(found.u)).view(y0.shape), found

    def _failure(self, message: str, residual: Tensor, time: float, atol: float) -> SolverError:
        mass, off = self.mass, listed(residual, atol)
        says = {
            "off": f"does not satisfy {mass.equations}: func has there {off}. Give {mass.initial} "
            'that does, or leave initializealg="CheckInit" out',
            "singular": mass.singular,
            "not converged": f"was not brought to one that satisfies {mass.equations}: func has "
            f"there {off}. Give {mass.initial} that is nearer, unless the index of the equation is "
            "above one: then differentiate the constraints by time first",
            "not finite": "is one at which func is not finite",
        }
        return SolverError(
            f"The initial state {says[message]}.", retcode="InitialFailure",
            t=self.problem.direction * time,
        )  # fmt: skip
