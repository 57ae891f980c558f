"""Steady states in Julia."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, SolverError
from ..problem import Problem, Statistics, tightest
from ..runtime import in_julia
from ..trace.transforms import refuse_transforms
from .algebraic import AlgebraicSolve, AlgebraicState
from .arrays import as_array, flatten, in_memory
from .models import Wanted, depends_on_time

_MAX_STEPS = 100_000


@in_julia
def solve_steady(engine: Any, problem: Problem, method: str, stats: Statistics) -> Tensor:
    """The steady state, with a gradient where one is needed."""
    refuse_transforms("A steady state")
    engine.module.load_steady(method)
    model = engine.models.get(problem, wanted=Wanted.JACOBIAN)
    if depends_on_time(model):
        raise ArgumentError("func depends on t, so that there is no steady state.")
    solve = SteadyState(engine.module, model, problem, method, stats)
    start = problem.y0.detach()
    return AlgebraicState.apply(solve, start, problem.t[:1], *model.parameters)


@dataclass(frozen=True)
class SteadyState(AlgebraicSolve):
    """A state at which the dynamics rest."""

    method: str
    stats: Statistics

    def find(self, y0: Tensor, t: Tensor, parameters: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
        problem, info = self.problem, torch.zeros(8, dtype=torch.float64)
        self.model.refresh()
        with self.model.errors():
            found = self.model.run(
                self.module.steady_state,
                self.model.handle,
                self.method,
                as_array(in_memory(y0)),
                flatten(parameters, y0.dtype).numpy(),
                tightest(problem.rtol),
                tightest(problem.atol),
                _MAX_STEPS if self.method == "DynamicSS" else 1000,
                info.numpy(),
                how=("steady", self.method),
            )
        self.stats.take({"nf": float(info[2]), "njacs": float(info[3])})
        message = str(found.message)
        if message:
            raise self._failure(message)
        return torch.from_numpy(np.array(found.u)).view(y0.shape), found

    def _failure(self, message: str) -> SolverError:
        says = {
            "singular": "is not an isolated one: func has a singular derivative by the state, as "
            "with conserved quantities. Have one element of func say what is conserved, minus its "
            "value, for the equation that this makes superfluous, with another method than "
            "DynamicSS; or take the last state of odeint at a late time",
            "not converged": "was not found: Newton's method does not converge there",
            "moved away": "was not found: the equation got slow before it came near one. Tighten "
            "rtol and atol",
            "not finite": "was not found: func is not finite there",
        }
        other = "TrustRegion" if self.method == "DynamicSS" else "DynamicSS"
        default = f'was not found ({message}). Try method="{other}", or another y0'
        return SolverError(
            f"A steady state by {self.method} {says.get(message, default)}.",
            retcode=message if message not in says else "Failure", t=float("nan"),
        )  # fmt: skip
