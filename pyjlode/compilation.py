"""What Julia compiles while the packages load for the first time: which, how many are left.

Julia says so where ``JULIA_DEBUG`` asks for it, also in the processes that compile.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .config import JuliaSource
from .runtime import julia_package

ENVIRONMENT = {"JULIA_DEBUG": "loading"}

_SAID = re.compile(r"Debug: Precompiling (?:\S+ \()?(\w+) \[")
_CAUSE = re.compile(r"^ERROR: (?:LoadError: )?(.+)$", re.M)

# What setup compiles is Pyjlode and the packages that its extensions wait for. A cache is valid if
# those of all that was loaded for it are; what the manifest names beside may never be loaded.
_MISSING = """
    import Pkg, TOML
    push!(LOAD_PATH, ARGS[1])
    project = TOML.parsefile(joinpath(ARGS[1], "Project.toml"))
    id(name, uuid) = Base.PkgId(Base.UUID(uuid), name)
    is_void(id) = !Base.in_sysimage(id) && !Base.isprecompiled(id)
    ours = id(project["name"], project["uuid"])
    waited_for = [id(name, uuid) for (name, uuid) in project["weakdeps"]]
    filter!(id -> Base.locate_package(id) !== nothing, waited_for)
    (isempty(waited_for) || !any(is_void, [ours; waited_for])) && exit()
    known = Pkg.dependencies()
    found = Set{Base.UUID}()
    function visit(uuid)
        (uuid in found || !haskey(known, uuid)) && return
        push!(found, uuid)
        foreach(visit, values(known[uuid].dependencies))
    end
    foreach(id -> visit(id.uuid), waited_for)
    void = filter(is_void, [[id(known[uuid].name, string(uuid)) for uuid in found]; ours])
    foreach(println, [[id.name for id in void]; collect(keys(project["extensions"]))])
"""


def missing(source: JuliaSource) -> list[str]:
    """Packages and extensions that setup compiles; none where Julia cannot tell."""
    done = subprocess.run(
        [source.exe, "--startup-file=no", f"--project={source.project}", "-e", _MISSING,
         str(julia_package())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.split() if done.returncode == 0 else []


@dataclass
class Progress:
    """Reads the logs of the processes that load the packages.

    Parameters
    ----------
    missing : list of str
        What is to be compiled.
    logs : list of pathlib.Path
    show : callable
        Gets a line at a time.
    """

    missing: list[str]
    logs: list[Path]
    show: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)
    shown: set[str] = field(default_factory=set)

    def update(self) -> None:
        """Show what began to be compiled since the last time."""
        for log in self.logs:
            for name in _begun(log):
                if name not in self.shown:
                    self.shown.add(name)
                    self._show(name)

    def _show(self, name: str) -> None:
        left = len(set(self.missing) - self.shown) + 1
        count = f", about {left} left" if self.missing else ""
        self.show(f"  {time.monotonic() - self.began:4.0f} s  compiling {name}{count}")


def _begun(log: Path) -> list[str]:
    return _SAID.findall(log.read_text(errors="replace")) if log.exists() else []


def cause(log: Path) -> str:
    """The first error that a log tells of, or its last line."""
    text = log.read_text(errors="replace").strip()
    found = _CAUSE.search(text)
    return found.group(1) if found else (text.splitlines() or ["it said nothing"])[-1]


def environment() -> dict[str, str]:
    """Of a process that says what is compiled."""
    return {**os.environ, **ENVIRONMENT}
