"""The Julia engine: problems of torch tensors, solved by SciML.

Arrays cross the border as numpy views of torch's memory: Julia reads the initial state and the
parameters from them and writes the solution and the gradients into them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import accumulate, pairwise
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SolverError, UnsupportedError, warn
from ..methods import Method, find_method
from ..problem import Problem, Statistics, Tolerance, tightest
from ..runtime import Runtime
from ..sensealg import (
    BacksolveAdjoint,
    DiscreteAdjoint,
    GaussAdjoint,
    QuadratureAdjoint,
    SensitivityAlgorithm,
)
from ..trace.leaves import depends_on
from .callback import Noted
from .models import Model, ModelCache, Wanted
from .pieces import solve_in_pieces

_MAX_STEPS = 100_000
_DEFAULT = find_method("Tsit5")


class JuliaEngine:
    """Solve with OrdinaryDiffEq.jl and differentiate with SciMLSensitivity.jl."""

    name = "julia"

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.module = runtime.module
        self.functions = _Functions(runtime.module)
        self.models = ModelCache(runtime)
        self.loaded: set[str] = set()

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
        if "step_t" in problem.options or "jump_t" in problem.options:
            return solve_in_pieces(self.solve, problem, stats)
        method = problem.method or _DEFAULT
        asked = problem.adjoint if problem.adjoint is not None and problem.adjoint.asks else None
        backward = method if asked is None or asked.method is None else asked.method
        for m in (method, backward):
            self._load(m)
        sensealg = _choose_sensealg(problem, method, backward)
        _refuse(problem)
        # With gradients enabled one is likely needed; which tensors func uses, the trace says.
        wanted = Wanted.GRADIENTS if torch.is_grad_enabled() else Wanted.VALUES
        stiff = method.stiff or backward.stiff
        if method.implicit or (stiff and torch.is_grad_enabled()):
            wanted = Wanted.JACOBIAN
        model = self.models.get(problem, wanted=wanted)
        parameters = _restricted(model, problem.adjoint_params)
        inputs = (problem.y0, problem.t, *parameters)
        differentiate = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        solve = _Solve(self.functions, model, problem, method, backward, sensealg, stats)
        if differentiate:
            states = _Differentiable.apply(solve, problem.y0, problem.t, *parameters)
        else:
            states = solve.forward(problem.y0, problem.t, parameters, keep="nothing")[0]
        model.update(problem, states)
        return states

    def _load(self, method: Method) -> None:
        if not method.julia:
            raise UnsupportedError(
                f"The Julia engine has no {method.name}; use VCABM, Vern7 or Tsit5, or "
                'engine="torch".'
            )
        if method.algorithm not in self.loaded:
            self.functions.load(
                method.algorithm, method.package, method.backward, method.interpolates
            )
            self.loaded.add(method.algorithm)


def _choose_sensealg(problem: Problem, method: Method, backward: Method) -> SensitivityAlgorithm:
    asks = problem.adjoint is not None and problem.adjoint.asks
    explicit = "discrete" in (method.adjoint, backward.adjoint) and not (
        method.stiff or backward.stiff
    )
    if problem.sensealg is None:
        if asks:
            return BacksolveAdjoint() if explicit else GaussAdjoint()
        return DiscreteAdjoint() if method.adjoint == "discrete" else GaussAdjoint()
    if isinstance(problem.sensealg, DiscreteAdjoint):
        if method.adjoint != "discrete":
            raise UnsupportedError(
                f"DiscreteAdjoint is for explicit Runge-Kutta methods; with {method.name} use "
                "GaussAdjoint or InterpolatingAdjoint."
            )
        if asks:
            raise UnsupportedError(
                "DiscreteAdjoint makes no solve backwards, so the adjoint_* arguments mean "
                "nothing to it; use GaussAdjoint or BacksolveAdjoint."
            )
    return problem.sensealg


def _refuse(problem: Problem) -> None:
    """What only torchdiffeq does."""
    if problem.options.get("perturb"):
        raise UnsupportedError(
            "The Julia engine has no perturb; split the solve at a jump of func with jump_t of an "
            'adaptive method, or use engine="torch".'
        )
    if problem.adjoint is None:
        return
    if problem.adjoint.callbacks:
        names = ", ".join(f"{name}_adjoint" for name in problem.adjoint.callbacks)
        warn(f'The Julia engine does not call {names}; engine="torch" does.')
    if callable((problem.adjoint.options or {}).get("norm")):
        raise UnsupportedError(
            "The Julia engine's adjoint has no norm of one's own: it solves other states than "
            'torchdiffeq\'s. Use "seminorm" or engine="torch".'
        )


def _restricted(model: Model, only: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
    """The parameters, without a gradient where ``adjoint_params`` leaves them out."""
    if only is None:
        return model.parameters
    wanted = {id(x) for x in only if x.requires_grad}
    return tuple(
        p if id(x) in wanted or depends_on(x, wanted) else p.detach()
        for x, p in zip(model.tensors, model.parameters, strict=True)
    )


class _Functions:
    """Julia's functions, looked up once, and what small values they make, made once.

    A look-up through juliacall takes as long as a call, and a training step on a small model is
    not much longer than a few of them.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.load = module.load
        self.forward = module.forward
        self.backward = module.backward
        self.retcode = module.retcode
        self.plain_settings = lru_cache(maxsize=64)(module.Settings)
        self.settings = module.settings
        self.sensitivity = lru_cache(maxsize=64)(module.sensitivity)


def _decay(rate: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return -rate * y


@dataclass(frozen=True)
class _Solve:
    """One solve: what autograd carries from the forward pass to the backward one."""

    functions: _Functions
    model: Model
    problem: Problem
    method: Method
    backward_method: Method
    sensealg: SensitivityAlgorithm
    stats: Statistics
    python: Noted = field(default_factory=Noted)

    def forward(
        self, y0: Tensor, t: Tensor, parameters: tuple[Tensor, ...], *, keep: str
    ) -> tuple[Tensor, Any]:
        """The states at ``t``, and Julia's handle for the gradient.

        ``keep`` is what the gradient needs of the solve: nothing, dense output or the steps.
        """
        self.model.refresh()
        out = torch.empty((t.numel(), *y0.shape), dtype=y0.dtype)
        info = torch.zeros(8, dtype=torch.float64)
        with self.python.errors(), self.model.errors():
            solved = self.functions.forward(
                self.model.handle,
                self._settings(),
                _array(y0),
                flatten(parameters, y0.dtype).numpy(),
                _array(t.to(torch.float64)),
                _array(out),
                info.numpy(),
                keep,
                getattr(self.sensealg, "checkpoints", None) or 0,
                self._watch(),
            )
        success, reached, nfe, njac, naccept, nreject, *_ = info.tolist()
        counts = {"nf": nfe, "njacs": njac, "naccept": naccept, "nreject": nreject}
        if not success:
            raise self._failure("The solve", str(self.functions.retcode(solved)), reached, counts)
        self.stats.nfe, self.stats.njac = int(nfe), int(njac)
        self.stats.naccept, self.stats.nreject = int(naccept), int(nreject)
        return out, solved

    def backward(self, solved: Any, cotangent: Tensor, with_t: bool) -> tuple[Tensor, ...]:
        """Gradients with respect to the initial state, the times and the flat parameters."""
        dtype = cotangent.dtype
        gradient_u = torch.empty(cotangent[0].numel(), dtype=dtype)
        gradient_p = torch.empty(sum(p.numel() for p in self.model.parameters), dtype=dtype)
        gradient_t = torch.empty(cotangent.shape[0] if with_t else 0, dtype=dtype)
        info = torch.zeros(8, dtype=torch.float64)
        rtol, atol = self._backward_tolerances()
        sensealg = self.sensealg
        if isinstance(sensealg, QuadratureAdjoint):
            rtol, atol = sensealg.rtol or rtol, sensealg.atol or atol
        algorithm = self.functions.sensitivity(
            sensealg.name, rtol, atol, getattr(sensealg, "checkpointing", False)
        )
        with self.python.errors(), self.model.errors():
            message = self.functions.backward(
                solved,
                algorithm,
                self._backward_settings(rtol, atol, gradient_p.numel()),
                _array(cotangent),
                gradient_u.numpy(),
                gradient_p.numpy(),
                gradient_t.numpy(),
                info.numpy(),
            )
        if message is not None:
            raise self._failure("The backward solve", str(message), float(info[1]), {})
        self.stats.nfe_backward = int(info[2])
        return gradient_u, gradient_t, gradient_p

    def _settings(self) -> Any:
        problem = self.problem
        layout = problem.layout
        sizes = layout.sizes if layout is not None and layout.joined else []
        return self._make_settings(
            self.method, problem.fixed_step, problem.rtol, problem.atol, problem.options,
            self._norm(), _parts(sizes),
        )  # fmt: skip

    def _backward_tolerances(self) -> tuple[float, float]:
        problem, adjoint = self.problem, self.problem.adjoint
        rtol = tightest(problem.rtol) if adjoint is None or adjoint.rtol is None else adjoint.rtol
        atol = tightest(problem.atol) if adjoint is None or adjoint.atol is None else adjoint.atol
        return rtol, atol

    def _backward_settings(self, rtol: float, atol: float, parameters: int) -> Any:
        problem, adjoint = self.problem, self.problem.adjoint
        fixed, options = problem.fixed_step, problem.options
        if adjoint is not None and adjoint.method is not None:
            fixed, options = adjoint.fixed_step, {}
        if adjoint is not None and adjoint.options is not None:
            fixed, options = adjoint.fixed_step, adjoint.options
        n, parts = problem.y0.numel(), []
        if options.get("norm") == "seminorm":
            parts = _parts([n])
            if isinstance(self.sensealg, BacksolveAdjoint):
                # Its states: adjoint, gradients of the parameters (one at least), state.
                start = n + max(parameters, 1)
                parts += [start + 1, start + n]
        return self._make_settings(self.backward_method, fixed, rtol, atol, options, None, parts)

    def _make_settings(
        self, method: Method, fixed: bool, rtol: Tolerance, atol: Tolerance,
        options: Mapping[str, Any], norm: Any, parts: list[int],
    ) -> Any:  # fmt: skip
        step = options.get("step_size") if fixed else options.get("first_step")
        numbers = [float(options.get(name, 0.0)) for name in ("min_step", "max_step")]
        factors = [float(options.get(name, 0.0)) for name in ("safety", "ifactor", "dfactor")]
        common = (
            int(options.get("max_num_steps", _MAX_STEPS)), float(step or 0.0), fixed,
            *(x if isfinite(x) else 0.0 for x in numbers),
        )  # fmt: skip
        floats = isinstance(rtol, float) and isinstance(atol, float)
        if floats and norm is None and not parts and not any(factors):
            return self.functions.plain_settings(method.algorithm, rtol, atol, *common)
        return self.functions.settings(
            method.algorithm,
            _numbers(rtol),
            _numbers(atol),
            *common,
            *factors,
            norm,
            np.array(parts, dtype=np.int64),
        )

    def _norm(self) -> Any:
        """The caller's norm as a function of a Julia vector."""
        norm, shape = self.problem.norm, self.problem.y0.shape
        if norm is None:
            return None

        def called(x: Any) -> float:
            with torch.no_grad():
                return float(norm(torch.from_numpy(np.array(x)).view(shape)))

        return self.python.noted(called)

    def _watch(self) -> Any:
        """The caller's callbacks as one function for Julia."""
        problem = self.problem
        if not problem.watch:
            return None
        time = problem.y0.dtype if problem.fixed_step else torch.float64
        names = {"step": "callback_step", "accept": "callback_accept_step"}

        def watch(what: Any, t: float, u: Any, dt: float) -> None:
            callback = problem.watch.get(names.get(str(what), "callback_reject_step"))
            if callback is not None:
                y = torch.from_numpy(np.array(u)).view(problem.y0.shape)
                callback(torch.tensor(t, dtype=time), y, torch.tensor(dt, dtype=time))

        return self.python.noted(watch)

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
            f"{what} with {self.method.name} stopped at t = {reached:.6g} ({retcode}). Try {cure}.",
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
        ctx.shapes = (y0.shape, t.dtype, [p.shape for p in parameters])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        y_shape, t_dtype, shapes = ctx.shapes
        gradient_u, gradient_t, gradient_p = ctx.solve.backward(
            ctx.solved, cotangent.contiguous(), ctx.needs_input_grad[2]
        )
        pieces = gradient_p.split([s.numel() for s in shapes])
        return (
            None,
            gradient_u.view(y_shape),
            gradient_t.to(t_dtype) if ctx.needs_input_grad[2] else None,
            *(p.view(s) for p, s in zip(pieces, shapes, strict=True)),
        )


def _numbers(tolerance: Tolerance) -> Any:
    return tolerance.numpy() if isinstance(tolerance, Tensor) else tolerance


def _parts(sizes: list[int]) -> list[int]:
    """First and last index of each part, one after the other."""
    ends = [0, *accumulate(sizes)]
    return [x for a, b in pairwise(ends) for x in (a + 1, b)]


def flatten(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    """One vector of all tensors, in the numbers that generated code computes with."""
    if not tensors:
        return torch.empty(0, dtype=dtype)
    return torch.cat([x.detach().reshape(-1).to(dtype) for x in tensors])


def _array(x: Tensor) -> Any:
    """The tensor's memory as a flat numpy array; a copy only where it is not contiguous."""
    return x.detach().contiguous().view(-1).numpy()
