"""Files that a fit leaves: each is written whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from .data import InputError

FORMAT = "pyjlode fit 1"


def check_folder(path: Path) -> None:
    """Raise :class:`InputError` unless files can be written to ``path``; leaves nothing behind."""
    parent = path
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"{parent} is a file, so {path} cannot be a folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written to.")


def write(path: Path, writer: Callable[[Path], None]) -> None:
    """Write to a temporary name beside ``path``, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        writer(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    write(path, lambda p: _write_text(p, json.dumps(content, indent=2, allow_nan=False) + "\n"))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    def writer(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(header)
            table.writerows(rows)

    write(path, writer)


def write_model(path: Path, content: dict[str, Any]) -> None:
    write(path, lambda p: torch.save({"format": FORMAT, **content}, p))


def read_model(path: Path) -> dict[str, Any]:
    """Read what :func:`write_model` wrote.

    Raises
    ------
    InputError
        If there is no such file or it is not one of ours. Nothing in the file is executed.
    """
    if not path.is_file():
        raise InputError(f"There is no model file {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is not a model that `pyjlode fit` wrote.")
    return content
