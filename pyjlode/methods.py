"""The catalogue of solvers: names, orders and which engine has them."""

from __future__ import annotations

from dataclasses import dataclass

from .names import unknown


@dataclass(frozen=True)
class Method:
    """A solver.

    Attributes
    ----------
    name : str
        SciML's name where SciML has it, else torchdiffeq's.
    order : int
    stiff : bool
        Whether it is meant for stiff problems (all such methods are implicit).
    family : {"Runge-Kutta", "Rosenbrock", "SDIRK", "BDF", "Adams"}
        What a step is made of; "Runge-Kutta" is short for the explicit ones.
    torch_name : str or None
        torchdiffeq's name for it, where the torch engine has it.
    julia : bool
        Whether the Julia engine has it.
    fixed : bool
        Whether steps are fixed when asked for by torchdiffeq's name.
    reference : str
    """

    name: str
    order: int
    stiff: bool = False
    family: str = "Runge-Kutta"
    torch_name: str | None = None
    julia: bool = True
    fixed: bool = False
    reference: str = ""

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that have the method."""
        return ("julia",) * self.julia + ("torch",) * (self.torch_name is not None)


_CATALOGUE = (
    Method("Tsit5", 5, reference="Tsitouras 2011"),
    Method("DP5", 5, torch_name="dopri5", reference="Dormand & Prince 1980"),
    Method("BS3", 3, torch_name="bosh3", reference="Bogacki & Shampine 1989"),
    Method("Vern6", 6, reference="Verner 2010"),
    Method("Vern7", 7, reference="Verner 2010"),
    Method("Vern8", 8, reference="Verner 2010"),
    Method("Vern9", 9, reference="Verner 2010"),
    Method("Euler", 1, torch_name="euler", fixed=True, reference="Euler 1768"),
    Method("Midpoint", 2, torch_name="midpoint", fixed=True, reference="Runge 1895"),
    Method("Heun", 2, torch_name="heun2", fixed=True, reference="Heun 1900"),
    Method("RK4", 4, torch_name="rk4", fixed=True, reference="Kutta 1901"),
    Method(
        "Rosenbrock23", 3, stiff=True, family="Rosenbrock", reference="Shampine & Reichelt 1997"
    ),
    Method("Rodas4", 4, stiff=True, family="Rosenbrock", reference="Hairer & Wanner 1996"),
    Method("Rodas5P", 5, stiff=True, family="Rosenbrock", reference="Steinebach 2023"),
    Method("TRBDF2", 2, stiff=True, family="SDIRK", reference="Bank et al. 1985"),
    Method("KenCarp4", 4, stiff=True, family="SDIRK", reference="Kennedy & Carpenter 2003"),
    Method("Kvaerno5", 5, stiff=True, family="SDIRK", reference="Kvaerno 2004"),
    Method("FBDF", 5, stiff=True, family="BDF", reference="Shampine 2002"),
    Method("QNDF", 5, stiff=True, family="BDF", reference="Shampine & Reichelt 1997"),
    Method("dopri8", 8, torch_name="dopri8", julia=False, reference="Prince & Dormand 1981"),
    Method("fehlberg2", 2, torch_name="fehlberg2", julia=False, reference="Fehlberg 1969"),
    Method("adaptive_heun", 2, torch_name="adaptive_heun", julia=False, reference="Heun 1900"),
    Method("heun3", 3, torch_name="heun3", julia=False, fixed=True, reference="Heun 1900"),
    Method(
        "explicit_adams", 4, family="Adams", torch_name="explicit_adams", julia=False, fixed=True,
        reference="Hairer et al. 1993",
    ),
    Method(
        "implicit_adams", 4, family="Adams", torch_name="implicit_adams", julia=False, fixed=True,
        reference="Hairer et al. 1993",
    ),
)  # fmt: skip

_BY_NAME = {m.name.lower(): m for m in _CATALOGUE}
_BY_NAME.update({m.torch_name.lower(): m for m in _CATALOGUE if m.torch_name})


def methods() -> list[Method]:
    """Every solver that some engine has.

    Examples
    --------
    >>> [m.name for m in methods() if m.order == 9]
    ['Vern9']
    """
    return list(_CATALOGUE)


def find_method(name: str) -> Method:
    """A solver by SciML's or torchdiffeq's name, in any case.

    Raises
    ------
    ValueError
        If there is none of that name; the message has the nearest.

    Examples
    --------
    >>> find_method("dopri5").name
    'DP5'
    >>> find_method("Tsit6")
    Traceback (most recent call last):
        ...
    ValueError: There is no method 'Tsit6'; the nearest is 'Tsit5'.
    """
    method = _BY_NAME.get(name.lower())
    if method is not None:
        return method
    names = [n for m in _CATALOGUE for n in (m.name, m.torch_name) if n]
    raise ValueError(unknown("method", name, names))
