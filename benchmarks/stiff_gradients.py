"""Gradients of five stiff problems beside forward sensitivities.

``python -m benchmarks.stiff_gradients`` prints the table of docs/sensitivities.md. The problems and
their references are those of ``tests/test_stiff.py``: forward sensitivities solved with Rodas5P at
``rtol=1e-10``, of which ROBER's and van der Pol's are compared with SciPy's Radau there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from pyjlode import odeint

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from stiff_problems import PROBLEMS, loss, reference

METHODS = ("Rodas5P", "Rodas4", "KenCarp4", "FBDF")


def main() -> None:
    """Print the table: the larger error of the gradients by initial state and log rates."""
    print("| problem | states, rates | rtol |", " | ".join(METHODS), "|")
    print("|---" * (3 + len(METHODS)) + "|")
    for name, problem in PROBLEMS.items():
        wanted = reference(problem)
        errors = []
        for method in METHODS:
            y0 = problem.y0.clone().requires_grad_()
            logarithms = problem.rates.log().requires_grad_()
            y = odeint(
                lambda t, y, p=problem, k=logarithms: p.func(k.exp(), y), y0, problem.t,
                rtol=problem.rtol, atol=problem.atol, method=method, engine="julia",
            )  # fmt: skip
            found = torch.autograd.grad(loss(y), (y0, logarithms))
            pairs = zip(found, wanted, strict=True)
            errors.append(max(float((g - w).abs().max() / w.abs().max()) for g, w in pairs))
        sizes = f"{problem.y0.numel()}, {problem.rates.numel()}"
        row = " | ".join(f"{e:.0e}" for e in errors)
        print(f"| {name} | {sizes} | {problem.rtol:.0e} | {row} |", flush=True)


if __name__ == "__main__":
    main()
