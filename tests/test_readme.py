"""The README's code runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_example_learns(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYJLODE_ENGINE", engine)
    monkeypatch.setattr("pyjlode.engine._chosen", None)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    first, last = dict(), dict()
    exec(code.replace("range(100)", "range(1)"), first)
    exec(code, last)
    assert float(last["loss"].detach()) < float(first["loss"].detach())


def test_its_files_exist() -> None:
    for target in re.findall(r"\]\(([^):]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
