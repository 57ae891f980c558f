"""``jumpint``: jump processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .brownian import check_seed, new_seed
from .check import check_one_tolerance
from .eager import eager
from .engine import choose_engine
from .errors import ArgumentError, DerivativeError, UnsupportedError
from .methods import Method, find_method
from .names import unknown
from .options import as_mapping, number
from .states import as_numbers, as_state, numbers

METHODS = ("Direct", "FRM", "NRM")
"""Algorithms for rates that are constant between jumps; Direct is for all others too."""

_OPTIONS = {"max_jumps": 10_000_000, "max_num_steps": 10_000_000, "max_step": inf}


@dataclass(frozen=True)
class JumpProblem:
    """A jump process as the engine gets it, checked.

    Attributes
    ----------
    rate : callable
        ``rate(t, y)`` on single trajectories: states of shape ``(D,)``, or ``(1, D)`` of a batch.
    func : callable or None
        What happens between jumps, likewise; None where nothing does.
    change : torch.Tensor
        What each kind of jump adds, float64, of shape ``(M, D)``.
    y0 : torch.Tensor
        Of shape ``(D,)`` or ``(B, D)``.
    t : torch.Tensor
        Float64.
    method : str
        One of :data:`METHODS`.
    ode_method : Method
        What solves between jumps, where rates change there.
    rtol, atol, max_step : float
        Its tolerances and longest step.
    max_num_steps, max_jumps : int
        Of each trajectory.
    seed : int
    """

    rate: Any
    func: Any
    change: Tensor
    y0: Tensor
    t: Tensor
    method: str
    ode_method: Method
    rtol: float
    atol: float
    max_step: float
    max_num_steps: int
    max_jumps: int
    seed: int

    @property
    def rows(self) -> int | None:
        """How many trajectories a batch has; None without one."""
        return len(self.y0) if self.y0.dim() == 2 else None


@eager
def jumpint(
    rate: Any,
    change: Tensor,
    y0: Tensor,
    t: Tensor | Sequence[float],
    *,
    func: Any = None,
    method: str = "Direct",
    ode_method: str = "Tsit5",
    rtol: float = 1e-6,
    atol: float = 1e-8,
    options: Mapping[str, Any] | None = None,
    seed: int | None = None,
    engine: str | None = None,
) -> Tensor:
    """Paths of a process that jumps at random, ``y(t[0]) = y0``, at the times ``t``.

    There are ``M`` kinds of jumps. In a short time ``dt`` a jump of kind ``m`` happens with
    probability ``rate(t, y)[..., m] dt``, and adds ``change[m]`` to the state: chemical reactions
    between molecules that are counted, births and deaths, arrivals and departures. Between jumps
    the state rests, or with ``func`` follows ``dy/dt = func(t, y)`` (a piecewise deterministic
    process). A batch is an ensemble: each of its rows is a path of its own.

    Parameters
    ----------
    rate : callable
        ``rate(t, y)``, the rates of all kinds, not negative, of shape ``(..., M)`` for states
        ``(..., D)``; a function or a ``torch.nn.Module``. Of a batch it is called with single
        rows, of shape ``(1, D)``. What may become negative by rounding wants ``clamp(min=0)``.
    change : torch.Tensor
        What a jump of each kind adds to the state, of shape ``(M, D)``.
    y0 : torch.Tensor
        Initial state, float32 or float64, of shape ``(D,)``, or ``(B, D)`` for ``B`` paths.
    t : torch.Tensor or sequence of float
        Times, of shape ``(T,)``, strictly increasing.
    func : callable, optional
        ``func(t, y)``, like ``y``: the derivative of the state between jumps.
    method : str, optional
        For rates that are constant between jumps: Direct, FRM (first reaction) or NRM (next
        reaction). They give paths of the same law; other rates want Direct.
    ode_method : str, optional
        The explicit method that solves between jumps, if the rates depend on the time or there is
        a ``func``: SciML's name, as of :func:`pyjlode.odeint`.
    rtol, atol : float, optional
        Its tolerances, of the state and of the integral of the rates.
    options : mapping, optional
        ``max_jumps`` of each path, ``max_num_steps`` of ``ode_method``, ten millions each, and its
        longest step ``max_step``: rates that are zero but for a short pulse want one shorter than
        the pulse.
    seed : int, optional
        The same seed gives the same paths with the same method, whatever the number of threads;
        the path of a row rests on the seed, its number and its ``y0`` alone. Default: drawn from
        torch's generator, so that ``torch.manual_seed`` rules it.
    engine : {"auto", "julia"}, optional
        The torch engine has no jump processes.

    Returns
    -------
    torch.Tensor
        States of shape ``(T, *y0.shape)``; at the time of a jump that after it.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described; also if ``rate`` or ``func`` mixes rows.
    UnsupportedError
        On the torch engine; if a gradient is needed; if rates are random or change between jumps
        and the method is not Direct.
    SolverError
        If a rate is negative or not finite on a path, if there are more than ``max_jumps``, or if
        the solve between jumps does not succeed. Its ``row`` says in which row, the first of them.

    Notes
    -----
    The time from ``s`` to the next jump has the distribution ``P(τ > t) = exp(-∫ₛᵗ a(u) du)`` with
    the total rate ``a = Σ aₘ`` along the path, and the jump is of kind ``m`` with probability
    ``aₘ / a``. Where rates are constant between jumps, ``τ - s = E / a`` with ``E`` of the standard
    exponential distribution: Gillespie's direct method, exact but for rounding. Otherwise the
    integral is solved along with ``func`` until it reaches ``E``, which is exact to the tolerances.
    Whether a rate depends on time is seen from its trace, so that one that cannot be traced counts
    as one that does.

    There is no gradient: a path is a step function of its parameters. The mean of many molecules
    follows ``dy/dt = rate(t, y) @ change`` and their fluctuations the chemical Langevin equation,
    ``dy = rate @ change dt + Σ change[m] sqrt(rate[m]) dWₘ``; ``odeint`` and ``sdeint`` with
    EM have gradients of these.

    References
    ----------
    Gillespie, Exact stochastic simulation of coupled chemical reactions, 1977; Gibson and Bruck,
    Efficient exact stochastic simulation of chemical systems with many species and many channels,
    2000; Salis and Kaznessis, Accurate hybrid stochastic simulation of a system of coupled chemical
    or biochemical reactions, 2005; Davis, Piecewise-deterministic Markov processes, 1984;
    JumpProcesses.jl.

    Examples
    --------
    Molecules that are made and decay; their number tends to a Poisson distribution of mean 20:

    >>> import torch
    >>> from pyjlode import engine_info
    >>> def rate(t, y):
    ...     return torch.cat([torch.full_like(y, 10.0), 0.5 * y], dim=-1)
    >>> change = torch.tensor([[1.0], [-1.0]])
    >>> y0 = torch.zeros(1000, 1, dtype=torch.float64)
    >>> if engine_info().name == "julia":
    ...     y = jumpint(rate, change, y0, [0.0, 20.0], seed=0)[-1]
    ...     assert abs(y.mean() - 20) < 1 and abs(y.var() - 20) < 5
    """
    problem = _check(
        rate, change, y0, t, func, method, ode_method, rtol, atol, as_mapping(options), seed
    )
    from .engine.julia import JuliaEngine
    from .engine.jumps import solve_jumps

    solver = choose_engine(engine, other="nothing here")
    if not isinstance(solver, JuliaEngine):
        raise UnsupportedError(
            "The torch engine has no jump processes; get Julia with `pyjlode setup`."
        )
    return solve_jumps(solver, problem)


def _check(
    rate: Any, change: Any, y0: Any, t: Any, func: Any, method: str, ode_method: str, rtol: float,
    atol: float, options: dict[str, Any], seed: int | None,
) -> JumpProblem:  # fmt: skip
    if not callable(rate) or not (func is None or callable(func)):
        raise TypeError("rate and func must be callable as rate(t, y) and func(t, y).")
    if method not in METHODS:
        raise ArgumentError(unknown("method of jumpint", method, METHODS))
    y0 = as_state(y0, rate)
    _check_y0(y0)
    times = _check_times(t)
    kinds = _check_change(change, y0)
    _check_shape("rate", rate, times[0], y0, kinds)
    if func is not None:
        _check_shape("func", func, times[0], y0, y0.shape[-1])
    for name, value in (("rtol", rtol), ("atol", atol)):
        check_one_tolerance(name, value, zero=False)
    for name, value in options.items():
        if name not in _OPTIONS:
            raise ArgumentError(unknown("option of jumpint", name, _OPTIONS))
        if not number(name, value) > 0:
            raise ArgumentError(f"The option {name} must be above zero, not {value!r}.")
    given = {**_OPTIONS, **options}
    return JumpProblem(
        rate, func, change.to(torch.float64), y0, times, method, _check_ode_method(ode_method),
        float(rtol), float(atol), float(given["max_step"]), int(given["max_num_steps"]),
        int(given["max_jumps"]), new_seed() if seed is None else check_seed(seed),
    )  # fmt: skip


def _check_y0(y0: Any) -> None:
    if not isinstance(y0, Tensor) or y0.dtype not in (torch.float32, torch.float64):
        raise TypeError("y0 must be a float32 or float64 tensor of shape (D,) or (B, D).")
    if y0.dim() not in (1, 2) or y0.numel() == 0:
        raise ArgumentError(f"y0 must have shape (D,) or (B, D), not {tuple(y0.shape)}.")
    if y0.device.type != "cpu":
        raise ArgumentError(f"y0 is on {y0.device}; this version solves on the CPU.")
    if not np.isfinite(numbers(y0)).all():
        raise ArgumentError("y0 has values that are not finite.")


def _check_times(t: Any) -> Tensor:
    if isinstance(t, Tensor) and t.requires_grad:
        raise UnsupportedError("jumpint has no gradient with respect to t; give t.detach().")
    times = as_numbers("t", t).to(torch.float64)
    if times.dim() != 1 or len(times) < 2 or not bool(torch.isfinite(times).all()):
        raise ArgumentError("t must be two or more finite times, of one dimension.")
    if not bool((times.diff() > 0).all()):
        raise ArgumentError("t must be strictly increasing.")
    return times


def _check_change(change: Any, y0: Tensor) -> int:
    if not isinstance(change, Tensor) or change.is_complex():
        raise TypeError("change must be a real tensor of shape (M, D).")
    if change.dim() != 2 or len(change) == 0 or change.shape[1] != y0.shape[-1]:
        raise ArgumentError(
            f"change must have shape (M, {y0.shape[-1]}), a row for each kind of jump, not "
            f"{tuple(change.shape)}."
        )
    if change.device.type != "cpu" or not bool(torch.isfinite(change).all()):
        raise ArgumentError("change must be on the CPU and finite.")
    return len(change)


def _check_shape(name: str, function: Any, t: Tensor, y0: Tensor, last: int) -> None:
    row = y0.detach()[: 1 if y0.dim() == 2 else None].clone()
    with torch.no_grad():
        value = function(t.to(y0.dtype), row)
    if not isinstance(value, Tensor) or value.dtype != y0.dtype:
        given = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise DerivativeError(f"{name} must give a tensor of {y0.dtype}, like y0, not {given}.")
    wanted = (*row.shape[:-1], last)
    if tuple(value.shape) != wanted:
        raise DerivativeError(
            f"{name} gives shape {tuple(value.shape)} for a state of {tuple(row.shape)}; it must "
            f"be {wanted}. Numbers of the state are y[..., 0], y[..., 1] and so on."
        )


def _check_ode_method(name: str) -> Method:
    method = find_method(name)
    if method.implicit or method.problem or not (method.adaptive and method.julia):
        raise UnsupportedError(
            f"Between jumps {method.name} cannot solve; explicit methods that choose their steps "
            "can, such as Tsit5, Vern7 or BS3."
        )
    return method
