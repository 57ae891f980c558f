"""Where Julia is: environment variables, the configuration that `pyjlode setup` saves, juliapkg."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class JuliaSource:
    """A Julia to start.

    Attributes
    ----------
    exe : str
        The Julia executable.
    project : str
        The folder of the Julia environment that has the packages.
    origin : {"environment", "configuration", "juliapkg"}
        How it was found.
    """

    exe: str
    project: str
    origin: str


def config_file() -> Path:
    """The saved configuration's place; ``PYJLODE_CONFIG_DIR`` overrides the platform's."""
    chosen = os.environ.get("PYJLODE_CONFIG_DIR")
    if chosen:
        return Path(chosen) / "config.json"
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA", Path.home() / "AppData" / "Roaming"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "pyjlode" / "config.json"


def save(source: JuliaSource) -> Path:
    """Write the configuration, whole or not at all."""
    path = config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(source), indent=2) + "\n")
    temporary.replace(path)
    return path


def forget() -> bool:
    """Remove the saved configuration; False where there was none."""
    path = config_file()
    existed = path.exists()
    path.unlink(missing_ok=True)
    return existed


def find() -> JuliaSource | None:
    """The Julia that would be started, or None. Starts nothing and takes no network."""
    return _from_environment() or _from_configuration() or _from_juliapkg()


def _from_environment() -> JuliaSource | None:
    for exe, project in (
        ("PYJLODE_JULIA", "PYJLODE_PROJECT"),
        ("PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT"),
    ):
        if os.environ.get(exe) and os.environ.get(project):
            return JuliaSource(os.environ[exe], os.environ[project], "environment")
    return None


def _from_configuration() -> JuliaSource | None:
    try:
        saved = json.loads(config_file().read_text())
        source = JuliaSource(*(str(saved[k]) for k in ("exe", "project", "origin")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return source if Path(source.exe).exists() and Path(source.project).is_dir() else None


def _from_juliapkg() -> JuliaSource | None:
    """What juliapkg has installed before, if our packages are among it."""
    try:
        from juliapkg.state import STATE
    except ImportError:
        return None
    meta = Path(str(STATE.get("meta", "")))
    project = Path(str(STATE.get("project", "")))
    try:
        saved = json.loads(meta.read_text())
        packages = {p["name"] for p in saved["pkgs"]}
        exe = saved["executable"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if "SciMLSensitivity" not in packages or not (project / "Manifest.toml").exists():
        return None
    return JuliaSource(str(exe), str(project), "juliapkg")
