"""Every example runs, small, and a training that was interrupted goes on as if it was not."""

from __future__ import annotations

import gzip
import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pyjlode import UnsupportedError, engine_info

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NAMES = sorted(p.stem for p in EXAMPLES.glob("*.py") if p.stem != "common")
# Their solvers are Julia's.
ONLY_JULIA = ["neural_sde", "robertson"]
# Reads what does not come with the tests' packages; see below.
DATA = ["digits"]


@pytest.fixture(autouse=True)
def _beside_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python has it for a script."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", ["example"])


@pytest.mark.auto_engine
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ONLY_JULIA + DATA])
def test_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the engine that a user gets who asks for none."""
    run(name, tmp_path)
    printed = capsys.readouterr().out
    assert f"engine: {engine_info()}" in printed
    assert "nan" not in printed


@pytest.mark.parametrize("name", ONLY_JULIA)
def test_those_that_need_julia_run(julia: str, name: str, tmp_path: Path) -> None:
    run(name, tmp_path, "--engine", "julia")


@pytest.mark.parametrize("name", ONLY_JULIA)
def test_what_needs_julia_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="pyjlode setup"):
        run(name, tmp_path, "--engine", "torch")


@pytest.mark.auto_engine
def test_digits_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On files as MNIST's, of which one is compressed."""
    for name, shape in (
        ("train-images-idx3", (20, 8, 8)),
        ("train-labels-idx1", (20,)),
        ("t10k-images-idx3", (16, 8, 8)),
        ("t10k-labels-idx1", (16,)),
    ):
        head = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        largest = 10 if "labels" in name else 256
        content = head + torch.randint(largest, shape, dtype=torch.uint8).numpy().tobytes()
        (tmp_path / f"{name}-ubyte").write_bytes(content)
    plain = tmp_path / "t10k-images-idx3-ubyte"
    plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    run("digits", tmp_path, "--data", str(tmp_path))
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("ResNet", "RK-Net", "ODE-Net"))


def run(name: str, out: Path, *arguments: str) -> None:
    importlib.import_module(name).main(["--small", "--out", str(out), *arguments])
    assert (out / f"{name}.png").stat().st_size > 5000


def test_readme_has_a_command_for_each() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    assert all(f"examples/{name}.py" in readme for name in NAMES)


def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    common = importlib.import_module("common")

    def train(out: Path, *, resume: bool, stop: int | None) -> tuple[nn.Module, list]:
        out.mkdir(exist_ok=True)
        torch.manual_seed(0)
        model, calls = nn.Linear(2, 1), [0]

        def loss() -> torch.Tensor:
            calls[0] += 1
            x = torch.randn(4, 2)
            if calls[0] == stop:
                raise KeyboardInterrupt
            return (model(x) - x.sum(1, keepdim=True)).square().mean()

        run = common.Run(out, small=True, resume=resume, engine="torch")
        return model, common.train(run, "line", model, 25, loss, rate=0.3)

    whole, history = train(tmp_path / "whole", resume=False, stop=None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", resume=False, stop=8)
    again, resumed = train(tmp_path / "parts", resume=True, stop=None)
    assert [h["loss"] for h in resumed] == [h["loss"] for h in history]
    assert torch.equal(again.weight, whole.weight)
    assert history[-1]["loss"] < 0.1 * history[0]["loss"]
    # Done is done: nothing is trained any more.
    assert train(tmp_path / "parts", resume=True, stop=1)[1] == resumed
