"""SciPy's kind of initial value problem on the Julia engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from ..events import as_values
from ..methods import Method
from ..problem import Problem, Tolerance
from ..runtime import in_julia
from ..trace.transforms import refuse_transforms
from . import Engine
from .models import Model, Wanted
from .numpy_function import Coordinates, NumpyEvents, NumpyFunction
from .trajectory import Trajectory, follow, trajectory_failure

if TYPE_CHECKING:
    from ..solve_ivp import Request
    from .julia import JuliaEngine

# SciPy has no bound on the number of steps; this one only keeps memory from filling for ever.
_MAX_STEPS = 10_000_000


@dataclass(frozen=True)
class _Formulation:
    """A request in the solver's coordinates: a problem, and models of its functions."""

    coordinates: Coordinates
    problem: Problem
    model: Model
    events: Model | None


@in_julia
def solve(engine: Engine, request: Request, method: Method) -> dict[str, Any]:
    """What a result is made of: steps, events, counts and an interpolation."""
    julia = cast("JuliaEngine", engine)
    refuse_transforms("solve_ivp")
    start, end = request.span
    if start == end or len(request.y0) == 0:
        return _nowhere(request)
    coordinates = _coordinates(request)
    if isinstance(request.y0, Tensor):
        form = _traced(julia, request, method, coordinates)
    else:
        form = _called(julia, request, method, coordinates)
    found = follow(
        julia, form.problem, form.model, form.events, request.direction, request.terminal
    )
    return _found(julia, form, found)


def _found(engine: JuliaEngine, form: _Formulation, found: Trajectory) -> dict[str, Any]:
    c, message = form.coordinates, ""
    if not found.success:
        message = str(trajectory_failure(engine, form.problem, form.model, found))

    def states(times: np.ndarray) -> np.ndarray:
        forward = torch.from_numpy(c.direction * np.asarray(times, dtype=np.float64))
        return c.outward(found.interpolant(forward, 0).numpy().reshape(len(times), c.width))

    finite = np.isfinite(found.states).all(axis=1)
    return {
        "t": c.direction * found.times[finite],
        "y": c.outward(found.states[finite]),
        "end": c.direction * float(found.times[finite][-1]),
        "interpolant": states,
        "event_times": c.direction * found.event_times,
        "event_numbers": found.event_numbers - 1,
        "event_states": c.outward(found.event_states),
        "nfev": found.counts["nf"],
        "njev": found.counts["njacs"],
        "nlu": found.counts["nw"],
        "status": -1 if not found.success else int(found.stopped),
        "message": message,
    }


def _nowhere(request: Request) -> dict[str, Any]:
    """Nothing to solve: no time or no state."""
    y0 = np.asarray(request.y0)
    return {
        "t": np.array(request.span),
        "y": np.stack([y0, y0]),
        "end": request.span[1],
        "interpolant": lambda times: np.stack([y0] * len(times)) if len(times) else y0[None][:0],
        "event_times": np.array([]),
        "event_numbers": np.array([]),
        "event_states": np.array([]),
        "nfev": 0,
        "njev": 0,
        "nlu": 0,
        "status": 0,
        "message": "",
    }


def _coordinates(request: Request) -> Coordinates:
    y0 = request.y0
    is_complex = y0.is_complex() if isinstance(y0, Tensor) else np.iscomplexobj(y0)
    return Coordinates(len(y0), bool(is_complex), request.forward)


def _tolerance(value: Any, c: Coordinates) -> Tolerance:
    """One number, or one for each number of the solver's state."""
    if np.ndim(value) == 0:
        return float(value)
    return torch.from_numpy(np.repeat(value, 1 + c.is_complex))


def _problem(
    request: Request, method: Method, c: Coordinates, func: Any, u0: Tensor, owner: Any, key: Any
) -> Problem:
    return Problem(
        func=func,
        y0=u0,
        t=torch.tensor([c.direction * x for x in request.span], dtype=torch.float64),
        rtol=_tolerance(request.rtol, c),
        atol=_tolerance(request.atol, c),
        method=method,
        sensealg=None,
        options={"max_num_steps": _MAX_STEPS, **request.options},
        fixed_step=False,
        owner=owner,
        key=(*key, "reversed") if c.direction < 0 else key,
    )


def _called(engine: JuliaEngine, request: Request, method: Method, c: Coordinates) -> _Formulation:
    """A function of numpy arrays, which Julia calls."""
    start, end = (c.direction * x for x in request.span)
    function = NumpyFunction(
        request.fun, c, jac=request.jac, span=end - start, end=end, vectorized=request.vectorized
    )
    state = c.inward(request.y0)
    function.evaluate(start, state)  # what is wrong with it is said before Julia is in between
    if method.stiff and request.jac is not None:
        function.derive(start, state)
    u0 = torch.from_numpy(state.copy())
    problem = _problem(request, method, c, function.on_tensors, u0, request.fun, ())
    set_constants = engine.module.set_constants_b

    def model(python: Any) -> Model:
        handle = python.model(engine.module, "float64")
        return Model(handle, (), (), (), set_constants, torch.float64, callback=python)

    events = None if request.events is None else model(NumpyEvents(request.events, c))
    return _Formulation(c, problem, model(function), events)


def _traced(engine: JuliaEngine, request: Request, method: Method, c: Coordinates) -> _Formulation:
    """A function of tensors, which is traced and runs in Julia."""
    real = request.y0.real.dtype
    u0 = torch.from_numpy(c.inward(request.y0.numpy()).copy()).to(real)

    def outward(u: Tensor) -> Tensor:
        return torch.view_as_complex(u.view(-1, 2)) if c.is_complex else u

    def func(t: Tensor, u: Tensor) -> Tensor:
        value = request.fun(c.direction * t, outward(u))
        value = torch.view_as_real(value).reshape(-1) if c.is_complex else value
        return c.direction * value

    def event(t: Tensor, u: Tensor) -> Tensor:
        y = outward(u)
        values = [each(c.direction * t, y) for each in request.events or ()]
        tensors = [v if isinstance(v, Tensor) else torch.as_tensor(v, dtype=real) for v in values]
        return torch.stack([as_values(v, real).reshape(()) for v in tensors])

    key = ("solve_ivp", c.is_complex)
    problem = _problem(request, method, c, func, u0, request.fun, key)
    wanted = Wanted.JACOBIAN if method.stiff else Wanted.VALUES
    watched = None
    if request.events:
        owner: tuple[Callable[..., Any], ...] = tuple(request.events)
        asked = _problem(request, method, c, event, u0, owner, (*key, "events"))
        watched = engine.models.get(asked, wanted=Wanted.VALUES)
    return _Formulation(c, problem, engine.models.get(problem, wanted=wanted), watched)
