"""Projections of the state onto a manifold after every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .errors import ArgumentError, UnsupportedError
from .problem import Problem
from .trace.transforms import refuse_transforms

_MULTISTEP = ("Adams", "BDF")


class ManifoldProjection:
    """Keep the state where a function of it is zero; the ``callback`` of :func:`pyjlode.odeint`.

    After every step the state is replaced by the nearest one on the manifold, and so are the
    states between steps that are saved: what a solution conserves, such as an energy, a norm or
    an orthogonality, is conserved by the numbers too, at whatever tolerance. The order of the
    method stays.

    Parameters
    ----------
    residual : callable
        ``residual(t, y)``, in torch: a tensor that is zero on the manifold, of any shape. ``y`` is
        like ``y0``. Conditions may repeat each other. If ``y0`` is one tensor of a batch ``(B,
        ...)``, the residual is of shape ``(B,)`` or ``(B, ...)``, and row ``i`` of it rests on row
        ``i`` of ``y`` alone, rows are projected apart, which is looked at; otherwise the state is
        projected as a whole. Both are the same nearest state; apart takes less work.
    abstol : float, optional
        The largest residual that counts as zero. Default: ``eps**(4/5)`` (3e-13 for float64), or
        as many units in the last place of the numbers that the residual is computed from.
    maxiters : int, optional
        The most iterations of one projection.

    Raises
    ------
    ArgumentError, TypeError
        If an argument is not as described.

    Notes
    -----
    The nearest state ``y`` to ``u`` is where ``y + Jᵀm = u`` and ``residual(y) = 0`` with ``J`` the
    derivative of the residual and multipliers ``m``; it is found by Newton's method. With gradients
    the discrete adjoint goes through this too, by the implicit function theorem: to ``y0``, and to
    all tensors that ``func`` and ``residual`` use. So a residual may subtract its value at ``y0``.

    References
    ----------
    Hairer, Lubich and Wanner, Geometric Numerical Integration, IV.4. SciML's page "Manifold
    Projection" (DiffEqCallbacks.jl).

    Examples
    --------
    An oscillator whose energy stays, at loose tolerances:

    >>> import torch
    >>> from pyjlode import engine_info, odeint
    >>> def oscillate(t, y):
    ...     return torch.stack([y[1], -y[0]])
    >>> energy = ManifoldProjection(lambda t, y: y.square().sum() - 1)
    >>> y0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> if engine_info().name == "julia":  # the torch engine has no projections
    ...     y = odeint(oscillate, y0, [0.0, 50.0, 100.0], rtol=1e-3, atol=1e-3, callback=energy)
    ...     assert (y.square().sum(1) - 1).abs().max() < 1e-12
    """

    def __init__(
        self,
        residual: Callable[[Tensor, Any], Tensor],
        *,
        abstol: float | None = None,
        maxiters: int = 50,
    ) -> None:
        if not callable(residual):
            raise TypeError(
                f"residual must be callable as residual(t, y), not {type(residual).__name__}."
            )
        if abstol is not None and not 0 < float(abstol) < float("inf"):
            raise ArgumentError(f"abstol must be above zero, not {abstol!r}.")
        if isinstance(maxiters, bool) or not isinstance(maxiters, int) or maxiters < 1:
            raise ArgumentError(f"maxiters must be a whole number above zero, not {maxiters!r}.")
        self.residual = residual
        self.abstol = abstol
        self.maxiters = maxiters


@dataclass(frozen=True)
class Projection:
    """A manifold as the engine gets it.

    Attributes
    ----------
    residual : callable
        ``residual(t, y)`` of a state as the engine has it: a tensor ``(rows, conditions)``.
    owner : object
        The caller's function, by which traces are remembered.
    rows : int
        In how many equal parts the state is projected apart.
    conditions : int
        Of each part.
    abstol : float or None
    maxiters : int
    """

    residual: Callable[[Tensor, Tensor], Tensor]
    owner: object
    rows: int
    conditions: int
    abstol: float | None
    maxiters: int


def with_projection(
    problem: Problem, callback: ManifoldProjection, event_fn: object, return_solution: bool
) -> Problem:
    """The problem with its states projected.

    Raises
    ------
    UnsupportedError
        For what solves with a projection have not, naming what to do instead.
    ArgumentError, TypeError
        If the residual is not as described, or ``y0`` is not on the manifold.
    """
    refuse_transforms("A solve with a ManifoldProjection")
    _refuse(problem, event_fn, return_solution)
    layout, direction = problem.layout, problem.direction
    assert layout is not None

    def residual(t: Tensor, y: Tensor) -> Tensor:
        value = callback.residual(direction * t, layout.split(y.clone()))
        if not isinstance(value, Tensor):
            raise TypeError(f"residual must return a tensor, not {type(value).__name__}.")
        value = torch.view_as_real(value) if value.is_complex() else value
        return value.to(y.dtype)

    t, y0 = problem.t[0].detach().to(problem.y0.dtype), problem.y0.detach()
    value, apart = _look(residual, t, y0)
    rows = len(y0) if apart else 1
    conditions = value.numel() // rows
    if conditions == 0 or conditions > y0.numel() // rows:
        raise ArgumentError(
            f"residual gives {conditions} numbers for {y0.numel() // rows} of the state; it must "
            "give one at least, and not more."
        )
    # Rounding in y0, or of a constant that its value was compared with, is projected away.
    if not bool((value.abs() < 1e-3 * (1 + y0.abs().max())).all()):
        raise ArgumentError(
            f"y0 is not on the manifold: the residual there is {float(value.abs().max()):.3g}. "
            "Subtract its value at y0 in residual, or start from a state where it is zero."
        )
    projection = Projection(
        lambda t, y: residual(t, y).reshape(rows, conditions), callback.residual, rows,
        conditions, callback.abstol, callback.maxiters,
    )  # fmt: skip
    return replace(problem, projection=projection)


def _look(
    residual: Callable[[Tensor, Tensor], Tensor], t: Tensor, y0: Tensor
) -> tuple[Tensor, bool]:
    """The residual at the start, and whether each row of it rests on its own row of the state."""
    with torch.enable_grad():
        leaf = y0.clone().requires_grad_()
        value = residual(t, leaf)
    found = value.detach()
    if y0.dim() < 2 or len(y0) < 2 or found.dim() < 1 or len(found) != len(y0):
        return found, False
    if not value.requires_grad:
        return found, False
    generator = torch.Generator().manual_seed(0)
    for start in (0, 1):
        seed = torch.zeros_like(found)
        seed[start::2] = (torch.rand(seed[start::2].shape, generator=generator) + 0.5).to(seed)
        (slope,) = torch.autograd.grad(value, leaf, seed, allow_unused=True, retain_graph=True)
        if slope is None or bool((slope[1 - start :: 2].nan_to_num() != 0).any()):
            return found, False
    return found, True


def _refuse(problem: Problem, event_fn: object, return_solution: bool) -> None:
    what = {
        "event_fn": event_fn is not None,
        "return_solution": return_solution,
        "mass_matrix": problem.mass is not None,
        "split equation": problem.split is not None,
        "callbacks on steps": bool(problem.watch),
    }
    for name, given in what.items():
        if given:
            raise UnsupportedError(
                f"There is no ManifoldProjection with {name}; leave it out, or project in a "
                "PresetTimeCallback."
            )
    if problem.rows is not None:
        raise UnsupportedError(
            'There is no ManifoldProjection with batch="independent"; with batch="joint" rows are '
            "projected apart too, and take steps together."
        )
    if problem.adjoint is not None:
        raise UnsupportedError(
            "odeint_adjoint has no ManifoldProjection; use odeint, whose discrete adjoint goes "
            "through it."
        )
