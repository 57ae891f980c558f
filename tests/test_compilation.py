"""What ``pyjlode setup`` shows of Julia's compilation, and how it tells of a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyjlode import compilation, runtime
from pyjlode.config import JuliaSource

SAID = """\
┌ Debug: Precompiling SciMLBase [0bca4576-84f4-4d90-8ffe-ffa030f20462]
└ @ Base loading.jl:2424
"""
FAILED = """\
ERROR: LoadError: UndefVarError: `TimeDerivativeWrapper` not defined
Stacktrace:
 [1] include
in expression starting at stdin:4
ERROR: LoadError: Failed to precompile OrdinaryDiffEqRosenbrock [43230ef6] to "/somewhere".
Stacktrace:
"""


def test_progress(tmp_path: Path) -> None:
    """Each package once, from both logs, with how many are left."""
    logs, shown = [tmp_path / "a.log", tmp_path / "b.log"], list[str]()
    progress = compilation.Progress(["SciMLBase", "Tables", "Pyjlode"], logs, shown.append)
    progress.update()
    assert shown == []
    logs[0].write_text(SAID)
    progress.update()
    logs[1].write_text(SAID + SAID.replace("SciMLBase", "Tables"))
    progress.update()
    assert [line.split("compiling ")[1] for line in shown] == [
        "SciMLBase, about 3 left",
        "Tables, about 2 left",
    ]


def test_the_cause_is_the_first_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(SAID + FAILED)
    assert compilation.cause(log) == "UndefVarError: `TimeDerivativeWrapper` not defined"
    log.write_text("killed\n")
    assert compilation.cause(log) == "killed"
    log.write_text("")
    assert "nothing" in compilation.cause(log)


def test_julia_says_what_it_compiles(julia: str, tmp_path: Path) -> None:
    """A package that breaks: found among those to compile, said in the log, and its cause named."""
    source = runtime.start().source
    folder = tmp_path / "Broken"
    (folder / "src").mkdir(parents=True)
    (folder / "Project.toml").write_text(
        'name = "Broken"\nuuid = "3c9c1d38-0c5c-4b6d-9a55-3f8c1c2f7b21"\nversion = "0.1.0"\n'
    )
    (folder / "src" / "Broken.jl").write_text("module Broken\nno_such_name\nend\n")
    log = tmp_path / "log"
    with log.open("w") as file:
        done = subprocess.run(
            [source.exe, "--startup-file=no", f"--project={folder}", "-e", "import Broken"],
            stderr=file, check=False, env=compilation.environment(),
        )  # fmt: skip
    assert done.returncode != 0
    shown = list[str]()
    compilation.Progress(["Broken"], [log], shown.append).update()
    assert [line.split("compiling ")[1] for line in shown] == ["Broken, about 1 left"]
    assert "no_such_name" in compilation.cause(log)


def test_what_is_missing(julia: str) -> None:
    """Nothing, once all is loaded; and none where Julia cannot tell."""
    source = runtime.start().source
    runtime.start().module.load_extensions()
    assert compilation.missing(source) == []
    assert compilation.missing(JuliaSource(source.exe, "/no/such/folder", "x")) == []


def test_what_is_missing_with_an_empty_depot(
    julia: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is compiled: the packages, ours and its extensions."""
    monkeypatch.setenv("JULIA_DEPOT_PATH", str(tmp_path))
    names = compilation.missing(runtime.start().source)
    assert {"OrdinaryDiffEqCore", "SciMLSensitivity", "Pyjlode", "PyjlodeSDIRKExt"} <= set(names)


def test_a_failed_setup_names_the_log(julia: str, tmp_path: Path) -> None:
    source = runtime.start().source
    (tmp_path / "Project.toml").write_text("[deps]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pyjlode", "setup", "--julia", source.exe, "--project",
         str(tmp_path)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYJLODE_CONFIG_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert str(tmp_path / "setup.log") in done.stderr
