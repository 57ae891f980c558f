"""``pyjlode setup --sysimage``: the solver packages in one image, for a start in a few seconds.

The image holds the packages that solve, not this project's own (which changes more often) and not
PythonCall (which must be loaded after Python has told it where it is). It fits one Julia and one
manifest, whose digest is part of its name; for any other it is not used.

References
----------
PackageCompiler.jl, "Creating a sysimage".
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from . import config
from .config import JuliaSource
from .errors import JuliaNotFoundError

_BUILD = """
try
    @eval using PackageCompiler
catch
    import Pkg
    Pkg.activate(; temp=true)
    Pkg.add("PackageCompiler")
    @eval using PackageCompiler
end
project, image, packages = ARGS[1], ARGS[2], ARGS[3:end]
create_sysimage(packages; project, sysimage_path=image)
"""

_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

PACKAGES = (
    "DiffEqCallbacks", "LinearSolve", "OrdinaryDiffEqLowOrderRK", "OrdinaryDiffEqRosenbrock",
    "OrdinaryDiffEqTsit5", "OrdinaryDiffEqVerner", "SciMLSensitivity",
)  # fmt: skip


def image_path(source: JuliaSource) -> Path:
    """Where the image for this Julia and manifest is, or would be.

    Examples
    --------
    >>> image_path(JuliaSource("julia", "no-such-folder", "configuration")).parent.name
    'sysimage'
    """
    digest = hashlib.sha256(source.exe.encode())
    for name in (source.exe, str(Path(source.project) / "Manifest.toml")):
        try:
            stat = Path(name).stat()
        except OSError:
            continue
        digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return config.config_file().parent / "sysimage" / f"{digest.hexdigest()[:16]}{_SUFFIX}"


def find(source: JuliaSource) -> Path | None:
    """The image to start with, if there is one that fits."""
    path = image_path(source)
    return path if path.exists() else None


def build(source: JuliaSource) -> Path:
    """Build the image; takes many minutes and a C compiler.

    Raises
    ------
    JuliaNotFoundError
        If PackageCompiler is not to be had, or fails.
    """
    path = image_path(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"building{_SUFFIX}")
    print("Building a system image of the packages; this takes ten minutes or more.", flush=True)
    command = [source.exe, "--startup-file=no", f"--project={source.project}", "-e", _BUILD]
    done = subprocess.run(
        [*command, source.project, str(temporary), *PACKAGES], check=False
    )  # fmt: skip
    if done.returncode != 0 or not temporary.exists():
        raise JuliaNotFoundError(
            "The system image was not built; Julia's words are above. It needs PackageCompiler "
            "(in the environment, or a network to install it) and a C compiler. pyjlode works "
            "without an image; only its start takes longer."
        )
    for other in path.parent.glob(f"*{_SUFFIX}"):
        if other != temporary:
            other.unlink()
    temporary.replace(path)
    return path
