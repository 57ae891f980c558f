"""Peak memory of a gradient against the number of steps (Chen et al., section 2).

RK4 with fixed steps through an MLP of 64 units on a batch of 512: 256 kB a state. Each mode has a
process of its own, since a process's peak never falls; in it the step count rises from 10 to
10,000, and the figure is the peak resident size above that after a gradient of ten steps has
warmed up everything.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

STEPS = (10, 100, 1000, 10_000)
MODES = (
    "pyjlode DiscreteAdjoint()",
    "pyjlode DiscreteAdjoint(checkpoints=8)",
    "pyjlode BacksolveAdjoint()",
    "torchdiffeq odeint",
    "torchdiffeq odeint_adjoint",
)


def peak() -> float:
    """The largest resident size so far, in MB (2^20 bytes).

    Linux's own count: ``getrusage``'s begins with the peak of the process that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) / 1024


def gradient(mode: str) -> Callable[[int], None]:
    import torch
    import torchdiffeq

    import pyjlode

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64))

    class Field(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.net(y) - y

    field, y0 = Field().double(), torch.randn(512, 64, dtype=torch.float64)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    solver = getattr(torchdiffeq, mode.split()[1], None)
    if solver is None:
        sensealg = eval(f"pyjlode.{mode.split(maxsplit=1)[1]}", {"pyjlode": pyjlode})

        def solve(options: dict) -> torch.Tensor:
            return pyjlode.odeint(
                field, y0, t, method="rk4", options=options, sensealg=sensealg, engine="julia"
            )
    else:

        def solve(options: dict) -> torch.Tensor:
            return solver(field, y0, t, method="rk4", options=options)

    def run(steps: int) -> None:
        field.zero_grad()
        solve({"step_size": 1.0 / steps, "max_num_steps": 10**6}).pow(2).sum().backward()

    return run


def child(mode: str, limit: float) -> None:
    """Print one figure a line: MB above the warmed-up process."""
    run = gradient(mode)
    run(10)
    start = peak()
    for steps in STEPS:
        run(steps)
        print(json.dumps([steps, peak() - start]), flush=True)
        # What grows in proportion would not fit at ten times the steps.
        if 10 * (peak() - start) > limit:
            break


def measure(limit_mb: float = 12_000) -> dict[str, list[tuple[int, float]]]:
    """Megabytes by mode and number of steps; a mode that would pass the limit stops before."""
    found = {}
    for mode in MODES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", mode, str(limit_mb)],
            check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1],
        )  # fmt: skip
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        found[mode] = [(int(n), float(mb)) for n, mb in rows]
        print(f"{mode:42}" + "".join(f"{mb:10.0f}" for _, mb in found[mode]), flush=True)
    return found


def draw(found: dict[str, list[tuple[int, float]]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for mode, rows in found.items():
        style = "--" if mode.startswith("torchdiffeq") else "-"
        axes.plot(
            [n for n, _ in rows], [max(mb, 1) for _, mb in rows], style, marker="o", label=mode
        )
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="peak memory of a gradient / MB")
    axes.set_title("RK4, state of 512 x 64 float64 (256 kB)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1], float(sys.argv[2]))
    else:
        draw(measure(), Path(__file__).parents[1] / "docs" / "memory.png")
