"""What methods for Hamiltonian and second-order problems ask of the state and of ``func``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .catalogue import HAMILTONIAN, SECOND_ORDER
from .errors import ArgumentError, UnsupportedError
from .independent import nothing_changed
from .methods import Method
from .problem import Problem
from .sensealg import DiscreteAdjoint
from .states import Layout
from .trace.modes import without_compilation

# OrdinaryDiffEqSymplecticRK 2.1.1 evaluates the others' forces at the times of the momenta: with a
# force that depends on time KahanLi8's error falls with the first power of the step.
_WITH_TIME = ("SymplecticEuler", "VerletLeapfrog", "LeapfrogDriftKickDrift")

# With these the acceleration may depend on the velocity.
_WITH_VELOCITY = ("Nystrom4", "FineRKN4", "FineRKN5")


def check_state(layout: Layout, method: Method) -> None:
    """Refuse a state that is not ``(q, p)``.

    Raises
    ------
    ArgumentError
        If it is not.
    """
    alike = len(set(layout.shapes)) == 1 and len(layout.shapes) == 2 and not any(layout.complex)
    if not (layout.joined and alike):
        raise ArgumentError(
            f"{method.name} is for {method.problem}: y0 must be a tuple (q, p) of two real tensors "
            "of one shape."
        )


def check_forces(problem: Problem) -> None:
    """Refuse a ``func`` that the method would solve wrongly without a word.

    It is looked at in ``y0`` and in a state near it.

    Raises
    ------
    ArgumentError
        If derivatives depend on what they must not.
    """
    method, y0 = problem.method, problem.y0.detach()
    if method is None or not method.problem:
        return
    generator, times = torch.Generator().manual_seed(0), problem.t.detach().to(y0.dtype)
    with nothing_changed(problem), without_compilation():
        before = torch.get_rng_state()
        for size in (0.0, 1e-2):
            change = torch.rand(y0.shape, generator=generator, dtype=y0.dtype) * size
            _look(problem.func, y0 * (1 + change) + change, times[0], method)
        if takes_time(method):
            return
        values = []
        shares = torch.tensor([0.0, 0.17, 0.41, 0.73, 1.0], dtype=y0.dtype)
        for time in torch.lerp(times[0], times[-1], shares):
            torch.set_rng_state(before)
            with torch.no_grad():
                values.append(problem.func(time, y0))
    if any(not torch.equal(value, values[0]) for value in values):
        raise time_dependent(method)


def takes_time(method: Method) -> bool:
    """Whether the forces may depend on time."""
    return method.problem == SECOND_ORDER or method.name in _WITH_TIME


def time_dependent(method: Method) -> ArgumentError:
    """What to say of a method that is of first order where forces depend on time."""
    return ArgumentError(
        f"{method.name} wants a func that does not depend on t; use one of "
        f"{', '.join(_WITH_TIME)}, a Nyström method such as DPRKN6 if q' = p, or Vern9."
    )


def _look(func: Callable[[Tensor, Tensor], Tensor], y: Tensor, t: Tensor, method: Method) -> None:
    half = y.numel() // 2
    y = y.clone().requires_grad_()
    with torch.enable_grad():
        velocity, force = torch.split(func(t, y), half)
    if method.problem == HAMILTONIAN:
        if _depends(velocity, y, slice(0, half)):
            raise ArgumentError(
                f"{method.name} wants a q' that does not depend on q; use a method for plain ODEs, "
                "such as Vern9."
            )
    elif not torch.equal(velocity, y[half:]):
        raise ArgumentError(
            f"{method.name} is for {method.problem}, q'' = a(t, q): func must return the second of "
            "(q, v) as its first. For other Hamiltonians use KahanLi8, say."
        )
    if method.name not in _WITH_VELOCITY and _depends(force, y, slice(half, None)):
        other = "" if method.problem == HAMILTONIAN else f"one of {', '.join(_WITH_VELOCITY)}, or "
        raise ArgumentError(
            f"{method.name} wants a p' that does not depend on p; use {other}a method for plain "
            "ODEs, such as Vern9."
        )


def _depends(result: Tensor, y: Tensor, part: slice) -> bool:
    """Whether a derivative depends on part of the state."""
    if not result.requires_grad:
        return False
    weights = torch.linspace(0.7, 1.3, result.numel(), dtype=result.dtype)
    (gradient,) = torch.autograd.grad(result, y, weights, retain_graph=True, allow_unused=True)
    return gradient is not None and bool((gradient[part] != 0).any())


def refuse(problem: Problem, plain: bool) -> None:
    """What solves of these problems have not.

    Raises
    ------
    UnsupportedError
        Naming what to do instead.
    """
    method = problem.method
    if method is None or method.problem == "":
        return
    name = method.name
    if not plain:
        raise UnsupportedError(
            f"{name} has neither event_fn nor return_solution; ask for the times in t, or use a "
            "method for plain ODEs, such as Vern9."
        )
    if problem.rows is not None:
        raise UnsupportedError(f'{name} has no batch="independent"; leave batch out.')
    asked = problem.adjoint is not None and problem.adjoint.asks
    if asked or not isinstance(problem.sensealg, DiscreteAdjoint | None):
        raise UnsupportedError(f"{name} has the gradients of DiscreteAdjoint only; use odeint.")
    if problem.sensealg is not None and problem.sensealg.checkpoints:
        raise UnsupportedError(f"{name} keeps the state of every step; leave checkpoints out.")
    if problem.watch or problem.norm is not None:
        raise UnsupportedError(f"{name} has no callbacks and no norm; leave them out.")
    if isinstance(problem.rtol, Tensor) or isinstance(problem.atol, Tensor):
        raise UnsupportedError(
            f"{name} takes one number for rtol and for atol, not one for each component; "
            "methods of first-order equations, such as Vern9, take tolerances by component."
        )
    if method.problem == SECOND_ORDER and problem.direction < 0:
        raise UnsupportedError(
            f"{name} solves forward in time only; turn time round in func, with -v for v, or use a "
            "method for plain ODEs, such as Vern9."
        )
