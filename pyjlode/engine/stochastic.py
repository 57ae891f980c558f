"""Stochastic equations in Julia: StochasticDiffEq, and reverse mode through its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..brownian import BrownianPath, path_of
from ..errors import SolverError, UnsupportedError
from ..problem import Problem, Statistics
from ..runtime import in_julia
from ..stochastic_methods import WITH_GRADIENT
from ..translate.draws import Draw
from .arrays import as_array, in_memory, unflatten
from .extension import require
from .models import Model, Wanted
from .node import once

if TYPE_CHECKING:
    from ..sdeint import AdaptiveSteps, FixedSteps, StochasticProblem
    from .julia import JuliaEngine

_PACKAGES = {
    "DiffEqNoiseProcess": "77a26b50-5914-5dd7-bc55-306e6241c503",
    "StochasticDiffEqHighOrder": "0520c28c-50fd-4d16-9c96-902fc80b3bab",
    "StochasticDiffEqLowOrder": "d15fe365-ce7f-450a-828a-7985bd5b681b",
}


@in_julia
def solve_stochastic(
    engine: JuliaEngine,
    problem: StochasticProblem,
    steps: FixedSteps | AdaptiveSteps,
    stats: Statistics,
) -> tuple[Tensor, Callable[[], BrownianPath]]:
    """The states, with a gradient where one is needed, and what gives the Brownian motion."""
    from ..sdeint import AdaptiveSteps

    adaptive = isinstance(steps, AdaptiveSteps)
    gradients = torch.is_grad_enabled() and problem.method.gradient and not adaptive
    equation = _equation(engine, problem, gradients)
    _refuse_updates(equation)
    inputs = (problem.y0, *equation.parameters)
    differentiate = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    if differentiate:
        _require_gradient(problem, equation, adaptive)
    if isinstance(steps, AdaptiveSteps):
        return _adaptive(equation, problem, steps, stats)
    solve = _FixedSolve(equation, problem, steps, stats)
    if differentiate:
        states = _Differentiable.apply(solve, *inputs)
    else:
        states = solve.forward(problem.y0, keep=False)[0]
    return states, lambda: path_of(steps.t, steps.first, steps.second)


@cache
def load_extension(engine: JuliaEngine) -> Any:
    """Julia's part, which is loaded, with its packages, when it is first needed."""
    return require(engine, "PyjlodeStochasticExt", _PACKAGES, "stochastic equations")


@dataclass(frozen=True)
class _Equation:
    """Drift and diffusion in Julia.

    ``product``, where the diffusion is a matrix and gradients may be needed, is that matrix times
    a vector, as a function of states and vectors side by side.
    """

    extension: Any
    drift: Model
    diffusion: Model
    product: Model | None
    problem: StochasticProblem

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """What gets a gradient beside the state."""
        return (*self.drift.parameters, *self.derived.parameters)

    @property
    def derived(self) -> Model:
        """What the diffusion is differentiated by."""
        return self.diffusion if self.product is None else self.product

    @property
    def models(self) -> tuple[Model, ...]:
        found = (self.drift, self.diffusion, self.product)
        return tuple(m for m in found if m is not None)

    def handle(self) -> Any:
        """Julia's, with the values that parameters and constants have now."""
        arguments: list[Any] = []
        for model in (self.drift, self.diffusion, self.product):
            if model is None:
                arguments += [None, None]
                continue
            model.refresh()
            arguments += [model.handle, model.numbers()]
        return self.extension.sde(*arguments, self.problem.y0.shape[0], self.problem.noises)


def _equation(engine: JuliaEngine, problem: StochasticProblem, gradients: bool) -> _Equation:
    wanted = Wanted.GRADIENTS if gradients else Wanted.VALUES
    f, g, y0 = problem.f, problem.g, problem.y0
    (batch, n), m = y0.shape, problem.noises
    drift = _model(engine, problem, f, 0, ("drift",), y0, wanted)
    if m == 0:
        diffusion = _model(engine, problem, g, 1, ("diffusion", problem.scalar), y0, wanted)
        return _Equation(load_extension(engine), drift, diffusion, None, problem)

    def columns(t: Tensor, y: Tensor) -> Tensor:
        """As the numbers of Julia's blocks lie, column by column."""
        return g(t, y).transpose(1, 2)

    def product(t: Tensor, z: Tensor) -> Tensor:
        y, w = z[:, :n], z[:, n:]
        return torch.cat([(g(t, y) @ w.unsqueeze(-1)).squeeze(-1), torch.zeros_like(w)], dim=1)

    diffusion = _model(engine, problem, columns, 1, ("columns", m), y0, Wanted.VALUES)
    times = None
    if gradients:
        side_by_side = torch.cat([y0.detach(), y0.new_ones(batch, m)], dim=1)
        times = _model(engine, problem, product, 1, ("product", m), side_by_side, wanted)
    return _Equation(load_extension(engine), drift, diffusion, times, problem)


def _model(
    engine: JuliaEngine, problem: StochasticProblem, func: Any, owner: int,
    key: tuple[Any, ...], state: Tensor, wanted: Wanted,
) -> Model:  # fmt: skip
    traced = Problem(
        func, state, problem.ts, rtol=0.0, atol=0.0, method=None, sensealg=None, options={},
        fixed_step=True, owner=problem.owners[owner], key=("stochastic", *key),
    )  # fmt: skip
    return engine.models.get(traced, wanted=wanted)


def _require_gradient(problem: StochasticProblem, equation: _Equation, adaptive: bool) -> None:
    name = problem.method.name
    if adaptive:
        raise UnsupportedError(
            f"There is no gradient of adaptive steps; use {WITH_GRADIENT} without adaptive, or "
            "torch.no_grad() where none is needed."
        )
    if not problem.method.gradient:
        raise UnsupportedError(
            f"There is no gradient of {name}; those with one are {WITH_GRADIENT}. Where none is "
            "needed, call it under torch.no_grad()."
        )
    if equation.product is None:
        return
    if any(
        isinstance(x, Draw) for m in (equation.diffusion, equation.product) for x in m.constants
    ):
        raise UnsupportedError(
            "A diffusion matrix that draws random numbers has no gradient; call eval() on what has "
            "dropout, or declare diagonal noise."
        )


def _refuse_updates(equation: _Equation) -> None:
    if any(m.updated for m in equation.models):
        raise UnsupportedError(
            "f or g changes tensors when it runs, such as running statistics; call eval() on it."
        )


def _failed(problem: StochasticProblem, retcode: str, reached: float) -> SolverError:
    cures = {"MaxIters": "looser tolerances, or a larger max_num_steps"}
    cures["DtLessThanMin"] = "looser tolerances, or fixed steps"
    other = "smaller steps, or a look at f and g for values that are not finite"
    return SolverError(
        f"The solve with {problem.method.name} stopped at t = {reached:.6g} ({retcode}). Try "
        f"{cures.get(retcode, other)}.",
        retcode=retcode,
        t=reached,
    )


@dataclass(frozen=True)
class _FixedSolve:
    equation: _Equation
    problem: StochasticProblem
    steps: FixedSteps
    stats: Statistics

    def forward(self, y0: Tensor, *, keep: bool) -> tuple[Tensor, Any]:
        """The states, and Julia's handle for the gradient."""
        problem, steps = self.problem, self.steps
        out = torch.empty((len(problem.ts), *y0.shape), dtype=y0.dtype)
        info = torch.zeros(4, dtype=torch.float64)
        dW, dZ = (_spread(x, problem) for x in (steps.first, steps.second))
        extension = self.equation.extension
        with self.equation.drift.errors(), self.equation.diffusion.errors():
            solved = self.equation.drift.run(
                extension.solve_fixed,
                self.equation.handle(), problem.method.name, problem.ito, as_array(in_memory(y0)),
                steps.t.numpy(), dW, dZ, steps.places, as_array(out), info.numpy(), keep,
                how=("fixed steps", problem.method.name, keep), beside=self.equation.models,
            )  # fmt: skip
        if info[0] == 0 or not bool(torch.isfinite(out).all()):
            raise _failed(problem, "Unstable", float(info[1]))
        self.stats.naccept = len(steps.t) - 1
        return out, (solved, dW)

    @in_julia
    def backward(self, kept: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients with respect to the initial state and the parameters."""
        equation, (solved, _) = self.equation, kept
        dtype = cotangent.dtype
        gradient_y = torch.empty(cotangent.shape[1:], dtype=dtype)
        shapes = [[p.shape for p in m.parameters] for m in (equation.drift, equation.derived)]
        sizes = [sum(shape.numel() for shape in part) for part in shapes]
        found = [torch.zeros(max(size, 1), dtype=dtype) for size in sizes]
        with equation.drift.errors(), equation.derived.errors():
            equation.drift.run(
                equation.extension.backward,
                solved, as_array(in_memory(cotangent)), self.steps.places, as_array(gradient_y),
                *(x.numpy() for x in found),
                how=("backward", self.problem.method.name), beside=equation.models,
            )  # fmt: skip
        gradients = [
            gradient
            for total, size, part in zip(found, sizes, shapes, strict=True)
            for gradient in unflatten(total[:size], part)
        ]
        if not all(bool(torch.isfinite(g).all()) for g in (gradient_y, *gradients)):
            raise _failed(self.problem, "Unstable", float(self.problem.ts[0]))
        return gradient_y, *gradients


def _spread(increments: Tensor | None, problem: StochasticProblem) -> Any:
    """One row a step; of scalar noise once for each number of the state."""
    if increments is None:
        return np.empty(0, dtype=problem.y0.numpy(force=True).dtype)
    if problem.scalar:
        increments = increments.expand(*increments.shape[:2], problem.y0.shape[1])
    return as_array(increments)


class _Differentiable(torch.autograd.Function):
    """A solve as one node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, solve: _FixedSolve, y0: Tensor, *parameters: Tensor) -> Tensor:
        out, ctx.kept = solve.forward(y0, keep=True)
        ctx.save_for_backward(y0, *parameters)
        ctx.solve = solve
        return out

    @staticmethod
    @once("A solve of a stochastic equation")
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.solve.backward(ctx.kept, cotangent)


def _adaptive(
    equation: _Equation, problem: StochasticProblem, steps: AdaptiveSteps, stats: Statistics
) -> tuple[Tensor, Callable[[], BrownianPath]]:
    y0 = problem.y0
    out = torch.empty((len(problem.ts), *y0.shape), dtype=y0.dtype)
    info = torch.zeros(4, dtype=torch.float64)
    with equation.drift.errors(), equation.diffusion.errors():
        retcode, times, values = equation.drift.run(
            equation.extension.solve_adaptive,
            equation.handle(), problem.method.name, problem.ito, as_array(in_memory(y0)),
            problem.ts.numpy(), steps.seed, steps.rtol, steps.atol, steps.dt, steps.dt_min,
            steps.max_num_steps, as_array(out), info.numpy(),
            how=("adaptive", problem.method.name), beside=equation.models,
        )  # fmt: skip
    if info[0] == 0 or not bool(torch.isfinite(out).all()):
        raise _failed(problem, str(retcode), float(info[1]))
    stats.naccept, stats.nreject = int(info[2]), int(info[3])

    def path() -> BrownianPath:
        W = torch.from_numpy(np.array(values).T.copy()).view(len(times), y0.shape[0], -1)
        return BrownianPath(torch.from_numpy(np.array(times)), W)

    return out, path
