"""Delay equations in Julia: DelayDiffEq, and reverse mode through its steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import SolverError, UnsupportedError
from ..methods import Method
from ..problem import Problem, Statistics
from ..runtime import in_julia
from ..trace.transforms import refuse_transforms
from .arrays import as_array, in_memory, unflatten
from .extension import require
from .failure import Evidence, forward_failure
from .functions import parts_of
from .models import Model, Wanted
from .node import once

if TYPE_CHECKING:
    from ..ddeint import DelayProblem
    from .julia import JuliaEngine

_PACKAGES = {"DelayDiffEq": "bcd4f6db-9728-5f36-b5f7-82caef46ccdb"}
_EXTENSION = "PyjlodeDelayExt"


@in_julia
def solve_delay(engine: JuliaEngine, delay: DelayProblem, stats: Statistics) -> Tensor:
    """The states, of shape ``(T, *y0.shape)``, with a gradient where one is needed."""
    refuse_transforms("A delay equation")
    problem = delay.problem
    equation = _equation(engine, delay)
    if any(m.updated for m in equation.models):
        raise UnsupportedError(
            "func or history changes tensors when it runs, such as running statistics; call eval() "
            "on it."
        )
    solve = _DelaySolve(engine, equation, engine.method(problem), stats)
    inputs = (problem.y0, problem.t, delay.lags, *equation.parameters)
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        states: Tensor = _Differentiable.apply(solve, *inputs)
        return states
    return solve.forward(problem.y0, keep=False)[0]


@cache
def load_extension(engine: JuliaEngine) -> Any:
    """Julia's part, which is loaded, with its package, when it is first needed."""
    return require(engine, _EXTENSION, _PACKAGES, "delay equations")


@dataclass(frozen=True)
class _Equation:
    """Function and past in Julia; ``history`` is None where the past is constant."""

    extension: Any
    func: Model
    history: Model | None
    delay: DelayProblem

    @property
    def models(self) -> tuple[Model, ...]:
        return (self.func,) if self.history is None else (self.func, self.history)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """What gets a gradient beside the state, the times and the lags."""
        return tuple(p for m in self.models for p in m.parameters)

    def handle(self, y0: Tensor) -> Any:
        """Julia's, with the values that parameters and constants have now."""
        arguments: list[Any] = []
        for model in self.models:
            model.refresh()
            arguments += [model.handle, model.numbers()]
        if self.history is None:
            arguments += [None, torch.zeros(1, dtype=y0.dtype).numpy()]
        return self.extension.dde(
            *arguments, as_array(self.delay.lags), _rows(y0), float(self.delay.problem.t[0]),
            as_array(in_memory(y0)),
        )  # fmt: skip


def _equation(engine: JuliaEngine, delay: DelayProblem) -> _Equation:
    problem, count = delay.problem, len(delay.lags)
    together = _side_by_side([problem.y0.detach()] * (1 + count))
    key = ("delay", delay.layout, problem.y0.shape, count)
    func = _model(engine, problem, _of_states_side_by_side(delay), delay.func, key, together)
    history = None
    if delay.history is not None:
        past, layout = delay.history, delay.layout
        history = _model(
            engine, problem, lambda t, y: layout.join(past(t)), past, ("history", layout),
            problem.y0.detach(),
        )  # fmt: skip
    return _Equation(load_extension(engine), func, history, delay)


def _model(
    engine: JuliaEngine, problem: Problem, func: Callable[[Tensor, Tensor], Tensor],
    owner: object, key: tuple[Any, ...], state: Tensor,
) -> Model:  # fmt: skip
    traced = replace(
        problem, func=func, y0=state, owner=owner, key=key, layout=None, method=None, watch={}
    )
    wanted = Wanted.GRADIENTS if torch.is_grad_enabled() else Wanted.VALUES
    return engine.models.get(traced, wanted=wanted)


def _rows(y: Tensor) -> int:
    """How many rows a state has, if it may be a batch."""
    return y.shape[0] if y.dim() > 1 else 1


def _side_by_side(states: list[Tensor]) -> Tensor:
    """Each row's numbers of all the states, one after the other."""
    first = states[0]
    shape = (first.shape[0], -1) if first.dim() > 1 else (-1,)
    return torch.cat([y.reshape(shape) for y in states], dim=-1)


def _of_states_side_by_side(delay: DelayProblem) -> Callable[[Tensor, Tensor], Tensor]:
    """The caller's function of the state and the delayed ones in one tensor, with zeros beside."""
    func, layout, shape = delay.func, delay.layout, delay.problem.y0.shape
    width = delay.problem.y0.numel() // _rows(delay.problem.y0)

    def together(t: Tensor, z: Tensor) -> Tensor:
        y, *delayed = (x.reshape(shape) for x in z.split(width, dim=-1))
        states = [layout.split(x) for x in delayed]
        derivative = layout.wrap(lambda t, y: func(t, y, *states))(t, y)
        rest = torch.zeros_like(z[..., width:])
        return torch.cat([derivative.reshape(*z.shape[:-1], width), rest], dim=-1)

    return together


@dataclass(frozen=True)
class _DelaySolve:
    engine: JuliaEngine
    equation: _Equation
    method: Method
    stats: Statistics

    def forward(self, y0: Tensor, *, keep: bool) -> tuple[Tensor, Any]:
        """The states, and Julia's steps for the gradient."""
        problem = self.equation.delay.problem
        out = torch.empty((problem.t.numel(), *y0.shape), dtype=y0.dtype)
        last, info = torch.empty_like(out[0]), torch.zeros(6, dtype=torch.float64)
        times = problem.t.detach().to(torch.float64)
        with self._errors():
            steps, retcode = self.equation.func.run(
                self.equation.extension.solve_delayed,
                self.equation.handle(y0), self._settings(problem), as_array(times), as_array(out),
                as_array(last), info.numpy(), keep,
                how=("delayed", self.method.name, keep), beside=[self.equation.history],
            )  # fmt: skip
        success, reached, *counts, saved = info.tolist()
        named = dict(zip(("nf", "naccept", "nreject"), counts, strict=True))
        if not success:
            raise forward_failure(
                problem,
                Evidence(
                    self.method.name, True, str(retcode), reached, named, out[: int(saved)], last
                ),
            )
        self.stats.take(named)
        return out, steps

    def _settings(self, problem: Problem) -> Any:
        layout = problem.layout
        sizes = layout.sizes if layout is not None and layout.joined else []
        return self.engine.functions.make_settings(
            self.method, problem.fixed_step, problem.rtol, problem.atol, problem.options, None,
            parts_of(sizes),
        )  # fmt: skip

    @in_julia
    def backward(
        self, steps: Any, cotangent: Tensor, with_lags: bool, with_t: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None, list[Tensor]]:
        """Gradients with respect to the initial state, the times, the lags and the parameters."""
        dtype, delay = cotangent.dtype, self.equation.delay
        gradient_y = torch.empty(cotangent.shape[1:], dtype=dtype)
        shapes = [[p.shape for p in m.parameters] for m in self.equation.models]
        sizes = [sum(shape.numel() for shape in part) for part in shapes]
        found = [torch.zeros(max(size, 1), dtype=dtype) for size in (*sizes, 0)[:2]]
        lags = torch.zeros(len(delay.lags), dtype=torch.float64)
        times, info = torch.zeros(len(cotangent), dtype=torch.float64), torch.zeros(1).double()
        with self._errors():
            self.equation.func.run(
                self.equation.extension.backward,
                steps, as_array(cotangent), as_array(gradient_y), *(x.numpy() for x in found),
                lags.numpy(), times.numpy(), with_lags or with_t, info.numpy(),
                how=("delayed backward", self.method.name), beside=[self.equation.history],
            )  # fmt: skip
        gradients = [
            gradient
            for total, size, part in zip(found, sizes, shapes, strict=False)
            for gradient in unflatten(total[:size], part)
        ]
        if not all(bool(torch.isfinite(g).all()) for g in (gradient_y, lags, times, *gradients)):
            raise SolverError(
                f"The backward pass through the steps of {self.method.name} gave a gradient that "
                "is not finite (Unstable). Try a look at func and history for infinite slopes, or "
                "a shorter time.",
                retcode="Unstable",
                t=float(delay.problem.t[0]),
            )
        self.stats.nfe_backward = int(info[0])
        return gradient_y, times if with_t else None, lags if with_lags else None, gradients

    def _errors(self) -> ExitStack:
        stack = ExitStack()
        for model in self.equation.models:
            stack.enter_context(model.errors())
        return stack


class _Differentiable(torch.autograd.Function):
    """A solve as one node of autograd's graph."""

    @staticmethod
    def forward(
        ctx: Any, solve: _DelaySolve, y0: Tensor, t: Tensor, lags: Tensor, *parameters: Tensor
    ) -> Tensor:
        out, ctx.steps = solve.forward(y0, keep=True)
        ctx.save_for_backward(y0, t, lags, *parameters)
        ctx.solve, ctx.t_dtype = solve, t.dtype
        return out

    @staticmethod
    @once("A solve of a delay equation")
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        _, _, with_t, with_lags, *_ = ctx.needs_input_grad
        gradient_y, times, lags, gradients = ctx.solve.backward(
            ctx.steps, in_memory(cotangent), with_lags, with_t
        )
        times = None if times is None else times.to(ctx.t_dtype)
        return None, gradient_y, times, lags, *gradients
