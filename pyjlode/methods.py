"""Solvers by name."""

from __future__ import annotations

import re

from .catalogue import BROKEN, CATALOGUE, ELSEWHERE, FIXED_GRID, SWITCHING, Method
from .errors import UnsupportedError
from .names import unknown

__all__ = ["Method", "find_method", "methods"]

_EXACT = {m.name: m for m in CATALOGUE}
_EXACT.update({m.torch_name: m for m in CATALOGUE if m.torch_name})
_EXACT["fixed_adams"] = _EXACT["implicit_adams"]
# Where torchdiffeq's name differs from SciML's in case only, it is another method.
_SPELLINGS: dict[str, list[str]] = {}
for _name in (*_EXACT, *FIXED_GRID):
    _SPELLINGS.setdefault(_name.lower(), []).append(_name)
_ELSEWHERE = {name.lower(): name for name in ELSEWHERE}
_SWITCHING = {name.lower(): name for name in SWITCHING}
_NAMES = [n for m in CATALOGUE for n in (m.name, m.torch_name) if n] + list(SWITCHING)

_AUTO = "AutoVern7(Rodas5P)"


def methods() -> list[Method]:
    """Every solver that some engine has.

    Examples
    --------
    >>> [m.name for m in methods() if m.order == 9 and not m.stiff]
    ['Vern9', 'QPRK98']
    >>> sorted({m.family for m in methods() if m.implicit})[:3]
    ['BDF', 'Rosenbrock', 'SDIRK']
    """
    return list(CATALOGUE)


def find_method(name: str) -> Method:
    """A solver by SciML's or torchdiffeq's name.

    Case does not count, but for names that differ in nothing else: ``"RK4"`` and ``"Midpoint"`` are
    SciML's, ``"rk4"`` and ``"midpoint"`` torchdiffeq's, with fixed steps. Torchdiffeq's implicit
    methods of fixed steps, such as its ``"trbdf2"``, are not here.
    ``"AutoTsit5(Rosenbrock23)"`` switches from the one to the other while the problem is stiff;
    ``"auto"`` is ``"AutoVern7(Rodas5P)"``, what SciML's default algorithm takes at tolerances such
    as ours.

    Raises
    ------
    TypeError
        If it is no string.
    ValueError
        If there is none of that name, or two that differ from it in case only; the message has the
        nearest.
    UnsupportedError
        If it is for another kind of problem, or torchdiffeq's and not here.

    Examples
    --------
    >>> find_method("dopri5").name
    'DP5'
    >>> find_method("AutoTsit5(Rosenbrock23())").stiff
    True
    >>> find_method("Tsit6")
    Traceback (most recent call last):
        ...
    ValueError: There is no method 'Tsit6'; the nearest is 'Tsit5'.
    """
    if not isinstance(name, str):
        raise TypeError(f"method must be a name, such as 'Tsit5', not {type(name).__name__}.")
    method = _EXACT.get(name)
    if method is not None:
        return method
    if name in FIXED_GRID:
        raise UnsupportedError(
            f"torchdiffeq's {name}, of fixed steps, is not here; {FIXED_GRID[name]}."
        )
    spellings = _SPELLINGS.get(name.lower(), [])
    if len(spellings) == 1:
        return find_method(spellings[0])
    if spellings:
        sciml, torchdiffeq = spellings
        raise ValueError(
            f"{name!r} could be SciML's {sciml!r} or torchdiffeq's {torchdiffeq!r}, which are two "
            "methods; write one of them."
        )
    if name.lower() == "auto":
        name = _AUTO
    switching = re.fullmatch(r"(\w+)\((\w+)(?:\(\))?\)", name)
    if switching is not None and switching[1].lower() in _SWITCHING:
        return _switching(_SWITCHING[switching[1].lower()], find_method(switching[2]))
    if name.lower() in _ELSEWHERE:
        known = _ELSEWHERE[name.lower()]
        raise UnsupportedError(f"odeint has no {known}, which is for {ELSEWHERE[known]}.")
    if name in BROKEN:
        raise UnsupportedError(f"OrdinaryDiffEq's {name} cannot be used: {BROKEN[name]}.")
    raise ValueError(unknown("method", name, _NAMES))


def _switching(outer: str, stiff: Method) -> Method:
    if not (stiff.implicit and stiff.adaptive):
        raise UnsupportedError(
            f"{outer} switches to an implicit method that chooses its steps, such as Rosenbrock23 "
            f"or Rodas5P; {stiff.name} is none."
        )
    order = int(re.sub(r"\D", "", outer))
    return Method(
        f"{outer}({stiff.name})", order, stiff=True, reference=stiff.reference,
        family="switching", package=stiff.package, implicit=True, adjoint="gauss",
    )  # fmt: skip


def first_of(method: Method) -> Method | None:
    """Of a method that switches, the one for what is not stiff; None for any other.

    Examples
    --------
    >>> first_of(find_method("auto")).name
    'Vern7'
    >>> first_of(find_method("Rodas5P")) is None
    True
    """
    found = re.fullmatch(r"Auto(\w+)\(\w+\)", method.name)
    return find_method(found.group(1)) if found else None
