"""What a trained model says about the data it was given, in the user's units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .data import Dataset
from .model import Description
from .plot import Curve
from .train import Trainer

Array = NDArray[np.float64]
_POINTS = 400


class Result:
    """Solutions over training and held-out samples, and their errors.

    Over the training samples the solution starts at the first one, and again after every
    ``horizon`` samples, as in training; over the held-out ones, at the last training sample.
    """

    def __init__(
        self, data: Dataset, training: Sequence[int], description: Description, trainer: Trainer
    ) -> None:
        self.data = data
        self.training = training
        self.columns = data.columns
        self._scaling = description.scaling
        self._trainer = trainer
        self.fits: list[list[Curve]] = []
        self.forecasts: list[Curve | None] = []
        self._at_data: list[Array] = []
        for series, n in zip(data.trajectories, training, strict=True):
            values = np.empty_like(series.y)
            values[0] = series.y[0]
            curves = []
            for first in range(0, n - 1, max(1, trainer.settings.horizon - 1)):
                end = min(n, first + trainer.settings.horizon)
                curve, at_data = self._solve(series.t[first:end], series.y[first])
                curves.append(curve)
                values[first + 1 : end] = at_data[1:]
            self.fits.append(curves)
            forecast = None
            if n < len(series.t):
                forecast, at_data = self._solve(series.t[n - 1 :], series.y[n - 1])
                values[n:] = at_data[1:]
            self.forecasts.append(forecast)
            self._at_data.append(values)

    def metrics(self) -> dict[str, Any]:
        """Losses in normalised units and errors in the user's."""
        fit, forecast, persistence = [], [], []
        for i, (series, n) in enumerate(zip(self.data.trajectories, self.training, strict=True)):
            fit.append((self._at_data[i] - series.y)[1:n])
            forecast.append((self._at_data[i] - series.y)[n:])
            persistence.append((series.y[n - 1] - series.y)[n:])
        history = self._trainer.progress.history
        return {
            "loss": _finite(self._trainer.progress.best_loss),
            "loss_holdout": _finite(self._trainer.held_out_loss()),
            "loss_last_epoch": _finite(history[-1][1]) if history else None,
            "rmse_fit": self._rmse(fit),
            "rmse_forecast": self._rmse(forecast),
            "rmse_persistence": self._rmse(persistence),
        }

    def table(self) -> tuple[list[str], list[list[object]]]:
        """Header and rows of ``forecast.csv``: the model's values at the times of the data."""
        group = [self.data.group] if self.data.group else []
        header = [*group, self.data.time, "part", *self.columns]
        rows: list[list[object]] = []
        for i, (series, n) in enumerate(zip(self.data.trajectories, self.training, strict=True)):
            name = [series.name] if self.data.group else []
            for k, t in enumerate(series.t):
                part = "fit" if k < n else "forecast"
                rows.append([*name, f"{t:.10g}", part, *(f"{x:.8g}" for x in self._at_data[i][k])])
        return header, rows

    def _solve(self, t: Array, start: Array) -> tuple[Curve, Array]:
        """A smooth curve from ``start`` over ``t``, and its values at ``t``."""
        fine = np.union1d(np.linspace(t[0], t[-1], _POINTS), t)
        dtype = self._trainer.dtype
        z = torch.as_tensor(self._scaling.normalise(start[None]), dtype=dtype)
        grid = torch.as_tensor((fine - fine[0]) / self._scaling.time_unit)
        with torch.no_grad():
            states = self._trainer.solve(z, grid)[:, 0].to(torch.float64).numpy()
        y = self._scaling.restore(states)
        return Curve(fine, y), y[np.searchsorted(fine, t)]

    def _rmse(self, errors: Sequence[Array]) -> dict[str, float] | None:
        together = np.concatenate(errors)
        if not len(together):
            return None
        values = np.sqrt((together**2).mean(axis=0))
        return {name: float(v) for name, v in zip(self.columns, values, strict=True)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
