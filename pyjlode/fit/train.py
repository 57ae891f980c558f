"""Training: a plain torch loop with a torch optimizer; only the solves are an engine's."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SolverError
from ..odeint import odeint
from ..problem import Statistics
from .model import Dynamics
from .windows import Batch, Series, make_batch, windows

_BATCH = 64
_FIRST_HORIZON = 3
_PATIENCE = 10


@dataclass(frozen=True)
class Settings:
    """How to train; the names are those of the command line."""

    epochs: int
    lr: float
    seed: int
    horizon: int
    method: str | None
    sensealg: str | None
    rtol: float | None
    atol: float | None
    engine: str | None


@dataclass
class Progress:
    """What a training has come to, all that is needed to go on.

    Attributes
    ----------
    epoch : int
        Epochs done.
    horizon : int
        Samples in a window at the last epoch.
    best_loss : float
        The smallest training loss over windows of ``best_horizon`` samples.
    best : dict
        The weights that had it.
    history : list of (epoch, training loss, held-out loss)
    nfe, nfe_backward : int
        Right-hand-side evaluations so far.
    wall_time : float
        Seconds so far.
    stopped : str
        Why training ended early; empty if it did not.
    """

    epoch: int = 0
    horizon: int = 0
    best_loss: float = math.inf
    best_horizon: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[tuple[int, float, float]] = field(default_factory=list)
    nfe: int = 0
    nfe_backward: int = 0
    wall_time: float = 0.0
    stopped: str = ""


class Trainer:
    """Train ``model`` on the first ``training[i]`` samples of each series.

    Windows of the series grow from three samples to ``horizon``: short ones are easy to fit from
    any start, long ones teach what a forecast needs.

    Parameters
    ----------
    model : Dynamics
    series : sequence of Series
    training : sequence of int
        How many samples of each series to train on; the others are held out.
    settings : Settings
    """

    def __init__(
        self,
        model: Dynamics,
        series: Sequence[Series],
        training: Sequence[int],
        settings: Settings,
    ) -> None:
        self.model = model
        self.series = series
        self.training = training
        self.settings = settings
        self.dtype = next(model.parameters()).dtype
        self.optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
        self.random = np.random.default_rng(settings.seed)
        self.progress = Progress(best=copy.deepcopy(model.state_dict()))
        ends = [len(s.t) for s in series]
        held_out = [(i, n - 1, end) for i, (n, end) in enumerate(zip(training, ends, strict=True))]
        held_out = [w for w in held_out if w[2] - w[1] > 1]
        self.held_out = make_batch(series, held_out, self.dtype) if held_out else None

    def run(self, report: Callable[[Progress, float, float], None]) -> Progress:
        """Train until the last epoch, an interrupt or a solver that keeps failing."""
        started, before = time.perf_counter(), self.progress.wall_time
        progress = self.progress
        failures = 0
        while progress.epoch < self.settings.epochs:
            self._set_horizon()
            self._set_rate()
            good = copy.deepcopy(self.model.state_dict())
            try:
                train_loss = self._epoch()
                held_out_loss = self.held_out_loss()
                failures = 0
            except SolverError as error:
                # A step too far: back, and on with smaller ones.
                self.model.load_state_dict(good)
                self.optimizer.state.clear()
                failures += 1
                if failures == _PATIENCE:
                    progress.stopped = f"the solver failed {failures} times in a row: {error}"
                    break
                continue
            finally:
                progress.wall_time = before + time.perf_counter() - started
            progress.epoch += 1
            progress.history.append((progress.epoch, train_loss, held_out_loss))
            report(progress, train_loss, held_out_loss)
        self.model.load_state_dict(progress.best)
        return progress

    def solve(self, start: Tensor, grid: Tensor) -> Tensor:
        """States of shape ``(T, W, D)`` from the current weights."""
        self._last = Statistics()
        settings = self.settings
        return odeint(
            self.model,
            start,
            grid,
            rtol=settings.rtol,
            atol=settings.atol,
            method=settings.method,
            sensealg=settings.sensealg,
            engine=settings.engine,
            stats=self._last,
        )

    def held_out_loss(self) -> float:
        """The loss of forecasts from the last training samples; NaN where nothing is held out."""
        if self.held_out is None:
            return math.nan
        try:
            with torch.no_grad():
                return float(self.held_out.loss(self.solve))
        except SolverError:
            return math.inf

    def state(self) -> dict[str, Any]:
        """For :meth:`restore`: weights, optimizer and progress, in plain types and tensors."""
        return {
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.bit_generator.state["state"],
            "progress": dict(vars(self.progress)),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved :meth:`state`."""
        self.model.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        generator = self.random.bit_generator.state
        self.random.bit_generator.state = {**generator, "state": state["random"]}
        self.progress = Progress(**{**state["progress"], "stopped": ""})

    def _epoch(self) -> float:
        """One pass over the windows; the mean loss before each of its steps."""
        chosen = windows(self.training, self.progress.horizon)
        order = self.random.permutation(len(chosen))
        total = 0.0
        weights = copy.deepcopy(self.model.state_dict())
        for first in range(0, len(chosen), _BATCH):
            part = [chosen[i] for i in sorted(order[first : first + _BATCH])]
            loss = self._step(make_batch(self.series, part, self.dtype))
            total += loss * len(part)
        mean = total / len(chosen)
        self._remember(mean, weights)
        return mean

    def _step(self, batch: Batch) -> float:
        self.optimizer.zero_grad()
        loss = batch.loss(self.solve)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        self.progress.nfe += self._last.nfe
        self.progress.nfe_backward += self._last.nfe_backward
        return float(loss.detach())

    def _remember(self, loss: float, weights: dict[str, Tensor]) -> None:
        """Keep the weights of the smallest loss over the longest windows so far."""
        progress = self.progress
        longer = progress.horizon > progress.best_horizon
        if longer or loss < progress.best_loss:
            progress.best_loss, progress.best_horizon = loss, progress.horizon
            progress.best = weights

    def _set_horizon(self) -> None:
        """Twice as long after each equal part of the first half; the full one in the second."""
        longest = min(self.settings.horizon, max(self.training))
        stages = [_FIRST_HORIZON]
        while stages[-1] < longest:
            stages.append(min(longest, 2 * stages[-1]))
        done = self.progress.epoch / self.settings.epochs
        stage = min(len(stages) - 1, int(2 * done * (len(stages) - 1)))
        self.progress.horizon = max(self.progress.horizon, min(stages[stage], longest))

    def _set_rate(self) -> None:
        """The learning rate falls to a tenth along half a cosine."""
        done = self.progress.epoch / self.settings.epochs
        factor = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * factor
