"""``daeint``: fully implicit differential-algebraic equations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .check import State, check_tolerances, make_problem
from .eager import eager
from .engine import choose_engine
from .errors import ArgumentError, UnsupportedError
from .implicit import ImplicitForm, ImplicitMass
from .mass_matrix import DEFAULT, METHODS, corrects
from .methods import find_method
from .odeint import solve_problem
from .problem import Problem, Statistics
from .sensealg import SensitivityAlgorithm
from .states import Layout, are_finite, as_state, numbers


@eager
def daeint(
    func: Callable[..., Any],
    y0: State,
    dy0: State | None,
    t: Tensor | Sequence[float],
    *,
    differential_vars: Any = None,
    rtol: Any = None,
    atol: Any = None,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    sensealg: SensitivityAlgorithm | str | None = None,
    engine: str | None = None,
    stats: Statistics | None = None,
    event_fn: Callable[..., Tensor] | None = None,
    return_solution: bool = False,
    initializealg: str | None = None,
) -> Any:
    """Solve ``0 = func(t, y, dy)`` with ``dy = dy/dt``, and give the states at the times ``t``.

    Differentiable with respect to the differential variables of ``y0``, the times, and every tensor
    that ``func`` uses and that requires a gradient.

    Parameters
    ----------
    func : callable
        ``func(t, y, dy)``, the residual, with ``t`` a scalar tensor and ``y``, ``dy`` and what it
        gives like ``y0``; a function or a ``torch.nn.Module``.
    y0 : torch.Tensor or tuple of torch.Tensor
        Initial state, float32 or float64. Its algebraic variables are a first guess.
    dy0 : torch.Tensor or tuple of torch.Tensor, optional
        First guess of ``dy`` at ``t[0]``, like ``y0``; None is zero. Where several derivatives
        solve the equations, it says which one is meant. Of algebraic variables it does not count.
    t : torch.Tensor or sequence of float
        Times, of shape ``(T,)``, two or more, strictly increasing or decreasing.
    differential_vars : torch.Tensor, sequence of bool or tuple, optional
        Which variables have derivatives in the equations: of the shape of ``y0``, or of its last
        dimension; of a tuple ``y0``, a tuple with one entry for each of its tensors. The others are
        algebraic. By default all have: an implicit ordinary differential equation.
    rtol, atol : float, torch.Tensor or tuple, optional
        Of ``y``, as for :func:`pyjlode.odeint`. Of a batch the row with the largest error counts,
        of a tuple the tensor.
    method : str, optional
        One of :data:`pyjlode.mass_matrix.METHODS`, by default Rodas5P.
    options : mapping, optional
        As for :func:`pyjlode.odeint`.
    sensealg : SensitivityAlgorithm or str, optional
        Only :class:`pyjlode.DiscreteAdjoint`.
    engine : {"auto", "julia"}, optional
        The torch engine does not solve these equations.
    stats : Statistics, optional
        Filled with the solve's counts.
    event_fn : callable, optional
        ``event_fn(t, y)``, a tensor: the solve ends where one of its elements crosses zero, and
        of ``t`` only the start and the direction count.
    return_solution : bool, optional
        Give a :class:`pyjlode.Solution`, which interpolates and has ``derivative(t)``, instead of
        the states.
    initializealg : {"BrownFullBasicInit", "CheckInit"}, optional
        What becomes of a ``y0`` and a ``dy0`` that do not satisfy the equations. By default
        derivatives and algebraic variables are changed so that they do, from the values given;
        gradients know of it. With ``"CheckInit"`` it is an error.

    Returns
    -------
    torch.Tensor or tuple of torch.Tensor
        States of shape ``(T, *y0.shape)``; the first is ``y0`` made consistent. With ``event_fn``,
        a tuple of the event's time and the states at the start and then, of shape
        ``(2, *y0.shape)``, all with gradients, as :func:`pyjlode.odeint_event` has them.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described, or ``func`` depends on the derivative of a variable that
        is algebraic.
    SolverError
        If the solve, or its gradient, does not succeed; with ``retcode="InitialFailure"`` if there
        are no consistent values near those given, or the equations do not determine them: their
        index is above one.
    UnsupportedError
        On the torch engine; for another method or sensitivity algorithm.
    JuliaNotFoundError
        If ``engine="julia"`` and there is no Julia.

    Notes
    -----
    The derivatives of the differential variables become unknowns, ``z``: the equation is solved as
    ``y' = z``, ``0 = func(t, y, z)`` by the methods for mass matrices, with their gradients. It is
    of index one where the derivative of ``func`` by ``z`` and the algebraic variables is regular,
    which is what SciML's ``DFBDF`` and IDA ask as well. Steps are chosen by the error of ``y``
    alone. Where the derivatives stand linearly with constant coefficients, ``odeint`` with a
    ``mass_matrix`` solves the same equation with fewer unknowns.

    The gradients with respect to ``dy0`` and the algebraic variables of ``y0`` are zero, as they
    are guesses. A state with a mask that differs from row to row, or a tuple, is solved as one
    vector; for large batches give a tensor and a mask of its last dimension.

    References
    ----------
    SciML's ``DAEProblem``, with its ``differential_vars``, and its page "DAE Solvers". Brown,
    Hindmarsh and Petzold, Consistent initial condition calculation for differential-algebraic
    systems, 1998. Hairer and Wanner, Solving Ordinary Differential Equations II, chapter VI.

    Examples
    --------
    ``(dy)^2 = k y``, of which ``dy0`` chooses the branch that grows, ``(1 + sqrt(k) t / 2)^2``:

    >>> import torch
    >>> from pyjlode import engine_info
    >>> k = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> if engine_info().name == "julia":  # the torch engine does not solve these
    ...     y = daeint(lambda t, y, dy: dy**2 - k * y, one, one, [0.0, 1.0])
    ...     y[-1].sum().backward()
    ...     assert abs(y[-1] - 4) < 1e-6 and abs(k.grad - 0.5) < 1e-6

    Two species that sum to one, whose second is algebraic; both guesses are wrong:

    >>> def react(t, y, dy):
    ...     return torch.stack([dy[0] + k * y[0] * y[1], y[0] + y[1] - 1])
    >>> start = torch.tensor([0.8, 0.0], dtype=torch.float64)
    >>> if engine_info().name == "julia":
    ...     y = daeint(react, start, None, [0.0, 1.0], differential_vars=[True, False])
    ...     assert torch.allclose(y.sum(1), torch.ones(2).double())
    """
    problem, form = _check(
        func, y0, dy0, t, differential_vars, rtol, atol, method, options, sensealg, initializealg
    )
    if problem.y0.numel() and choose_engine(engine, other="nothing here").name != "julia":
        raise UnsupportedError(
            "The torch engine does not solve implicit equations; get Julia with `pyjlode setup`, "
            "or solve func for dy and use odeint."
        )
    if event_fn is None:
        return solve_problem(problem, form.states, engine, stats, return_solution=return_solution)
    if not callable(event_fn):
        raise TypeError(
            f"event_fn must be callable as event_fn(t, y), not {type(event_fn).__name__}."
        )

    def event(t: Tensor, u: Tensor) -> Tensor:
        return event_fn(t, form.states(u))

    event_t, states = solve_problem(problem, lambda u: u, engine, stats, event)
    return event_t, form.states(states)


def _check(
    func: Any, y0: Any, dy0: Any, t: Any, differential_vars: Any, rtol: Any, atol: Any,
    method: str | None, options: Mapping[str, Any] | None,
    sensealg: SensitivityAlgorithm | str | None, initializealg: str | None,
) -> tuple[Problem, ImplicitForm]:  # fmt: skip
    """The problem with a mass matrix, and how the caller's state lies in its."""
    if not callable(func):
        raise TypeError(f"func must be callable as func(t, y, dy), not {type(func).__name__}.")
    y0, dy0 = as_state(y0, func), None if dy0 is None else as_state(dy0, func)
    layout = Layout.of(y0)
    if any(layout.complex):
        raise UnsupportedError(
            "daeint needs a real state; solve for the real and imaginary parts as a tuple."
        )
    slopes = _check_derivative(dy0, y0)
    form = ImplicitForm.of(layout, _check_mask(differential_vars, y0, layout))
    _check_method(method)
    correct = corrects(initializealg)
    y, dy = layout.join(y0).reshape(form.shape), layout.join(slopes).reshape(form.shape)
    relative, absolute = check_tolerances(rtol, atol, layout, y.dtype)
    given = dict(options or {})
    norm = given.get("norm")
    if callable(norm):
        given["norm"] = lambda u: norm(form.states(u))
    problem, _ = make_problem(
        form.system(func), form.initial(y, dy), t, form.tolerance(relative),
        form.tolerance(absolute), method or DEFAULT, given, sensealg,
    )  # fmt: skip
    if problem.t.numel() == 1:
        raise ArgumentError("daeint needs two times or more in t.")
    times = problem.direction * problem.t
    mass = ImplicitMass(form.matrix, correct, form, func, (times, y, dy))
    return replace(problem, mass=mass), form


def _check_derivative(dy0: Any, y0: Any) -> Any:
    """``dy0`` like ``y0``."""
    if dy0 is None:
        return tuple(map(torch.zeros_like, y0)) if _is_tuple(y0) else torch.zeros_like(y0)
    pairs = [(dy0, y0)]
    if _is_tuple(y0):
        if not _is_tuple(dy0) or len(dy0) != len(y0):
            raise ArgumentError(f"dy0 must be a tuple of {len(y0)} tensors, like y0, or None.")
        pairs = list(zip(dy0, y0, strict=True))
    for slope, y in pairs:
        if not isinstance(slope, Tensor):
            raise TypeError(f"dy0 must be like y0, or None, not {type(slope).__name__}.")
        if slope.shape != y.shape or slope.dtype != y.dtype or slope.device != y.device:
            raise ArgumentError(
                f"dy0 has shape {tuple(slope.shape)} and {slope.dtype}, and y0 "
                f"{tuple(y.shape)} and {y.dtype}; they must be alike."
            )
        if not are_finite(numbers(slope)):
            raise ArgumentError("dy0 has values that are not finite.")
    return dy0


def _check_mask(differential_vars: Any, y0: Any, layout: Layout) -> Tensor:
    """A flat mask of the whole state."""
    parts = list(y0) if _is_tuple(y0) else [y0]
    masks = [True] * len(parts) if differential_vars is None else [differential_vars]
    if layout.joined and differential_vars is not None:
        masks = list(differential_vars) if _is_tuple(differential_vars) else []
        if len(masks) != len(parts):
            raise ArgumentError(
                f"differential_vars must be a tuple with {len(parts)} entries, one for each "
                "tensor of y0."
            )
    flat = []
    for mask, y in zip(masks, parts, strict=True):
        try:
            one = torch.as_tensor(mask)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"differential_vars must be of True and False, not {mask!r}."
            ) from error
        if one.dtype is not torch.bool:
            raise ArgumentError(f"differential_vars must be of True and False, not {one.dtype}.")
        if one.dim() and one.shape not in (y.shape, y.shape[-1:]):
            raise ArgumentError(
                f"differential_vars of shape {tuple(one.shape)} does not fit a state of "
                f"{tuple(y.shape)}; give one for each variable, or for each of the last dimension."
            )
        flat.append(one.cpu().expand(y.shape).reshape(-1))
    whole = torch.cat(flat)
    if whole.numel() and not bool(whole.any()):
        raise ArgumentError(
            "differential_vars says that no variable has a derivative; solve algebraic equations "
            "with steady_state(..., method='NewtonRaphson')."
        )
    return whole


def _check_method(method: str | None) -> None:
    name = method or DEFAULT
    with suppress(UnsupportedError):  # it may be one of SciML's for such equations, not here
        name = find_method(name).name
    if name not in METHODS:
        raise UnsupportedError(
            f"{name} is not there for implicit equations; use one of {', '.join(METHODS)}."
        )


def _is_tuple(state: Any) -> bool:
    return isinstance(state, (tuple, list))
