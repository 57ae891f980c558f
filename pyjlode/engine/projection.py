"""Solves in Julia whose states are projected onto a manifold, and their discrete adjoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import SolverError, UnsupportedError
from ..methods import Method
from ..problem import Problem, Statistics
from ..runtime import in_julia
from ..sensealg import DiscreteAdjoint
from ..translate.draws import Draw
from .arrays import as_array, in_memory, unflatten
from .callback import Noted
from .models import Model, Wanted
from .node import once
from .trajectory import solve_failure

if TYPE_CHECKING:
    from ..manifold import Projection
    from .julia import JuliaEngine


def solve_projected(engine: JuliaEngine, problem: Problem, stats: Statistics) -> Tensor:
    """The states, with a gradient where one is needed."""
    projection = problem.projection
    assert projection is not None
    method = engine.method(problem)
    if method.implicit or method.problem or not method.has_discrete:
        raise UnsupportedError(
            f"ManifoldProjection is for explicit Runge-Kutta methods such as Tsit5 and Vern7, not "
            f"for {method.name}; give the conditions as algebraic equations of a mass_matrix for "
            "a stiff problem."
        )
    model = engine.models.get(problem, wanted=engine.wanted(problem, method, method))
    values = _values(engine, problem, projection)
    inputs = (problem.y0, *model.tensors, *values.tensors)
    tangent = None
    if torch.is_grad_enabled() and any(x.requires_grad for x in (*inputs, problem.t)):
        _refuse_gradient(problem)
        tangent = _tangent(engine, problem, projection)
    solve = _ProjectedSolve(engine, model, values, tangent, problem, method, stats)
    if tangent is not None:
        states = _Differentiable.apply(solve, problem.y0, *model.parameters, *tangent.parameters)
    else:
        states = solve.forward(problem.y0, keep=False)[0]
    model.update(problem, states)
    return states


def _refuse_gradient(problem: Problem) -> None:
    if problem.t.requires_grad:
        raise UnsupportedError(
            "With a ManifoldProjection there is no gradient with respect to t; give t.detach()."
        )
    if not isinstance(problem.sensealg, (DiscreteAdjoint, type(None))):
        raise UnsupportedError(
            "The gradient of a solve with a ManifoldProjection is that of DiscreteAdjoint(); "
            f"leave {type(problem.sensealg).__name__} out."
        )


def _values(engine: JuliaEngine, problem: Problem, projection: Projection) -> Model:
    """The model of the residuals, and of the derivative of each by its part of the state."""
    rows, conditions = projection.rows, projection.conditions

    def values(t: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = y.detach().requires_grad_()
            found = projection.residual(t, leaf)
            sums = found.sum(0).unbind(0)
        slopes = []
        for j in range(conditions):
            slope: Tensor | None = None
            if found.requires_grad:
                (slope,) = torch.autograd.grad(sums[j], leaf, retain_graph=True, allow_unused=True)
            slopes.append(torch.zeros_like(y) if slope is None else slope)
        by_row = torch.stack([slope.reshape(rows, -1) for slope in slopes], dim=1)
        return torch.cat([found.detach().reshape(-1), by_row.reshape(-1)])

    key = ("manifold", rows, conditions, *problem.key)
    asked = replace(problem, func=values, owner=projection.owner, key=key, projection=None)
    return _checked(engine.models.get(asked, wanted=Wanted.VALUES))


def _tangent(engine: JuliaEngine, problem: Problem, projection: Projection) -> Model:
    """The model of states with multipliers behind them: ``Jᵀm`` and the residuals."""
    n, y0 = problem.y0.numel(), problem.y0

    def tangent(t: Tensor, z: Tensor) -> Tensor:
        with torch.enable_grad():
            y = z[:n].view(y0.shape)
            y = y if y.requires_grad else y.detach().requires_grad_()
            found = projection.residual(t, y).reshape(-1)
            weighted: Tensor | None = None
            if found.requires_grad:
                (weighted,) = torch.autograd.grad(
                    found, y, z[n:], create_graph=True, allow_unused=True
                )
        normal = torch.zeros_like(y) if weighted is None else weighted
        return torch.cat([normal.reshape(-1), found])

    count = projection.rows * projection.conditions
    start = torch.cat([y0.detach().reshape(-1), y0.new_ones(count)])
    key = ("tangent", projection.rows, projection.conditions, tuple(y0.shape), *problem.key)
    asked = replace(
        problem, func=tangent, y0=start, owner=projection.owner, key=key, projection=None
    )
    return _checked(engine.models.get(asked, wanted=Wanted.GRADIENTS))


def _checked(model: Model) -> Model:
    if model.updated or any(isinstance(x, Draw) for x in model.constants):
        raise UnsupportedError(
            "residual draws random numbers or changes tensors when it runs; call eval() on it."
        )
    return model


@dataclass(frozen=True)
class _ProjectedSolve:
    engine: JuliaEngine
    model: Model
    values: Model
    tangent: Model | None
    problem: Problem
    method: Method
    stats: Statistics

    def forward(self, y0: Tensor, *, keep: bool) -> tuple[Tensor, Any]:
        """The states, and Julia's handle for the gradient."""
        problem, values, tangent = self.problem, self.values, self.tangent
        projection = problem.projection
        assert projection is not None
        for model in (self.model, values, tangent):
            if model is not None:
                model.refresh()
        out = torch.empty((problem.t.numel(), *y0.shape), dtype=y0.dtype)
        info, python = torch.zeros(8, dtype=torch.float64), Noted()
        settings = self.engine.functions.forward_settings(problem, self.method, python)
        with python.errors(), self.model.errors(), values.errors(), (tangent or values).errors():
            solved = self.model.run(
                self.engine.module.forward_projected,
                self.model.handle, settings, as_array(in_memory(y0)), self.model.numbers(),
                as_array(problem.t.to(torch.float64)), as_array(out), info.numpy(),
                values.handle, values.numbers(), None if tangent is None else tangent.handle,
                (tangent or values).numbers(), projection.rows,
                projection.conditions, nan if projection.abstol is None else projection.abstol,
                projection.maxiters, keep, getattr(problem.sensealg, "checkpoints", None) or 0,
                how=("projected", self.method.name, keep), beside=[values, tangent], python=python,
            )  # fmt: skip
        success, reached, nf, njacs, naccept, nreject, residual, saved = info.tolist()
        counts = {"nf": nf, "njacs": njacs, "naccept": naccept, "nreject": nreject}
        if not success:
            raise self._failure(solved, reached, counts, residual, out[: int(saved)])
        self.stats.take(counts)
        return out, solved

    @in_julia
    def backward(self, solved: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients with respect to the initial state and the parameters."""
        assert self.tangent is not None
        dtype = cotangent.dtype
        gradient_y = torch.empty(cotangent.shape[1:], dtype=dtype)
        info = torch.zeros(8, dtype=torch.float64)
        shapes = [[p.shape for p in m.parameters] for m in (self.model, self.tangent)]
        found = [torch.zeros(sum(s.numel() for s in part), dtype=dtype) for part in shapes]
        with self.model.errors(), self.values.errors(), self.tangent.errors():
            message = self.model.run(
                self.engine.module.backward_projected,
                solved, as_array(in_memory(cotangent)), as_array(gradient_y),
                *(x.numpy() for x in found), info.numpy(),
                how=("projected backward", self.method.name), beside=[self.values, self.tangent],
            )  # fmt: skip
        if message is not None:
            raise SolverError(
                f"The gradient through the projections is not finite, or not found, at t = "
                f"{self.problem.direction * float(info[1]):.6g} ({message}). Look at residual for "
                "a derivative that vanishes.",
                retcode=str(message),
                t=self.problem.direction * float(info[1]),
            )
        self.stats.nfe_backward = int(info[2])
        pieces = zip(found, shapes, strict=True)
        return gradient_y, *(x for total, part in pieces for x in unflatten(total, part))

    def _failure(
        self, solved: Any, reached: float, counts: dict[str, float], residual: float, states: Tensor
    ) -> SolverError:
        problem, projection = self.problem, self.problem.projection
        assert projection is not None
        if str(self.engine.functions.retcode(solved)) != "ConvergenceFailure":
            return solve_failure(
                self.engine.functions, self.model, solved, problem, self.method, reached, counts,
                states,
            )  # fmt: skip
        time = problem.direction * reached
        return SolverError(
            f"The projection onto the manifold did not converge in the step to t = {time:.6g}: "
            f"after {projection.maxiters} iterations the residual is {residual:.3g} times what "
            "counts as zero. Try tighter tolerances, so that steps stay near the manifold, a "
            "larger abstol, or a look at residual for a derivative that vanishes.",
            retcode="ConvergenceFailure",
            t=time,
            stats={k: int(v) for k, v in counts.items()},
            states=states,
        )


class _Differentiable(torch.autograd.Function):
    """A solve as one node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, solve: _ProjectedSolve, y0: Tensor, *parameters: Tensor) -> Tensor:
        out, ctx.solved = solve.forward(y0, keep=True)
        ctx.save_for_backward(y0, *parameters)
        ctx.solve = solve
        return out

    @staticmethod
    @once("A solve with ManifoldProjection")
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.solve.backward(ctx.solved, cotangent)
