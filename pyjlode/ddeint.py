"""``ddeint``: delay differential equations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .check import State, make_problem
from .eager import eager
from .engine import choose_engine
from .errors import ArgumentError, SolverError, UnsupportedError
from .methods import find_method
from .problem import Problem, Statistics
from .sensealg import DiscreteAdjoint, SensitivityAlgorithm
from .solution import add_solution
from .states import Layout, as_numbers, as_state

#: The explicit Runge-Kutta methods whose interpolation is as good as their steps, by SciML's names.
METHODS = ("Tsit5", "BS3", "DP5", "RK4", "Vern6", "Vern7", "Vern8", "Vern9")

_DEFAULT = "Tsit5"

# What DelayDiffEq does not do, or does itself.
_NOT_TAKEN = ("step_t", "jump_t", "grid_constructor", "interp", "perturb", "norm", "dtype")


@dataclass(frozen=True)
class DelayProblem:
    """A delay equation as the engine gets it, checked.

    Attributes
    ----------
    problem : Problem
        Initial state, times, tolerances, method and options. Its ``func`` has the delayed states
        stand still.
    func : callable
        The caller's ``func(t, y, *delayed)``.
    history : callable or None
        The caller's ``history(t)``; None where the past is ``problem.y0``.
    lags : torch.Tensor
        Float64, of shape ``(K,)``.
    """

    problem: Problem
    func: Callable[..., Any]
    history: Callable[[Tensor], Any] | None
    lags: Tensor

    @property
    def layout(self) -> Layout:
        """How the caller's states lie in the engine's."""
        assert self.problem.layout is not None
        return self.problem.layout


@eager
def ddeint(
    func: Callable[..., Any],
    history: State | Callable[[Tensor], Any],
    t: Tensor | Sequence[float],
    *,
    lags: Tensor | Sequence[float],
    rtol: Any = None,
    atol: Any = None,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    sensealg: SensitivityAlgorithm | str | None = None,
    engine: str | None = None,
    stats: Statistics | None = None,
) -> Any:
    """Solve ``dy/dt = func(t, y(t), y(t - lags[0]), y(t - lags[1]), ...)`` with a given past.

    Differentiable with respect to the constant past, every tensor that ``func`` and ``history`` use
    and that requires a gradient, the lags, and the times: by reverse mode through the steps taken.

    Parameters
    ----------
    func : callable
        ``func(t, y, *delayed) -> dy/dt`` with ``t`` a scalar tensor, and ``y`` and each of the
        delayed states like the initial one; a function or a ``torch.nn.Module``.
    history : torch.Tensor, tuple of torch.Tensor or callable
        The states up to ``t[0]``: one tensor, where the past is constant, or ``history(t) -> y``,
        which is traced as ``func`` is. The initial state is the one at ``t[0]``.
    t : torch.Tensor or sequence of float
        Times, of shape ``(T,)``, strictly increasing.
    lags : torch.Tensor or sequence of float
        The delays, above zero, of shape ``(K,)``.
    rtol, atol : float, torch.Tensor or tuple, optional
        As for :func:`pyjlode.odeint`.
    method : str, optional
        One of :data:`pyjlode.ddeint.METHODS`, or torchdiffeq's name of it; Tsit5 by default.
    options : mapping, optional
        ``first_step``, ``min_step``, ``max_step``, ``safety``, ``ifactor``, ``dfactor`` and
        ``max_num_steps``, or ``step_size`` for fixed steps, at most the shortest lag.
    sensealg : SensitivityAlgorithm or str, optional
        Only :class:`pyjlode.DiscreteAdjoint`, without ``checkpoints``.
    engine : {"auto", "julia"}, optional
        The torch engine has no solver of delay equations.
    stats : Statistics, optional
        Filled with the solve's counts.

    Returns
    -------
    torch.Tensor or tuple of torch.Tensor
        States of shape ``(T, *y.shape)``; the first is the past's at ``t[0]``.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.
    UnsupportedError
        On the torch engine; for another method, sensitivity algorithm or option; for lags that are
        functions of the state; for a gradient with respect to the times of fixed steps.
    SolverError
        If the solve does not succeed, or its gradient is not finite.
    JuliaNotFoundError
        If ``engine="julia"`` and there is no Julia.

    Notes
    -----
    DelayDiffEq.jl's method of steps solves. Where the past ends, the derivative jumps, and so do
    higher ones whenever a delay reaches that point again: steps end there. No step is longer than
    the shortest lag, so that delayed states are those of the past or of steps that are done with,
    whose interpolation gives them. The cost grows with the span divided by the shortest lag.

    In the gradient, ends of steps count as constants, those at the jumps of derivatives too: the
    derivative with respect to a lag is that of the numbers for a grid that stays, and is near the
    solution's as the numbers are.

    References
    ----------
    Bellen and Zennaro, Numerical Methods for Delay Differential Equations, 2003. Widmann and
    Rackauckas, DelayDiffEq: Generating Delay Differential Equation Solvers via Recursive Embedding
    of Ordinary Differential Equation Solvers, 2022, arXiv:2208.12879. Hager, Runge-Kutta methods in
    optimal control and the transformed adjoint system, 2000.

    Examples
    --------
    ``y' = -y(t - 1)`` with the past 1 is ``1 - t`` up to 1, and then ``1 - t + (t - 1)^2 / 2``:

    >>> import torch
    >>> from pyjlode import engine_info
    >>> past = torch.ones(1, dtype=torch.float64, requires_grad=True)
    >>> if engine_info().name == "julia":
    ...     y = ddeint(lambda t, y, delayed: -delayed, past, [0.0, 1.0, 2.0], lags=[1.0])
    ...     y[-1].sum().backward()
    ...     assert torch.allclose(y[:, 0], torch.tensor([1.0, 0.0, -0.5]).double(), atol=1e-8)
    ...     assert torch.allclose(past.grad, torch.tensor([-0.5]).double())
    """
    delays = _check_lags(lags)
    problem, unflatten = _check(func, history, t, delays, rtol, atol, method, options, sensealg)
    states = problem.problem.y0[None]
    if problem.problem.t.numel() == 1 or problem.problem.y0.numel() == 0:
        return unflatten(states.expand(problem.problem.t.numel(), *states.shape[1:]).clone())
    from .engine.delay import solve_delay
    from .engine.julia import JuliaEngine

    solver = choose_engine(engine, other="nothing here")
    if not isinstance(solver, JuliaEngine):
        raise UnsupportedError(
            "The torch engine has no solver of delay equations; get Julia with `pyjlode setup`."
        )
    try:
        return unflatten(solve_delay(solver, problem, stats or Statistics()))
    except SolverError as error:
        add_solution(error, problem.problem, unflatten, solver)
        raise


def _check_lags(lags: Any) -> Tensor:
    if callable(lags) or (isinstance(lags, (tuple, list)) and any(map(callable, lags))):
        raise UnsupportedError(
            "Lags that depend on the state or on time are not there: lags must be numbers. Near to "
            "a variable lag is a chain of n further states in odeint, "
            "z[i]' = n / lag * (z[i-1] - z[i]) with z[0] = y, whose last one is y about lag ago."
        )
    delays = as_numbers("lags", lags)
    if delays.dim() != 1 or delays.numel() == 0 or delays.is_complex():
        raise ArgumentError(
            "lags must be one or more numbers, of one dimension; without a delay use odeint."
        )
    delays = delays.to("cpu", torch.float64)
    if not bool(((delays > 0) & torch.isfinite(delays)).all()):
        raise ArgumentError(f"lags must be finite and above zero, not {delays.tolist()}.")
    return delays


def _check(
    func: Any, history: Any, t: Any, lags: Tensor, rtol: Any, atol: Any, method: str | None,
    options: Mapping[str, Any] | None, sensealg: SensitivityAlgorithm | str | None,
) -> tuple[DelayProblem, Callable[[Tensor], Any]]:  # fmt: skip
    if not callable(func):
        raise TypeError(
            f"func must be callable as func(t, y, *delayed), not {type(func).__name__}."
        )
    method = _DEFAULT if method is None else method
    _check_method(method, options)
    times = as_numbers("t", t)
    past, known = history, None
    if callable(history):
        if times.dim() != 1 or times.numel() == 0:
            raise ArgumentError("t must have one dimension and a time.")
        past, known = history(times[0]), history
        if not isinstance(past, (Tensor, tuple)):
            raise TypeError(
                f"history(t) must be a tensor or a tuple of tensors, not {type(past).__name__}."
            )
    else:
        past = as_state(past, func)
    still = [_detached(past)] * len(lags)
    problem, unflatten = make_problem(
        lambda t, y: func(t, y, *map(_detached, still)),
        past,
        times,
        rtol,
        atol,
        method,
        options,
        sensealg,
    )
    if problem.direction < 0:
        raise ArgumentError("t must be strictly increasing: the past of a delay is before it.")
    if not isinstance(problem.sensealg, (DiscreteAdjoint, type(None))) or (
        problem.sensealg is not None and problem.sensealg.checkpoints is not None
    ):
        raise UnsupportedError(
            f"Delay equations have no {problem.sensealg}; their gradient is DiscreteAdjoint()'s, "
            "which keeps every step."
        )
    step = problem.options.get("step_size")
    if step is not None and float(step) > float(lags.min()):
        raise ArgumentError(
            f"A step_size of {step} is longer than the shortest lag, {float(lags.min()):g}."
        )
    if problem.fixed_step and problem.t.requires_grad and torch.is_grad_enabled():
        raise UnsupportedError(
            "There is no gradient with respect to the times of fixed steps; give t.detach(), or "
            "leave out step_size."
        )
    return DelayProblem(problem, func, known, lags), unflatten


def _check_method(method: str, options: Mapping[str, Any] | None) -> None:
    found = find_method(method)
    if found.implicit:
        raise UnsupportedError(
            f"{method} is not there for delay equations, nor is another stiff method: of implicit "
            f"steps the delayed states have no gradient here. Use one of {', '.join(METHODS)}, "
            "whose steps stay below about 3 over the fastest rate; or in odeint, with a stiff "
            "method, a chain of n further states for a lag, z[i]' = n / lag * (z[i-1] - z[i]) with "
            "z[0] = y."
        )
    if found.algorithm not in METHODS:
        raise UnsupportedError(
            f"{method} is not there for delay equations; use one of {', '.join(METHODS)}."
        )
    refused = sorted(set(options or {}) & set(_NOT_TAKEN))
    if refused:
        raise UnsupportedError(f"ddeint has no options {', '.join(refused)}.")


def _detached(state: Any) -> Any:
    if isinstance(state, (tuple, list)):
        return tuple(_detached(x) for x in state)
    # Copies: func may write into them.
    return state.detach().clone() if isinstance(state, Tensor) else state
