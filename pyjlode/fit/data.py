"""Time series from CSV files, checked line by line."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..names import unknown

MINIMUM_ROWS = 4


class InputError(Exception):
    """Input that cannot be used; the message is one plain sentence."""


@dataclass(frozen=True)
class Trajectory:
    """One series.

    Attributes
    ----------
    name : str
        The group's name; empty for the only one.
    t : ndarray of float64, shape (N,)
        Times, increasing, in the file's unit.
    y : ndarray of float64, shape (N, D)
        States, in the file's units.
    """

    name: str
    t: NDArray[np.float64]
    y: NDArray[np.float64]


@dataclass(frozen=True)
class Dataset:
    """The series of a file and the names of its columns."""

    time: str
    columns: tuple[str, ...]
    group: str | None
    trajectories: tuple[Trajectory, ...]


def read_csv(
    path: str | Path,
    time: str | None = None,
    columns: Sequence[str] | None = None,
    group: str | None = None,
) -> Dataset:
    """Read series from a CSV file with a header.

    Lines that start with ``#`` are comments; commas, semicolons and tabs separate fields.

    Parameters
    ----------
    path : str or Path
    time : str, optional
        The column of times; by default the first.
    columns : sequence of str, optional
        The columns of states; by default all others.
    group : str, optional
        The column that tells the series of a file apart.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        If the file cannot be used.
    """
    header, rows = _read_rows(Path(path))
    time = header[0] if time is None else _known(time, header)
    if group is not None:
        group = _known(group, header)
    if columns is None:
        columns = [name for name in header if name not in (time, group)]
    else:
        columns = [_known(name, header) for name in columns]
    if not columns:
        raise InputError(f"{path} has no column of states beside {time!r}.")
    for name in (time, group):
        if name in columns:
            raise InputError(f"Column {name!r} cannot be a state as well.")
    position = {name: header.index(name) for name in header}
    series: dict[str, list[tuple[int, list[float]]]] = {}
    for line, fields in rows:
        key = fields[position[group]] if group is not None else ""
        numbers = [_number(fields[position[name]], name, line) for name in (time, *columns)]
        series.setdefault(key, []).append((line, numbers))
    trajectories = tuple(_trajectory(name, points) for name, points in series.items())
    return Dataset(time, tuple(columns), group, trajectories)


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {error}.") from None
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise InputError(f"{path} is empty.")
    delimiter = max(",;\t", key=lines[0][1].count)
    parsed = list(csv.reader([line for _, line in lines], delimiter=delimiter))
    header = [name.strip() for name in parsed[0]]
    if len(set(header)) < len(header):
        raise InputError(f"{path} has two columns of one name in its header.")
    rows = []
    for (number, _), fields in zip(lines[1:], parsed[1:], strict=True):
        if len(fields) != len(header):
            raise InputError(
                f"Line {number} of {path} has {len(fields)} fields and the header {len(header)}."
            )
        rows.append((number, [f.strip() for f in fields]))
    return header, rows


def _known(name: str, header: Sequence[str]) -> str:
    if name in header:
        return name
    raise InputError(unknown("column", name, header))


def _number(text: str, column: str, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"Line {line}: {text!r} in column {column!r} is not a number.") from None
    if not math.isfinite(value):
        raise InputError(f"Line {line}: column {column!r} is {text}, not a finite number.")
    return value


def _trajectory(name: str, points: list[tuple[int, list[float]]]) -> Trajectory:
    place = f" in group {name!r}" if name else ""
    if len(points) < MINIMUM_ROWS:
        raise InputError(
            f"There are {len(points)} rows{place}; a fit needs at least {MINIMUM_ROWS}."
        )
    for (_, previous), (line, numbers) in pairwise(points):
        if numbers[0] <= previous[0]:
            order = "repeats" if numbers[0] == previous[0] else "goes back from"
            raise InputError(
                f"Line {line}: time {numbers[0]:g} {order} {previous[0]:g}{place}; "
                "times must increase."
            )
    values = np.array([numbers for _, numbers in points])
    return Trajectory(name, values[:, 0], values[:, 1:])
