"""``odeint``: the border at which every argument is checked, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .engine import choose_engine
from .errors import DerivativeError
from .events import link_event, solve_until_event
from .methods import Method, find_method
from .problem import Problem, Statistics
from .sensealg import SensitivityAlgorithm, find_sensealg
from .solution import partial_solution, solve_dense

State = Tensor | tuple[Tensor, ...]

_OPTIONS = ("step_size", "first_step", "min_step", "max_step", "max_num_steps", "dtype")

# torchdiffeq's 1e-7 and 1e-9 lie below what float32 can resolve.
_TOLERANCES = {torch.float64: (1e-7, 1e-9), torch.float32: (1e-5, 1e-7)}


def odeint(
    func: Callable[..., Any],
    y0: State,
    t: Tensor | Sequence[float],
    *,
    rtol: float | None = None,
    atol: float | None = None,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    sensealg: SensitivityAlgorithm | str | None = None,
    engine: str | None = None,
    stats: Statistics | None = None,
    event_fn: Callable[..., Tensor] | None = None,
    return_solution: bool = False,
) -> Any:
    """Solve ``dy/dt = func(t, y)``, ``y(t[0]) = y0``, and give the states at the times ``t``.

    Differentiable with respect to ``y0``, ``t`` and every tensor that ``func`` uses and that
    requires a gradient: parameters of a module, and tensors that it closes over.

    Parameters
    ----------
    func : callable
        ``func(t, y) -> dy/dt`` with ``t`` a scalar tensor and ``y`` like ``y0``; a function or a
        ``torch.nn.Module``.
    y0 : torch.Tensor or tuple of torch.Tensor
        Initial state, float32 or float64, of any shape. The error of a step is measured over the
        whole state, a batch included.
    t : torch.Tensor or sequence of float
        Times, of shape ``(T,)``, strictly increasing or decreasing.
    rtol, atol : float, optional
        Relative and absolute tolerance; 1e-7 and 1e-9 for float64, 1e-5 and 1e-7 for float32.
    method : str, optional
        SciML's name (``"Tsit5"``, ``"Rodas5P"``) or torchdiffeq's (``"dopri5"``); see
        :func:`pyjlode.methods`. Default: Tsit5 in Julia, dopri5 in torch.
    options : mapping, optional
        ``step_size`` (of a fixed-step method), ``first_step``, ``min_step``, ``max_step``,
        ``max_num_steps``.
    sensealg : SensitivityAlgorithm or str, optional
        How gradients are computed, such as :class:`pyjlode.GaussAdjoint` or ``"gauss"``.
    engine : {"auto", "julia", "torch"}, optional
        Default: what :func:`pyjlode.use_engine` set.
    stats : Statistics, optional
        Filled with the solve's counts.
    event_fn : callable, optional
        ``event_fn(t, y)``, a tensor: the solve ends where one of its elements crosses zero, and
        of ``t`` only the start and the direction count. See :func:`pyjlode.odeint_event`.
    return_solution : bool, optional
        Give a :class:`pyjlode.Solution`, which interpolates, instead of the states.

    Returns
    -------
    torch.Tensor or tuple of torch.Tensor
        States of shape ``(T, *y0.shape)``; the first is ``y0``. With ``event_fn``, a tuple of the
        event's time and the states at the start and then, of shape ``(2, *y0.shape)``.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.
    SolverError
        If the solve, or in the backward pass the solve of the adjoint, does not succeed. Its
        ``solution`` has the save points that were reached.
    UnsupportedError
        If the engine has not the method or sensitivity algorithm.
    JuliaNotFoundError
        If ``engine="julia"`` and there is no Julia.

    References
    ----------
    Chen et al., Neural Ordinary Differential Equations, 2018.

    Examples
    --------
    >>> import torch
    >>> k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    >>> y0 = torch.ones(1, dtype=torch.float64)
    >>> y = odeint(lambda t, y: -k * y, y0, [0.0, 1.0])
    >>> y[-1].backward()
    >>> bool(abs(k.grad + torch.exp(-k.detach())) < 1e-5)
    True
    """
    problem, unflatten = make_problem(func, y0, t, rtol, atol, method, options, sensealg)
    stats = stats if stats is not None else Statistics()
    plain = event_fn is None and not return_solution
    if plain and (problem.t.numel() == 1 or problem.y0.numel() == 0):
        return unflatten(torch.stack([problem.y0] * problem.t.numel()))
    solver = choose_engine(engine)
    with partial_solution(problem, unflatten, solver):
        if event_fn is not None:
            return solve_until_event(problem, unflatten, event_fn, solver, stats)
        if return_solution:
            return solve_dense(problem, unflatten, solver, stats)
        return unflatten(solver.solve(problem, stats))


def odeint_event(
    func: Callable[..., Any],
    y0: State,
    t0: Tensor | float,
    *,
    event_fn: Callable[..., Tensor],
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """Solve from ``t0`` until an event; its time is differentiable too.

    Parameters
    ----------
    func, y0
        As for :func:`odeint`.
    t0 : torch.Tensor or float
        Where to start, a single number.
    event_fn : callable
        ``event_fn(t, y)``, a tensor. The event is where one of its elements first crosses zero.
    reverse_time : bool, optional
        Solve towards earlier times.
    odeint_interface : callable, optional
        :func:`odeint` or another with its ``event_fn``.
    **kwargs
        For ``odeint_interface``: ``rtol``, ``method``, ``sensealg`` and so on.

    Returns
    -------
    event_t : torch.Tensor
        The event's time, of no dimensions.
    solution : torch.Tensor or tuple of torch.Tensor
        ``y0`` and the state at the event, of shape ``(2, *y0.shape)``.

    Raises
    ------
    SolverError
        If there is no event within ``max_num_steps`` steps (100000 by default).

    Notes
    -----
    Both have gradients with respect to ``y0``, ``t0`` and the tensors that ``func`` and
    ``event_fn`` use (torchdiffeq leaves the last out).

    References
    ----------
    Chen, Amos and Nickel, Learning Neural Event Functions for Ordinary Differential Equations,
    2021.

    Examples
    --------
    A body that falls from 20 m:

    >>> import torch
    >>> g = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    >>> y0 = torch.tensor([20.0, 0.0], dtype=torch.float64)
    >>> def fall(t, y):
    ...     return torch.stack([y[1], -g])
    >>> time, states = odeint_event(fall, y0, 0.0, event_fn=lambda t, y: y[0])
    >>> time.backward()
    >>> print(f"{time.item():.4f} s, {g.grad.item():.4f}")
    2.0000 s, -0.1000
    """
    start = torch.as_tensor(t0, dtype=None if isinstance(t0, Tensor) else torch.float64)
    start = start.reshape(-1)
    t = torch.cat([start, start.detach() + (-1 if reverse_time else 1)])
    event_t, solution = odeint_interface(func, y0, t, event_fn=event_fn, **kwargs)
    if not torch.is_grad_enabled():
        return event_t, solution
    return link_event(func, event_fn, event_t, solution)


def make_problem(
    func: Callable[..., Any],
    y0: State,
    t: Tensor | Sequence[float],
    rtol: float | None,
    atol: float | None,
    method: str | None,
    options: Mapping[str, Any] | None,
    sensealg: SensitivityAlgorithm | str | None,
) -> tuple[Problem, Callable[[Tensor], Any]]:
    """Check the arguments of a solve and bring them to one form.

    Returns
    -------
    problem : Problem
    unflatten : callable
        Makes of the engine's states what the caller gets.
    """
    if not callable(func):
        raise TypeError(f"func must be callable as func(t, y), not {type(func).__name__}.")
    flat, unflatten, joined, key = _flatten(func, y0)
    times = _check_times(t, flat)
    if times.numel() > 1 and bool(times[1] < times[0]):
        # Time is turned round once here, so that engines only ever go forward.
        times, joined, key = -times, _reversed(joined), (*key, "reversed")
    default_rtol, default_atol = _TOLERANCES[flat.dtype]
    chosen = None if method is None else find_method(method)
    return (
        Problem(
            func=joined,
            y0=flat,
            t=times,
            rtol=_check_tolerance("rtol", rtol, default_rtol),
            atol=_check_tolerance("atol", atol, default_atol),
            method=chosen,
            sensealg=find_sensealg(sensealg) if isinstance(sensealg, str) else sensealg,
            options=_check_options(options),
            fixed_step=_is_fixed(chosen, method, options),
            owner=func,
            key=key,
        ),
        unflatten,
    )


def _flatten(
    func: Callable[..., Any], y0: State
) -> tuple[Tensor, Callable[[Tensor], Any], Callable[[Tensor, Tensor], Tensor], tuple[Any, ...]]:
    """A tuple of tensors becomes one vector; a single tensor keeps its shape."""
    if isinstance(y0, Tensor):
        return _check_state(y0, "y0"), lambda y: y, _checked(func), ()
    if not isinstance(y0, (tuple, list)) or not y0:
        raise TypeError(f"y0 must be a tensor or a tuple of tensors, not {type(y0).__name__}.")
    parts = [_check_state(y, f"y0[{i}]") for i, y in enumerate(y0)]
    if len({p.dtype for p in parts}) > 1:
        raise TypeError("The tensors of y0 must have one dtype; convert them first.")
    shapes = [p.shape for p in parts]
    sizes = [p.numel() for p in parts]

    def split(y: Tensor) -> tuple[Tensor, ...]:
        pieces = torch.split(y, sizes, dim=-1)
        return tuple(p.reshape(*y.shape[:-1], *s) for p, s in zip(pieces, shapes, strict=True))

    def joined(t: Tensor, y: Tensor) -> Tensor:
        state = split(y)
        result = func(t, state)
        if not isinstance(result, (tuple, list)) or len(result) != len(shapes):
            raise DerivativeError(f"func must return a tuple of {len(shapes)} tensors, like y0.")
        for derivative, part in zip(result, state, strict=True):
            _check_derivative(derivative, part)
        return torch.cat([d.reshape(-1) for d in result])

    return torch.cat([p.reshape(-1) for p in parts]), split, joined, tuple(shapes)


def _checked(func: Callable[..., Any]) -> Callable[[Tensor, Tensor], Tensor]:
    def checked(t: Tensor, y: Tensor) -> Tensor:
        derivative = func(t, y)
        _check_derivative(derivative, y)
        return derivative

    return checked


def _check_derivative(derivative: object, y: Tensor) -> None:
    if not isinstance(derivative, Tensor):
        raise DerivativeError(f"func returned {type(derivative).__name__}, not a tensor.")
    if derivative.shape != y.shape or derivative.dtype != y.dtype:
        raise DerivativeError(
            f"func returned shape {tuple(derivative.shape)} and {derivative.dtype}; the state has "
            f"{tuple(y.shape)} and {y.dtype}."
        )


def _check_state(y: Any, name: str) -> Tensor:
    if not isinstance(y, Tensor):
        raise TypeError(f"{name} must be a torch tensor, not {type(y).__name__}.")
    if y.dtype not in _TOLERANCES:
        raise TypeError(f"{name} must be float32 or float64, not {y.dtype}; convert it first.")
    if y.device.type != "cpu":
        raise ValueError(f"{name} is on {y.device}; this version solves on the CPU.")
    if not bool(torch.isfinite(y.detach()).all()):
        raise ValueError(f"{name} has values that are not finite.")
    return y


def _check_times(t: Any, y: Tensor) -> Tensor:
    times = t if isinstance(t, Tensor) else torch.as_tensor(t, dtype=torch.float64)
    if times.dim() != 1 or times.numel() == 0:
        raise ValueError(
            f"t must have one dimension and a time; its shape is {tuple(times.shape)}."
        )
    if not times.is_floating_point():
        times = times.to(torch.float64)
    values = times.detach()
    if not bool(torch.isfinite(values).all()):
        raise ValueError("t has values that are not finite.")
    steps = values[1:] - values[:-1]
    if not bool((steps > 0).all() or (steps < 0).all()):
        raise ValueError("t must be strictly increasing or strictly decreasing.")
    return times


def _check_tolerance(name: str, value: float | None, default: float) -> float:
    if value is None:
        return default
    if not 0 <= float(value) < float("inf"):
        raise ValueError(f"{name} must be a number not below zero, not {value!r}.")
    return float(value)


def _check_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    checked = dict(options or {})
    for name in checked:
        if name not in _OPTIONS:
            raise ValueError(f"There is no option {name!r}; there are {', '.join(_OPTIONS)}.")
    return checked


def _is_fixed(method: Method | None, name: str | None, options: Mapping[str, Any] | None) -> bool:
    """By torchdiffeq's names these methods have fixed steps, and so they have with a step size."""
    if method is None or name is None:
        return False
    return method.name == "Euler" or (
        method.fixed and (name == method.torch_name or "step_size" in (options or {}))
    )


def _reversed(func: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda t, y: -func(-t, y)
