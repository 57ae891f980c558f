"""The Julia package's own tests, and its place in the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pyjlode import runtime

ROOT = Path(__file__).resolve().parent.parent


def test_julia_tests(julia: str) -> None:
    source = runtime.start().source
    package = runtime.julia_package()
    code = f'push!(LOAD_PATH, raw"{package}"); include(raw"{package / "test" / "runtests.jl"}")'
    done = subprocess.run(
        [source.exe, "--startup-file=no", f"--project={source.project}", "-e", code],
        capture_output=True, text=True, check=False,
        env={
            **os.environ, "JULIA_CONDAPKG_BACKEND": "Null", "JULIA_PYTHONCALL_EXE": sys.executable
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Pyjlode" in done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, installed away from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("pyjlode-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"pyjlode/juliapkg.json", "pyjlode/julia/Project.toml"} <= names
    assert "pyjlode/julia/src/Pyjlode.jl" in names
    target = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--target", target, wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    return target


def test_the_wheel_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = """
import torch, pyjlode, pyjlode.runtime
print(pyjlode.__file__)
print(pyjlode.runtime.julia_package())
y = pyjlode.odeint(lambda t, y: -y, torch.ones(1), [0.0, 1.0], engine="torch")
print(round(float(y[-1]), 3))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )  # fmt: skip
    where, julia, value = done.stdout.split()
    assert where == str(installed / "pyjlode" / "__init__.py")
    assert julia == str(installed / "pyjlode" / "julia")
    assert value == "0.368"
