"""``growing_horizons``: how much of a series to train on, from little to all."""

from __future__ import annotations

from ..errors import ArgumentError


def growing_horizons(length: int, stages: int, first: int = 2) -> list[int]:
    """Numbers of times for each stage of a training, the last of them ``length``.

    A model that is right for a short time is a good start for a longer one.

    Parameters
    ----------
    length : int
        How many times the data have.
    stages : int
    first : int, optional
        How many times the first stage has, at least 2.

    Returns
    -------
    list of int
        Evenly apart.

    Raises
    ------
    ArgumentError
        If ``first`` is not from 2 to ``length``, or there is no stage.

    Examples
    --------
    >>> growing_horizons(100, 5, first=20)
    [20, 40, 60, 80, 100]
    """
    if not 2 <= first <= length or stages < 1:
        raise ArgumentError(
            f"first must be from 2 to {length} and stages at least 1, not {first} and {stages}."
        )
    if stages == 1:
        return [length]
    return [round(first + (length - first) * i / (stages - 1)) for i in range(stages)]
