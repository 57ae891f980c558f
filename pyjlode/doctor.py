"""``pyjlode doctor``: what is here, what works, and what to do about the rest."""

from __future__ import annotations

import argparse
import platform
import time
from importlib.metadata import PackageNotFoundError, version

from . import compilation, config, runtime
from .errors import JuliaNotFoundError

_PACKAGES = ("pyjlode", "torch", "numpy", "juliacall", "juliapkg", "torchdiffeq")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``doctor`` takes no arguments."""


def run(args: argparse.Namespace) -> int:
    """Report; 0 where the Julia engine starts, 1 where it does not."""
    print(f"python       {platform.python_version()} on {platform.platform()}")
    for name in _PACKAGES:
        print(f"{name:<12} {_version(name)}")
    print("torch engine ready (torchdiffeq)")
    source = config.find()
    if source is None:
        print("julia engine not set up")
        print("  `pyjlode setup` installs Julia and its packages (needs a network).")
        print("  `pyjlode setup --julia EXE --project DIR` registers your own.")
        return 1
    print(f"julia        {source.exe}")
    print(f"project      {source.project}")
    print(f"found in     {source.origin}")
    missing = compilation.missing(source)
    if missing:
        print(f"compiled     all but {len(missing)} packages: the start compiles them, for minutes")
        print("  `pyjlode setup` does too, and shows how far it is.")
    began = time.monotonic()
    try:
        started = runtime.start()
    except JuliaNotFoundError as error:
        print(f"julia engine does not start\n  {error}")
        return 1
    print(f"julia engine ready after {time.monotonic() - began:.1f} s")
    for name, number in started.versions.items():
        print(f"  {name} {number}")
    return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing; `pip install pyjlode` brings it"
