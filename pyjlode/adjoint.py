"""``odeint_adjoint``: torchdiffeq's, with the backward solve's own settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from .check import State, check_one_tolerance, is_fixed, make_problem
from .eager import eager
from .errors import ArgumentError
from .methods import find_method
from .odeint import solve_problem
from .options import check_adjoint_options
from .preset_time import PresetTimeCallback
from .problem import AdjointSolve, Statistics
from .sensealg import SensitivityAlgorithm


@eager
def odeint_adjoint(
    func: Callable[..., Any],
    y0: State,
    t: Tensor | Sequence[float],
    *,
    rtol: Any = None,
    atol: Any = None,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[..., Any] | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_method: str | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
    sensealg: SensitivityAlgorithm | str | None = None,
    engine: str | None = None,
    stats: Statistics | None = None,
    callback: PresetTimeCallback | None = None,
) -> Any:
    """Solve as :func:`pyjlode.odeint` does, with a say in how the backward solve is made.

    On the torch engine this is torchdiffeq's continuous adjoint, the state solved backwards. On
    the Julia engine ``adjoint_rtol``, ``adjoint_atol``, ``adjoint_method`` or ``adjoint_options``
    ask for a continuous adjoint with them: :class:`pyjlode.BacksolveAdjoint` where both methods
    are explicit, else :class:`pyjlode.GaussAdjoint`, as a stiff state cannot be solved backwards.
    Without them the gradient is that of :func:`pyjlode.odeint`: exact, and dearer in memory.

    Parameters
    ----------
    func, y0, t, rtol, atol, method, options, engine, stats, callback
        As for :func:`pyjlode.odeint`. ``func`` need not be a module: tensors that it closes over
        are found too.
    adjoint_rtol, adjoint_atol : float, optional
        Tolerances of the backward solve; by default the forward one's.
    adjoint_method : str, optional
        Its method; by default the forward one's.
    adjoint_options : mapping, optional
        Its options; by default the forward one's without ``norm``. ``{"norm": "seminorm"}`` leaves
        the parameters' gradients out of the error.
    adjoint_params : iterable of torch.Tensor, optional
        The only tensors, beside ``y0`` and ``t``, that get a gradient; ``()`` is none. By default
        all that ``func`` uses and that require one.
    sensealg : SensitivityAlgorithm or str, optional
        Another continuous adjoint to use the settings.

    Returns
    -------
    torch.Tensor or tuple of torch.Tensor
        States of shape ``(T, *y0.shape)``.

    Raises
    ------
    ValueError, TypeError, SolverError, UnsupportedError, JuliaNotFoundError
        As :func:`pyjlode.odeint`.

    References
    ----------
    Chen et al., Neural Ordinary Differential Equations, 2018; Kidger, Chen and Lyons, "Hey, that's
    not an ODE", 2021 (the seminorm).

    Examples
    --------
    >>> import torch
    >>> k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    >>> y0 = torch.ones(1, dtype=torch.float64)
    >>> t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> y = odeint_adjoint(lambda t, y: -k * y, y0, t, adjoint_params=(k,), adjoint_rtol=1e-9)
    >>> y[-1].backward()
    >>> bool(abs(k.grad + torch.exp(-k.detach())) < 1e-5)
    True
    """
    changed = adjoint_method is not None and adjoint_method != method
    if changed and options is not None and adjoint_options is None:
        raise ArgumentError(
            "With an adjoint_method other than method, options do not say what the backward solve "
            "has to do; give adjoint_options too."
        )
    chosen = None if adjoint_method is None else find_method(adjoint_method)
    name = method if adjoint_method is None else adjoint_method
    fixed = is_fixed(None if name is None else find_method(name), name, adjoint_options)
    if adjoint_options is not None:
        adjoint_options = check_adjoint_options(
            adjoint_options, None if name is None else find_method(name), fixed
        )
    adjoint = AdjointSolve(
        rtol=_tolerance("adjoint_rtol", adjoint_rtol),
        atol=_tolerance("adjoint_atol", adjoint_atol),
        method=chosen,
        fixed_step=fixed,
        options=adjoint_options,
        callbacks=_callbacks(func),
    )
    problem, unflatten = make_problem(
        func, y0, t, rtol, atol, method, options, sensealg,
        adjoint=adjoint, adjoint_params=adjoint_params,
    )  # fmt: skip
    return solve_problem(problem, unflatten, engine, stats, event_fn, callback=callback)


def _tolerance(name: str, value: Any) -> float | None:
    if value is None:
        return None
    return check_one_tolerance(name, value)


def _callbacks(func: object) -> dict[str, Callable[..., object]]:
    names = ("callback_step", "callback_accept_step", "callback_reject_step")
    found = {name: getattr(func, f"{name}_adjoint", None) for name in names}
    return {name: callback for name, callback in found.items() if callback is not None}
