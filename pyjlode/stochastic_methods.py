"""The table of methods for stochastic equations."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import UnsupportedError
from .names import unknown

_VECTOR = ("diagonal", "scalar")
_ALL = (*_VECTOR, "additive", "general")


@dataclass(frozen=True)
class StochasticMethod:
    """A solver of stochastic differential equations, of StochasticDiffEq.jl.

    Attributes
    ----------
    name : str
        SciML's.
    order : float
        The strong order for the noise it is meant for.
    sde_types, noise_types : tuple of str
        What it solves.
    fixed, adaptive : bool
        Whether its steps can be fixed, and whether it can choose them.
    gradient : bool
        Whether there are gradients of it.
    second : bool
        Whether a step needs the integral of the Brownian motion too.
    """

    name: str
    order: float
    sde_types: tuple[str, ...] = ("ito",)
    noise_types: tuple[str, ...] = _VECTOR
    fixed: bool = True
    adaptive: bool = False
    gradient: bool = False
    second: bool = False


_BOTH = ("ito", "stratonovich")  # which of them makes no difference where the noise is additive

METHODS = (
    StochasticMethod("EM", 0.5, noise_types=_ALL, gradient=True),
    StochasticMethod("RKMil", 1.0, _BOTH, adaptive=True, gradient=True),
    StochasticMethod("EulerHeun", 1.0, ("stratonovich",), _ALL, gradient=True),
    *(
        StochasticMethod(name, 1.5, adaptive=True, second=True)
        for name in ("SRIW1", "SRIW2", "SOSRI", "SOSRI2")
    ),
    *(
        StochasticMethod(name, 1.5, _BOTH, ("additive",), adaptive=True, second=True)
        for name in ("SRA1", "SRA2", "SRA3", "SOSRA", "SOSRA2")
    ),
    StochasticMethod("LambaEM", 0.5, noise_types=_ALL, fixed=False, adaptive=True),
    StochasticMethod("LambaEulerHeun", 0.5, ("stratonovich",), _ALL, fixed=False, adaptive=True),
)

#: Those that have gradients, as messages name them.
WITH_GRADIENT = ", ".join(m.name for m in METHODS if m.gradient)

_BY_NAME = {m.name.lower(): m for m in METHODS}
_TORCHSDE = {"euler": "EM", "milstein": "RKMil", "heun": "EulerHeun", "srk": "SRIW1"}
_ONLY_TORCHSDE = (
    "midpoint", "euler_heun", "log_ode", "reversible_heun", "adjoint_reversible_heun"
)  # fmt: skip


def find_stochastic_method(
    name: str | None, sde_type: str, noise_type: str, adaptive: bool
) -> StochasticMethod:
    """The method of SciML's or torchsde's name, or the default, for a kind of equation.

    Raises
    ------
    ValueError
        If there is none of that name; the message has the nearest.
    UnsupportedError
        If it does not solve this kind of equation.
    """
    if name is None:
        return _BY_NAME[_default(sde_type, noise_type, adaptive).lower()]
    if name in _ONLY_TORCHSDE:
        raise UnsupportedError(
            f"There is no {name} but in torchsde; use EulerHeun (torchsde's heun), or RKMil for "
            "diagonal noise."
        )
    known = _TORCHSDE.get(name, name)
    if name == "srk" and noise_type == "additive":
        known = "SRA1"
    method = _BY_NAME.get(known.lower())
    if method is None:
        raise ValueError(unknown("method", name, [*(m.name for m in METHODS), *_TORCHSDE]))
    fits = sde_type in method.sde_types and noise_type in method.noise_types
    if fits and (method.adaptive if adaptive else method.fixed):
        return method
    steps = "that chooses its steps" if adaptive else "of fixed steps"
    others = [
        m.name
        for m in METHODS
        if sde_type in m.sde_types
        and noise_type in m.noise_types
        and (m.adaptive if adaptive else m.fixed)
    ]
    raise UnsupportedError(
        f"{method.name} is no method {steps} for {sde_type} equations with {noise_type} noise; "
        f"use {', '.join(others)}."
    )


def _default(sde_type: str, noise_type: str, adaptive: bool) -> str:
    if sde_type == "stratonovich":
        return "LambaEulerHeun" if adaptive else "EulerHeun"
    if noise_type in _VECTOR:
        return "SOSRI" if adaptive else "RKMil"
    if not adaptive:
        return "EM"
    return "SOSRA" if noise_type == "additive" else "LambaEM"
