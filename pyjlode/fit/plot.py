"""The picture of a fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import Dataset


@dataclass(frozen=True)
class Curve:
    """A solution in the user's units, of one trajectory."""

    t: NDArray[np.float64]
    y: NDArray[np.float64]


def draw(
    path: Path,
    data: Dataset,
    training: Sequence[int],
    fits: Sequence[Sequence[Curve]],
    forecasts: Sequence[Curve | None],
    history: Sequence[tuple[int, float, float]],
    title: str,
) -> None:
    """Draw data, fit and held-out forecast, one panel a state, and the loss curve.

    Parameters
    ----------
    path : Path
        A PNG file.
    data : Dataset
    training : sequence of int
        Samples of each trajectory that were trained on.
    fits : sequence of sequences of Curve
        For each trajectory, the solutions over its training samples.
    forecasts : sequence of Curve or None
        For each trajectory, the solution from its last training sample.
    history : sequence of (epoch, training loss, held-out loss)
    title : str
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = len(data.columns) + 1
    columns = min(panels, 3)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for d, name in enumerate(data.columns):
        _draw_state(axes[d], d, data, training, fits, forecasts)
        axes[d].set(xlabel=data.time, title=name)
    axes[0].legend(frameon=False, fontsize="small")
    _draw_losses(axes[panels - 1], history)
    for ax in axes[: panels - 1]:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    for ax in axes[panels:]:
        ax.remove()
    for ax in axes[:panels]:
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=130, format="png")


def _draw_state(
    ax: Any,
    d: int,
    data: Dataset,
    training: Sequence[int],
    fits: Sequence[Sequence[Curve]],
    forecasts: Sequence[Curve | None],
) -> None:
    for i, series in enumerate(data.trajectories):
        n = training[i]
        color = f"C{i % 10}"
        first = i == 0

        def label(text: str, show: bool = first) -> str | None:
            return text if show else None

        ax.plot(series.t[:n], series.y[:n, d], "o", color=color, ms=4, label=label("data"))
        ax.plot(
            series.t[n:], series.y[n:, d], "o", mfc="white", ms=5,
            mec="C3", label=label("held-out data"),
        )  # fmt: skip
        for k, curve in enumerate(fits[i]):
            ax.plot(curve.t, curve.y[:, d], "-", color=color, lw=1.5,
                    label=label("fit", first and k == 0))  # fmt: skip
        forecast = forecasts[i]
        if forecast is not None:
            ax.axvline(forecast.t[0], color="0.85", lw=1, zorder=0)
            ax.plot(forecast.t, forecast.y[:, d], "--", color="C3", lw=1.8,
                    label=label("forecast"))  # fmt: skip


def _draw_losses(ax: Any, history: Sequence[tuple[int, float, float]]) -> None:
    epochs = [h[0] for h in history]
    ax.semilogy(epochs, [h[1] for h in history], color="0.3", lw=1.2, label="training windows")
    held_out = [h[2] if math.isfinite(h[2]) else math.nan for h in history]
    if not all(math.isnan(x) for x in held_out):
        ax.semilogy(epochs, held_out, color="C3", lw=1.2, label="held out")
    ax.set(xlabel="epoch", title="loss (normalised units)")
    ax.legend(frameon=False, fontsize="small")
