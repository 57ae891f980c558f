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
    StochasticMethod(
        "LambaEulerHeun", 1.0, ("stratonovich",), ("diagonal", "scalar", "additive"), fixed=False,
        adaptive=True,
    ),
)  # fmt: skip

# Adaptive steps are chosen by the path, and then a method that has not the terms of strong order 1
# converges to something else (Gaines and Lyons, Variable step size control in the numerical
# solution of stochastic differential equations, 1997). LambaEM did: on dy = 0.2 y dt + 0.8 y dW its
# logarithm at 1 was off by 0.018 in the mean, at tolerances of 1e-3 and 1e-4 alike.

#: Those that have gradients, as messages name them.
WITH_GRADIENT = ", ".join(m.name for m in METHODS if m.gradient)

_BY_NAME = {m.name.lower(): m for m in METHODS}
_TORCHSDE = {"euler": "EM", "milstein": "RKMil", "heun": "EulerHeun", "srk": "SRIW1"}
_ONLY_TORCHSDE = (
    "midpoint", "euler_heun", "log_ode", "reversible_heun", "adjoint_reversible_heun"
)  # fmt: skip

# StochasticDiffEq's others, of packages that are not loaded here.
_STIFF = (
    "ImplicitEM", "ImplicitEulerHeun", "ImplicitRKMil", "STrapezoid", "SImplicitMidpoint", "ISSEM",
    "ISSEulerHeun", "SKenCarp", "SKSROCK", "SROCK1", "SROCK2", "SROCKEM", "SROCKC2",
    "TangXiaoSROCK2", "KomBurSROCK2",
)  # fmt: skip
_WEAK = (
    "DRI1", "DRI1NM", "RI1", "RI3", "RI5", "RI6", "RDI1WM", "RDI2WM", "RDI3WM", "RDI4WM", "W2Ito1",
    "RS1", "RS2", "PL1WM", "PL1WMA", "NON", "NON2", "COM", "SIEA", "SIEB", "SMEA", "SMEB", "IRI1",
)  # fmt: skip
_OTHERS = {
    **dict.fromkeys(
        map(str.lower, _STIFF),
        "for stiff equations: take EM, RKMil (diagonal noise) or EulerHeun (Stratonovich) with a "
        "dt below 2 over the drift's fastest rate",
    ),
    **dict.fromkeys(
        map(str.lower, _WEAK),
        "for expectations alone: take the mean over a batch solved with EM, RKMil or SOSRI",
    ),
}
_ORIGINAL = {name.lower(): name for name in (*_STIFF, *_WEAK)}


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
    if not isinstance(name, str):
        raise TypeError(f"method must be a name, such as 'EM', not {type(name).__name__}.")
    if name in _ONLY_TORCHSDE:
        raise UnsupportedError(
            f"There is no {name} but in torchsde; use EulerHeun (torchsde's heun), or RKMil for "
            "diagonal noise."
        )
    if name.lower() == "lambaem":
        raise UnsupportedError(
            "LambaEM is left out: its adaptive steps converge to something else than the solution. "
            "Use RKMil or SOSRI (diagonal noise) or SOSRA (additive), or EM with fixed steps."
        )
    bare = name.lower().removesuffix("()")
    if bare in _OTHERS:
        raise UnsupportedError(f"There is no {_ORIGINAL[bare]} here, which is {_OTHERS[bare]}.")
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
    if not others:
        raise _none_adaptive(sde_type, noise_type)
    raise UnsupportedError(
        f"{method.name} is no method {steps} for {sde_type} equations with {noise_type} noise; "
        f"use {', '.join(others)}."
    )


def _none_adaptive(sde_type: str, noise_type: str) -> UnsupportedError:
    return UnsupportedError(
        f"No method here chooses its steps for {sde_type} equations with {noise_type} noise; leave "
        "adaptive out."
    )


def _default(sde_type: str, noise_type: str, adaptive: bool) -> str:
    if adaptive and noise_type == "general":
        raise _none_adaptive(sde_type, noise_type)
    if sde_type == "stratonovich":
        return "LambaEulerHeun" if adaptive else "EulerHeun"
    if noise_type in _VECTOR:
        return "SOSRI" if adaptive else "RKMil"
    return "SOSRA" if adaptive else "EM"
