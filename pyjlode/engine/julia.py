"""The Julia engine: problems of torch tensors, solved by SciML.

Arrays cross the border as addresses of torch's memory: Julia reads the initial state and the
parameters there and writes the solution and the gradients there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from ..errors import SolverError, UnsupportedError
from ..problem import Problem, Statistics
from ..runtime import Runtime
from ..sensealg import (
    BacksolveAdjoint,
    DiscreteAdjoint,
    GaussAdjoint,
    QuadratureAdjoint,
    SensitivityAlgorithm,
)
from .models import Model, ModelCache, Wanted

_MAX_STEPS = 100_000


class JuliaEngine:
    """Solve with OrdinaryDiffEq.jl and differentiate with SciMLSensitivity.jl."""

    name = "julia"

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.module = runtime.module
        self.functions = _Functions(runtime.module)
        self.models = ModelCache(runtime)

    def versions(self) -> dict[str, str]:
        return self.runtime.versions

    def warm_up(self) -> None:
        """Solve and differentiate a toy problem in both precisions.

        In it torch imports its tracer and Julia compiles what stands between the languages: three
        seconds that would otherwise be part of the user's first gradient.
        """
        for dtype in (torch.float64, torch.float32):
            rate = torch.ones(1, dtype=dtype, requires_grad=True)
            func = partial(_decay, rate)
            y0, t = torch.ones(1, dtype=dtype), torch.tensor([0.0, 0.1])
            problem = Problem(
                func, y0, t, rtol=1e-3, atol=1e-3, method=None, sensealg=None, options={},
                fixed_step=False, owner=func, key=(),
            )  # fmt: skip
            with torch.enable_grad():
                self.solve(problem, Statistics()).sum().backward()

    def solve(self, problem: Problem, stats: Statistics) -> Tensor:
        self.runtime.check_thread()
        method = "Tsit5" if problem.method is None else problem.method.name
        if problem.method is not None and not problem.method.julia:
            raise UnsupportedError(
                f'The Julia engine has no {method}; use Vern7, Vern9 or Tsit5, or engine="torch".'
            )
        implicit = problem.method is not None and problem.method.stiff
        sensealg = problem.sensealg or (GaussAdjoint() if implicit else DiscreteAdjoint())
        if implicit and isinstance(sensealg, DiscreteAdjoint):
            raise UnsupportedError(
                f"DiscreteAdjoint is for explicit methods; with {method} use GaussAdjoint or "
                "InterpolatingAdjoint."
            )
        if implicit:
            self.functions.load(method)
        # With gradients enabled one is likely needed; which tensors func uses, the trace says.
        wanted = Wanted.GRADIENTS if torch.is_grad_enabled() else Wanted.VALUES
        model = self.models.get(problem, wanted=Wanted.JACOBIAN if implicit else wanted)
        inputs = (problem.y0, problem.t, *model.parameters)
        differentiate = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        settings = self._settings(problem, method)
        solve = _Solve(self.functions, model, problem, method, settings, sensealg, stats)
        if differentiate:
            states = _Differentiable.apply(solve, problem.y0, problem.t, *model.parameters)
        else:
            states = solve.forward(problem.y0, problem.t, model.parameters, keep="nothing")[0]
        model.update(problem, states)
        return states

    def _settings(self, problem: Problem, method: str) -> Any:
        options = problem.options
        return self.functions.settings(
            method,
            problem.rtol,
            problem.atol,
            int(options.get("max_num_steps", _MAX_STEPS)),
            float(options.get("step_size") or options.get("first_step") or 0.0),
            problem.fixed_step,
            float(options.get("min_step", 0.0)),
            float(options.get("max_step", 0.0)),
        )


class _Functions:
    """Julia's functions, looked up once, and what small values they make, made once.

    A look-up through juliacall takes as long as a call, and a training step on a small model is
    not much longer than a few of them.
    """

    def __init__(self, module: Any) -> None:
        self.load = module.load
        self._forward = module.forward_handed
        self._backward = module.backward_handed
        self._addresses = (ctypes.c_int64 * 16).from_address(int(module.address_table()))
        self.retcode = module.retcode
        self.settings = lru_cache(maxsize=64)(module.Settings)
        self.sensitivity = lru_cache(maxsize=64)(module.sensitivity)

    def forward(
        self, model: Any, settings: Any, arrays: Sequence[Tensor], parameters: Sequence[Tensor],
        keep: str, checkpoints: int,
    ) -> Any:  # fmt: skip
        """Julia's ``forward`` of the arrays u0, ts, out and info and of the parameters."""
        u0, *rest = arrays
        table = _table(parameters)
        self._hand_over((u0, None, *rest), 1, table)
        return self._forward(model, settings, keep, checkpoints)

    def backward(
        self, solved: Any, algorithm: Any, settings: Any, arrays: Sequence[Tensor],
        gradients: Sequence[Tensor],
    ) -> str | None:  # fmt: skip
        """Julia's ``backward`` of the arrays cotangent, gradients of u and t, and info.

        ``gradients`` are those of the parameters.
        """
        cotangent, gradient_u, *rest = arrays
        table = _table(gradients)
        self._hand_over((cotangent, gradient_u, None, *rest), 2, table)
        message = self._backward(solved, algorithm, settings)
        return None if message is None else str(message)

    def _hand_over(self, arrays: Sequence[Tensor | None], place: int, table: Any) -> None:
        addresses = self._addresses
        for i, x in enumerate(arrays):
            if x is not None:
                addresses[2 * i] = x.data_ptr()
                addresses[2 * i + 1] = x.numel()
        addresses[2 * place] = ctypes.addressof(table)
        addresses[2 * place + 1] = len(table)


def _table(arrays: Sequence[Tensor]) -> Any:
    """Addresses and lengths, for Julia."""
    pairs = [n for x in arrays for n in (x.data_ptr(), x.numel())]
    return (ctypes.c_int64 * len(pairs))(*pairs)


def _decay(rate: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return -rate * y


@dataclass(frozen=True)
class _Solve:
    """One solve: what autograd carries from the forward pass to the backward one."""

    functions: _Functions
    model: Model
    problem: Problem
    method: str
    settings: Any
    sensealg: SensitivityAlgorithm
    stats: Statistics

    def forward(
        self, y0: Tensor, t: Tensor, parameters: tuple[Tensor, ...], *, keep: str
    ) -> tuple[Tensor, Any]:
        """The states at ``t``, and Julia's handle for the gradient.

        ``keep`` is what the gradient needs of the solve: nothing, dense output or the steps.
        """
        self.model.refresh()
        out = torch.empty((t.numel(), *y0.shape), dtype=y0.dtype)
        info = torch.zeros(8, dtype=torch.float64)
        with self.model.errors():
            solved = self.functions.forward(
                self.model.handle,
                self.settings,
                (in_memory(y0), in_memory(t).to(torch.float64), out, info),
                [in_memory(p).to(y0.dtype) for p in parameters],
                keep,
                getattr(self.sensealg, "checkpoints", None) or 0,
            )
        success, reached, nfe, njac, naccept, nreject, *_ = info.tolist()
        counts = {"nf": nfe, "njacs": njac, "naccept": naccept, "nreject": nreject}
        if not success:
            raise self._failure("The solve", str(self.functions.retcode(solved)), reached, counts)
        self.stats.nfe, self.stats.njac = int(nfe), int(njac)
        self.stats.naccept, self.stats.nreject = int(naccept), int(nreject)
        return out, solved

    def backward(
        self, solved: Any, cotangent: Tensor, with_t: bool, shapes: Sequence[torch.Size]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Gradients with respect to the initial state, the times and each of the parameters."""
        dtype = cotangent.dtype
        gradient_u = torch.empty(cotangent.shape[1:], dtype=dtype)
        # Each in memory of its own: autograd takes it over, where it would copy a part.
        gradients = [torch.empty(shape, dtype=dtype) for shape in shapes]
        gradient_t = torch.empty(cotangent.shape[0] if with_t else 0, dtype=dtype)
        info = torch.zeros(8, dtype=torch.float64)
        rtol, atol = self.problem.rtol, self.problem.atol
        sensealg = self.sensealg
        if isinstance(sensealg, QuadratureAdjoint):
            rtol, atol = sensealg.rtol or rtol, sensealg.atol or atol
        algorithm = self.functions.sensitivity(
            sensealg.name, rtol, atol, getattr(sensealg, "checkpointing", False)
        )
        with self.model.errors():
            message = self.functions.backward(
                solved,
                algorithm,
                self.settings,
                (cotangent, gradient_u, gradient_t, info),
                gradients,
            )
        if message is not None:
            raise self._failure("The backward solve", message, float(info[1]), {})
        self.stats.nfe_backward = int(info[2])
        return gradient_u, gradient_t, gradients

    def _failure(
        self, what: str, retcode: str, reached: float, counts: dict[str, float]
    ) -> SolverError:
        advice = {
            "MaxIters": "a stiff method such as Rodas5P or FBDF, or a larger max_num_steps",
            "Unstable": "a look at func for overflow, or a shorter time span",
            "DtLessThanMin": "a stiff method such as Rodas5P, or looser tolerances",
            "DtNaN": "a look at func: it returned NaN",
        }
        cure = advice.get(retcode, "another method, sensealg or tolerances")
        return SolverError(
            f"{what} with {self.method} stopped at t = {reached:.6g} ({retcode}). Try {cure}.",
            retcode=retcode,
            t=reached,
            stats={k: int(v) for k, v in counts.items()},
        )


class _Differentiable(torch.autograd.Function):
    """A solve as one node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, solve: _Solve, y0: Tensor, t: Tensor, *parameters: Tensor) -> Tensor:
        sensealg = solve.sensealg
        if isinstance(sensealg, DiscreteAdjoint):
            keep = "steps"
        elif isinstance(sensealg, BacksolveAdjoint) or getattr(sensealg, "checkpointing", False):
            keep = "nothing"
        else:
            keep = "dense"
        out, ctx.solved = solve.forward(y0, t, parameters, keep=keep)
        ctx.solve = solve
        ctx.shapes = (t.dtype, [p.shape for p in parameters])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        t_dtype, shapes = ctx.shapes
        with_t = ctx.needs_input_grad[2]
        gradient_u, gradient_t, gradients = ctx.solve.backward(
            ctx.solved, in_memory(cotangent), with_t, shapes
        )
        return None, gradient_u, gradient_t.to(t_dtype) if with_t else None, *gradients


def in_memory(x: Tensor) -> Tensor:
    """The tensor as Julia reads it at its address: a copy only where it lies there otherwise."""
    return x.detach().resolve_neg().contiguous()
