"""The torch engine: torchdiffeq behind pyjlode's interface, for where there is no Julia."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from ..errors import SolverError, UnsupportedError
from ..independent import check_rows
from ..problem import Problem, Statistics
from ..sensealg import BacksolveAdjoint, DiscreteAdjoint
from ..trace.leaves import gradient_leaves


class TorchEngine:
    """Solve with torchdiffeq.

    It has the explicit methods of the catalogue with a ``torch_name``, and two ways to
    gradients: :class:`DiscreteAdjoint` (autograd through the steps, the default) and
    :class:`BacksolveAdjoint`.
    """

    name = "torch"

    def versions(self) -> dict[str, str]:
        return {"torchdiffeq": version("torchdiffeq")}

    def solve(self, problem: Problem, stats: Statistics) -> Tensor:
        if problem.rows is None:
            return self._solve(problem, stats)
        check_rows(problem)
        states, counts = [], []
        for i in range(problem.rows):
            row = replace(problem, y0=problem.y0[i : i + 1], rows=None)
            try:
                states.append(self._solve(row, stats))
            except SolverError as error:
                raise SolverError(
                    f"Row {i}: {error}", retcode=error.retcode, t=error.t, stats=error.stats, row=i
                ) from error
            counts.append(stats.nfe)
        stats.nfe, stats.rows = sum(counts), {"nfe": torch.tensor(counts)}
        return torch.cat(states, dim=1)

    def _solve(self, problem: Problem, stats: Statistics) -> Tensor:
        import torchdiffeq

        if not isinstance(problem.sensealg, (DiscreteAdjoint, BacksolveAdjoint, type(None))):
            raise UnsupportedError(
                f"The torch engine has no {type(problem.sensealg).__name__}; use DiscreteAdjoint "
                "or BacksolveAdjoint, or get Julia with `pyjlode setup`."
            )
        if isinstance(problem.sensealg, DiscreteAdjoint) and problem.sensealg.checkpoints:
            raise UnsupportedError(
                "The torch engine's DiscreteAdjoint keeps every step; leave checkpoints out, use "
                "BacksolveAdjoint, or get Julia with `pyjlode setup`."
            )
        func = _Counted(problem.func)
        arguments: dict[str, Any] = {
            "rtol": problem.rtol,
            "atol": problem.atol,
            "method": _method_name(problem),
            "options": _options(problem),
        }
        solve = torchdiffeq.odeint
        if isinstance(problem.sensealg, BacksolveAdjoint):
            solve = torchdiffeq.odeint_adjoint
            arguments["adjoint_params"] = gradient_leaves(problem.func, problem.t[0], problem.y0)
        try:
            result = solve(func, problem.y0, problem.t.to(problem.y0.dtype), **arguments)
        except AssertionError as error:
            raise _failure(error, func) from error
        stats.nfe = func.count
        func.stats = stats
        if not bool(torch.isfinite(result.detach()).all()):
            raise SolverError(
                "The solution is not finite: it blew up, or func returned NaN. "
                "Check func near the initial state, or solve over a shorter time.",
                retcode="Unstable",
                t=float(problem.t[-1]),
                stats={"nf": func.count},
            )
        return result


class _Counted(torch.nn.Module):
    """Counts evaluations, those of a backward solve apart."""

    def __init__(self, func: Any) -> None:
        super().__init__()
        self.func = func
        self.count = 0
        self.last_time = float("nan")
        self.stats: Statistics | None = None

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.count += 1
        self.last_time = float(t.detach())
        if self.stats is not None:
            self.stats.nfe_backward += 1
        return self.func(t, y)


def _method_name(problem: Problem) -> str:
    if problem.method is None:
        return "dopri5"
    if problem.method.torch_name is None:
        raise UnsupportedError(
            f"The torch engine has no {problem.method.name}; use dopri5 or dopri8, "
            "or get Julia with `pyjlode setup`."
        )
    if problem.method.fixed and not problem.fixed_step:
        raise UnsupportedError(
            f"The torch engine's {problem.method.name} has fixed steps; ask for it as "
            f"{problem.method.torch_name!r}, or get Julia with `pyjlode setup`."
        )
    return problem.method.torch_name


def _options(problem: Problem) -> dict[str, Any]:
    """Those of torchdiffeq's options that the method takes."""
    taken = ("step_size",) if problem.fixed_step else (
        "first_step", "min_step", "max_step", "max_num_steps",
    )  # fmt: skip
    options = {k: v for k, v in problem.options.items() if k in taken}
    if problem.method is not None and problem.method.name.endswith("_adams"):
        options["max_order"] = problem.method.order  # torchdiffeq's own choice, 20, is unstable
    return options


def _failure(error: AssertionError, func: _Counted) -> SolverError:
    text = str(error)
    if "underflow" in text:
        cause, code = "the step became too small", "DtLessThanMin"
    elif "max_num_steps" in text:
        cause, code = "it took too many steps", "MaxIters"
    elif "non-finite" in text:
        cause, code = "the state is not finite", "Unstable"
    else:
        raise error
    return SolverError(
        f"The solve stopped at t = {func.last_time:.6g}: {cause}. Loosen rtol and atol, "
        "or for a stiff problem get Julia's stiff methods with `pyjlode setup`.",
        retcode=code,
        t=func.last_time,
        stats={"nf": func.count},
    )
