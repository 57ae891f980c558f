"""The ``pyjlode`` command: one subcommand a module, each imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from .errors import PyjlodeError

# Each module has `add_arguments(parser)` and `run(args) -> int` (the exit code).
COMMANDS = {
    "fit": ("pyjlode.fit.command", "train a neural ODE on a time series in a CSV file"),
    "predict": ("pyjlode.fit.predict", "forecast with a model that `pyjlode fit` trained"),
    "setup": ("pyjlode.install", "install Julia and its packages, or register your own"),
    "doctor": ("pyjlode.doctor", "say which engines work here and what to do about the rest"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; by default those of this process.

    Returns
    -------
    int
        0 for success, 1 for work that failed, 2 for bad input, 130 for an interrupt.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="pyjlode",
        description="Neural ODEs for PyTorch, solved and differentiated by Julia's SciML.",
        epilog="`pyjlode COMMAND --help` says more of a command.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
        if arguments[:1] == [name]:
            importlib.import_module(module).add_arguments(subparser)
    args = parser.parse_args(arguments)
    try:
        return int(importlib.import_module(COMMANDS[args.command][0]).run(args))
    except PyjlodeError as error:
        print(f"pyjlode {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\npyjlode {args.command}: interrupted", file=sys.stderr)
        return 130
