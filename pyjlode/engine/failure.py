"""Why a forward solve stopped, and what to do: a diagnosis from what the engine saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.random import fork_rng

from ..errors import SolverError
from ..problem import Problem

# A state that grew by more than this is taken to blow up.
_GROWTH = 1e4


class JacobianError(SolverError):
    """An implicit step failed where ``func`` is finite and its Jacobian is not."""


@dataclass(frozen=True)
class Evidence:
    """What is known of a failed forward solve.

    Attributes
    ----------
    method : str
    explicit : bool
    retcode : str
    reached : float
        The problem's time.
    counts : mapping of str to float
        ``nf`` and, where the engine tells, ``naccept`` and ``nreject``.
    states : torch.Tensor
        At the save points that were reached, of shape ``(k, *y0.shape)``.
    last : torch.Tensor or None
        The last state of the solve.
    nonfinite : tuple of float and torch.Tensor, or None
        Where ``func`` first gave a value that is not finite.
    """

    method: str
    explicit: bool
    retcode: str
    reached: float
    counts: Mapping[str, float]
    states: Tensor
    last: Tensor | None = None
    nonfinite: tuple[float, Tensor] | None = None


def forward_failure(problem: Problem, evidence: Evidence) -> SolverError:
    """The error of a forward solve, which keeps what was computed."""
    reached = problem.direction * evidence.reached
    found = evidence.nonfinite
    if found is not None:
        found = (problem.direction * found[0], found[1])
    jacobian = None if _blow_up(problem, evidence) else _jacobian(problem, evidence)
    kind = SolverError if jacobian is None else JacobianError
    return kind(
        f"The solve with {evidence.method} stopped at t = {reached:.6g} ({evidence.retcode}): "
        f"{jacobian or _diagnosis(problem, evidence)}",
        retcode=evidence.retcode,
        t=reached,
        stats={k: int(v) for k, v in evidence.counts.items()},
        states=evidence.states,
        nonfinite=found,
    )


def no_event(problem: Problem, method: str, retcode: str, reached: float) -> SolverError:
    """The error of a solve until an event, which stopped before there was one."""
    time = problem.direction * reached
    return SolverError(
        f"The solve with {method} stopped at t = {time:.6g} ({retcode}) before there was an event. "
        "Check that an element of event_fn changes its sign along the solution (one that is zero "
        "at the start has the sign that follows), or allow more steps with "
        "options={'max_num_steps': ...}.",
        retcode=retcode,
        t=time,
        states=problem.y0.detach()[None],
    )


def _diagnosis(problem: Problem, evidence: Evidence) -> str:
    """The cause, then the cure."""
    for look in (_blow_up, _nonfinite, _rounding, _stiffness, _steps):
        text = look(problem, evidence)
        if text is not None:
            return text
    return "the step became too small. Try another method or other tolerances."


def _blow_up(problem: Problem, evidence: Evidence) -> str | None:
    state = evidence.last
    if evidence.nonfinite is not None:
        state = evidence.nonfinite[1]
    before, after = _size(problem.y0), _size(state)
    if not after > _GROWTH * max(before, 1.0):
        return None
    return (
        f"the state blew up, from {before:.3g} to {after:.3g} in its largest element. "
        "Solve to an earlier time, or check func's sign and scale: a solution that becomes "
        "infinite in finite time ends there."
    )


def _nonfinite(problem: Problem, evidence: Evidence) -> str | None:
    if evidence.nonfinite is None:
        return None
    time, state = evidence.nonfinite
    return (
        f"func gives a value that is not finite, first at t = {problem.direction * time:.6g}, "
        f"y = {_short(state)}. Check func there: a division by zero, a root or logarithm of a "
        "negative number, an overflow. The error's `nonfinite` has this time and state."
    )


def _jacobian(problem: Problem, evidence: Evidence) -> str | None:
    state = evidence.states[-1] if evidence.last is None else evidence.last
    if evidence.explicit or evidence.nonfinite is not None:
        return None
    if _has_jacobian(problem.func, evidence.reached, state):
        return None
    return (
        "the Jacobian of func has values that are not finite at "
        f"t = {problem.direction * evidence.reached:.6g}, y = {_short(state)}, where func is "
        "finite: its derivative divides by zero or is that of a root of zero, often in the branch "
        "that torch.where leaves out. Give that branch other numbers, as in torch.where(r > 0, "
        "d / torch.where(r > 0, r, 1)**3, 0), or use a method without a Jacobian, such as Vern7."
    )


def _has_jacobian(func: Callable[[Tensor, Tensor], Tensor], t: float, y: Tensor) -> bool:
    """Whether it is finite, as far as a product of it with ones says."""
    y = y.detach().requires_grad_()
    try:
        with torch.enable_grad(), fork_rng(devices=[]):
            value = func(torch.tensor(t, dtype=y.dtype), y)
            (product,) = torch.autograd.grad(value.sum(), y, allow_unused=True)
    except Exception:
        return True  # no more than a hint is lost: the solve's own error is about to be raised
    return product is None or bool(torch.isfinite(product).all())


def _rounding(problem: Problem, evidence: Evidence) -> str | None:
    precision = torch.finfo(problem.y0.dtype).eps
    size = _size(evidence.last if evidence.last is not None else problem.y0)
    rtol, atol = (float(torch.as_tensor(x).min()) for x in (problem.rtol, problem.atol))
    if problem.fixed_step or rtol * size + atol > 10 * precision * size:
        return None
    name = str(problem.y0.dtype).removeprefix("torch.")
    more = ", or solve in float64" if name == "float32" else ""
    return (
        f"rtol={rtol:g} and atol={atol:g} ask for more digits than {name} has "
        f"(its rounding is {precision:.1g}). Take an rtol of {100 * precision:.0e} or more{more}."
    )


def _stiffness(problem: Problem, evidence: Evidence) -> str | None:
    if not evidence.explicit or problem.fixed_step:
        return None
    accepted = evidence.counts.get("naccept") or evidence.counts.get("nf", 0) / 6
    rejected = evidence.counts.get("nreject", 0)
    step = (evidence.reached - float(problem.t[0])) / max(accepted, 1)
    state = evidence.last if evidence.last is not None else evidence.states[-1]
    rate = _fastest_rate(problem.func, evidence.reached, state)
    if not rate * step > 1 and not rejected > accepted:
        return None
    return (
        f"it looks stiff: {accepted:.0f} steps of mean length {step:.2g} and {rejected:.0f} "
        f"rejected, kept short by rates of {rate:.2g}, not by the tolerances. Try a stiff method "
        "such as Rodas5P or FBDF (Julia engine)."
    )


def _steps(problem: Problem, evidence: Evidence) -> str | None:
    if evidence.retcode != "MaxIters":
        return None
    return (
        "it took too many steps. Allow more with options={'max_num_steps': ...}, loosen rtol and "
        "atol, or solve over a shorter time."
    )


def _fastest_rate(func: Callable[[Tensor, Tensor], Tensor], t: float, y: Tensor) -> float:
    """The Jacobian's largest eigenvalue in modulus, roughly: power iterations of differences."""
    y = y.detach()
    time = torch.tensor(t, dtype=y.dtype)
    size = torch.finfo(y.dtype).eps ** 0.5 * max(_size(y), 1e-3)
    rate = 0.0
    try:
        with torch.no_grad(), fork_rng(devices=[]):
            here = func(time, y)
            direction = here + 1e-3 * _size(here) * torch.cos(torch.arange(y.numel())).view_as(y)
            for _ in range(8):
                norm = float(direction.norm())
                if not 0 < norm < float("inf"):
                    break
                direction = (func(time, y + size / norm * direction) - here) / size
                rate = float(direction.norm())
    except Exception:
        return 0.0  # no more than a hint is lost: the solve's own error is about to be raised
    return rate if rate < float("inf") else 0.0


def _size(x: Tensor | None) -> float:
    if x is None or x.numel() == 0:
        return 0.0
    return float(x.detach().abs().max().nan_to_num(float("inf"), float("inf")))


def _short(y: Tensor) -> str:
    values = [f"{v:.6g}" for v in y.reshape(-1)[:4].tolist()]
    return f"[{', '.join(values)}{', ...' if y.numel() > 4 else ''}]"
