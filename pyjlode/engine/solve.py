"""One solve in Julia, as a node of autograd's graph."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SolverError, UnsupportedError
from ..methods import Method
from ..problem import SCIML_COUNTS, Interpolant, Problem, Statistics, tightest
from ..runtime import in_julia
from ..sensealg import (
    BacksolveAdjoint,
    DiscreteAdjoint,
    ForwardSensitivity,
    QuadratureAdjoint,
    SensitivityAlgorithm,
)
from ..trace.fingerprint import Structure, fingerprint
from ..translate.draws import Draw
from .arrays import in_memory
from .callback import Callback, Noted
from .functions import Functions, parts_of
from .models import Model
from .replay import Replay, tableau_of
from .trajectory import JuliaInterpolant, solve_failure

_NONE = torch.empty(0)


@dataclass(frozen=True)
class Solve:
    """One solve: what autograd carries from the forward pass to the backward one."""

    functions: Functions
    model: Model
    problem: Problem
    method: Method
    backward_method: Method
    sensealg: SensitivityAlgorithm
    stats: Statistics
    dense: bool = False
    interpolants: list[Interpolant] = field(default_factory=list)
    python: Noted = field(default_factory=Noted)
    versions: tuple[tuple[int, int], ...] | None = None

    @property
    def keep(self) -> str:
        """What the gradient needs of the forward solve."""
        sensealg = self.sensealg
        if isinstance(sensealg, DiscreteAdjoint):
            # With a mass matrix Rodas5P's steps stand in for those of methods without a tableau.
            return "steps" if self.method.has_discrete else "nothing"
        if isinstance(sensealg, (BacksolveAdjoint, ForwardSensitivity)) or getattr(
            sensealg, "checkpointing", False
        ):
            return "nothing"
        return "dense"

    def as_it_was(self) -> AbstractContextManager[None]:
        """Around new calls of the function: what it reads is what it read in the solve.

        Raises
        ------
        UnsupportedError
            If that was changed since.
        """
        callback = self.model.callback
        if isinstance(callback, Callback):
            return callback.snapshot.restored()
        then = self.model.structure
        if self.versions is None:
            return nullcontext()
        now = fingerprint(self.problem.owner)
        if then is None or now.key != then.key or versions(now) != self.versions:
            name = getattr(self.problem.owner, "__qualname__", type(self.problem.owner).__name__)
            raise UnsupportedError(
                f"The derivative of this gradient calls {name} again, and something that it reads "
                "was changed since the solve; differentiate before the change."
            )
        return nullcontext()

    @in_julia
    def replay(self, solved: Any) -> Replay:
        """The steps that the solve accepted, to be made again in torch.

        Raises
        ------
        UnsupportedError
            If they cannot be: then the gradient has no derivative.
        """
        problem, reason = self.problem, None
        if not isinstance(self.sensealg, DiscreteAdjoint):
            reason = f"those of {type(self.sensealg).__name__} are not implemented"
        elif problem.mass is not None or problem.split is not None or self.method.problem:
            reason = "those of mass matrices, split and partitioned equations are not implemented"
        elif problem.rows is not None:
            reason = 'those of batch="independent" are not implemented'
        elif any(isinstance(x, Draw) for x in self.model.constants):
            reason = "func draws random numbers, which would be drawn anew"
        elif self.model.updated:
            reason = "func changes a tensor when it runs, such as running statistics"
        elif self.model.structure is None or self.model.structure.opaque:
            reason = "func may read what cannot be watched, and changes of it would not be seen"
        tableau = None if reason else tableau_of(self.functions.tableau_fields(solved))
        if tableau is None:
            reason = reason or f"those of {self.method.name} are not implemented"
            raise UnsupportedError(
                f"The gradient of this solve has no derivatives here: {reason}. Explicit "
                "Runge-Kutta and Rosenbrock methods with sensealg=DiscreteAdjoint() have second "
                "derivatives, with one step size for the whole batch."
            )
        starts, lengths, inside, upto = (
            np.array(x).tolist() for x in self.functions.accepted_steps(solved)
        )
        return Replay(
            problem.func, self.model.tensors, tableau, starts, lengths, inside, upto,
            problem.fixed_step,
        )  # fmt: skip

    def forward(
        self, y0: Tensor, t: Tensor, parameters: tuple[Tensor, ...], *, keep: str
    ) -> tuple[Tensor, Any]:
        """The states at ``t``, and Julia's handle for the gradient.

        ``keep`` is what the gradient needs of the solve: nothing, dense output or the steps; or
        ``"values"``, if there will be no gradient.
        """
        self.model.refresh()
        out = torch.empty((t.numel(), *y0.shape), dtype=y0.dtype)
        rows = self.problem.rows
        info = self.functions.report.zero_()
        if rows is not None:
            info = torch.zeros((rows, 8), dtype=torch.float64)
        settings = self.functions.forward_settings(self.problem, self.method, self.python)
        watch = self._watch()
        with self.python.errors(), self.model.errors():
            solved = self.functions.forward(
                partial(self.model.run, how=self._how(keep), python=self.python),
                self.model.handle,
                settings,
                (in_memory(y0), in_memory(t).to(torch.float64), out, info),
                [in_memory(p).to(y0.dtype) for p in parameters],
                keep,
                getattr(self.sensealg, "checkpoints", None) or 0,
                watch=watch,
                dense=self.dense,
                rows=rows is not None,
            )
        self._report(info, solved, out)
        if self.dense:
            self.interpolants.append(JuliaInterpolant(self.functions, self.model, solved, y0))
        return out, solved

    def _how(self, what: str) -> Hashable:
        """What Julia compiles a solve for, beside the model."""
        problem = self.problem
        return (
            what, self.method.name, self.backward_method.name, problem.fixed_step, self.dense,
            problem.rows is None, problem.mass is None, problem.split is None,
            type(problem.rtol), type(problem.atol),
        )  # fmt: skip

    def _report(self, info: Tensor, solved: Any, out: Tensor) -> None:
        """Fill the statistics, or raise the failure."""
        if self.problem.rows is not None:
            self._report_rows(info, solved)
            return
        succeeded, reached, *counts, _, saved = info.tolist()
        if not succeeded:
            raise solve_failure(
                self.functions, self.model, solved, self.problem, self.method, reached,
                _named(counts), out[: int(saved)],
            )  # fmt: skip
        self.stats.take(_named(counts))

    def _report_rows(self, info: Tensor, solved: Any) -> None:
        succeeded = info[:, 0]
        if not succeeded.all():
            row = int(succeeded.argmin())
            _, reached, *counts, _, _ = info[row].tolist()
            retcode = str(self.functions.retcode(solved))
            raise self._failure("The solve", retcode, reached, _named(counts), row)
        self.stats.rows = dict(zip(SCIML_COUNTS, info[:, 2:6].long().unbind(1), strict=True))
        self.stats.take(_named(info[:, 2:6].sum(0).tolist()))

    @in_julia
    def backward(
        self, solved: Any, cotangent: Tensor, with_t: bool, shapes: Sequence[torch.Size]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Gradients with respect to the initial state, the times and each of the parameters."""
        dtype = cotangent.dtype
        gradient_u = torch.empty(cotangent.shape[1:], dtype=dtype)
        # Each in memory of its own: autograd takes it over, where it would copy a part.
        gradients = [torch.empty(shape, dtype=dtype) for shape in shapes]
        gradient_t = torch.empty(cotangent.shape[0], dtype=dtype) if with_t else _NONE
        info = self.functions.report.zero_()
        rtol, atol = self._backward_tolerances()
        sensealg = self.sensealg
        if isinstance(sensealg, QuadratureAdjoint):
            rtol, atol = sensealg.rtol or rtol, sensealg.atol or atol
        algorithm = self.functions.sensitivity(
            sensealg.name, rtol, atol, getattr(sensealg, "checkpointing", False)
        )
        with self.python.errors(), self.model.errors():
            message = self.functions.backward(
                partial(self.model.run, how=self._how(sensealg.name), python=self.python),
                solved,
                algorithm,
                self._backward_settings(rtol, atol, sum(g.numel() for g in gradients)),
                (cotangent, gradient_u, gradient_t, info),
                gradients,
            )
            _, reached, nfe, row, *_ = info.tolist()
        if message is not None:
            of_row = None if self.problem.rows is None else int(row)
            raise self._failure("The backward solve", message, reached, {}, of_row)
        self.stats.nfe_backward = int(nfe)
        return gradient_u, gradient_t, gradients

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
            parts = parts_of([n])
            if isinstance(self.sensealg, BacksolveAdjoint):
                # Its states: adjoint, gradients of the parameters (one at least), state.
                start = n + max(parameters, 1)
                parts += [start + 1, start + n]
        return self.functions.make_settings(
            self.backward_method, fixed, rtol, atol, options, None, parts
        )

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
        self, what: str, retcode: str, reached: float, counts: dict[str, float], row: int | None
    ) -> SolverError:
        advice = {
            "MaxIters": "a stiff method such as Rodas5P or FBDF, or a larger max_num_steps",
            "Unstable": "a look at func and its derivative for an overflow, a division by zero or "
            "a root of zero, also in the branch that torch.where leaves out; or a shorter time",
            "DtLessThanMin": "a stiff method such as Rodas5P, or looser tolerances",
            "DtNaN": "a look at func: it returned NaN",
        }
        cure = advice.get(retcode, "another method, sensealg or tolerances")
        time = self.problem.direction * reached
        where = "" if row is None else f" of row {row}"
        return SolverError(
            f"{what}{where} with {self.method.name} stopped at t = {time:.6g} ({retcode}). "
            f"Try {cure}.",
            retcode=retcode,
            t=time,
            stats={k: int(v) for k, v in counts.items()},
            row=row,
        )


def versions(structure: Structure | None) -> tuple[tuple[int, int], ...]:
    """Which tensors a function reads, and how often each was written into until now."""
    tensors = [] if structure is None else structure.tensors
    return tuple((id(x), 0 if x.is_inference() else x._version) for x in tensors)


def _named(counts: Sequence[float]) -> dict[str, float]:
    """The counts of Julia's report by SciML's names."""
    return dict(zip(SCIML_COUNTS.values(), counts, strict=True))
