"""``pyjlode fit``: from a CSV file to a trained model, its picture and its numbers."""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..engine import ENGINES, engine_info
from ..errors import UnsupportedError
from ..methods import find_method
from ..names import unknown
from ..sensealg import find_sensealg
from .data import GAPS, MINIMUM_ROWS, Dataset, InputError, read_csv
from .model import ACTIVATIONS, Description, Scaling, check_activation
from .output import check_folder, read_model, write, write_csv, write_json, write_model
from .plot import draw
from .progress import Reporter
from .train import Progress, Settings, Trainer
from .windows import Series

_DTYPES = ("float64", "float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("data", metavar="DATA.csv", help="a CSV file with a header")
    add("--time", metavar="NAME", help="column of times (default: the first)")
    add("--columns", metavar="A,B", help="columns of states (default: all others)")
    add("--group", metavar="NAME", help="column that tells trajectories apart")
    add("--gaps", choices=GAPS, default="error",
        help="rows with an empty cell: an error, left out, or filled linearly in time "
        "(default: %(default)s)")  # fmt: skip
    add("--hidden", metavar="N,M", default="32,32", help="hidden layers (default: %(default)s)")
    add("--activation", default="tanh", help=f"one of {', '.join(ACTIVATIONS)}")
    add("--method", help="solver, such as Tsit5 or Rodas5P (default: the engine's)")
    add("--sensealg", help="gauss, interpolating, quadrature, backsolve or discrete")
    add("--epochs", type=int, default=300, help="passes over the data (default: %(default)s)")
    add("--lr", type=float, default=0.01, help="learning rate (default: %(default)s)")
    add("--seed", type=int, default=0, help="of weights and order (default: %(default)s)")
    add("--holdout", type=float, default=0.2, metavar="SHARE",
        help="last share of each trajectory, not trained on (default: %(default)s)")  # fmt: skip
    add("--horizon", type=int, default=32, metavar="N",
        help="longest window to train on, in samples (default: %(default)s)")  # fmt: skip
    add("--rtol", type=float, default=1e-6, help="relative tolerance (default: %(default)s)")
    add("--atol", type=float, default=1e-6, help="absolute tolerance (default: %(default)s)")
    add("--dtype", default="float64", help="float64 or float32 (default: %(default)s)")
    add("--engine", choices=ENGINES, help="default: julia where it is set up, else torch")
    add("--out", type=Path, default=Path("fit"), metavar="DIR", help="folder of the results")
    add("--resume", action="store_true", help="go on with the model in the folder of the results")


def run(args: argparse.Namespace) -> int:
    try:
        data, training, description, settings = _check(args)
        saved = _saved(args, description) if args.resume else None
    except InputError as error:
        print(f"pyjlode fit: {error}", file=sys.stderr)
        return 2
    engine = engine_info(args.engine)
    print(f"engine: {engine}", flush=True)

    torch.manual_seed(settings.seed)
    if saved is not None:
        description = Description.from_dict(saved["description"])
    trainer = Trainer(description.build(), _normalised(data, description), training, settings)
    if saved is not None:
        trainer.restore(saved["training"])
    reporter = Reporter(settings.epochs, trainer.progress.epoch)
    interrupted = False
    try:
        trainer.run(reporter)
    except KeyboardInterrupt:
        interrupted = True
        trainer.model.load_state_dict(trainer.progress.best)
    finally:
        reporter.close()
    _finish(args, data, training, description, trainer, str(engine), engine.versions)
    if engine.name == "torch" and args.engine is None:
        print("Julia was not used: `pyjlode setup` installs it, once, in about 10 minutes.")
    if interrupted:
        print(
            f"Interrupted after {trainer.progress.epoch} epochs: the best model so far is in "
            f"{args.out}, and --resume goes on from there.",
            file=sys.stderr,
        )
        return 130
    if trainer.progress.stopped:
        print(f"pyjlode fit: stopped early, {trainer.progress.stopped}", file=sys.stderr)
        return 1
    return 0


def _check(args: argparse.Namespace) -> tuple[Dataset, list[int], Description, Settings]:
    """Everything that can be wrong with the input, before anything starts."""
    hidden = _hidden(args.hidden)
    check_activation(args.activation)
    try:
        if args.method is not None:
            find_method(args.method)
        if args.sensealg is not None:
            find_sensealg(args.sensealg)
    except (ValueError, UnsupportedError) as error:
        raise InputError(str(error)) from None
    if args.dtype not in _DTYPES:
        raise InputError(unknown("dtype", args.dtype, _DTYPES))
    for name in ("epochs", "lr", "rtol", "atol"):
        if not 0 < getattr(args, name) < math.inf:
            raise InputError(f"--{name} must be above 0, not {getattr(args, name)}.")
    if args.horizon < 2:
        raise InputError(f"--horizon must be at least 2 samples, not {args.horizon}.")
    if not 0 <= args.holdout < 1:
        raise InputError(f"--holdout must be at least 0 and below 1, not {args.holdout}.")
    columns = [c.strip() for c in args.columns.split(",")] if args.columns else None
    data = read_csv(args.data, args.time, columns, args.group, args.gaps)
    training = [len(s.t) - round(args.holdout * len(s.t)) for s in data.trajectories]
    if min(training) < MINIMUM_ROWS - 1:
        raise InputError(
            f"--holdout {args.holdout} leaves {min(training)} rows of a trajectory to train on; "
            f"at least {MINIMUM_ROWS - 1} are needed."
        )
    check_folder(args.out)
    description = Description(
        time=data.time,
        columns=data.columns,
        hidden=hidden,
        activation=args.activation,
        dtype=args.dtype,
        method=args.method,
        rtol=args.rtol,
        atol=args.atol,
        scaling=Scaling.of(data, training),
    )
    settings = Settings(
        epochs=args.epochs,
        lr=args.lr,
        seed=args.seed,
        horizon=args.horizon,
        method=args.method,
        sensealg=args.sensealg,
        rtol=args.rtol,
        atol=args.atol,
        engine=args.engine,
    )
    return data, training, description, settings


def _hidden(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise InputError(f"--hidden must be sizes of layers such as 32,32, not {text!r}.")
    return sizes


def _saved(args: argparse.Namespace, description: Description) -> dict[str, Any]:
    """The model to go on with; its scaling and weights must be of this fit."""
    saved = read_model(args.out / "model.pt")
    theirs = Description.from_dict(saved["description"])
    same = replace(theirs, method=args.method, rtol=args.rtol, atol=args.atol) == description
    if not same:
        raise InputError(
            f"{args.out / 'model.pt'} was fitted to other data, columns or layers; "
            "give the same ones to resume, or another --out."
        )
    return saved


def _normalised(data: Dataset, description: Description) -> list[Series]:
    scaling = description.scaling
    return [Series(s.t / scaling.time_unit, scaling.normalise(s.y)) for s in data.trajectories]


def _finish(
    args: argparse.Namespace,
    data: Dataset,
    training: list[int],
    description: Description,
    trainer: Trainer,
    engine: str,
    versions: dict[str, str],
) -> None:
    """Write the four files and print the table of errors."""
    from .. import __version__
    from .result import Result

    started = time.perf_counter()
    result = Result(data, training, description, trainer)
    progress = trainer.progress
    metrics = {
        **result.metrics(),
        "epochs": progress.epoch,
        "nfe": progress.nfe,
        "nfe_backward": progress.nfe_backward,
        "wall_time_s": round(progress.wall_time, 3),
        "engine": engine.split(" ")[0],
        "versions": {"pyjlode": __version__, "torch": torch.__version__, **versions},
        "method": args.method,
        "sensealg": args.sensealg,
        "seed": args.seed,
        "data": str(args.data),
    }
    last = [
        {"name": s.name, "t": float(s.t[-1]), "y": [float(x) for x in s.y[-1]],
         "step": float(np.median(np.diff(s.t)))}
        for s in data.trajectories
    ]  # fmt: skip
    write_model(
        args.out / "model.pt",
        {
            "description": description.as_dict(),
            "group": data.group,
            "weights": progress.best,
            "last": last,
            "training": trainer.state(),
        },
    )
    write_json(args.out / "metrics.json", metrics)
    write_csv(args.out / "forecast.csv", *result.table())
    title = f"neural ODE of {Path(args.data).name}\nsolved by {engine}"
    write(
        args.out / "fit.png",
        lambda path: draw(
            path, data, training, result.fits, result.forecasts, progress.history, title
        ),
    )
    _print_summary(args, result, progress, engine, time.perf_counter() - started)


def _print_summary(
    args: argparse.Namespace, result: Any, progress: Progress, engine: str, drawing: float
) -> None:
    metrics = result.metrics()
    print(f"\n{'root mean squared error':<26}" + "".join(f"{c:>14}" for c in result.columns))
    for name in ("fit", "forecast", "persistence"):
        errors = metrics[f"rmse_{name}"]
        if errors is not None:
            label = {"persistence": "last value carried on"}.get(name, name)
            print(f"  {label:<24}" + "".join(f"{errors[c]:>14.4g}" for c in result.columns))
    print(
        f"\n{progress.epoch} epochs in {progress.wall_time:.1f} s, {progress.nfe} evaluations "
        f"forward and {progress.nfe_backward} backward, solved by {engine}"
    )
    print(f"written to {args.out}: fit.png model.pt metrics.json forecast.csv")
