"""Stiff problems as functions of their rates and states, with sensitivities to compare with.

References
----------
Mazzia and Magherini, Test Set for Initial Value Problem Solvers, 2008 (HIRES, Pollution, van der
Pol, OREGO); Robertson, The solution of a set of reaction rate equations, 1966.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyjlode import odeint

D = torch.float64


@dataclass(frozen=True)
class StiffProblem:
    """``dy/dt = func(rates, y)`` with ``y(t[0]) = y0``."""

    func: Callable[[Tensor, Tensor], Tensor]
    rates: Tensor
    y0: Tensor
    t: Tensor
    rtol: float
    atol: float


def rober(k: Tensor, y: Tensor) -> Tensor:
    a, b, c = k[0] * y[0], k[1] * y[1] ** 2, k[2] * y[1] * y[2]
    return torch.stack([-a + c, a - b - c, b])


def hires(k: Tensor, y: Tensor) -> Tensor:
    """Eight proteins of a plant; its coefficients are sums of seven rates."""
    k1, k2, k3, k4, k5, k6, source = k
    y1, y2, y3, y4, y5, y6, y7, y8 = y
    bound = k6 * y6 * y8 - (k2 + 2 * k4) * y7
    return torch.stack([
        -k1 * y1 + k2 * y2 + k3 * y3 + source,
        k1 * y1 - (k2 + k3) * y2,
        -(k1 + k3) * y3 + k2 * y4 + k5 * y5,
        k3 * y2 + k1 * y3 - (k2 + k4) * y4,
        -(k1 + k5) * y5 + k2 * (y6 + y7),
        -k6 * y6 * y8 + k4 * (y4 + y7) + k1 * y5 - k2 * y6,
        bound,
        -bound,
    ])  # fmt: skip


def oregonator(k: Tensor, y: Tensor) -> Tensor:
    s, q, w = k
    a, b, c = y
    return torch.stack([s * (b + a * (1 - q * a - b)), (c - (1 + a) * b) / s, w * (a - c)])


def van_der_pol(mu: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[1], mu[0] * ((1 - y[0] ** 2) * y[1] - y[0])])


# Reactions of the air pollution model: what reacts, and how much of what comes of it. Species are
# counted from one; a product may come twice.
REACTIONS: tuple[tuple[float, tuple[int, ...], tuple[int, ...]], ...] = (
    (0.35, (1,), (2, 3)), (26.6, (2, 4), (1,)), (1.23e4, (5, 2), (1, 6)),
    (8.6e-4, (7,), (5, 5, 8)), (8.2e-4, (7,), (8,)), (1.5e4, (7, 6), (5, 8)),
    (1.3e-4, (9,), (5, 8, 10)), (2.4e4, (9, 6), (11,)),
    (1.65e4, (11, 2), (1, 10, 12)), (9e3, (11, 1), (13,)), (0.022, (13,), (1, 11)),
    (1.2e4, (10, 2), (1, 14)), (1.88, (14,), (5, 7)), (1.63e4, (1, 6), (15,)), (4.8e6, (3,), (4,)),
    (3.5e-4, (4,), (16,)), (0.0175, (4,), (3,)), (1e8, (16,), (6, 6)), (4.44e11, (16,), (3,)),
    (1.24e3, (17, 6), (5, 18)), (2.1, (19,), (2,)), (5.78, (19,), (1, 3)), (0.0474, (1, 4), (19,)),
    (1.78e3, (19, 1), (20,)), (3.12, (20,), (1, 19)),
)  # fmt: skip


def _stoichiometry() -> Tensor:
    change = torch.zeros(20, len(REACTIONS), dtype=D)
    for i, (_, used, made) in enumerate(REACTIONS):
        for species in used:
            change[species - 1, i] -= 1
        for species in made:
            change[species - 1, i] += 1
    return change


CHANGE = _stoichiometry()
FIRST = torch.tensor([used[0] - 1 for _, used, _ in REACTIONS])
SECOND = torch.tensor([used[1] - 1 if len(used) > 1 else 20 for _, used, _ in REACTIONS])


def pollution(k: Tensor, y: Tensor) -> Tensor:
    with_one = torch.cat([y, torch.ones(1, dtype=D)])
    return CHANGE @ (k * y[FIRST] * with_one[SECOND])


def _tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=D)


def _at_start(**values: float) -> Tensor:
    y = torch.zeros(20, dtype=D)
    for name, value in values.items():
        y[int(name[1:]) - 1] = value
    return y


PROBLEMS = {
    "rober": StiffProblem(
        rober, _tensor(0.04, 3e7, 1e4), _tensor(1, 0, 0),
        torch.cat([torch.zeros(1, dtype=D), torch.logspace(-5, 5, 40, dtype=D)]), 1e-8, 1e-10,
    ),
    "hires": StiffProblem(
        hires, _tensor(1.71, 0.43, 8.32, 0.69, 0.035, 280, 0.0007),
        _tensor(1, 0, 0, 0, 0, 0, 0, 0.0057), torch.linspace(0, 321.8122, 30, dtype=D), 1e-8, 1e-10,
    ),
    "oregonator": StiffProblem(
        oregonator, _tensor(77.27, 8.375e-6, 0.161), _tensor(1, 2, 3),
        torch.linspace(0, 360, 25, dtype=D), 1e-9, 1e-9,
    ),
    "pollution": StiffProblem(
        pollution, torch.tensor([rate for rate, _, _ in REACTIONS], dtype=D),
        _at_start(y2=0.2, y4=0.04, y7=0.1, y8=0.3, y9=0.01, y17=0.007),
        torch.linspace(0, 60, 13, dtype=D), 1e-8, 1e-12,
    ),
    "van der Pol": StiffProblem(
        van_der_pol, _tensor(1e3), _tensor(2, 0), torch.linspace(0, 2, 5, dtype=D), 1e-9, 1e-11,
    ),
}  # fmt: skip


def loss(states: Tensor) -> Tensor:
    """A sum over save points in which every species has another weight."""
    return (states @ torch.linspace(1, 2, states.shape[1], dtype=D)).sum()


def reference(problem: StiffProblem) -> tuple[Tensor, Tensor]:
    """The loss's gradients by ``y0`` and by the rates' logarithms, from forward sensitivities.

    One solve for each, of the state with its derivative in one direction, at tight tolerances.
    """
    n, rates = problem.y0.numel(), problem.rates
    by_rate = torch.zeros_like(rates)

    def func(t: Tensor, z: Tensor) -> Tensor:
        value, pull = torch.func.vjp(problem.func, rates, z[:n])
        # The transpose of a product that is linear in its argument.
        _, pull_back = torch.func.vjp(pull, torch.zeros_like(value))
        (along,) = pull_back((by_rate, z[n:]))
        return torch.cat([value, along])

    def gradient(start: Tensor) -> Tensor:
        states = odeint(
            func, torch.cat([problem.y0, start]), problem.t, rtol=1e-10, atol=1e-13,
            method="Rodas5P", engine="julia",
        )  # fmt: skip
        return loss(states[:, n:])

    with torch.no_grad():
        by_start = torch.stack([gradient(unit) for unit in torch.eye(n, dtype=D)])
        found = []
        for i in range(rates.numel()):
            by_rate.zero_()[i] = rates[i]
            found.append(gradient(torch.zeros(n, dtype=D)))
    return by_start, torch.stack(found)
