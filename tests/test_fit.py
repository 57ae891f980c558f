"""``pyjlode fit`` and ``predict`` as a user runs them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from pyjlode.cli import main
from pyjlode.engine import EngineInfo
from pyjlode.fit import command, train
from pyjlode.fit.data import InputError, read_csv

ROOT = Path(__file__).resolve().parent.parent
PELTS = ROOT / "examples" / "data" / "hudson_bay_lynx_hare.csv"
FILES = {"fit.png", "model.pt", "metrics.json", "forecast.csv"}


def fit(data: Path, out: Path, engine: str, *options: str) -> int:
    return main(["fit", str(data), "--out", str(out), "--engine", engine, *options])


def metrics(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture
def oscillator(tmp_path: Path) -> Path:
    """Two damped oscillations, sampled unevenly, in a file with its columns in another order."""
    rng = np.random.default_rng(1)
    path = tmp_path / "two.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["run", "x", "clock", "v", "note"])
        for run, start in (("a", 1.0), ("b", -0.5)):
            t = 5 + np.cumsum(rng.uniform(0.1, 0.4, 20))
            s = t - t[0]
            x = start * np.exp(-0.2 * s) * np.cos(s)
            v = start * np.exp(-0.2 * s) * (-0.2 * np.cos(s) - np.sin(s))
            table.writerows([run, *row, "ok"] for row in zip(x, t, v, strict=True))
    return path


def test_how_to_get_julia(
    oscillator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The last line says so, where no engine was asked for and there is no Julia."""
    how = ["--time", "clock", "--columns", "x,v", "--group", "run", "--epochs", "1"]
    monkeypatch.setattr(command, "engine_info", lambda _: EngineInfo("torch"))
    assert main(["fit", str(oscillator), "--out", str(tmp_path / "out"), *how]) == 0
    assert "`pyjlode setup` installs it" in capsys.readouterr().out.splitlines()[-1]
    assert fit(oscillator, tmp_path / "other", "torch", *how) == 0
    assert "setup" not in capsys.readouterr().out


def test_pelts(engine: str, tmp_path: Path) -> None:
    """The forecast of the shipped data beats carrying the last value on."""
    assert fit(PELTS, tmp_path / "out", engine, "--epochs", "120", "--hidden", "16") == 0
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == FILES
    found = metrics(out)
    assert found["engine"] == engine
    assert found["epochs"] == 120
    for name in ("hare", "lynx"):
        assert found["rmse_forecast"][name] < found["rmse_persistence"][name]
    assert found["nfe"] > 1000
    picture = imread(out / "fit.png")
    assert picture.shape[0] > 300
    assert picture[..., :3].std() > 0.05
    rows = list(csv.DictReader((out / "forecast.csv").open()))
    assert [float(r["year"]) for r in rows] == list(range(1900, 1921))
    assert [r["part"] for r in rows] == ["fit"] * 17 + ["forecast"] * 4


def test_groups_uneven_times_and_columns(engine: str, oscillator: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--group", "run", "--time", "clock", "--columns", "x,v", "--epochs", "150"]
    assert fit(oscillator, out, engine, *options, "--hidden", "16", "--horizon", "8") == 0
    found = metrics(out)
    for name in ("x", "v"):
        assert found["rmse_fit"][name] < 0.1
        assert found["rmse_forecast"][name] < found["rmse_persistence"][name]
    rows = list(csv.DictReader((out / "forecast.csv").open()))
    assert {r["run"] for r in rows} == {"a", "b"}

    # Predicting on from the end of the data: the oscillations die away.
    path = tmp_path / "f.csv"
    arguments = ["predict", str(out / "model.pt"), "--until", "12", "--step", "0.5"]
    assert main([*arguments, "--out", str(path), "--engine", engine]) == 0
    rows = list(csv.DictReader(path.open()))
    assert {r["run"] for r in rows} == {"a", "b"}
    assert float(rows[-1]["clock"]) == 12
    assert abs(float(rows[-1]["x"])) < 0.6


def test_engines_train_alike(julia: str, tmp_path: Path) -> None:
    """The same seed gives the same losses, whoever solves."""
    losses = []
    for name in ("torch", "julia"):
        out = tmp_path / name
        assert fit(PELTS, out, name, "--epochs", "30", "--hidden", "8", "--rtol", "1e-8") == 0
        losses.append(metrics(out)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_options_reach_the_solver(julia: str, tmp_path: Path) -> None:
    options = ["--method", "Vern7", "--sensealg", "interpolating", "--dtype", "float32"]
    assert fit(PELTS, tmp_path, "julia", *options, "--epochs", "3", "--rtol", "1e-4") == 0
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert saved["description"]["method"] == "Vern7"
    assert all(w.dtype == torch.float32 for w in saved["weights"].values())


def test_resume_goes_on(engine: str, tmp_path: Path) -> None:
    """The second run starts at the first one's last epoch, and only with the same layers."""
    options = ["--hidden", "8", "--lr", "0.02", "--horizon", "3"]
    assert fit(PELTS, tmp_path / "parts", engine, *options, "--epochs", "20") == 0
    assert fit(PELTS, tmp_path / "parts", engine, *options, "--epochs", "40", "--resume") == 0
    parts = metrics(tmp_path / "parts")
    assert parts["epochs"] == 40
    saved = torch.load(tmp_path / "parts" / "model.pt", weights_only=True)
    assert [h[0] for h in saved["training"]["progress"]["history"]] == list(range(1, 41))
    assert fit(PELTS, tmp_path / "parts", engine, "--epochs", "60", "--resume") == 2


def test_interrupt_keeps_the_best(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    step = train.Trainer._step
    count = 0

    def interrupted(self: train.Trainer, batch: train.Batch) -> float:
        nonlocal count
        count += 1
        if count == 12:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(train.Trainer, "_step", interrupted)
    assert fit(PELTS, tmp_path, engine, "--epochs", "50", "--hidden", "8") == 130
    assert "Interrupted after 11 epochs" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == FILES
    assert metrics(tmp_path)["epochs"] == 11
    assert fit(PELTS, tmp_path, engine, "--epochs", "15", "--hidden", "8", "--resume") == 0
    assert metrics(tmp_path)["epochs"] == 15


def test_control_c(engine: str, tmp_path: Path) -> None:
    """A real signal, to a process that trains."""
    command = [sys.executable, "-m", "pyjlode", "fit", str(PELTS), "--epochs", "2000"]
    process = subprocess.Popen(
        [*command, "--engine", engine, "--out", str(tmp_path / "out"), "--hidden", "8"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell's background job ignores the signal, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert "engine" in process.stdout.readline()
    first = process.stderr.readline()
    assert first.startswith("epoch"), first + process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume goes on" in errors
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES


GOOD = "t,x\n0,1\n1,2\n2,3\n3,4\n4,5\n"
BAD_FILES = {
    "letters": ("t,x\n0,1\n1,2\n2,abc\n3,4\n4,5\n", r"Line 4: 'abc' in column 'x' is not a number"),
    "nan": ("t,x\n0,1\n1,nan\n2,3\n3,4\n4,5\n", "Line 3: column 'x' is nan. With --gaps drop"),
    "infinite": ("t,x\n0,1\n1,inf\n2,3\n3,4\n4,5\n", "Line 3.*not a finite number"),
    "empty field": (
        "t,x\n0,1\n1,\n2,3\n3,4\n4,5\n",
        "Line 3: column 'x' is empty. With --gaps drop",
    ),
    "empty time": ("t,x\n0,1\n,2\n2,3\n3,4\n4,5\n", "Line 3: column 't' is empty; times cannot"),
    "header only": ("t,x\n", "a header and no rows"),
    "duplicate": ("t,x\n0,1\n1,2\n1,3\n3,4\n4,5\n", "Line 4: time 1 repeats"),
    "decreasing": ("t,x\n0,1\n2,2\n1,3\n3,4\n4,5\n", "Line 4: time 1 goes back"),
    "short": ("t,x\n0,1\n1,2\n2,3\n", "3 rows.*at least 4"),
    "ragged": ("t,x\n0,1\n1,2,7\n2,3\n3,4\n", "Line 3"),
    "no states": ("t\n0\n1\n2\n3\n", "no column of states"),
    "empty": ("", "is empty"),
    "twice": ("t,x,x\n0,1,1\n", "two columns of one name"),
}
BAD_OPTIONS = {
    "column": (["--columns", "y"], "no column 'y'; the nearest is"),
    "time": (["--time", "tt"], "no column 'tt'; the nearest is 't'"),
    "group": (["--group", "g"], "no column 'g'"),
    "method": (["--method", "Tsit6"], "nearest is 'Tsit5'"),
    "sensealg": (["--sensealg", "gaus"], "nearest is 'gauss'"),
    "activation": (["--activation", "tan"], "nearest is 'tanh'"),
    "dtype": (["--dtype", "float16"], "nearest is"),
    "hidden": (["--hidden", "a,b"], "32,32"),
    "epochs": (["--epochs", "0"], "--epochs must be above 0"),
    "holdout": (["--holdout", "1.5"], "--holdout"),
    "much held out": (["--holdout", "0.6"], "leaves 2 rows"),
    "horizon": (["--horizon", "1"], "--horizon"),
    "resume": (["--resume"], "no model file"),
}


def refuses(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    import re

    assert main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert re.search(message, said), said
    assert "\n" not in said
    assert said.endswith(".")


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(case: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content, message = BAD_FILES[case]
    path = tmp_path / "bad.csv"
    path.write_text(content)
    refuses(["fit", str(path), "--out", str(tmp_path / "out")], message, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(case: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options, message = BAD_OPTIONS[case]
    path = tmp_path / "good.csv"
    path.write_text(GOOD)
    refuses(["fit", str(path), "--out", str(tmp_path / "out"), *options], message, capsys)
    assert not (tmp_path / "out").exists()


def test_missing_file_and_bad_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    refuses(["fit", str(tmp_path / "no.csv")], "There is no file", capsys)
    path = tmp_path / "good.csv"
    path.write_text(GOOD)
    refuses(["fit", str(path), "--out", str(path / "out")], "is a file", capsys)
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        refuses(["fit", str(path), "--out", str(locked / "out")], "cannot be written", capsys)


def test_models_that_are_not_ours(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = ["--until", "9", "--out", str(tmp_path / "f.csv")]
    refuses(["predict", str(tmp_path / "no.pt"), *out], "no model file", capsys)
    text, tensors, code = (tmp_path / n for n in ("text.pt", "tensors.pt", "code.pt"))
    text.write_text("not a model")
    torch.save({"weights": torch.ones(2)}, tensors)
    torch.save({"format": "pyjlode fit 1", "weights": Explodes(tmp_path / "exploded")}, code)
    for path in (text, tensors, code):
        refuses(["predict", str(path), *out], "not a model that `pyjlode fit` wrote", capsys)
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "f.csv").exists()


class Explodes:
    """A pickle that would run code when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_predict_refuses_the_past(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "good.csv"
    path.write_text(GOOD)
    assert fit(path, tmp_path, "torch", "--epochs", "2", "--hidden", "4", "--holdout", "0") == 0
    assert metrics(tmp_path)["rmse_forecast"] is None
    capsys.readouterr()
    model = ["predict", str(tmp_path / "model.pt"), "--out", str(tmp_path / "f.csv")]
    refuses([*model, "--until", "4"], "must lie after 4", capsys)
    refuses([*model, "--until", "9", "--step", "0"], "--step", capsys)
    refuses([*model, "--until", "1e12", "--step", "1"], "rows", capsys)


def test_other_separators_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeff# a comment\nt;x\n0;1\n\n1;2\n2;3\n3;4\n", encoding="utf-8")
    data = read_csv(path)
    assert data.columns == ("x",)
    assert data.trajectories[0].y[:, 0].tolist() == [1, 2, 3, 4]
    with pytest.raises(InputError):
        read_csv(path, columns=["t"])


def test_gaps(tmp_path: Path) -> None:
    """Rows with an empty cell are left out, or filled from those around; not at the ends."""
    path = tmp_path / "gaps.csv"
    path.write_text("t,x,y\n0,,1\n1,2,2\n2,NA,3\n4,5,5\n5,6,\n6,7,7\n8,9,9\n9,,10\n")
    (dropped,) = read_csv(path, gaps="drop").trajectories
    assert dropped.t.tolist() == [1, 4, 6, 8]
    (filled,) = read_csv(path, gaps="interpolate").trajectories
    assert filled.t.tolist() == [1, 2, 4, 5, 6, 8]
    assert filled.y[:, 0].tolist() == [2, 3, 5, 6, 7, 9]
    assert filled.y[:, 1].tolist() == [2, 3, 5, 6, 7, 9]
    path.write_text("t,x\n0,1\n1,\n2,\n3,4\n4,5\n")
    with pytest.raises(InputError, match="3 rows without gaps"):
        read_csv(path, gaps="drop")


def test_help(capsys: pytest.CaptureFixture) -> None:
    for arguments, text in (
        (["--help"], "Neural ODEs for PyTorch"),
        (["fit", "--help"], "Train a neural ODE on a time series in a CSV file."),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert text in capsys.readouterr().out
