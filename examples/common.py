"""What the examples share: arguments, an engine and a seed, training that resumes, tables, nets."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

import pyjlode


@dataclass(frozen=True)
class Run:
    """How an example was started.

    Attributes
    ----------
    out : Path
        A folder for figures and for trainings to resume.
    small : bool
        The setting of the tests: seconds, and no figures to believe.
    resume : bool
    engine : str
        "julia" or "torch".
    data : Path or None
        A folder of data of the user's, for examples that take one.
    """

    out: Path
    small: bool
    resume: bool
    engine: str
    data: Path | None = None

    def save(self, figure: Figure, name: str) -> None:
        """Write a figure, and say where."""
        path = self.out / name
        figure.savefig(path, dpi=110)
        print(f"the figure is {path}")


def start(
    description: str | None, arguments: Sequence[str] | None = None, data: str | None = None
) -> Run:
    """Read the command line, choose the engine and say which, and set the seed.

    ``data`` says what a folder given with ``--data`` must hold, if an example takes one.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for what it writes")
    parser.add_argument("--resume", action="store_true", help="go on where the last run ended")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=["auto", "julia", "torch"], default=None)
    if data is not None:
        parser.add_argument("--data", type=Path, default=None, help=data)
    given = parser.parse_args(arguments)
    engine = pyjlode.engine_info(given.engine)
    print(f"engine: {engine}")
    # The tensors here are small; torch's threads would wait for each other, and for Julia's.
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    given.out.mkdir(parents=True, exist_ok=True)
    return Run(given.out, given.small, given.resume, engine.name, getattr(given, "data", None))


def train(
    run: Run,
    name: str,
    model: nn.Module,
    steps: int,
    loss: Callable[[], Tensor],
    *,
    rate: float = 0.01,
    clip: float | None = None,
    record: Callable[[], dict[str, float]] | None = None,
) -> list[dict[str, float]]:
    """Train with Adam, the rate falling to 0 as a cosine; the history, one entry a step.

    The state is saved every tenth of the steps and when interrupted, random numbers included, so
    that a training which is resumed ends as one that was not interrupted.

    Parameters
    ----------
    name : str
        Of the training, beside the example's others.
    loss : callable
        The loss of the next step.
    clip : float, optional
        The largest norm of a gradient; larger ones are scaled to it.
    record : callable, optional
        Called after each step; what it gives goes into the history beside ``loss`` and ``time``.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    stateful = {"model": model, "optimizer": optimizer, "schedule": schedule}
    path = run.out / f"{name}.pt"
    history: list[dict[str, float]] = []
    if run.resume and path.exists():
        saved = torch.load(path)
        for key, part in stateful.items():
            part.load_state_dict(saved[key])
        torch.set_rng_state(saved["random"])
        history = saved["history"]
    bar = tqdm(total=steps, initial=len(history), desc=name, dynamic_ncols=True, mininterval=0.5)
    random = torch.get_rng_state()

    def save() -> None:
        parts: dict[str, Any] = {key: part.state_dict() for key, part in stateful.items()}
        torch.save({**parts, "random": random, "history": history}, path)

    try:
        while len(history) < steps:
            random = torch.get_rng_state()
            began = time.perf_counter()
            optimizer.zero_grad()
            value = loss()
            value.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip, error_if_nonfinite=True)
            optimizer.step()
            schedule.step()
            entry = {"loss": value.item(), "time": time.perf_counter() - began}
            history.append({**entry, **(record() if record else {})})
            random = torch.get_rng_state()
            bar.set_postfix(loss=f"{value.item():.4g}", refresh=False)
            bar.update(1)
            if len(history) % max(1, steps // 10) == 0 or len(history) == steps:
                save()
    except KeyboardInterrupt:
        save()
        raise
    finally:
        bar.close()
    return history


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under a head, numbers with four digits."""
    shown = [[f"{x:.4g}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    lines = [list(head), ["-" * len(h) for h in head], *shown]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        print("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)))


def figure(width: float, height: float) -> Figure:
    """An empty figure that needs no display."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def mlp(*sizes: int, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """Linear layers with an activation between each two."""
    parts: list[nn.Module] = []
    for a, b in pairwise(sizes):
        parts += [nn.Linear(a, b), activation()]
    return nn.Sequential(*parts[:-1])


class TimeMLP(nn.Module):
    """A field ``func(t, y)`` by an MLP that gets the time beside the state."""

    def __init__(self, *sizes: int, activation: type[nn.Module] = nn.Tanh) -> None:
        super().__init__()
        self.net = mlp(sizes[0] + 1, *sizes[1:], activation=activation)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The field at time ``t``."""
        time = t.reshape(1, 1).expand(len(y), 1)
        out: Tensor = self.net(torch.cat([y, time], 1))
        return out


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters())
