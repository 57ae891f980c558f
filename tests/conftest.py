"""Engines for the tests, and the lines at the end that say which were tested."""

from __future__ import annotations

import os

import pytest
import torch

from pyjlode import config, engine_info
from pyjlode.engine import choose_engine

_seen: dict[str, str] = {}

# The tensors here are small; threads would only wait for each other.
torch.set_num_threads(1)

if config.find() is None:
    # Else every call without an engine would warn that torch solves, and warnings are errors here.
    os.environ.setdefault("PYJLODE_ENGINE", "torch")


def _engine_names() -> list[str]:
    return ["torch", "julia"] if config.find() is not None else ["torch"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", _engine_names(), indirect=True)
    if "julia" in metafunc.fixturenames:
        # With no Julia these tests are not collected; the last line of the summary says so. With
        # one that does not start they fail.
        metafunc.parametrize("julia", ["julia"] if config.find() else [], indirect=True)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """The name of an engine; a test that takes it runs on each."""
    return _started(request.param)


@pytest.fixture
def julia(request: pytest.FixtureRequest) -> str:
    """The Julia engine, for tests of what only it has."""
    return _started("julia")


def _started(name: str) -> str:
    choose_engine(name)
    _seen[name] = "tested"
    return name


def pytest_unconfigure() -> None:
    """After everything that pytest itself says, so that these are the last lines."""
    for line in _summary():
        print(line)


def _summary() -> list[str]:
    torch_versions = engine_info("torch").versions
    lines = [
        f"torch engine: tested (torchdiffeq {torch_versions['torchdiffeq']})"
        if "torch" in _seen
        else "torch engine: NOT TESTED (no test chosen)"
    ]
    if "julia" in _seen:
        versions = engine_info("julia").versions
        tested = f"Julia {versions['Julia']}, SciMLSensitivity {versions['SciMLSensitivity']}"
        lines.append(f"julia engine: tested ({tested})")
    elif config.find() is None:
        lines.append("julia engine: NOT TESTED (no Julia found)")
    else:
        lines.append("julia engine: NOT TESTED (no test chosen, or it did not start)")
    return lines
