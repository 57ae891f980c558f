"""``pyjlode setup``: install Julia and its packages, or register what is there."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from . import compilation, config
from .config import JuliaSource
from .errors import JuliaNotFoundError
from .runtime import start_source

_TESTED = (1, 10)  # of Julia's versions; the one that juliapkg.json asks for
_PATIENCE = 2.0  # seconds to learn whether there is a network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--julia", metavar="EXE", help="a Julia executable to register")
    parser.add_argument("--project", metavar="DIR", help="its environment with the packages")
    parser.add_argument(
        "--packages", action="store_true", help="print Julia code that adds the packages"
    )
    parser.add_argument("--forget", action="store_true", help="remove what was registered")
    parser.add_argument("--check", metavar="JSON", help=argparse.SUPPRESS)
    parser.add_argument("--backwards", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    if args.check:
        return _check(JuliaSource(**json.loads(args.check)), args.backwards)
    if args.packages:
        print(packages_code())
        return 0
    if args.forget:
        print("Forgotten." if config.forget() else "Nothing was registered.")
        return 0
    if (args.julia is None) != (args.project is None):
        print("pyjlode setup: give --julia and --project together.", file=sys.stderr)
        return 2
    source = _given(args.julia, args.project) if args.julia else _install()
    _try(source)
    print(f"Registered in {config.save(source)}.")
    return 0


def packages_code() -> str:
    """Julia code that adds the packages to an environment, in the versions that were tested."""
    from importlib.metadata import version

    listed = json.loads((Path(__file__).parent / "juliapkg.json").read_text())["packages"]
    specs = [(name, entry["uuid"], entry["version"]) for name, entry in listed.items()]
    specs.append(("PythonCall", "6099a3de-0909-46bc-b1f4-468b9a2dfc0d", "=" + version("juliacall")))
    lines = [
        f'    PackageSpec(name="{name}", uuid="{uuid}", version=Pkg.Types.semver_spec("{bounds}")),'
        for name, uuid, bounds in specs
    ]
    return "\n".join(["using Pkg", "Pkg.add([", *lines, "])"])


def _given(julia: str, project: str) -> JuliaSource:
    exe = shutil.which(julia)
    if exe is None:
        raise JuliaNotFoundError(f"{julia} is not an executable; give the path of Julia's.")
    folder = Path(project).resolve()
    if not (folder / "Project.toml").exists():
        raise JuliaNotFoundError(f"{folder} has no Project.toml; give a Julia environment.")
    version = subprocess.run(
        [exe, "--startup-file=no", "-e", "print(VERSION)"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    minor = tuple(int(n) for n in version.split("-")[0].split(".")[:2]) if version else (0, 0)
    if minor < _TESTED:
        raise JuliaNotFoundError(
            f"{exe} is not a Julia of version 1.10 or later (it says {version or 'nothing'!r})."
        )
    print(f"Julia {version} at {exe}")
    if minor > _TESTED:
        print("pyjlode was tested with Julia 1.10 only; run its tests before you rely on this one.")
    return JuliaSource(str(Path(exe).absolute()), str(folder), "configuration")


def _install() -> JuliaSource:
    """Have juliapkg download Julia and the packages; it shows its own progress."""
    host = juliapkg_unreachable()
    if host:
        raise JuliaNotFoundError(
            "Julia cannot be downloaded here: there is no way to its servers. Register your own "
            "with `pyjlode setup --julia EXE --project DIR`."
        )
    import juliapkg

    print("Installing Julia and its packages; the first time this takes some minutes.")
    juliapkg.resolve()
    return JuliaSource(str(juliapkg.executable()), str(juliapkg.project()), "juliapkg")


def juliapkg_unreachable() -> bool:
    """Whether juliapkg's source of Julia versions can't be reached; answers in two seconds."""
    import urllib.error
    import urllib.request

    from juliapkg import install_julia

    reached = threading.Event()

    def attempt() -> None:
        request = urllib.request.Request(install_julia._julia_versions_url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_PATIENCE).close()
        except urllib.error.HTTPError as error:
            if error.code >= 400:
                return
        except (OSError, ValueError):
            return
        reached.set()

    # A look-up of a name can hang beyond any time limit, but not the thread that waits for it.
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return not reached.is_set()


def _try(source: JuliaSource) -> None:
    """Load the packages in processes of their own, so that a crash is a message here."""
    command = [sys.executable, "-m", "pyjlode", "setup", "--check", json.dumps(asdict(source))]
    names = compilation.missing(source)
    print("Loading the packages.")
    if names:
        print(f"Some {len(names)} are to be compiled, once: up to ten minutes on two cores.")
    log = config.config_file().with_name("setup.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    logs = [log, log.with_name("setup-second.log")]
    progress = compilation.Progress(names, logs, lambda line: print(line, flush=True))
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("w")) for path in logs]
        # A package is compiled by one core; Julia's locks keep the two from compiling the same.
        processes = [
            subprocess.Popen(
                command + more, stdout=subprocess.PIPE if file is files[0] else subprocess.DEVNULL,
                stderr=file, text=True, env=compilation.environment(),
            )
            for file, more in zip(files, ([], ["--backwards"]), strict=True)
        ]  # fmt: skip
        for process in processes:
            stack.callback(_end, process)  # all is compiled, or nothing can be, or the user stopped
        while processes[0].poll() is None:
            progress.update()
            time.sleep(0.5)
        assert processes[0].stdout is not None
        out = processes[0].stdout.read()
    if processes[0].returncode != 0:
        raise JuliaNotFoundError(
            f"That Julia does not work: {compilation.cause(log)} All that it said is in {log}."
        )
    print(out.strip())


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def _check(source: JuliaSource, backwards: bool) -> int:
    runtime = start_source(source)
    runtime.module.load_extensions(backwards)
    print("Works: " + ", ".join(f"{k} {v}" for k, v in runtime.versions.items()))
    return 0
