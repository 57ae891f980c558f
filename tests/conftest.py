"""Engines for the tests, and the lines at the end that say which were tested."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch

from pyjlode import config, engine_info
from pyjlode.engine import choose_engine

# Engine's name -> what the summary says of it.
_seen: dict[str, str] = {}

# The environment variable with the file that is there while the longest parts are compiled.
COMPILING = "PYJLODE_TESTS_COMPILING"
COMPILE = """
import sys
from pathlib import Path
from pyjlode import GaussAdjoint
from pyjlode.engine import choose_engine

try:
    engine = choose_engine("julia")
    engine._load_sensitivities(GaussAdjoint())
finally:
    Path(sys.argv[1]).unlink(missing_ok=True)
engine.module.load_extensions(True)
"""
COMPILE_TOO = """
from pyjlode.engine import choose_engine

choose_engine("julia").module.load_extensions()
"""

JULIA_TESTS = Path(__file__).parent / "test_julia_package.py"

# The tensors here are small; threads would only wait for each other.
torch.set_num_threads(1)

if "PYTEST_XDIST_WORKER" in os.environ:
    # Most of the time of these tests Julia compiles their models, and takes a quarter less where it
    # optimizes less. Its own tests, and the package itself, are compiled as users have them.
    os.environ.setdefault("PYTHON_JULIACALL_OPTIMIZE", "1")

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


def pytest_sessionstart(session: pytest.Session) -> None:
    """In a run by several processes two more have Julia compile this checkout's package, which
    takes minutes, while they run what needs no Julia, and step back: they wait for it then."""
    is_worker = hasattr(session.config, "workerinput")
    if is_worker and hasattr(os, "nice"):
        os.nice(5)
    controls = getattr(session.config.option, "numprocesses", None)
    if controls and not is_worker and config.find() is not None:
        handle, marker = tempfile.mkstemp(prefix="pyjlode-compiling-")
        os.close(handle)
        os.environ[COMPILING] = marker
        for script in (COMPILE, COMPILE_TOO):
            compiling = subprocess.Popen(
                [sys.executable, "-c", script, marker],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                # Of two cores Julia would take one to generate code in.
                env={"JULIA_IMAGE_THREADS": "2", **os.environ},
            )  # fmt: skip
            session.config.add_cleanup(compiling.wait)
            session.config.add_cleanup(compiling.kill)
        session.config.add_cleanup(lambda: Path(marker).unlink(missing_ok=True))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Wait, but not for ever, and once: whoever compiles may have been killed."""
    if COMPILING not in os.environ or not _needs_julia(item):
        return
    marker, patience = Path(os.environ[COMPILING]), time.monotonic() + 600
    while marker.exists() and time.monotonic() < patience:
        time.sleep(0.2)
    marker.unlink(missing_ok=True)


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs Julia comes last, a file in one process: both would compile what its tests share.

    Julia's own tests and the files with the most tests begin, so that the processes end together.
    """
    files = Counter(item.path for item in items if _needs_julia(item))
    files[JULIA_TESTS] *= 1000
    items.sort(key=lambda item: (-files[item.path], item.path) if _needs_julia(item) else (-inf,))
    for item in items:
        if _needs_julia(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _needs_julia(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return (
        isinstance(item, pytest.DoctestItem)
        or item.get_closest_marker("auto_engine") is not None
        or "julia" in parameters
        or parameters.get("engine") == "julia"
    )


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
    if name not in _seen:
        versions = engine_info(name).versions
        shown = ("torchdiffeq",) if name == "torch" else ("Julia", "SciMLSensitivity")
        _seen[name] = f"tested ({', '.join(f'{package} {versions[package]}' for package in shown)})"
    return name


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker process hands what it tested to the one that prints the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["engines"] = _seen


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker tested."""
    _seen.update(getattr(node, "workeroutput", {}).get("engines", {}))


def pytest_unconfigure(config: pytest.Config) -> None:
    """After everything that pytest itself says, so that these are the last lines."""
    if not hasattr(config, "workeroutput"):
        for line in _summary():
            print(line)


def _summary() -> list[str]:
    lines = [f"torch engine: {_seen.get('torch', 'NOT TESTED (no test chosen)')}"]
    if "julia" in _seen:
        lines.append(f"julia engine: {_seen['julia']}")
    elif config.find() is None:
        lines.append("julia engine: NOT TESTED (no Julia found)")
    else:
        lines.append("julia engine: NOT TESTED (no test chosen, or it did not start)")
    return lines
