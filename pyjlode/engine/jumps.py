"""Jump processes in Julia: JumpProcesses."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SolverError, UnsupportedError
from ..problem import Problem
from ..runtime import in_julia
from ..trace.transforms import refuse_transforms
from ..translate.draws import Draw
from .arrays import as_array
from .extension import require
from .models import Model, Wanted

if TYPE_CHECKING:
    from ..jumpint import JumpProblem
    from .julia import JuliaEngine

_PACKAGES = {"JumpProcesses": "ccbc3e58-028d-4f4c-8cd5-9ae44345cda5"}


@cache
def load_extension(engine: JuliaEngine) -> Any:
    """Julia's part, which is loaded, with its package, when it is first needed."""
    return require(engine, "PyjlodeJumpExt", _PACKAGES, "jump processes")


@in_julia
def solve_jumps(engine: JuliaEngine, problem: JumpProblem) -> Tensor:
    """The states."""
    refuse_transforms("A jump process")
    rate = _model(engine, problem, problem.rate, "rate")
    drift = None if problem.func is None else _model(engine, problem, problem.func, "func")
    _refuse_gradient(problem, rate, drift)
    variable = drift is not None or rate.uses_time
    if variable and problem.method != "Direct":
        why = "there is a func" if drift is not None else "rate may depend on the time"
        raise UnsupportedError(
            f"{problem.method} is for rates that are constant between jumps, and {why}; use "
            'method="Direct".'
        )
    extension = load_extension(engine)
    between = _between(engine, problem, extension) if variable else None
    process = extension.process(
        *_with_values(rate), *_with_values(drift), as_array(problem.change),
        problem.y0.shape[-1], problem.max_jumps,
    )  # fmt: skip
    out = torch.empty((len(problem.t), *problem.y0.shape), dtype=problem.y0.dtype)
    with rate.errors(), (drift or rate).errors():
        failed = rate.run(
            extension.solve_jumps,
            process, problem.method, between, as_array(problem.y0), problem.t.numpy(),
            problem.seed, as_array(out), how=("jumps", problem.method), beside=[drift],
        )  # fmt: skip
    if failed is not None:
        raise _failure(problem, *failed)
    return out


def _between(engine: JuliaEngine, problem: JumpProblem, extension: Any) -> Any:
    engine.load(problem.ode_method)
    return extension.between_jumps(
        problem.ode_method.algorithm, problem.rtol, problem.atol, problem.max_step,
        problem.max_num_steps,
    )  # fmt: skip


def _model(engine: JuliaEngine, problem: JumpProblem, function: Any, what: str) -> Model:
    # What is traced for several rows was looked at (check_rows).
    key = ("jumps", what, problem.rows is not None and problem.rows > 1)
    traced = Problem(
        function, problem.y0.detach(), problem.t, rtol=0.0, atol=0.0, method=None, sensealg=None,
        options={}, fixed_step=True, owner=function, key=key, rows=problem.rows,
    )  # fmt: skip
    model = engine.models.get(traced, wanted=Wanted.VALUES)
    if any(isinstance(x, Draw) for x in model.constants):
        raise UnsupportedError(
            f"{what} draws random numbers, which jumpint cannot have; call eval() on what has "
            "dropout, and make a random rate another number of the state."
        )
    if model.updated:
        raise UnsupportedError(
            f"{what} changes tensors when it runs, such as running statistics; call eval() on it."
        )
    return model


def _refuse_gradient(problem: JumpProblem, *models: Model | None) -> None:
    used = [x for model in models if model is not None for x in model.tensors]
    inputs = (problem.y0, problem.change, *used)
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        raise UnsupportedError(
            "There is no gradient of a jump process, whose paths are step functions of their "
            "parameters. With one are the chemical Langevin equation by sdeint (drift rate @ "
            "change, noise sqrt(rate) times change) and the equation of the mean by odeint "
            "(dy/dt = rate @ change). Where none is needed, call jumpint under torch.no_grad()."
        )


def _with_values(model: Model | None) -> tuple[Any, Any]:
    """Julia's model and its parameters, with the values that they and constants have now."""
    if model is None:
        return None, None
    model.refresh()
    return model.handle, model.numbers()


def _failure(
    problem: JumpProblem, row: int, code: str, kind: int, value: float, t: float, state: Any
) -> SolverError:
    values = ", ".join(f"{x:.6g}" for x in np.array(state)[:8])
    where = f"at t = {t:.6g}" + ("" if problem.rows is None else f" in row {row}")
    if str(code) == "Rate":
        what = (
            f"The rate of jump {kind} is {value:.6g} {where}, where the state is ({values}). Rates "
            "must be finite and not negative; clamp(min=0) what is so by rounding alone."
        )
    elif str(code) == "MaxJumps":
        what = (
            f"There were more than {problem.max_jumps} jumps {where}, where the state is "
            f"({values}). A process that explodes has no path; else raise options['max_jumps']."
        )
    else:
        cures = {"MaxIters": "looser tolerances, or a larger options['max_num_steps']"}
        other = "a look at func and rate for values that are not finite, or stiff parts"
        what = (
            f"The solve between jumps with {problem.ode_method.name} stopped {where} ({code}). Try "
            f"{cures.get(str(code), other)}."
        )
    retcode = str(code) if str(code) not in ("Rate", "MaxJumps") else "Failure"
    return SolverError(what, retcode=retcode, t=t, row=None if problem.rows is None else row)
