"""``sdeint``: stochastic differential equations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .brownian import BrownianPath, called, check_seed, draw, new_seed
from .check import check_one_tolerance
from .eager import eager
from .engine import choose_engine
from .errors import ArgumentError, DerivativeError, UnsupportedError
from .options import as_mapping, number
from .problem import Statistics
from .states import as_numbers, as_state, numbers
from .stochastic_methods import StochasticMethod, find_stochastic_method
from .trace.transforms import refuse_transforms

_SDE_TYPES = ("ito", "stratonovich")
_NOISE_TYPES = ("diagonal", "scalar", "additive", "general")


@dataclass(frozen=True)
class StochasticProblem:
    """A stochastic equation as the engine gets it, checked.

    Attributes
    ----------
    f, g : callable
        Drift and diffusion; ``g`` gives ``(B, n)`` for diagonal and scalar noise, else
        ``(B, n, m)``.
    owners : tuple of object
        The caller's ``f`` and ``g``, by which traces are remembered.
    y0 : torch.Tensor
        Of shape ``(B, n)``.
    ts : torch.Tensor
        Float64.
    noises : int
        ``m`` of a diffusion that is a matrix, 0 of one that is a vector.
    scalar : bool
        Whether all elements of a row's state have one Brownian motion.
    ito : bool
    method : StochasticMethod
    """

    f: Any
    g: Any
    owners: tuple[Any, Any]
    y0: Tensor
    ts: Tensor
    noises: int
    scalar: bool
    ito: bool
    method: StochasticMethod


@dataclass(frozen=True)
class FixedSteps:
    """The times of fixed steps, which of them were asked for, and the increments of each step."""

    t: Tensor
    places: NDArray[np.int64]
    first: Tensor
    second: Tensor | None


@dataclass(frozen=True)
class AdaptiveSteps:
    """What steps that the method chooses are chosen by."""

    seed: int
    rtol: float
    atol: float
    dt: float
    dt_min: float
    max_num_steps: int


@eager
def sdeint(
    sde: Any,
    y0: Tensor,
    ts: Tensor | Sequence[float],
    bm: Any = None,
    method: str | None = None,
    dt: float = 1e-3,
    adaptive: bool = False,
    rtol: float = 1e-2,
    atol: float = 1e-2,
    dt_min: float = 1e-10,
    options: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
    logqp: bool = False,
    extra: bool = False,
    *,
    seed: int | None = None,
    return_noise: bool = False,
    engine: str | None = None,
    stats: Statistics | None = None,
) -> Any:
    """Solve ``dy = f(t, y) dt + g(t, y) dW``, ``y(ts[0]) = y0``, at the times ``ts``.

    A batch is an ensemble: each of its rows has a Brownian motion of its own. With EM, RKMil and
    EulerHeun and fixed steps the result is differentiable with respect to ``y0`` and every tensor
    that ``f`` and ``g`` use and that requires a gradient: by reverse mode through the steps taken,
    with the noise that they had, so that the gradient is that of the numbers returned.

    Parameters
    ----------
    sde : object
        It has methods ``f(t, y)``, of shape ``(B, n)``, and ``g(t, y)``; and attributes
        ``sde_type``, ``"ito"`` or ``"stratonovich"``, and ``noise_type``: ``"diagonal"``, with
        ``g`` of ``(B, n)`` of which each element depends on its own element of ``y`` only;
        ``"scalar"``, ``(B, n, 1)``; ``"additive"``, ``(B, n, m)`` and independent of ``y``; or
        ``"general"``, ``(B, n, m)``.
    y0 : torch.Tensor
        Initial states, float32 or float64, of shape ``(B, n)``.
    ts : torch.Tensor or sequence of float
        Times, of shape ``(T,)``, strictly increasing.
    bm : BrownianPath or callable, optional
        The Brownian motion; ``bm(ta, tb)`` is its increment, of shape ``(B, m)`` with ``m = n`` for
        diagonal noise. torchsde's serve too. Default: drawn from ``seed``. It is for fixed steps.
    method : str, optional
        SciML's name: EM, RKMil, SRIW1, SRIW2, SOSRI, SOSRI2 (diagonal and scalar noise), SRA1,
        SRA2, SRA3, SOSRA, SOSRA2 (additive), EulerHeun (Stratonovich), LambaEulerHeun
        (Stratonovich, with ``adaptive``); or torchsde's: euler, milstein, srk, heun. Default: RKMil
        for diagonal and scalar noise, else EM; EulerHeun for Stratonovich's equations; with
        ``adaptive`` SOSRI, SOSRA or LambaEulerHeun.
    dt : float, optional
        The longest step. Between two times of ``ts`` all steps have one length. With ``adaptive``
        it is the first.
    adaptive : bool, optional
        Whether the method chooses its steps; for diagonal and additive noise.
    rtol, atol, dt_min : float, optional
        Tolerances and the shortest step, with ``adaptive``. They are SciML's: a step is measured by
        an estimate of its error that is not small for rough paths, so that 1e-4 can take a
        hundred times as many steps as 1e-2, or fail where ``dt_min`` is reached.
    options : mapping, optional
        ``max_num_steps``, of ``adaptive``.
    names : mapping, optional
        Which methods of ``sde`` are meant, as ``{"drift": "f", "diffusion": "g"}``.
    logqp, extra : bool, optional
        torchsde's; only False is there.
    seed : int, optional
        The same seed gives the same Brownian motion for the same times, ``dt`` and shapes, whatever
        the method (with ``adaptive``: for the same method) and the number of threads. Default:
        drawn from torch's generator, so that ``torch.manual_seed`` rules it.
    return_noise : bool, optional
        Give the :class:`pyjlode.BrownianPath` at the steps too.
    engine : {"auto", "julia"}, optional
        The torch engine has no stochastic solver.
    stats : Statistics, optional
        Filled with the counts of steps.

    Returns
    -------
    torch.Tensor or tuple
        States of shape ``(T, B, n)``; with ``return_noise`` a tuple of them and the path.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.
    UnsupportedError
        On the torch engine; if the method is not for this kind of equation; if a gradient is needed
        and the method, or ``adaptive``, has none.
    SolverError
        If the solve does not succeed.

    Notes
    -----
    EM and RKMil are Euler's and Milstein's method as in torchsde, RKMil without derivatives of
    ``g``. Strong orders are 0.5 and 1 (EM: 1 for additive noise), of EulerHeun 1 for noise that
    commutes, else 0.5, of the SRI and SRA methods 1.5. A gradient keeps the state of every step.

    References
    ----------
    Kloeden and Platen, Numerical Solution of Stochastic Differential Equations, 1992; Rößler,
    Runge-Kutta Methods for the Strong Approximation of Solutions of Stochastic Differential
    Equations, 2010; Gaines and Lyons, Variable step size control in the numerical solution of
    stochastic differential equations, 1997; StochasticDiffEq.jl; torchsde (Li et al., Scalable
    Gradients for Stochastic Differential Equations, 2020).

    Examples
    --------
    Geometric Brownian motion, beside its closed form along the same path:

    >>> import torch
    >>> from pyjlode import engine_info
    >>> class Geometric:
    ...     sde_type, noise_type = "ito", "diagonal"
    ...     def f(self, t, y):
    ...         return 0.1 * y
    ...     def g(self, t, y):
    ...         return 0.5 * y
    >>> y0 = torch.ones(4, 1, dtype=torch.float64)
    >>> if engine_info().name == "julia":
    ...     y, path = sdeint(Geometric(), y0, [0.0, 1.0], dt=1e-3, seed=0, return_noise=True)
    ...     exact = torch.exp((0.1 - 0.5**2 / 2) + 0.5 * path(0.0, 1.0))
    ...     assert torch.allclose(y[-1], exact, rtol=5e-3)
    """
    if logqp or extra:
        raise UnsupportedError(
            "sdeint has neither logqp nor extra; add the log-ratio to the state, or use torchsde."
        )
    refuse_transforms("A stochastic equation")
    problem = _check(sde, y0, ts, method, adaptive, names)
    check_one_tolerance("dt", dt, zero=False)
    most = _most_steps(options)
    steps: FixedSteps | AdaptiveSteps
    if adaptive:
        if bm is not None:
            raise UnsupportedError(
                "With adaptive steps the Brownian motion is drawn as they are chosen; give a seed, "
                "or leave adaptive out."
            )
        for name, value in (("rtol", rtol), ("atol", atol), ("dt_min", dt_min)):
            check_one_tolerance(name, value)
        steps = AdaptiveSteps(
            new_seed() if seed is None else check_seed(seed),
            rtol,
            atol,
            float(dt),
            float(dt_min),
            most,
        )
    else:
        steps = _fixed_steps(problem, bm, float(dt), seed)
    from .engine.julia import JuliaEngine
    from .engine.stochastic import solve_stochastic

    solver = choose_engine(engine, other="nothing here")
    if not isinstance(solver, JuliaEngine):
        raise UnsupportedError(
            "The torch engine has no solver of stochastic equations; get Julia with "
            "`pyjlode setup`, or use torchsde."
        )
    states, path = solve_stochastic(solver, problem, steps, stats or Statistics())
    return (states, path()) if return_noise else states


def _check(
    sde: Any, y0: Any, ts: Any, method: str | None, adaptive: bool, names: Mapping[str, str] | None
) -> StochasticProblem:
    sde_type, noise_type = (getattr(sde, x, None) for x in ("sde_type", "noise_type"))
    for name, value, known in (
        ("sde_type", sde_type, _SDE_TYPES), ("noise_type", noise_type, _NOISE_TYPES),
    ):  # fmt: skip
        if value not in known:
            raise ArgumentError(f"sde.{name} must be one of {', '.join(known)}, not {value!r}.")
    assert sde_type is not None and noise_type is not None
    if not isinstance(names or {}, Mapping):
        raise TypeError(f"names must be a dict, not {type(names).__name__}.")
    named = {"drift": "f", "diffusion": "g", **(names or {})}
    if set(named) != {"drift", "diffusion"}:
        raise UnsupportedError("sdeint's names are those of drift and diffusion only.")
    f, g = (getattr(sde, named[x], None) for x in ("drift", "diffusion"))
    if not (callable(f) and callable(g)):
        raise ArgumentError(
            f"sde must have methods {named['drift']}(t, y) and {named['diffusion']}(t, y)."
        )
    y0 = as_state(y0, sde)
    if not isinstance(y0, Tensor) or y0.dtype not in (torch.float32, torch.float64):
        raise TypeError("y0 must be a float32 or float64 tensor of shape (B, n).")
    if y0.dim() != 2 or y0.numel() == 0:
        raise ArgumentError(f"y0 must have shape (B, n), not {tuple(y0.shape)}.")
    if y0.device.type != "cpu":
        raise ArgumentError(f"y0 is on {y0.device}; this version solves on the CPU.")
    if not np.isfinite(numbers(y0)).all():
        raise ArgumentError("y0 has values that are not finite.")
    if isinstance(ts, Tensor) and ts.requires_grad:
        raise UnsupportedError("sdeint has no gradient with respect to ts; give ts.detach().")
    times = as_numbers("ts", ts).to(torch.float64)
    if times.dim() != 1 or len(times) < 2 or not bool(torch.isfinite(times).all()):
        raise ArgumentError("ts must be two or more finite times, of one dimension.")
    if not bool((times.diff() > 0).all()):
        raise ArgumentError("ts must be strictly increasing.")
    noises = _check_shapes(f, g, noise_type, times[0], y0)
    chosen = find_stochastic_method(method, sde_type, noise_type, adaptive)
    if adaptive and noise_type == "scalar":
        raise UnsupportedError(
            "Adaptive steps are there for diagonal and additive noise; leave adaptive out."
        )
    return StochasticProblem(
        _wrapped(f), _wrapped(g, squeeze=noise_type == "scalar"), (f, g), y0, times, noises,
        noise_type == "scalar", sde_type == "ito", chosen,
    )  # fmt: skip


def _most_steps(options: Any) -> int:
    given = {"max_num_steps": 1_000_000, **as_mapping(options)}
    if len(given) > 1:
        others = sorted(str(name) for name in given if name != "max_num_steps")
        raise ArgumentError(f"sdeint has no options {', '.join(others)}.")
    return int(number("max_num_steps", given["max_num_steps"]))


def _wrapped(function: Any, squeeze: bool = False) -> Any:
    if not squeeze:
        return lambda t, y: function(t, y)
    return lambda t, y: function(t, y).squeeze(-1)


def _check_shapes(f: Any, g: Any, noise_type: str, t: Tensor, y0: Tensor) -> int:
    """Compare what the coefficients give with what they must; the noises of a matrix."""
    with torch.no_grad():
        values = [x(t.to(y0.dtype), y0.detach().clone()) for x in (f, g)]
    for name, value in zip(("f", "g"), values, strict=True):
        if not isinstance(value, Tensor) or value.dtype != y0.dtype:
            raise DerivativeError(f"{name} must give a tensor of {y0.dtype}, like y0.")
    drift, diffusion = (tuple(x.shape) for x in values)
    shape = tuple(y0.shape)
    if drift != shape:
        raise DerivativeError(f"f gives shape {drift}; it must be that of y0, {shape}.")
    if noise_type == "diagonal":
        fits, wanted = diffusion == shape, str(shape)
    else:
        last = "1" if noise_type == "scalar" else "m"
        wanted = f"({shape[0]}, {shape[1]}, {last})"
        fits = len(diffusion) == 3 and diffusion[:2] == shape and diffusion[2] > 0
        fits = fits and (noise_type != "scalar" or diffusion[2] == 1)
    if not fits:
        raise DerivativeError(
            f"g gives shape {diffusion}; for {noise_type} noise it must be {wanted}."
        )
    return 0 if noise_type in ("diagonal", "scalar") else int(diffusion[2])


def _fixed_steps(problem: StochasticProblem, bm: Any, dt: float, seed: int | None) -> FixedSteps:
    ts = problem.ts.numpy()
    # Times may have been made in single precision, which must not make a step more.
    counts = np.ceil(np.diff(ts) / dt * (1 - 1e-5)).astype(int).clip(min=1)
    pieces = [
        np.linspace(a, b, n, endpoint=False)
        for a, b, n in zip(ts[:-1], ts[1:], counts, strict=True)
    ]
    t = torch.from_numpy(np.concatenate([*pieces, ts[-1:]]))
    places = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
    second, y0 = problem.method.second, problem.y0
    shape = (y0.shape[0], 1 if problem.scalar else problem.noises or y0.shape[1])
    if bm is None:
        dW, dZ = draw(t, shape, seed=seed, dtype=y0.dtype, second=second)
    elif seed is not None:
        raise ArgumentError("bm and seed exclude each other; give one.")
    elif isinstance(bm, BrownianPath):
        if bm.W.shape[1:] != shape or bm.W.dtype != y0.dtype:
            raise ArgumentError(
                f"bm is of shape {tuple(bm.W.shape[1:])} and {bm.W.dtype}; it must be of {shape} "
                f"and {y0.dtype}."
            )
        dW, dZ = bm.increments(t, second=second)
    elif not callable(bm):
        raise TypeError("bm must be a BrownianPath, or callable as bm(ta, tb).")
    elif second:
        raise UnsupportedError(
            f"{problem.method.name} needs more of the Brownian motion than its increments; give a "
            "BrownianPath, or use EM, RKMil or EulerHeun."
        )
    else:
        dW, dZ = called(bm, t, shape, y0.dtype), None
    return FixedSteps(t, places, dW, dZ)
