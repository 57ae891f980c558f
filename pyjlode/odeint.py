"""``odeint``: solve, differentiably."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .check import State, make_problem
from .engine import choose_engine
from .problem import Problem, Statistics
from .sensealg import SensitivityAlgorithm


def odeint(
    func: Callable[..., Any],
    y0: State,
    t: Tensor | Sequence[float],
    *,
    rtol: Any = None,
    atol: Any = None,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    sensealg: SensitivityAlgorithm | str | None = None,
    engine: str | None = None,
    stats: Statistics | None = None,
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
        Initial state, float32, float64 or complex of these, of any shape. The error of a step is
        measured over the whole state, a batch included; of a tuple, the worst tensor counts.
    t : torch.Tensor or sequence of float
        Times, of shape ``(T,)``, strictly increasing or decreasing.
    rtol, atol : float, torch.Tensor or tuple, optional
        Relative and absolute tolerance; 1e-7 and 1e-9 for float64, 1e-5 and 1e-7 for float32. A
        tensor is broadcast to the state; a tuple has one entry for each tensor of a tuple ``y0``.
    method : str, optional
        SciML's name (``"Tsit5"``, ``"Rodas5P"``) or torchdiffeq's (``"dopri5"``); see
        :func:`pyjlode.methods`. Default: Tsit5 in Julia, dopri5 in torch.
    options : mapping, optional
        Of fixed steps: ``step_size`` or ``grid_constructor``. Of adaptive ones: ``first_step``,
        ``min_step``, ``max_step``, ``safety``, ``ifactor``, ``dfactor``, ``step_t``, ``jump_t``,
        ``norm``. Of both: ``max_num_steps``. docs/torchdiffeq.md explains them.
    sensealg : SensitivityAlgorithm or str, optional
        How gradients are computed, such as :class:`pyjlode.GaussAdjoint` or ``"gauss"``.
    engine : {"auto", "julia", "torch"}, optional
        Default: what :func:`pyjlode.use_engine` set.
    stats : Statistics, optional
        Filled with the solve's counts.

    Returns
    -------
    torch.Tensor or tuple of torch.Tensor
        States of shape ``(T, *y0.shape)``; the first is ``y0``.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.
    SolverError
        If the solve, or in the backward pass the solve of the adjoint, does not succeed.
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
    return solve_problem(problem, unflatten, engine, stats)


def solve_problem(
    problem: Problem,
    unflatten: Callable[[Tensor], Any],
    engine: str | None,
    stats: Statistics | None,
) -> Any:
    """Have a problem solved, and give the caller's states."""
    if problem.t.numel() == 1 or problem.y0.numel() == 0:
        return unflatten(torch.stack([problem.y0] * problem.t.numel()))
    solver = choose_engine(engine)
    return unflatten(solver.solve(problem, stats if stats is not None else Statistics()))
