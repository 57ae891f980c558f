"""The README's code runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

README = Path(__file__).resolve().parent.parent / "README.md"
DOCS = README.parent / "docs"


def test_the_example_learns(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYJLODE_ENGINE", engine)
    monkeypatch.setattr("pyjlode.engine._chosen", None)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    first, last = dict(), dict()
    exec(code.replace("range(100)", "range(1)"), first)
    exec(code, last)
    assert float(last["loss"].detach()) < float(first["loss"].detach())


def test_each_kind_of_problem_runs_as_it_stands(
    julia: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYJLODE_ENGINE", "julia")
    monkeypatch.setattr("pyjlode.engine._chosen", None)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "problems.md").read_text(), re.S)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 12
    assert torch.isfinite(names["k"].grad).all() and names["k"].grad.all()
    assert float(names["energy"].max() - names["energy"].min()) < 1e-8
    # v + ohm i = 1 at all times, and a larger resistor has less current at first, more at the end.
    assert (names["voltage"] + names["ohm"] * names["current"] - 1).abs().max() < 1e-6
    assert -0.2 < float(names["ohm"].grad) < 0
    assert abs(float(names["h"].grad) + 2.5) < 1e-6
    assert float(names["sde"].rate.grad) < 0
    assert names["lag"].grad.abs().item() > 0
    counts = names["counts"]
    assert (counts[:, :, 1:3].sum(2) == 20).all() and (counts[:, :, [0, 2, 3]].sum(2) == 100).all()
    assert 0 < float(counts[1, :, 3].mean()) < float(counts[2, :, 3].mean())
    assert float(names["shots"][-1].mean()) > 0
    assert float(names["drift"]) < 1e-11


def test_files_that_are_named_exist() -> None:
    for page in (README, *DOCS.glob("*.md")):
        for target in re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
