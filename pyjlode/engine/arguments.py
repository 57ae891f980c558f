"""A problem as the arguments of torchdiffeq's functions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedError
from ..mass_matrix import unsupported_in_torch
from ..methods import Method
from ..problem import Problem, Tolerance, tightest
from ..sensealg import BacksolveAdjoint, DiscreteAdjoint
from ..trace.leaves import gradient_leaves


def call(problem: Problem) -> tuple[Any, dict[str, Any]]:
    """Torchdiffeq's function for a problem, and what it gets beside the equation."""
    import torchdiffeq

    _check(problem)
    arguments: dict[str, Any] = {
        "rtol": _shaped(problem.rtol, problem.y0),
        "atol": _shaped(problem.atol, problem.y0),
        "method": method_name(problem),
        "options": _options(problem),
    }
    if not (_is_continuous(problem) and torch.is_grad_enabled()):
        return torchdiffeq.odeint, arguments
    return torchdiffeq.odeint_adjoint, arguments | _adjoint_arguments(problem, arguments)


def method_name(problem: Problem) -> str:
    """Torchdiffeq's name of the problem's method."""
    return _method_name(problem.method, problem.fixed_step)


def _check(problem: Problem) -> None:
    if problem.mass is not None:
        raise unsupported_in_torch()
    if problem.split is not None:
        raise UnsupportedError(
            "The torch engine solves no split equations; give the sum of the two functions, or get "
            "Julia with `pyjlode setup`."
        )
    if not isinstance(problem.sensealg, (DiscreteAdjoint, BacksolveAdjoint, type(None))):
        raise UnsupportedError(
            f"The torch engine has no {type(problem.sensealg).__name__}; use DiscreteAdjoint "
            "or BacksolveAdjoint, or get Julia with `pyjlode setup`."
        )
    if isinstance(problem.sensealg, DiscreteAdjoint) and problem.adjoint is not None:
        raise UnsupportedError(
            "DiscreteAdjoint makes no solve backwards; use odeint with it, or BacksolveAdjoint."
        )
    if isinstance(problem.sensealg, DiscreteAdjoint) and problem.sensealg.checkpoints:
        raise UnsupportedError(
            "The torch engine's DiscreteAdjoint keeps every step; leave checkpoints out, use "
            "BacksolveAdjoint, or get Julia with `pyjlode setup`."
        )


def _shaped(tolerance: Tolerance, y0: Tensor) -> Tolerance:
    return tolerance.view_as(y0) if isinstance(tolerance, Tensor) else tolerance


def _is_continuous(problem: Problem) -> bool:
    if problem.sensealg is not None:
        return isinstance(problem.sensealg, BacksolveAdjoint)
    # SciPy's solver has no reverse mode.
    scipy = problem.method is not None and problem.method.name == "scipy_solver"
    return problem.adjoint is not None or scipy


def _adjoint_arguments(problem: Problem, forward: dict[str, Any]) -> dict[str, Any]:
    parameters = problem.adjoint_params
    if parameters is None:
        parameters = gradient_leaves(problem.func, problem.t[0], problem.y0)
    arguments: dict[str, Any] = {
        "adjoint_params": parameters,
        "adjoint_rtol": tightest(problem.rtol),
        "adjoint_atol": tightest(problem.atol),
        "adjoint_method": forward["method"],
        "adjoint_options": {k: v for k, v in forward["options"].items() if k != "norm"},
    }
    adjoint = problem.adjoint
    if adjoint is None:
        return arguments
    if adjoint.rtol is not None:
        arguments["adjoint_rtol"] = adjoint.rtol
    if adjoint.atol is not None:
        arguments["adjoint_atol"] = adjoint.atol
    if adjoint.method is not None:
        arguments["adjoint_method"] = _method_name(adjoint.method, adjoint.fixed_step)
        arguments["adjoint_options"] = {}
    if adjoint.options is not None:
        arguments["adjoint_options"] = _taken(adjoint.options, adjoint.fixed_step)
        norm = adjoint.options.get("norm")
        if norm is not None:
            arguments["adjoint_options"]["norm"] = _adjoint_norm(norm, problem)
    return arguments


def _adjoint_norm(norm: Any, problem: Problem) -> Any:
    """The caller's, on the caller's structure of state and adjoint: torchdiffeq gives a vector."""
    layout = problem.layout
    if norm == "seminorm" or layout is None or not layout.joined:
        return norm

    def of_parts(state: tuple[Tensor, ...]) -> Any:
        t, y, adjoint, *parameters = state
        return norm((t, *layout.split(y), *layout.split(adjoint), *parameters))

    return of_parts


def _method_name(method: Method | None, fixed_step: bool) -> str:
    if method is None:
        return "dopri5"
    if method.torch_name is None:
        raise UnsupportedError(
            f"The torch engine has no {method.name}; use dopri5 or dopri8, "
            "or get Julia with `pyjlode setup`."
        )
    if method.fixed and not fixed_step:
        raise UnsupportedError(
            f"The torch engine's {method.name} has fixed steps; ask for it as "
            f"{method.torch_name!r}, or get Julia with `pyjlode setup`."
        )
    return method.torch_name


def _options(problem: Problem) -> dict[str, Any]:
    """Those of torchdiffeq's options that the method takes."""
    options = _taken(problem.options, problem.fixed_step)
    if problem.method is not None and problem.method.name == "explicit_adams":
        # With torchdiffeq's own choice, 12, the spiral of its README blows up at any step.
        options.setdefault("max_order", problem.method.order)
    if problem.norm is not None:
        options["norm"] = problem.norm
    elif problem.layout is not None and problem.layout.joined:
        options["norm"] = partial(_worst_part, problem.layout.sizes)
    return options


def _taken(options: Mapping[str, Any], fixed_step: bool) -> dict[str, Any]:
    left_out = {"norm", "grid_constructor", *(("max_num_steps",) if fixed_step else ())}
    return {name: value for name, value in options.items() if name not in left_out}


@torch.no_grad()  # the lengths of steps are constants; and a root's derivative at 0 is not finite
def _worst_part(sizes: list[int], y: Tensor) -> Tensor:
    parts = torch.split(y.reshape(-1), sizes)
    return torch.stack([p.square().mean().sqrt() for p in parts if p.numel()]).max()
