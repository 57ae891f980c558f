"""Names that users give, and what to say of those that there are not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """One sentence with the nearest of the known names, or all where it is no name.

    Examples
    --------
    >>> unknown("method", "Tsit6", ["Tsit5", "Vern7"])
    "There is no method 'Tsit6'; the nearest is 'Tsit5'."
    """
    by_lower = {k.lower(): k for k in known}
    if not isinstance(name, str):
        return f"There is no {kind} {name!r}; there are {', '.join(by_lower.values())}."
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0)
    return f"There is no {kind} {name!r}; the nearest is {by_lower[near[0]]!r}."
