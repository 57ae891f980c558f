"""``solve_ivp``: SciPy's function of that name, solved by Julia."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .eager import eager
from .engine import choose_engine
from .errors import UnsupportedError, warn
from .methods import Method, find_method

_MESSAGES = {
    0: "The solver successfully reached the end of the integration interval.",
    1: "A termination event occurred.",
}

# SciPy's names, and the methods of the catalogue that stand for them.
SCIPY_METHODS = {
    "RK45": "DP5",
    "RK23": "BS3",
    "DOP853": "Vern8",
    "Radau": "Rodas5P",
    "BDF": "FBDF",
    "LSODA": "FBDF",
}

# SciPy's methods where it has to solve.
_IN_SCIPY = {"Tsit5": "RK45", "DP5": "RK45", "BS3": "RK23"}


@dataclass
class Request:
    """The arguments of a call, checked.

    Attributes
    ----------
    fun, jac, events
        With ``args`` bound.
    y0 : numpy.ndarray or torch.Tensor
        A tensor where ``fun`` is a function of tensors.
    terminal, direction : list of int
        Of each event, how many of them end the solve (0: none do), and the sign of its change.
    options : dict
        ``first_step``, ``max_step``, ``min_step``.
    """

    fun: Callable[..., Any]
    span: tuple[float, float]
    y0: Any
    method: str
    t_eval: np.ndarray | None
    dense_output: bool
    events: list[Callable[..., Any]] | None
    terminal: list[int]
    direction: list[int]
    vectorized: bool
    rtol: Any
    atol: Any
    jac: Any
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def forward(self) -> int:
        """-1 where time runs backwards."""
        return 1 if self.span[1] >= self.span[0] else -1


@eager
def solve_ivp(
    fun: Callable[..., Any],
    t_span: Sequence[float],
    y0: Any,
    method: str = "Tsit5",
    t_eval: Any = None,
    dense_output: bool = False,
    events: Any = None,
    vectorized: bool = False,
    args: tuple[Any, ...] | None = None,
    *,
    rtol: Any = 1e-3,
    atol: Any = 1e-6,
    jac: Any = None,
    first_step: float | None = None,
    max_step: float = np.inf,
    engine: str | None = None,
    **options: Any,
) -> Any:
    """Solve ``dy/dt = fun(t, y)``, ``y(t_span[0]) = y0``, as ``scipy.integrate.solve_ivp`` does.

    A numpy function is called by Julia, one of tensors is traced and runs in Julia. The result has
    no gradient; :func:`pyjlode.odeint` has.

    Parameters
    ----------
    fun : callable
        ``fun(t, y)`` with ``y`` of shape ``(n,)``: of numpy arrays, or where ``y0`` is a tensor or
        ``fun`` a ``torch.nn.Module``, of tensors.
    t_span : sequence of two floats
    y0 : array_like or torch.Tensor
        Of shape ``(n,)``; real or complex.
    method : str, optional
        Of :func:`pyjlode.methods`, or SciPy's: ``"RK45"`` is DP5, ``"RK23"`` BS3, ``"DOP853"``
        Vern8, ``"Radau"`` Rodas5P, and ``"BDF"`` and ``"LSODA"`` are FBDF.
    t_eval : array_like, optional
        Times, sorted, in the span. Without them the result has the solver's own steps.
    dense_output : bool, optional
        Whether the result's ``sol`` is a function of time.
    events : callable or list of callable, optional
        ``event(t, y)``, a number, whose zeros are sought. Attributes: ``terminal``, true or the
        number of them after which to stop, and ``direction``, the sign of the change looked for.
    vectorized : bool, optional
        Whether ``fun`` also takes ``y`` of shape ``(n, k)``.
    args : tuple, optional
        Further arguments of ``fun``, ``jac`` and ``events``.
    rtol, atol : float or array_like
        Tolerances, of all components or of each, in the shape of ``y0``.
    jac : callable, array_like or None, optional
        The Jacobian, for implicit methods; without it, differences. A traced function has its own.
    first_step, max_step : float, optional
    engine : {"auto", "julia", "torch"}, optional
        ``"torch"``, and ``"auto"`` where there is no Julia, is SciPy's own ``solve_ivp``.
    **options
        ``min_step``, and SciPy's options which have no meaning here and give a warning.

    Returns
    -------
    scipy.optimize.OptimizeResult
        With SciPy's ``t``, ``y``, ``sol``, ``t_events``, ``y_events``, ``nfev``, ``njev``, ``nlu``,
        ``status``, ``message`` and ``success``; and ``engine`` and ``method``, what solved. A solve
        that fails has ``success`` False, what it reached, and gives a warning.

    Raises
    ------
    ValueError, TypeError
        Where SciPy's raises them.
    UnsupportedError
        If the engine has not the method or option.

    Notes
    -----
    ``docs/solve_ivp.md`` lists what differs from SciPy.

    Examples
    --------
    >>> result = solve_ivp(lambda t, y: -0.5 * y, [0, 10], [2.0, 4.0], rtol=1e-6)
    >>> bool(abs(result.y[0, -1] - 2 * np.exp(-5)) < 1e-5)
    True
    """
    request = _check(
        fun, t_span, y0, method, t_eval, dense_output, events, vectorized, args, rtol, atol, jac,
        {"first_step": first_step, "max_step": max_step, **options},
    )  # fmt: skip
    solver = choose_engine(engine, "SciPy")
    if solver.name != "julia":
        return _solve_with_scipy(request)
    from .engine.initial_value import solve

    chosen = _method(method)
    return _result(request, solve(solver, request, chosen), chosen.name)


def _check(
    fun: Any, t_span: Any, y0: Any, method: Any, t_eval: Any, dense_output: bool, events: Any,
    vectorized: bool, args: Any, rtol: Any, atol: Any, jac: Any, options: dict[str, Any],
) -> Request:  # fmt: skip
    if not isinstance(method, str):
        raise UnsupportedError("method must be a name; SciPy's classes are for SciPy's solve_ivp.")
    if method not in SCIPY_METHODS:
        find_method(method)
    start, end = map(float, t_span)
    state = _check_state(fun, y0)
    terminal, direction = [], []
    if events is not None:
        events = [events] if callable(events) else list(events)
        terminal = [_terminal(event) for event in events]
        direction = [int(np.sign(getattr(event, "direction", 0))) for event in events]
    if args is not None:
        try:
            args = (*args,)
        except TypeError as error:
            raise TypeError(
                "Supplied 'args' cannot be unpacked. Please supply `args` as a tuple "
                f"(e.g. `args=({args},)`)"
            ) from error
        fun = _with_arguments(fun, args)
        jac = _with_arguments(jac, args) if callable(jac) else jac
        events = None if events is None else [_with_arguments(e, args) for e in events]
    return Request(
        fun=fun,
        span=(start, end),
        y0=state,
        method=method,
        t_eval=_check_times(t_eval, start, end),
        dense_output=dense_output,
        events=events,
        terminal=terminal,
        direction=direction,
        vectorized=vectorized,
        rtol=_check_rtol(rtol, len(state)),
        atol=_check_atol(atol, len(state)),
        jac=jac,
        options=_check_options(options, abs(end - start)),
    )


def _check_state(fun: Any, y0: Any) -> Any:
    if isinstance(y0, Tensor) or isinstance(fun, torch.nn.Module):
        state = torch.as_tensor(y0).detach()
        if not isinstance(y0, Tensor):
            dtypes = [p.dtype for p in fun.parameters()]
            state = state.to(dtypes[0] if dtypes else torch.float64)
        if not (state.is_floating_point() or state.is_complex()):
            state = state.to(torch.float64)
        return _check_values(state, bool(torch.isfinite(state).all()))
    array = np.asarray(y0)
    if not np.issubdtype(array.dtype, np.number):
        raise ValueError("`y0` is supposed to be an array of numbers.")
    array = array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
    return _check_values(array, bool(np.isfinite(array).all()))


def _check_values(state: Any, finite: bool) -> Any:
    if state.ndim != 1:
        raise ValueError("`y0` must be 1-dimensional.")
    if not finite:
        raise ValueError("All components of the initial state `y0` must be finite.")
    return state


def _terminal(event: Any) -> int:
    terminal = getattr(event, "terminal", None)
    if terminal is None or terminal == 0:
        return 0
    if int(terminal) != terminal or terminal < 0:
        raise ValueError(
            "The `terminal` attribute of each event must be a boolean or positive integer."
        )
    return int(terminal)


def _with_arguments(function: Callable[..., Any], args: tuple[Any, ...]) -> Callable[..., Any]:
    def bound(t: Any, y: Any) -> Any:
        return function(t, y, *args)

    return wraps(function)(bound) if hasattr(function, "__name__") else bound


def _check_times(t_eval: Any, start: float, end: float) -> np.ndarray | None:
    if t_eval is None:
        return None
    times = np.asarray(t_eval, dtype=np.float64)
    if times.ndim != 1:
        raise ValueError("`t_eval` must be 1-dimensional.")
    if np.any(times < min(start, end)) or np.any(times > max(start, end)):
        raise ValueError("Values in `t_eval` are not within `t_span`.")
    steps = np.diff(times)
    if (end > start and np.any(steps <= 0)) or (end < start and np.any(steps >= 0)):
        raise ValueError("Values in `t_eval` are not properly sorted.")
    return times


def _check_rtol(rtol: Any, size: int) -> Any:
    values = np.asarray(rtol, dtype=np.float64)
    if values.ndim > 0 and values.shape != (size,):
        raise ValueError(f"`rtol` has shape {values.shape}; it must be a number or ({size},).")
    if np.any(values < 0):
        raise ValueError("`rtol` must be positive.")
    least = 100 * float(np.finfo(np.float64).eps)
    if np.any(values < least):
        warnings.warn(f"`rtol` is too low, setting to {least:g}", stacklevel=4)
    values = np.maximum(values, least)
    return float(values.max()) if values.size and np.ptp(values) == 0 else values


def _check_atol(atol: Any, size: int) -> Any:
    values = np.asarray(atol, dtype=np.float64)
    if values.ndim > 0 and values.shape != (size,):
        raise ValueError("`atol` has wrong shape.")
    if np.any(values < 0):
        raise ValueError("`atol` must be positive.")
    if values.ndim == 0 or (values.size and np.ptp(values) == 0):
        return float(values.max())
    if np.any(values == 0):
        raise UnsupportedError("An atol of 0 beside others is not supported; take a small one.")
    return values


def _check_options(options: dict[str, Any], length: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    first, most = options.pop("first_step"), options.pop("max_step")
    if first is not None:
        if first <= 0:
            raise ValueError("`first_step` must be positive.")
        if first > length:
            raise ValueError("`first_step` exceeds bounds.")
        found["first_step"] = float(first)
    if most <= 0:
        raise ValueError("`max_step` must be positive.")
    if np.isfinite(most):
        found["max_step"] = float(most)
    if options.get("min_step"):
        found["min_step"] = float(options["min_step"])
    options.pop("min_step", None)
    if options.pop("jac_sparsity", None) is not None:
        raise UnsupportedError("There is no jac_sparsity; give jac, or a torch function to trace.")
    extra = [name for name, value in options.items() if value is not None]
    if extra:
        names = ", ".join(f"`{x}`" for x in extra)
        warnings.warn(f"The following arguments have no effect: {names}.", stacklevel=4)
    return found


def _method(name: str) -> Method:
    method = find_method(SCIPY_METHODS.get(name, name))
    if not method.julia or not method.adaptive or method.problem:
        raise UnsupportedError(
            f"solve_ivp has no {method.name}: it needs a method of the Julia engine that chooses "
            "its steps, such as Tsit5, Vern7, Rodas5P or FBDF."
        )
    return method


class DenseOutput:
    """The result's ``sol``: states at any times of the solve's span.

    Attributes
    ----------
    t_min, t_max : float
    """

    def __init__(self, states: Callable[[np.ndarray], np.ndarray], ends: tuple[float, float]):
        self.states = states
        self.t_min, self.t_max = min(ends), max(ends)

    def __call__(self, t: Any) -> np.ndarray:
        """Of shape ``(n,)`` for a number and ``(n, S)`` for an array of them.

        Raises
        ------
        ValueError
            If a time is outside the span.
        """
        times = np.asarray(t, dtype=np.float64)
        if times.ndim > 1:
            raise ValueError("`t` must be a float or a 1-D array.")
        if np.any(times < self.t_min) or np.any(times > self.t_max):
            raise ValueError(f"t is outside the solution's span, {self.t_min} to {self.t_max}.")
        found = self.states(times.reshape(-1))
        return found.T if times.ndim else found[0]


def _result(request: Request, found: Mapping[str, Any], method: str) -> Any:
    from scipy.optimize import OptimizeResult

    status = found["status"]
    message = _MESSAGES.get(status, found["message"])
    if status < 0:
        warn(f"solve_ivp: {message}")
    t, y, ends = found["t"], found["y"], (request.span[0], found["end"])
    if request.t_eval is not None:
        done = request.forward * request.t_eval <= request.forward * ends[1]
        t = request.t_eval[done]
        y = found["interpolant"](t)
    t_events = y_events = None
    if request.events is not None:
        t_events, y_events = [], []
        for i in range(len(request.events)):
            mine = found["event_numbers"] == i
            t_events.append(found["event_times"][mine])
            y_events.append(found["event_states"][mine] if mine.any() else np.array([]))
    return OptimizeResult(
        t=t,
        y=y.T,
        sol=DenseOutput(found["interpolant"], ends) if request.dense_output else None,
        t_events=t_events,
        y_events=y_events,
        nfev=found["nfev"],
        njev=found["njev"],
        nlu=found["nlu"],
        status=status,
        message=message,
        success=status >= 0,
        engine="julia",
        method=method,
    )


def _solve_with_scipy(request: Request) -> Any:
    from scipy.integrate import solve_ivp as scipy_solve_ivp

    name = request.method
    if name not in SCIPY_METHODS:
        name = _IN_SCIPY.get(find_method(name).name, "")
    if not name:
        raise UnsupportedError(
            f"SciPy has no {request.method}; use one of {', '.join(SCIPY_METHODS)}, or get Julia "
            "with `pyjlode setup`."
        )
    fun, y0, events = request.fun, request.y0, request.events
    if isinstance(y0, Tensor):
        dtype = y0.dtype
        fun = _on_arrays(fun, dtype)
        marked = zip(events or [], request.terminal, request.direction, strict=True)
        events = [_marked(_on_arrays(e, dtype), n, d) for e, n, d in marked] if events else None
        y0 = y0.numpy()
    elif events is not None:
        marked = zip(events, request.terminal, request.direction, strict=True)
        events = [_marked(_with_arguments(e, ()), n, d) for e, n, d in marked]
    options: dict[str, Any] = dict(request.options)
    if name != "LSODA":
        options.pop("min_step", None)
    if name in ("Radau", "BDF", "LSODA"):
        options["jac"] = request.jac
    result = scipy_solve_ivp(
        fun,
        request.span,
        y0,
        name,
        request.t_eval,
        request.dense_output,
        events,
        request.vectorized,
        rtol=request.rtol,
        atol=request.atol,
        **options,
    )
    result.engine, result.method = "scipy", name
    if not result.success:
        warn(f"solve_ivp: {result.message}")
    return result


def _on_arrays(function: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
    """A function of tensors for arrays."""

    def on_arrays(t: float, y: np.ndarray) -> Any:
        real = dtype.to_real() if dtype.is_complex else dtype
        with torch.no_grad():
            value = function(torch.tensor(t, dtype=real), torch.as_tensor(y).to(dtype))
        return torch.as_tensor(value).numpy()

    return on_arrays


def _marked(event: Callable[..., Any], terminal: int, direction: int) -> Callable[..., Any]:
    event.terminal, event.direction = terminal, direction  # type: ignore[attr-defined]
    return event
