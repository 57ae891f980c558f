"""How far each method of the catalogue is from closed forms, in tolerances or in orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torchdiffeq
from torch import Tensor

from pyjlode import Statistics, ddeint, odeint
from pyjlode.catalogue import Method
from pyjlode.partitioned import takes_time
from pyjlode.split import METHODS as SPLIT

D = torch.float64
LIMIT = 100.0
ROUNDING = 1e-10


@dataclass(frozen=True)
class Case:
    """A problem with its solution, ``exact(t)`` of shape ``(T, n)``."""

    name: str
    func: Any
    y0: Any
    t: Tensor
    exact: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Measured:
    """``off``: the largest error, in tolerances, over what is allowed; 1 is the limit."""

    method: str
    problem: str
    setting: float
    error: float
    off: float


def _times(end: float) -> Tensor:
    return torch.tensor([0.0, 0.37 * end, end], dtype=D)


def _turn(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[1], -y[0]])


def _turned(t: Tensor) -> Tensor:
    return torch.stack([torch.cos(t), -torch.sin(t)], dim=1)


OSCILLATOR = Case("oscillator", _turn, torch.tensor([1.0, 0.0], dtype=D), _times(10.0), _turned)

# A slow and a fast rate, of which each component has both.
_STIFF = torch.tensor([[-500.5, 499.5], [499.5, -500.5]], dtype=D)


def _relaxed(t: Tensor) -> Tensor:
    slow, fast = torch.exp(-t), torch.exp(-1000 * t)
    return torch.stack([1.5 * slow - 0.5 * fast, 1.5 * slow + 0.5 * fast], dim=1)


STIFF = Case(
    "stiff", lambda t, y: _STIFF @ y, torch.tensor([1.0, 2.0], dtype=D), _times(2.0), _relaxed
)


def _slow(t: Tensor) -> Tensor:
    return 1.5 * torch.exp(-t)[:, None].expand(-1, 2)


def _logistic(t: Tensor, y: Tensor) -> Tensor:
    return 0.8 * y * (1 - y) * torch.cos(t)


def _grown(t: Tensor) -> Tensor:
    y0 = torch.tensor([0.2, 0.6], dtype=D)
    return 1 / (1 + (1 / y0 - 1) * torch.exp(-0.8 * torch.sin(t))[:, None])


NONAUTONOMOUS = Case(
    "nonautonomous", _logistic, torch.tensor([0.2, 0.6], dtype=D), _times(4.0), _grown
)

# The rest of each: states that are pairs, sums of two parts, and delays.
_PAIR = (torch.ones(1, dtype=D), torch.zeros(1, dtype=D))
HAMILTONIAN = Case("oscillator", lambda t, y: (y[1], -y[0]), _PAIR, _times(10.0), _turned)


def _forced(t: Tensor) -> Tensor:
    c = 1 / (1 - 1.7**2)
    return torch.stack(
        [c * torch.cos(1.7 * t) + (1 - c) * torch.cos(t),
         -1.7 * c * torch.sin(1.7 * t) - (1 - c) * torch.sin(t)], dim=1,
    )  # fmt: skip


FORCED = Case(
    "forced", lambda t, y: (y[1], torch.cos(1.7 * t) - y[0]), _PAIR, _times(10.0), _forced
)

SPLIT_STIFF = Case(
    "split",
    (lambda t, y: -1000 * (y - torch.cos(t)), lambda t, y: -torch.sin(t) * torch.ones_like(y)),
    torch.ones(1, dtype=D), _times(4.0), lambda t: torch.cos(t)[:, None],
)  # fmt: skip
SPLIT_OSCILLATOR = Case(
    "split oscillator", (lambda t, y: 0.3 * _turn(t, y), lambda t, y: 0.7 * _turn(t, y)),
    OSCILLATOR.y0, OSCILLATOR.t, _turned,
)  # fmt: skip


def _delayed(t: Tensor) -> Tensor:
    """Of ``y' = -y(t - 1)`` with a past of one, by the method of steps."""
    total = torch.ones_like(t)
    for k in range(1, int(float(t.max())) + 2):
        total = total + (-1) ** k * (t - k + 1).clamp(min=0) ** k / math.factorial(k)
    return total[:, None]


DELAYED = Case("delayed", lambda t, y, past: -past, torch.ones(1, dtype=D), _times(5.0), _delayed)


def cases(method: Method) -> list[Case]:
    """The problems that a method is for."""
    if method.problem:
        return [HAMILTONIAN, FORCED] if takes_time(method) else [HAMILTONIAN]
    found = [OSCILLATOR, NONAUTONOMOUS]
    if method.stiff:
        found.append(STIFF)
    if method.name in SPLIT:
        found += [SPLIT_STIFF, SPLIT_OSCILLATOR]
    return found


def solve(method: Method, case: Case, **options: Any) -> tuple[Tensor, Statistics]:
    """States of shape ``(T, n)`` and counts."""
    stats = Statistics()
    if case is DELAYED:
        y = ddeint(
            case.func, case.y0, case.t, lags=[1.0], method=method.name, stats=stats,
            engine="julia", **options,
        )  # fmt: skip
    else:
        y = odeint(
            case.func, case.y0, case.t, method=method.name, stats=stats, engine="julia", **options
        )
    states = torch.cat(y, dim=1) if isinstance(y, tuple) else y
    return states, stats


def tolerances(method: Method) -> tuple[float, ...]:
    """Three that its order makes in a reasonable number of steps."""
    if method.order == 1:
        return (1e-3, 1e-4, 1e-5)
    return (1e-4, 1e-5, 1e-7) if method.order == 2 else (1e-5, 1e-7, 1e-9)


def adaptive(method: Method, case: Case) -> Iterator[Measured]:
    """Errors in tolerances.

    A method keeps the root mean square of a step's errors in the two components below the
    tolerance. So on a problem that does not damp errors one of them may sum to sqrt(2) tolerances
    a step, which for low orders is more than the limit. Under one of torchdiffeq's names
    torchdiffeq's own error is right too.
    """
    exact = case.exact(case.t)
    for tolerance in tolerances(method):
        options = {"max_num_steps": 1_000_000}
        states, stats = solve(method, case, rtol=tolerance, atol=tolerance, options=options)
        scale = tolerance * (1 + exact.abs())
        off = float(((states - exact).abs() / scale).max())
        allowed = max(LIMIT, math.sqrt(2) * (stats.naccept or 0))
        if method.torch_name is not None and off > allowed:
            theirs = torchdiffeq.odeint(
                case.func, case.y0, case.t, rtol=tolerance, atol=tolerance, method=method.torch_name
            )
            allowed = max(allowed, float(((theirs - exact).abs() / scale).max()))
        yield Measured(method.name, case.name, tolerance, off, off / allowed)


def fixed(method: Method, case: Case) -> Iterator[Measured]:
    """Errors with steps of four sizes, over those that the order promises.

    An error is held against the one of steps twice or four times as long, unless it is small beside
    the step to the power of the order, or rounding. The stiff problem starts without its fast part,
    which methods that are not L-stable damp slowly, and its order may be less than the method's.
    """
    order = method.order
    if case is STIFF:
        case, order = replace(case, y0=torch.full((2,), 1.5, dtype=D), exact=_slow), min(order, 2)
    size = 0.2 if case.t[-1] > 5 else 0.05
    if method.order >= 8 and case.name != "stiff":
        size *= 4
    before, last = math.inf, size
    for step in (size, size / 2, size / 4, size / 16):
        states, _ = solve(method, case, rtol=1e-12, atol=1e-12, options={"step_size": step})
        error = float((states - case.exact(case.t))[1:].abs().max())
        promised = before * (last / step) ** (0.6 - order) if before < math.inf else math.inf
        allowed = max(promised, 0.01 * step**order, ROUNDING)
        before, last = error, step
        yield Measured(method.name, case.name, step, error, error / allowed)


def measure(method: Method) -> Iterator[Measured]:
    """Everything for one method; ``off`` above one is a failure."""
    for case in cases(method):
        yield from (adaptive if method.adaptive else fixed)(method, case)
