"""Sensitivity algorithms beside each other: time and error of a gradient.

``python -m benchmarks.sensitivities`` prints the table of docs/sensitivities.md. Errors are those
of the gradient with respect to the parameters, relative to its largest entry, against the same
gradient at a tolerance of 1e-12 (ROBER: 1e-10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyjlode import SolverError, odeint

from .timing import Case, measure

D = torch.float64
ALGORITHMS = ("discrete", "gauss", "interpolating", "quadrature", "backsolve", "forward")


@dataclass(frozen=True)
class Problem:
    """A solve whose gradient with respect to ``parameters`` is measured."""

    name: str
    func: Callable[[Tensor, Tensor], Tensor]
    y0: Tensor
    t: Tensor
    parameters: Sequence[Tensor]
    rtol: float
    atol: float
    method: str
    exact: tuple[str, str, float]  # method, algorithm and rtol of the reference

    def gradient(
        self, sensealg: str, method: str | None = None, scale: float = 1.0
    ) -> tuple[Tensor, ...]:
        """Of the sum of the squares of the states at all times."""
        y = odeint(
            self.func, self.y0, self.t, rtol=self.rtol * scale, atol=self.atol * scale,
            method=method or self.method, sensealg=sensealg, engine="julia",
        )  # fmt: skip
        return torch.autograd.grad(y.square().sum(), self.parameters)


def problems() -> list[Problem]:
    torch.manual_seed(0)
    rates = torch.tensor([1.5, 1.0, 3.0, 1.0], dtype=D, requires_grad=True)

    def lotka(t: Tensor, y: Tensor) -> Tensor:
        a, b, c, d = rates
        return torch.stack([a * y[0] - b * y[0] * y[1], d * y[0] * y[1] - c * y[1]])

    logarithms = torch.tensor([0.04, 3e7, 1e4], dtype=D).log().requires_grad_()

    def rober(t: Tensor, y: Tensor) -> Tensor:
        k = logarithms.exp()
        a, b, c = k[0] * y[0], k[1] * y[1] ** 2, k[2] * y[1] * y[2]
        return torch.stack([-a + c, a - b - c, b])

    smooth = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2)).to(D)
    kinked = nn.Sequential(nn.Linear(2, 50), nn.ReLU(), nn.Linear(50, 2)).to(D)
    batch, times = torch.randn(20, 2, dtype=D), torch.linspace(0, 1.5, 30, dtype=D)
    decades = torch.cat([torch.zeros(1, dtype=D), torch.logspace(-5, 5, 40, dtype=D)])
    pair, start = torch.ones(2, dtype=D), torch.tensor([1.0, 0, 0], dtype=D)
    return [
        Problem(
            "Lotka-Volterra, 2 states, 4 parameters, Tsit5", lotka, pair,
            torch.linspace(0, 10, 20, dtype=D), [rates], 1e-7, 1e-7, "Tsit5",
            ("Vern9", "forward", 1e-12),
        ),
        Problem(
            "MLP 2-50-2 on y³, batch 20, Tsit5", lambda t, y: smooth(y**3), batch, times,
            list(smooth.parameters()), 1e-7, 1e-7, "Tsit5", ("Vern9", "discrete", 1e-12),
        ),
        Problem(
            "the same with relu", lambda t, y: kinked(y), batch, times, list(kinked.parameters()),
            1e-7, 1e-7, "Tsit5", ("Tsit5", "gauss", 1e-12),
        ),
        Problem(
            "ROBER to t = 1e5, Rodas5P", rober, start, decades, [logarithms], 1e-8, 1e-10,
            "Rodas5P", ("Rodas5P", "forward", 1e-10),
        ),
    ]  # fmt: skip


def table(seconds: float = 3.0) -> str:
    lines = [
        "| problem | " + " | ".join(ALGORITHMS) + " |",
        "|---" * (len(ALGORITHMS) + 1) + "|",
    ]
    for problem in problems():
        method, algorithm, rtol = problem.exact
        exact = problem.gradient(algorithm, method, rtol / problem.rtol)
        size = max(float(e.abs().max()) for e in exact)
        cells, runs = {}, {}
        for name in ALGORITHMS:
            if name == "forward" and problem.y0.numel() > 10:
                continue
            try:
                found = problem.gradient(name)
            except SolverError:
                cells[name] = "raises"
                continue
            error = max(float((f - e).abs().max()) for f, e in zip(found, exact, strict=True))
            cells[name] = f"{error / size:.0e}"
            runs[name] = lambda problem=problem, name=name: problem.gradient(name)
        times = measure(Case(problem.name, runs), seconds).times
        for name, time in times.items():
            cells[name] = f"{time:.2g} ms, {cells[name]}"
        lines.append(
            f"| {problem.name} | " + " | ".join(cells.get(n, "") for n in ALGORITHMS) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table())
