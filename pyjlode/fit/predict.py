"""``pyjlode predict``: solve on from the end of the data that a model was fitted to."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from ..engine import ENGINES, engine_info
from ..odeint import odeint
from .data import InputError
from .model import Description
from .output import check_folder, read_model, write_csv

_MOST_ROWS = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="model.pt", type=Path, help="what `pyjlode fit` wrote")
    add("--until", type=float, required=True, metavar="T", help="the last time, in the data's unit")
    add("--step", type=float, metavar="DT", help="between rows (default: the data's median)")
    add("--out", type=Path, required=True, metavar="F.csv", help="where to write")
    add("--engine", choices=ENGINES, help="default: julia where it is set up, else torch")


def run(args: argparse.Namespace) -> int:
    try:
        saved = read_model(args.model)
        check_folder(args.out.parent)
        times = [_times(args, last["t"], last["step"]) for last in saved["last"]]
    except InputError as error:
        print(f"pyjlode predict: {error}", file=sys.stderr)
        return 2
    description = Description.from_dict(saved["description"])
    model = description.build()
    model.load_state_dict(saved["weights"])
    engine = engine_info(args.engine)
    scaling = description.scaling
    rows: list[list[object]] = []
    for last, t in zip(saved["last"], times, strict=True):
        start = torch.as_tensor(
            scaling.normalise(np.array([last["y"]])), dtype=getattr(torch, description.dtype)
        )
        grid = torch.as_tensor((t - t[0]) / scaling.time_unit)
        with torch.no_grad():
            states = odeint(
                model,
                start,
                grid,
                rtol=description.rtol,
                atol=description.atol,
                method=description.method,
                engine=args.engine,
            )
        y = scaling.restore(states[:, 0].to(torch.float64).numpy())
        name = [last["name"]] if saved["group"] else []
        rows += [[*name, f"{a:.10g}", *(f"{x:.8g}" for x in b)] for a, b in zip(t, y, strict=True)]
    group = [saved["group"]] if saved["group"] else []
    write_csv(args.out, [*group, description.time, *description.columns], rows)
    print(f"{len(rows)} rows written to {args.out}, solved by {engine}")
    return 0


def _times(args: argparse.Namespace, start: float, median: float) -> np.ndarray:
    """From the last observation to ``--until``, which is the last row whatever the step."""
    step = median if args.step is None else args.step
    if not step > 0:
        raise InputError(f"--step must be above 0, not {step}.")
    if not start < args.until < float("inf"):
        raise InputError(f"--until must lie after {start:g}, where the data ends.")
    count = (args.until - start) / step
    if count > _MOST_ROWS:
        raise InputError(f"--step {step:g} makes more than {_MOST_ROWS} rows; take a larger one.")
    t = start + step * np.arange(int(count + 1e-9) + 1)
    return np.append(t, args.until) if args.until - t[-1] > 1e-9 * step else t
