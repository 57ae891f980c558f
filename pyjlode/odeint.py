"""``odeint``: solve, differentiably."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import partitioned, preset_time, split
from .check import State, make_problem
from .eager import eager
from .engine import choose_engine
from .errors import SolverError, UnsupportedError
from .event_time import is_linked
from .events import link_event, solve_until_event
from .manifold import ManifoldProjection, with_projection
from .preset_time import PresetTimeCallback, WithStops, change_start
from .problem import Problem, Statistics
from .sensealg import SensitivityAlgorithm
from .solution import add_solution, solve_dense
from .states import as_numbers


@eager
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
    event_fn: Callable[..., Tensor] | None = None,
    return_solution: bool = False,
    batch: str | None = None,
    mass_matrix: Any = None,
    initializealg: str | None = None,
    callback: PresetTimeCallback | ManifoldProjection | None = None,
) -> Any:
    """Solve ``dy/dt = func(t, y)``, ``y(t[0]) = y0``, and give the states at the times ``t``.

    Differentiable with respect to ``y0``, ``t`` and every tensor that ``func`` uses and that
    requires a gradient: parameters of a module, and tensors that it closes over.

    Parameters
    ----------
    func : callable or pair of callable
        ``func(t, y) -> dy/dt`` with ``t`` a scalar tensor and ``y`` like ``y0``; a function or a
        ``torch.nn.Module``. A pair is a split equation, of which the derivative is the sum: the
        first, stiff part is solved implicitly and the second explicitly, by one of
        :data:`pyjlode.split.METHODS` (IMEX methods, by default KenCarp4), in Julia.
    y0 : torch.Tensor or tuple of torch.Tensor
        Initial state, float32, float64 or complex of these, of any shape. Also a number, a list of
        numbers or an array: a tensor of the dtype of ``func``'s parameters, or float64. The error
        of a step is measured over the whole state, a batch included (but see ``batch``); of a
        tuple, the worst tensor counts.
    t : torch.Tensor or sequence of float
        Times, of shape ``(T,)``, strictly increasing or decreasing.
    rtol, atol : float, torch.Tensor or tuple, optional
        Relative and absolute tolerance; 1e-7 and 1e-9 for float64, 1e-5 and 1e-7 for float32. A
        tensor is broadcast to the state; a tuple has one entry for each tensor of a tuple ``y0``.
    method : str, optional
        SciML's name (``"Tsit5"``, ``"Rodas5P"``) or torchdiffeq's (``"dopri5"``); see
        :func:`pyjlode.methods`. Default: Tsit5 in Julia, dopri5 in torch. Those whose ``problem``
        is "a Hamiltonian problem" (symplectic: ``"KahanLi8"``) are for ``y0 = (q, p)`` with
        ``q'`` a function of ``p`` and ``p'`` one of ``q``; those with "a second-order problem"
        (Nyström's: ``"DPRKN6"``) for ``q' = p`` and ``p' = a(t, q)``.
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
    event_fn : callable, optional
        ``event_fn(t, y)``, a tensor: the solve ends where one of its elements crosses zero, and
        of ``t`` only the start and the direction count. The event's time has a gradient, and the
        state there that of the state at that moving time. See :func:`pyjlode.odeint_event`.
    return_solution : bool, optional
        Give a :class:`pyjlode.Solution`, which interpolates, instead of the states.
    batch : {"joint", "independent"}, optional
        Whose error a step is chosen by. ``"joint"``, the default: one step size for the whole
        state, a batch included, as in torchdiffeq. ``"independent"``: the leading dimension of
        ``y0``, or of each of its tensors, counts trajectories, and each takes its own steps, as
        with diffrax under ``vmap``: in threads on the Julia engine, one after the other on the
        torch engine. ``func`` is then called with single rows, of shape ``(1, *rest)``.
    mass_matrix : torch.Tensor or array, optional
        A constant ``M``, dense or sparse (torch's or SciPy's): solve ``M dy/dt = func(t, y)``. Of
        shape ``(n, n)``, where ``n`` is the size of ``y0`` with its tensors flattened one after
        the other, or of its last dimension:
        then ``M`` serves each row. It may be singular: the equations that it makes algebraic are
        solved with the others (a differential-algebraic equation of index one). Julia engine;
        ``method`` is one of :data:`pyjlode.mass_matrix.METHODS`, by default Rodas5P. Gradients
        are those of :class:`pyjlode.DiscreteAdjoint`, with Rodas4 and Rodas5P of their own steps,
        with the others of Rodas5P's at the same tolerances.
    initializealg : {"BrownFullBasicInit", "CheckInit"}, optional
        With a singular ``mass_matrix``, what becomes of a ``y0`` that does not satisfy the
        algebraic equations. By default its algebraic variables are changed so that it does, from
        the values given; gradients know of it. With ``"CheckInit"`` it is an error.
    callback : PresetTimeCallback or ManifoldProjection, optional
        Changes the state at given times, or keeps it on a manifold: see
        :class:`pyjlode.PresetTimeCallback` and :class:`pyjlode.ManifoldProjection`. Not with
        ``event_fn`` or ``mass_matrix``.

    Returns
    -------
    torch.Tensor or tuple of torch.Tensor
        States of shape ``(T, *y0.shape)``; the first is ``y0``, with a singular ``mass_matrix``
        made consistent. With ``event_fn``, a tuple of the
        event's time and the states at the start and then, of shape ``(2, *y0.shape)``.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described; with ``batch="independent"`` also if ``func`` mixes
        rows or draws random numbers (see :mod:`pyjlode.independent`).
    SolverError
        If the solve, or in the backward pass the solve of the adjoint, does not succeed, or
        there is no consistent initial state near ``y0`` (``retcode="InitialFailure"``). Its
        ``solution`` has the save points that were reached; with ``batch="independent"`` its
        ``row`` says which row it was.
    UnsupportedError
        If the engine has not the method or sensitivity algorithm.
    JuliaNotFoundError
        If ``engine="julia"`` and there is no Julia.

    References
    ----------
    Chen et al., Neural Ordinary Differential Equations, 2018. Hairer and Wanner, Solving Ordinary
    Differential Equations II, chapter VI (differential-algebraic equations). Hairer, Lubich and
    Wanner, Geometric Numerical Integration (symplectic methods). Kennedy and Carpenter, Additive
    Runge-Kutta schemes, 2003 (split equations). SciML's pages "DAE Solvers", "Dynamical,
    Hamiltonian, and 2nd Order ODE Solvers" and "Split ODE Solvers".

    Examples
    --------
    >>> import torch
    >>> k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    >>> y0 = torch.ones(1, dtype=torch.float64)
    >>> y = odeint(lambda t, y: -k * y, y0, [0.0, 1.0])
    >>> y[-1].backward()
    >>> bool(abs(k.grad + torch.exp(-k.detach())) < 1e-5)
    True

    With a mass matrix, two species of which there is one unit in all, ``0 = y1 + y2 - 1``:

    >>> from pyjlode import engine_info
    >>> def react(t, y):
    ...     return torch.stack([-k * y[0], y[0] + y[1] - 1])
    >>> M = torch.diag(torch.tensor([1.0, 0.0]))
    >>> y0 = torch.tensor([0.8, 0.0], dtype=torch.float64)  # the second is found: 0.2
    >>> if engine_info().name == "julia":  # the torch engine has no mass matrices
    ...     y = odeint(react, y0, [0.0, 1.0], mass_matrix=M)
    ...     assert abs(y[1, 1] - (1 - 0.8 * torch.exp(-k))) < 1e-6

    A pendulum by a symplectic method, whose energy does not drift:

    >>> def pendulum(t, y):
    ...     q, p = y
    ...     return p, -torch.sin(q)
    >>> start = (torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    >>> if engine_info().name == "julia":
    ...     q, p = odeint(
    ...         pendulum, start, [0.0, 1000.0], method="KahanLi8", options={"step_size": 0.2}
    ...     )
    ...     assert abs(p[1] ** 2 / 2 - torch.cos(q[1]) + torch.cos(q[0])) < 1e-6

    A split equation, whose first part is stiff:

    >>> def relax(t, y):
    ...     return -1e4 * (y - torch.cos(t))
    >>> def turn(t, y):
    ...     return -torch.sin(t) * torch.ones_like(y)
    >>> if engine_info().name == "julia":
    ...     y = odeint((relax, turn), torch.ones(1, dtype=torch.float64), [0.0, 1.0])
    ...     assert abs(y[1] - torch.cos(torch.tensor(1.0))) < 1e-3
    """
    problem, unflatten = make_problem(
        func, y0, t, rtol, atol, method, options, sensealg, batch,
        mass_matrix=mass_matrix, initializealg=initializealg,
    )  # fmt: skip
    return solve_problem(problem, unflatten, engine, stats, event_fn, return_solution, callback)


def solve_problem(
    problem: Problem,
    unflatten: Callable[[Tensor], Any],
    engine: str | None,
    stats: Statistics | None,
    event_fn: Callable[..., Tensor] | None = None,
    return_solution: bool = False,
    callback: PresetTimeCallback | ManifoldProjection | None = None,
) -> Any:
    """Have a problem solved, and give the caller what was asked for."""
    if stats is None:
        stats = Statistics()
    elif not isinstance(stats, Statistics):
        raise TypeError(f"stats must be a Statistics(), which is filled, not {stats!r}.")
    plain = event_fn is None and not return_solution
    if isinstance(callback, ManifoldProjection):
        problem = with_projection(problem, callback, event_fn, return_solution)
    elif callback is not None:
        preset_time.refuse(problem, callback, event_fn)
        problem = change_start(problem, callback)
    if plain and (problem.t.numel() == 1 or problem.y0.numel() == 0):
        return unflatten(torch.stack([problem.y0] * problem.t.numel()))
    if problem.rows is not None and not plain:
        raise UnsupportedError(
            'batch="independent" has neither event_fn nor return_solution; solve the rows one by '
            "one, or ask for the times in t."
        )
    partitioned.refuse(problem, plain)
    split.refuse(problem, plain)
    solver = choose_engine(engine)
    if problem.projection is not None:
        if solver.name != "julia":
            raise UnsupportedError(
                "The torch engine has no ManifoldProjection; get Julia with `pyjlode setup`, or "
                "project in a PresetTimeCallback."
            )
    elif isinstance(callback, PresetTimeCallback):
        solver = WithStops(solver, callback)
    try:
        if event_fn is not None:
            return solve_until_event(problem, unflatten, event_fn, solver, stats)
        if return_solution:
            return solve_dense(problem, unflatten, solver, stats)
        return unflatten(solver.solve(problem, stats))
    except SolverError as error:
        add_solution(error, problem, unflatten, solver)
        raise


@eager
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
        ``event_fn(t, y)``, a tensor. The event is where one of its elements first crosses zero:
        where its sign is no longer the one after the start. A zero at the start is left, so that
        the next solve may start from the state as found. Of a Boolean either change is an event.
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
    ``event_fn`` use (torchdiffeq leaves the last out), and second derivatives where the solve has
    them. Where ``event_fn`` jumps, or touches zero without a slope, they have none, and asking for
    one is an :class:`pyjlode.UnsupportedError`.

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
    start = as_numbers("t0", t0)
    start = start.reshape(-1)
    t = torch.cat([start, start.detach() + (-1 if reverse_time else 1)])
    event_t, solution = odeint_interface(func, y0, t, event_fn=event_fn, **kwargs)
    # Another package's function leaves the time's gradient to its own odeint_event.
    linked = odeint_interface is odeint or is_linked(event_t)
    if linked or not torch.is_grad_enabled():
        return event_t, solution
    return link_event(func, event_fn, event_t, solution, start, kwargs)
