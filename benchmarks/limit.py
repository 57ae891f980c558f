"""Where the time of a gradient goes, against what the machine can do at best.

``python -m benchmarks.limit`` prints a table. For each neural case: the time of a solve and its
gradient; how much of it is outside of Julia (torch's autograd, the checks, the function's
fingerprint); and how long the products and convolutions of all evaluations would take alone, at the
rate of a large product of matrices on as many threads. A vector-Jacobian product is counted as
torch's reverse mode has it, the values of the forward pass at hand.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pyjlode import odeint
from pyjlode.engine import choose_engine
from pyjlode.problem import Statistics

from . import neural
from .timing import Problem, Run

ROUNDS = 30
HEAD = "| case | ms | outside Julia | products at the machine's peak |\n|---|---|---|---|"


@dataclass(frozen=True)
class Share:
    """Of one case, in milliseconds: all, what is not in Julia, and products at the best rate."""

    case: str
    total: float
    outside: float
    products: float

    def __str__(self) -> str:
        return (
            f"| {self.case} | {self.total:.3g} | {self.outside / self.total:.0%} "
            f"| {self.products / self.total:.0%} |"
        )


def peak(dtype: torch.dtype, threads: int) -> float:
    """Floating point operations in a millisecond, of a product of 1024 x 1024 matrices."""
    x = torch.randn(1024, 1024, dtype=dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    best = min(_milliseconds(lambda: x @ x) for _ in range(10))
    torch.set_num_threads(before)
    return 2 * 1024**3 / best


def share(name: str, problem: Problem) -> Share:
    """Measure one case."""
    field, y0, t, tolerance = problem
    inside: list[float] = []
    functions = choose_engine("julia").functions  # type: ignore[attr-defined]
    plain = functions.forward, functions.backward

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = call(*args, **kwargs)
            inside.append(1e3 * (time.perf_counter() - start))
            return result

        return run

    stats = Statistics()

    def gradient() -> None:
        field.zero_grad()
        y = odeint(field, y0, t, engine="julia", stats=stats, rtol=tolerance, atol=tolerance)
        y.pow(2).sum().backward()

    gradient()
    functions.forward, functions.backward = map(timed, plain)
    try:
        totals = [_milliseconds(gradient) for _ in range(ROUNDS)]
    finally:
        functions.forward, functions.backward = plain
    in_julia = statistics.median(map(sum, zip(inside[::2], inside[1::2], strict=True)))
    total = statistics.median(totals)
    value, product = _operations(field, y0, t)
    least = stats.nfe * value + stats.nfe_backward * product
    threads = 2 if least > 5e6 else 1
    return Share(name, total, total - in_julia, least / peak(y0.dtype, threads))


def _operations(field: nn.Module, y0: Tensor, t: Tensor) -> tuple[int, int]:
    """Of products and convolutions in a value, and in its reverse mode."""
    y = y0.clone().requires_grad_()
    with FlopCounterMode(display=False) as forward:
        out = field(t[0], y)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    field.zero_grad()
    return forward.get_total_flops(), backward.get_total_flops()


def _milliseconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def shares() -> Iterator[Share]:
    """Of the neural cases, without those that differ in the save points only."""
    for case in neural.cases():
        few = 2 if case.name.startswith("MLP 2-50-2") else 30
        if case.problem is not None and len(case.problem.t) <= few:
            yield share(case.name, case.problem)


def main() -> None:
    torch.set_num_threads(1)
    print(HEAD)
    for found in shares():
        print(found, flush=True)


if __name__ == "__main__":
    main()
