"""The ``options`` of a solve: torchdiffeq's names, which methods take which, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

import torch
from torch import Tensor

from .errors import ArgumentError, warn
from .methods import Method
from .names import unknown
from .states import as_numbers

FIXED = ("step_size", "grid_constructor", "interp", "perturb")
ADAPTIVE = (
    "first_step", "min_step", "max_step", "safety", "ifactor", "dfactor", "step_t", "jump_t",
    "dtype",
)  # fmt: skip
EITHER = ("max_num_steps", "norm")
ADAMS = ("max_order", "max_iters")
SCIPY = ("solver", "min_step", "max_step")

_POSITIVE = ("step_size", "first_step", "max_step", "max_num_steps", "safety", "ifactor", "dfactor")
_KNOWN = {*FIXED, *ADAPTIVE, *EITHER, *ADAMS, *SCIPY}
_FORMER = {
    "grid_points": "jump_t for points where func jumps, or step_t for points where steps end",
    "eps": "jump_t, or perturb of a fixed-step method",
}


def as_mapping(options: Any) -> dict[str, Any]:
    """The options, none for None.

    Raises
    ------
    TypeError
        If they are no mapping.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise TypeError(
            f"options must be a dict, such as {{'max_step': 0.1}}, not {type(options).__name__}."
        )
    return dict(options)


def check_options(
    options: Mapping[str, Any] | None, method: Method | None, fixed: bool
) -> dict[str, Any]:
    """The options that the method takes, checked; warn of the others.

    Raises
    ------
    ArgumentError
        For a name that no method takes, or a value out of range.
    """
    given = as_mapping(options)
    for name in given:
        if name in _FORMER:
            raise ArgumentError(f"There is no option {name!r} any more; use {_FORMER[name]}.")
        if name not in _KNOWN:
            raise ArgumentError(unknown("option", name, _KNOWN))
    taken = _taken_by(method, fixed)
    left = [name for name in given if name not in taken]
    if left:
        named = method.name if method else "the default method"
        warn(f"{named} does not use {_listed(left)}; it takes {_listed(sorted(taken))}.")
    checked = {name: value for name, value in given.items() if name in taken and value is not None}
    for name, value in checked.items():
        _check_value(name, value)
    if float(checked.get("min_step", 0.0)) > float(checked.get("max_step", inf)):
        raise ArgumentError("The option min_step must not be above max_step.")
    if "step_size" in checked and "grid_constructor" in checked:
        raise ArgumentError("step_size and grid_constructor exclude each other; give one.")
    if "step_t" in checked and "jump_t" in checked:
        both = torch.cat([torch.as_tensor(checked[k]).double() for k in ("step_t", "jump_t")])
        if len(both.unique()) < len(both):
            raise ArgumentError("step_t and jump_t must not have a time twice between them.")
    return checked


def check_adjoint_options(
    options: Mapping[str, Any], method: Method | None, fixed: bool
) -> dict[str, Any]:
    """As :func:`check_options`; here ``norm`` may be ``"seminorm"``."""
    rest = {name: value for name, value in options.items() if name != "norm"}
    checked = check_options(rest, method, fixed)
    norm = options.get("norm")
    if norm is not None:
        if norm != "seminorm" and not callable(norm):
            raise ArgumentError("The adjoint's norm must be 'seminorm' or a function.")
        checked["norm"] = norm
    return checked


def _taken_by(method: Method | None, fixed: bool) -> set[str]:
    if method is not None and method.name == "scipy_solver":
        return {*SCIPY, "norm"}
    if fixed:
        adams = ADAMS if method is not None and method.name.endswith("_adams") else ()
        return {*FIXED, *EITHER, *adams}
    return {*ADAPTIVE, *EITHER}


def _check_value(name: str, value: Any) -> None:
    if name in _POSITIVE and not number(name, value) > 0:
        raise ArgumentError(f"The option {name} must be above zero, not {value!r}.")
    if name == "min_step" and not number(name, value) >= 0:
        raise ArgumentError(f"The option min_step must not be below zero, not {value!r}.")
    if name == "norm" and not callable(value):
        raise ArgumentError(
            "The option norm must be a function of the state, like y0, to a number."
        )
    if name == "grid_constructor" and not callable(value):
        raise ArgumentError("The option grid_constructor must be callable as (func, y0, t).")
    if name == "interp" and value not in ("linear", "cubic"):
        raise ArgumentError(f"The option interp must be 'linear' or 'cubic', not {value!r}.")
    if name in ("step_t", "jump_t"):
        _check_points(name, value)
    if name == "dtype" and value not in (torch.float32, torch.float64):
        raise ArgumentError(f"The option dtype must be a real torch dtype, not {value!r}.")


def number(name: str, value: Any) -> float:
    """An option's value as a number.

    Raises
    ------
    TypeError
        If it is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"The option {name} must be a number, not {value!r}.") from error


def _check_points(name: str, value: Any) -> None:
    points = as_numbers(f"The option {name}", value)
    if points.dim() > 1 or not bool(torch.isfinite(points).all()):
        raise ArgumentError(f"The option {name} must be a one-dimensional tensor of times.")
    if len(points.reshape(-1).unique()) < points.numel():
        raise ArgumentError(f"The option {name} must not have a time twice.")


def break_points(options: Mapping[str, Any], names: Iterable[str], t: Tensor) -> list[float]:
    """The points of ``step_t`` or ``jump_t`` between the first and the last of the times."""
    first, last = float(t[0]), float(t[-1])
    points: set[float] = set()
    for name in names:
        if name in options:
            values = torch.as_tensor(options[name]).double().reshape(-1).tolist()
            points.update(x for x in values if first < x < last)
    return sorted(points)


def reversed_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for a time that was turned round."""
    turned = dict(options)
    for name in ("step_t", "jump_t"):
        if name in turned:
            turned[name] = -torch.as_tensor(turned[name])
    return turned


def grid(
    constructor: Callable[..., Any], func: object, y0: object, t: Tensor, turned: bool
) -> Tensor:
    """The times at which a ``grid_constructor`` wants steps to start and end, forward in time."""
    points = constructor(func, y0, -t if turned else t)
    if not isinstance(points, Tensor) or points.dim() != 1 or points.numel() < 2:
        raise ArgumentError("grid_constructor must return a one-dimensional tensor of times.")
    points = -points if turned else points
    if points[0] != t[0] or points[-1] != t[-1] or not bool((points.diff() > 0).all()):
        raise ArgumentError(
            "grid_constructor must return times from t[0] to t[-1], in the order of t."
        )
    return points


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
