"""The border at which every argument of a solve is checked, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

from . import split
from .errors import ArgumentError, UnsupportedError, warn
from .independent import check_alone, count_rows
from .mass_matrix import DEFAULT, check_mass_matrix
from .methods import Method, find_method
from .options import check_options, grid, reversed_options
from .partitioned import check_state
from .problem import AdjointSolve, Problem, Tolerance, reversed_time
from .sensealg import SensitivityAlgorithm, check_sensealg
from .states import Layout, State, are_finite, as_numbers, as_state, numbers

__all__ = ["State", "check_tolerances", "make_problem"]

# torchdiffeq's 1e-7 and 1e-9 lie below what float32 can resolve.
_TOLERANCES = {torch.float64: (1e-7, 1e-9), torch.float32: (1e-5, 1e-7)}

_CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")


def make_problem(
    func: Callable[..., Any],
    y0: State,
    t: Tensor | Sequence[float],
    rtol: Any = None,
    atol: Any = None,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    sensealg: SensitivityAlgorithm | str | None = None,
    batch: str | None = None,
    *,
    adjoint: AdjointSolve | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
    mass_matrix: Any = None,
    initializealg: str | None = None,
) -> tuple[Problem, Callable[[Tensor], Any]]:
    """Check the arguments of a solve and bring them to one form.

    Returns
    -------
    problem : Problem
    unflatten : callable
        Makes of the engine's states what the caller gets.
    """
    parts = split.parts_of(func)
    if parts is not None:
        if method is None:
            method = split.DEFAULT
        split.check_split(find_method(method))
        func = split.total(parts)
    if not callable(func):
        raise TypeError(f"func must be callable as func(t, y), not {type(func).__name__}.")
    y0 = as_state(y0, func)
    count = count_rows(y0, batch)
    layout = Layout.of(y0, leading=0 if count is None else 1)
    flat, joined = layout.join(y0), layout.wrap(func)
    key: tuple[Any, ...] = (layout,) if layout.joined or any(layout.complex) else ()
    if count is not None and count > 1:
        key = (*key, "independent")  # what is traced for it was looked at (check_rows)
    times, turned = _check_times(t)
    chosen = None if method is None else find_method(method)
    sensealg = check_sensealg(sensealg)
    mass = check_mass_matrix(mass_matrix, initializealg, layout, flat, times, chosen, batch)
    if mass is not None and chosen is None:
        chosen = find_method(DEFAULT)
    fixed = is_fixed(chosen, method, options)
    checked = check_options(options, chosen, fixed)
    if chosen is not None:
        _require_step(chosen, method, checked)
        if chosen.problem:
            check_state(layout, chosen)
            key = (*key, chosen.name)  # what func may depend on is looked at (check_forces)
    if turned:
        # Time is turned round once here, so that engines only ever go forward.
        times, joined, key = -times, reversed_time(joined), (*key, "reversed")
        checked = reversed_options(checked)
    rows = None
    if "grid_constructor" in checked and times.numel() > 1:
        points = grid(checked.pop("grid_constructor"), func, y0, times, turned)
        times, rows = _with_grid(times, points)
    relative, absolute = check_tolerances(rtol, atol, layout, flat.dtype)
    norm = checked.pop("norm", None)
    problem = Problem(
        func=joined,
        y0=flat,
        t=times,
        rtol=relative,
        atol=absolute,
        method=chosen,
        sensealg=sensealg,
        options=checked,
        fixed_step=fixed,
        owner=func,
        key=key,
        layout=layout,
        norm=None if norm is None else lambda y: _checked_norm(norm(layout.split(y))),
        watch=_callbacks(func, chosen, fixed, layout, turned),
        adjoint=adjoint,
        adjoint_params=None if adjoint_params is None else tuple(adjoint_params),
        rows=count,
        mass=mass,
    )
    if parts is not None:
        problem = split.with_parts(problem, parts, turned)
    if count is not None:
        check_alone(problem)

    def unflatten(states: Tensor) -> Any:
        return layout.split(states if rows is None else states[rows])

    return problem, unflatten


def _check_times(t: Any) -> tuple[Tensor, bool]:
    """The times as a tensor, and whether they decrease."""
    times = as_numbers("t", t)
    if times.dim() != 1 or times.numel() == 0:
        raise ArgumentError(
            f"t must have one dimension and a time; its shape is {tuple(times.shape)}."
        )
    if times.is_complex():
        raise TypeError(f"t must be real, not {times.dtype}.")
    if times.device.type != "cpu":
        warn(f"t is on {times.device} and the state on the CPU; t is copied there.")
        times = times.cpu()
    if not times.is_floating_point():
        times = times.to(torch.float64)
    values = numbers(times)
    if not are_finite(values):
        raise ArgumentError("t has values that are not finite.")
    before, after = values[:-1], values[1:]
    increasing = bool((before < after).all())
    if not increasing and not (before > after).all():
        raise ArgumentError("t must be strictly increasing or strictly decreasing.")
    return times, not increasing


def _checked_norm(value: Any) -> Any:
    if isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1):
        return value
    found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    raise TypeError(f"The option norm must give one number, not {found}.")


def _with_grid(t: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """The times of a grid and of ``t``, each once, and where those of ``t`` are among them."""
    joined = torch.cat([points.to(t.dtype), t])
    values, order = torch.sort(joined.detach(), stable=True)
    new = torch.cat([torch.ones(1, dtype=torch.bool), values.diff() > 0])
    return joined[order[new]], torch.searchsorted(values[new], t.detach())


def check_tolerances(
    rtol: Any, atol: Any, layout: Layout, dtype: torch.dtype
) -> tuple[Tolerance, Tolerance]:
    """Both, checked; by default those of the dtype."""
    default_rtol, default_atol = _TOLERANCES[dtype]
    return (
        _check_tolerance("rtol", rtol, default_rtol, layout),
        _check_tolerance("atol", atol, default_atol, layout),
    )


def _check_tolerance(name: str, value: Any, default: float, layout: Layout) -> Tolerance:
    """One number, or one for each number of the state."""
    if value is None:
        return default
    if type(value) is float and 0 <= value < inf:  # what nearly every caller gives
        return value
    if isinstance(value, (tuple, list)):
        if not layout.joined or len(value) != len(layout.shapes):
            raise ArgumentError(
                f"{name} is a {type(value).__name__} of {len(value)}; it must have one entry for "
                "each tensor of y0, or be a number or a tensor."
            )
        parts = [_as_number(name, x) for x in value]
    else:
        if isinstance(value, Tensor) and value.requires_grad:
            raise ArgumentError(f"{name} cannot require a gradient.")
        one = _as_number(name, value)
        if layout.joined and one.dim() > 0:
            if len(one) != len(layout.shapes):
                raise ArgumentError(f"{name} must have one entry for each tensor of y0.")
            parts = list(one)
        else:
            parts = [one] * len(layout.shapes)
    if not all(bool(((p >= 0) & torch.isfinite(p)).all()) for p in parts):
        raise ArgumentError(f"{name} must be a number not below zero, not {value!r}.")
    if all(p.dim() == 0 and p == parts[0] for p in parts):
        return float(parts[0])
    flat = []
    for p, shape, is_complex in zip(parts, layout.shapes, layout.complex, strict=True):
        try:
            # A part of a tuple may have its tolerances in one row, as in torchdiffeq.
            full = (p if p.shape == (shape.numel(),) else p.expand(shape)).reshape(-1)
        except RuntimeError as error:
            raise ArgumentError(
                f"{name} of shape {tuple(p.shape)} does not fit a state of {tuple(shape)}."
            ) from error
        flat.append(full.repeat_interleave(2) if is_complex else full)
    return torch.cat(flat)


def check_one_tolerance(name: str, value: Any, zero: bool = True) -> float:
    """A tolerance where components cannot have their own; ``zero`` says whether it may be zero."""
    if isinstance(value, (tuple, list)) or getattr(value, "ndim", 0) > 0:
        raise UnsupportedError(
            f"{name} must be one number here, not one for each component; odeint, daeint and "
            "ddeint take tolerances by component."
        )
    number = float(_as_number(name, value))
    if not (0 <= number < inf and (zero or number > 0)):
        least = "not below zero" if zero else "above zero"
        raise ArgumentError(f"{name} must be a number {least}, not {value!r}.")
    return number


def _as_number(name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a number or a tensor, not {value!r}.") from error


def is_fixed(method: Method | None, name: str | None, options: Mapping[str, Any] | None) -> bool:
    """Whether the steps are fixed, as the name that the method was asked for by means."""
    if method is None or name is None:
        return False
    if name in (method.torch_name, "fixed_adams"):
        return method.fixed
    return not method.adaptive or (options or {}).get("step_size") is not None


def _require_step(method: Method, name: str | None, options: Mapping[str, Any]) -> None:
    """Of a method that cannot choose its steps, asked for by SciML's name."""
    has_grid = method.fixed and name in (method.torch_name, "fixed_adams")
    if method.adaptive or has_grid or {"step_size", "grid_constructor"} & options.keys():
        return
    raise ArgumentError(
        f"{method.name} cannot choose its steps: give options={{'step_size': ...}}."
    )


def _callbacks(
    func: object, method: Method | None, fixed: bool, layout: Layout, turned: bool
) -> dict[str, Callable[[Tensor, Tensor, Tensor], object]]:
    """What of torchdiffeq's callbacks ``func`` has, on the engines' state and time."""
    found: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {}
    valid: tuple[str, ...] = _CALLBACKS[:1] if fixed else _CALLBACKS
    if method is not None and method.name == "scipy_solver":
        valid = ()
    for name in _CALLBACKS:
        callback = getattr(func, name, None)
        if callback is None:
            continue

        def adapted(t: Tensor, y: Tensor, dt: Tensor, callback: Any = callback) -> None:
            callback(-t if turned else t, layout.split(y), dt)

        found[name] = adapted
    never = [name for name in found if name not in valid]
    if never:
        warn(f"{method.name if method else 'The method'} never calls {', '.join(never)}.")
    return {name: callback for name, callback in found.items() if name in valid}
