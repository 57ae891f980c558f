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

GAPS = ("error", "drop", "interpolate")
"""What becomes of rows with an empty cell."""

_EMPTY = {"", "na", "n/a", "nan", "null", "none"}


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
    gaps: str = "error",
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
    gaps : {"error", "drop", "interpolate"}, optional
        What becomes of a row with an empty cell: it is an error, left out, or filled linearly in
        time from the rows around it (left out at a series' ends).

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
    if not rows:
        raise InputError(f"{path} has a header and no rows; a fit needs at least {MINIMUM_ROWS}.")
    for line, fields in rows:
        key = fields[position[group]] if group is not None else ""
        at = _number(fields[position[time]], time, line)
        state = [_number(fields[position[name]], name, line, gaps) for name in columns]
        series.setdefault(key, []).append((line, [at, *state]))
    trajectories = tuple(_trajectory(name, points, gaps) for name, points in series.items())
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


def _number(text: str, column: str, line: int, gaps: str | None = None) -> float:
    """A cell's value; NaN for a gap, where ``gaps`` says what becomes of it."""
    if text.lower() in _EMPTY:
        if gaps in ("drop", "interpolate"):
            return math.nan
        found = f"is {text}" if text else "is empty"
        cure = (
            "; times cannot be left out"
            if gaps is None
            else (
                ". With --gaps drop such rows are left out, with --gaps interpolate they are "
                "filled from those around"
            )
        )
        raise InputError(f"Line {line}: column {column!r} {found}{cure}.")
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"Line {line}: {text!r} in column {column!r} is not a number.") from None
    if not math.isfinite(value):
        raise InputError(f"Line {line}: column {column!r} is {text}, not a finite number.")
    return value


def _trajectory(name: str, points: list[tuple[int, list[float]]], gaps: str) -> Trajectory:
    place = f" in group {name!r}" if name else ""
    for (_, previous), (line, numbers) in pairwise(points):
        if numbers[0] <= previous[0]:
            order = "repeats" if numbers[0] == previous[0] else "goes back from"
            raise InputError(
                f"Line {line}: time {numbers[0]:g} {order} {previous[0]:g}{place}; "
                "times must increase."
            )
    values = _without_gaps(np.array([numbers for _, numbers in points]), gaps)
    if len(values) < MINIMUM_ROWS:
        left = f" without gaps{place}" if len(values) < len(points) else place
        raise InputError(
            f"There are {len(values)} rows{left}; a fit needs at least {MINIMUM_ROWS}."
        )
    return Trajectory(name, values[:, 0], values[:, 1:])


def _without_gaps(values: NDArray[np.float64], gaps: str) -> NDArray[np.float64]:
    """Rows of times and states, those with a NaN left out or filled."""
    if gaps == "interpolate":
        t = values[:, 0]
        for column in values[:, 1:].T:
            known = np.isfinite(column)
            if known.any():
                filled = np.interp(t, t[known], column[known], left=np.nan, right=np.nan)
                column[:] = filled
    return values[np.isfinite(values).all(axis=1)]
