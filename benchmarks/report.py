"""The benchmarks' table and figure."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .limit import HEAD as SHARES
from .limit import Share
from .timing import Row

MEMORY = (
    "Memory of a gradient against the number of steps: backsolve's does not grow with them, and",
    "with `checkpoints=8` it grows with their logarithm, as the steps between two states are cut",
    "again and again.",
)
LIMIT = (
    "Where the time of a gradient goes (`python -m benchmarks.limit`): outside of Julia, in",
    "torch's autograd and in checks, and, if a machine could do nothing faster than multiply",
    "large matrices, in the products and convolutions of all evaluations. The rest is elementary",
    "functions, memory, products too small for that rate, and the solver's own work.",
)
PEERS = ("diffrax", "torchdiffeq", "torchode", "SciPy")


def ours(row: Row) -> float:
    """Our time: the default's."""
    time = row.times["pyjlode"]
    if isinstance(time, str):
        raise RuntimeError(f"{row.case}: {time}")
    return time


def peer(row: Row, name: str) -> float | None:
    """A peer's time in the better of its modes; None where it has none."""
    times = [t for n, t in row.times.items() if n.startswith(name) and not isinstance(t, str)]
    return min(times, default=None)


def line(row: Row) -> str:
    """One case in words."""
    parts = [f"{row.case}: pyjlode {ours(row):.2f} ms"]
    for name, time in row.times.items():
        if name != "pyjlode":
            parts.append(
                f"{name} {time}"
                if isinstance(time, str)
                else f"{name} {time:.2f} ({time / ours(row):.1f}x)"
            )
    return "; ".join(parts)


def write_table(rows: Sequence[Row], shares: Sequence[Share], path: Path, engine: str) -> None:
    head = ["case", "pyjlode / ms", *(f"{p} / ms" for p in PEERS), *(f"{p}, ratio" for p in PEERS)]
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`: medians of one solve and its gradient. The solvers of a case",
        "take turns in one process, each for a run of solves of a tenth of a second, as a training",
        "has them; the machine has other load, so ratios are worth more than times.",
        f"Of a peer, the better of its modes. {engine}; {_versions()}; {platform.machine()}.",
        "",
        "![ratios](benchmarks.png)",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for row in rows:
        times = [peer(row, p) for p in PEERS]
        cells = [row.case, f"{ours(row):.3g}"]
        cells += ["" if t is None else f"{t:.3g}" for t in times]
        cells += ["" if t is None else f"{t / ours(row):.1f}" for t in times]
        lines.append("| " + " | ".join(cells) + " |")
    failures = [
        f"- {row.case}: {name}: {time}"
        for row in rows
        for name, time in row.times.items()
        if isinstance(time, str)
    ]
    if failures:
        lines += ["", "What did not run:", "", *failures]
    lines += ["", *LIMIT, "", SHARES, *map(str, shares)]
    lines += ["", *MEMORY, "", "![memory](memory.png)"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw(rows: Sequence[Row], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.28 * len(rows) + 1.5), layout="constrained")
    places = range(len(rows))
    for name, marker in zip(PEERS, "os^v", strict=True):
        points = [(peer(row, name), i) for i, row in enumerate(rows)]
        axes.plot(
            [t / ours(rows[i]) for t, i in points if t is not None],
            [i for t, i in points if t is not None],
            marker, label=name,
        )  # fmt: skip
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(
        xscale="log", xlabel="time of a gradient over pyjlode's (right of 1: pyjlode is faster)"
    )
    axes.set_yticks(list(places), [row.case for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)


def _versions() -> str:
    found = []
    for name in ("torch", "torchdiffeq", "diffrax", "jax", "torchode", "scipy"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)
