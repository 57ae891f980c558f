"""``cdeint``: differential equations that are driven by a path through data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .adjoint import odeint_adjoint
from .check import State, is_fixed
from .control import LinearInterpolation
from .eager import eager
from .errors import ArgumentError, UnsupportedError
from .methods import find_method
from .odeint import odeint
from .states import as_numbers, as_state

# torchcde's: controlled equations are hard to solve to odeint's.
_RTOL, _ATOL = 1e-4, 1e-6


@eager
def cdeint(
    X: Any,
    func: Callable[..., Any],
    z0: State,
    t: Tensor | Sequence[float],
    adjoint: bool = True,
    backend: str = "torchdiffeq",
    **kwargs: Any,
) -> Any:
    """Solve ``dz = func(t, z) dX``, ``z(t[0]) = z0``, and give the states at the times ``t``.

    Differentiable with respect to ``z0``, ``t``, the coefficients of ``X`` and every other tensor
    that ``func`` and ``X`` use and that requires a gradient.

    Parameters
    ----------
    X : CubicSpline, LinearInterpolation or other
        The control: what has ``derivative(t)``, of shape ``(..., channels)`` for a scalar ``t``.
    func : callable
        ``func(t, z)`` of shape ``(..., hidden, channels)`` for ``z`` of shape ``(..., hidden)``. If
        it has a method ``prod(t, z, dXdt)``, of shape ``(..., hidden)``, that is called instead.
    z0 : torch.Tensor or tuple of torch.Tensor
        Of shape ``(..., hidden)``, with the batch dimensions of ``X``. With a tuple, ``X`` and
        ``func`` give tuples too.
    t : torch.Tensor or sequence of float
        Times, of shape ``(T,)``, as for :func:`pyjlode.odeint`.
    adjoint : bool, optional
        Whether :func:`pyjlode.odeint_adjoint` solves, or :func:`pyjlode.odeint`. On the Julia
        engine it makes no difference without ``adjoint_*`` arguments. Either way ``X`` gets
        gradients, where torchcde needs ``adjoint_params`` for that.
    backend : {"torchdiffeq"}, optional
        For code that names it.
    **kwargs
        For :func:`pyjlode.odeint_adjoint` or :func:`pyjlode.odeint`: ``method``, ``options``,
        ``engine``, ``stats``, ``rtol`` (1e-4 by default), ``atol`` (1e-6) and so on.

    Returns
    -------
    torch.Tensor or tuple of torch.Tensor
        States of shape ``(..., T, hidden)``: time is the second last dimension, as in torchcde.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described, or shapes do not fit.
    UnsupportedError
        For another backend, ``event_fn``, ``return_solution`` or ``batch="independent"``; for fixed
        steps along a :class:`LinearInterpolation` on the Julia engine.
    SolverError, JuliaNotFoundError
        As :func:`pyjlode.odeint`.

    Notes
    -----
    The derivative of a :class:`LinearInterpolation` jumps at the data. Methods that choose their
    steps stop there and go on (``options["jump_t"]``, unless you give it yourself). Fixed steps get
    ``options["perturb"]``, so that one that starts at such a time sees the piece after it; choose
    ``step_size`` so that they end there.

    References
    ----------
    Kidger, Morrill, Foster and Lyons, Neural Controlled Differential Equations for Irregular Time
    Series, 2020, arXiv:2005.08926.

    Examples
    --------
    With ``dz = z dX`` the solution is ``z0 exp(X(t) - X(0))``.

    >>> import torch
    >>> from pyjlode import CubicSpline, natural_cubic_coeffs
    >>> x = torch.tensor([[0.0], [0.5], [-0.3], [0.2]], dtype=torch.float64)
    >>> X = CubicSpline(natural_cubic_coeffs(x))
    >>> z0 = torch.ones(1, dtype=torch.float64)
    >>> z = cdeint(X, lambda t, z: z.unsqueeze(-1), z0, X.grid_points, rtol=1e-8, atol=1e-8)
    >>> bool(torch.allclose(z, torch.exp(x), atol=1e-6))
    True
    """
    if backend != "torchdiffeq":
        raise UnsupportedError(
            f'There is no backend {backend!r}; leave it out, and choose with engine="julia" or '
            '"torch".'
        )
    for name, value in (("event_fn", None), ("return_solution", False)):
        if kwargs.get(name, value) != value:
            raise UnsupportedError(f"cdeint has no {name}; use odeint on func times X.derivative.")
    if kwargs.get("batch") == "independent":
        raise UnsupportedError(
            'cdeint has no batch="independent", as each row of X is another control; solve the '
            "rows one by one."
        )
    if not callable(func):
        raise TypeError(f"func must be callable as func(t, z), not {type(func).__name__}.")
    if not callable(getattr(X, "derivative", None)):
        raise ArgumentError("X must have a method derivative(t), as CubicSpline has.")
    times = as_numbers("t", t)
    field, z0 = _VectorField(X, func), as_state(z0, func)
    _check_shapes(field, times, z0)
    kwargs.setdefault("rtol", _RTOL)
    kwargs.setdefault("atol", _ATOL)
    if isinstance(X, LinearInterpolation):
        kwargs["options"] = _with_jumps(X, kwargs.get("method"), kwargs.get("options"))
    solve = odeint_adjoint if adjoint else odeint
    states = solve(field, z0, times, **kwargs)
    if isinstance(states, tuple):
        return tuple(z.movedim(0, -2) for z in states)
    return states.movedim(0, -2)


class _VectorField(nn.Module):
    """The right-hand side of the ordinary equation."""

    def __init__(self, X: Any, func: Callable[..., Any]) -> None:
        super().__init__()
        self.X = X
        self.func = func

    def forward(self, t: Tensor, z: Any) -> Any:
        control = self.X.derivative(t)
        if hasattr(self.func, "prod"):
            return self.func.prod(t, z, control)
        system = self.func(t, z)
        if not isinstance(z, tuple):
            return _product(system, control)
        return tuple(_product(s, c) for s, c in zip(system, control, strict=True))


def _product(system: Tensor, control: Tensor) -> Tensor:
    return (system @ control.unsqueeze(-1)).squeeze(-1)


def _with_jumps(X: LinearInterpolation, method: str | None, options: Any) -> dict[str, Any]:
    """The options with what a derivative that jumps needs, unless the caller has a say in it."""
    given = dict(options or {})
    chosen = None if method is None else find_method(method)
    if is_fixed(chosen, method, given):
        given.setdefault("perturb", True)
    elif not {"jump_t", "step_t"} & given.keys() and len(X.grid_points) > 2:
        given["jump_t"] = X.grid_points.detach()[1:-1]
    return given


def _check_shapes(field: _VectorField, t: Tensor, z0: Any) -> None:
    """Say which of the shapes does not fit: a product would broadcast, or say it in its own way."""
    if t.dim() != 1 or t.numel() == 0 or not isinstance(z0, (Tensor, tuple, list)):
        return  # odeint says it
    many = not isinstance(z0, Tensor)
    state = tuple(z0) if many else z0
    parts = state if many else (z0,)
    if not all(isinstance(z, Tensor) for z in parts) or not parts:
        return
    with torch.no_grad():
        start = t[0].to(parts[0].dtype)
        controls = _parts(field.X.derivative(start), many, len(parts), "X.derivative")
        for z, dX in zip(parts, controls, strict=True):
            _check_control(z, dX)
        if hasattr(field.func, "prod"):
            return  # its result is checked like any right-hand side
        own = tuple(z.clone() for z in parts)  # func may write into it
        systems = _parts(field.func(start, own if many else own[0]), many, len(parts), "func")
    for z, dX, s in zip(parts, controls, systems, strict=True):
        if s.shape != (*z.shape, dX.shape[-1]):
            raise ArgumentError(
                f"func gives shape {tuple(s.shape)}; of z0 {tuple(z.shape)} and X.derivative "
                f"{tuple(dX.shape)} it must be {(*z.shape, dX.shape[-1])}."
            )


def _check_control(z: Tensor, dX: Tensor) -> None:
    if dX.dtype != z.dtype:
        raise ArgumentError(f"X is of {dX.dtype} and z0 of {z.dtype}; convert one of them.")
    if z.dim() == 0 or dX.dim() == 0 or dX.shape[:-1] != z.shape[:-1]:
        raise ArgumentError(
            f"X.derivative gives shape {tuple(dX.shape)} and z0 has {tuple(z.shape)}; all but "
            "the last dimension must be the same."
        )


def _parts(value: Any, many: bool, count: int, name: str) -> list[Tensor]:
    parts = list(value) if many and isinstance(value, (tuple, list)) else [value]
    if len(parts) != count or not all(isinstance(x, Tensor) for x in parts):
        wanted = f"a tuple of {count} tensors" if many else "a tensor"
        raise ArgumentError(f"{name} must give {wanted}, like z0.")
    return parts
