"""Functions that are compiled again and again: what of theirs changes."""

from __future__ import annotations

from collections import OrderedDict
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from ..trace.fingerprint import Structure
from ..trace.scope import Scope, scope_of
from ..translate.known import is_discrete

_MANY = 16
_NOTHING = object()


def values_of(x: Tensor) -> bytes:
    """A tensor's values, to be compared."""
    with torch.no_grad():
        plain = x.detach().resolve_conj().resolve_neg().reshape(-1)
        return bytes(plain.contiguous().view(torch.uint8).numpy().tobytes())


def pattern_of(x: Tensor) -> bytes:
    """What of a constant a Jacobian's pattern follows from, to be compared."""
    if is_discrete(x):
        return values_of(x)
    return np.packbits(x.detach().reshape(-1).numpy() != 0).tobytes()


def difference(before: Structure, after: Structure) -> str:
    """What differs between two looks at a function: an attribute or a variable, where one is.

    Examples
    --------
    >>> difference(Structure(key=("rate", float, 1.0)), Structure(key=("rate", float, 2.0)))
    "'rate'"
    """
    pairs = zip_longest(before.key, after.key, fillvalue=_NOTHING)
    place = next((i for i, (a, b) in enumerate(pairs) if a is not b and a != b), -1)
    # A name stands before what has it.
    for entry in reversed(before.key[: max(place, 0)]):
        if isinstance(entry, str) and entry.isidentifier():
            return f"'{entry}'"
    return "something"


class Repeats:
    """Counts, for each function's code, the models of different structure in a row."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, tuple[Scope, Structure, int]] = OrderedDict()
        self._unkept: OrderedDict[int, Scope] = OrderedDict()

    def again(self, owner: object) -> bool:
        """Whether the last trace of such a function was of use for one solve only, too."""
        scope = scope_of(owner)
        known = id(scope) in self._unkept
        self._unkept[id(scope)] = scope
        if len(self._unkept) > 256:
            self._unkept.popitem(last=False)
        return known

    def changed(self, owner: object, structure: Structure) -> str:
        """What changes, if this is a model too many; empty if it is not."""
        scope = scope_of(owner)
        known = self._seen.pop(id(scope), None)
        count, name = 1, ""
        if known is not None and known[1].key != structure.key:
            count = known[2] + 1
            if count == _MANY:
                name = difference(known[1], structure)
        self._seen[id(scope)] = (scope, Structure(structure.key), count)
        if len(self._seen) > 256:
            self._seen.popitem(last=False)
        return name
