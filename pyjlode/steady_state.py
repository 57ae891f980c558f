"""``steady_state``: where the dynamics rest, differentiably."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .check import State, check_one_tolerance, make_problem
from .eager import eager
from .engine import choose_engine
from .errors import UnsupportedError
from .names import unknown
from .problem import Statistics

METHODS = ("DynamicSS", "TrustRegion", "NewtonRaphson")
"""SciML's names, of SteadyStateDiffEq and NonlinearSolve."""


@eager
def steady_state(
    func: Callable[..., Any],
    y0: State,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    method: str = "DynamicSS",
    engine: str | None = None,
    stats: Statistics | None = None,
) -> Any:
    """Find ``y`` with ``func(t, y) = 0``, from ``y0``.

    Differentiable, by the implicit function theorem, with respect to every tensor that ``func``
    uses and that requires a gradient. The gradient with respect to ``y0`` is zero: nearby, every
    initial state leads to the same steady state.

    Parameters
    ----------
    func : callable
        ``func(t, y) -> dy/dt`` as for :func:`pyjlode.odeint`; ``t`` is 0, and nothing may depend on
        it.
    y0 : torch.Tensor or tuple of torch.Tensor
        Where to start.
    rtol, atol : float, optional
        Of ``method``; by default 1e-7 and 1e-9 for float64, 1e-5 and 1e-7 for float32. What it
        finds is then taken to rounding by Newton's method.
    method : {"DynamicSS", "TrustRegion", "NewtonRaphson"}, optional
        ``"DynamicSS"``, the default, solves the differential equation from ``y0``, by Rodas5P,
        until it rests, which finds stable steady states only. The others solve ``func = 0``.
    engine : {"auto", "julia", "torch"}, optional
        Only Julia has steady states.
    stats : Statistics, optional
        Filled with the counts.

    Returns
    -------
    torch.Tensor or tuple of torch.Tensor
        Like ``y0``.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described, or ``func`` depends on ``t``.
    SolverError
        If no steady state was found, or it is not an isolated one: conserved quantities make the
        derivative of ``func`` by the state singular.
    UnsupportedError
        If the engine is torch.

    References
    ----------
    SciML's pages "Steady State Solvers" and "Nonlinear Solvers"; Blondel et al., Efficient and
    Modular Implicit Differentiation, 2022.

    Examples
    --------
    A logistic population that is harvested, ``y (1 - y) = h``:

    >>> import torch
    >>> from pyjlode import engine_info
    >>> h = torch.tensor(0.21, dtype=torch.float64, requires_grad=True)
    >>> y0 = torch.ones(1, dtype=torch.float64)
    >>> if engine_info().name == "julia":  # the torch engine has no steady states
    ...     y = steady_state(lambda t, y: y * (1 - y) - h, y0)
    ...     y.backward()
    ...     assert abs(y - 0.7) < 1e-9 and abs(h.grad + 2.5) < 1e-9
    """
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None:
            check_one_tolerance(name, value, zero=False)
    problem, unflatten = make_problem(func, y0, [0.0, 1.0], rtol, atol, "Rodas5P")
    stats = stats if stats is not None else Statistics()
    if problem.y0.numel() == 0:
        return unflatten(problem.y0)
    solver = choose_engine(engine, other="nothing")
    if solver.name != "julia":
        raise UnsupportedError(
            "The torch engine has no steady states; get Julia with `pyjlode setup`, or take the "
            "last state of odeint at a late time."
        )
    from .engine.steady import solve_steady

    return unflatten(solve_steady(solver, problem, method, stats))
