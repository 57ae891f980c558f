"""Solves in Julia of which every step is kept: interpolation, events, and a look at failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SolverError
from ..methods import Method
from ..problem import Problem, Statistics
from ..runtime import in_julia
from .arrays import as_array, flatten
from .callback import Noted
from .crossing import LEAVE, LEAVE_NEAR, zero_at_start
from .failure import Evidence, forward_failure, no_event
from .mass import with_mass
from .models import Model, Wanted

if TYPE_CHECKING:
    from .functions import Functions
    from .julia import JuliaEngine


@dataclass(frozen=True)
class JuliaInterpolant:
    """The dense output of a solve; ``like`` has the shape and dtype of a state."""

    functions: Functions
    model: Model
    solved: Any
    like: Tensor

    @in_julia
    def __call__(self, times: Tensor, order: int) -> Tensor:
        out = torch.empty((times.numel(), *self.like.shape), dtype=self.like.dtype)
        with self.model.errors():
            self.functions.interpolate(
                self.solved, as_array(times.to(torch.float64)), as_array(out), order
            )
        return out


@dataclass(frozen=True)
class Trajectory:
    """A solve until its end or an event.

    Attributes
    ----------
    success : bool
    retcode : str
    reached : float
        The problem's time at its end.
    counts : dict of str to int
        ``nf``, ``njacs``, ``naccept``, ``nreject`` and ``nw``, the factorizations.
    times, states : numpy.ndarray
        The steps, of shapes ``(S,)`` and ``(S, n)``.
    event_times, event_numbers, event_states : numpy.ndarray
        What was found of the events, in the order of time.
    stopped : bool
        Whether an event ended the solve.
    interpolant : JuliaInterpolant
    """

    success: bool
    retcode: str
    reached: float
    counts: dict[str, int]
    times: np.ndarray
    states: np.ndarray
    event_times: np.ndarray
    event_numbers: np.ndarray
    event_states: np.ndarray
    stopped: bool
    interpolant: JuliaInterpolant


def follow(
    engine: JuliaEngine,
    problem: Problem,
    model: Model,
    events: Model | None,
    direction: Sequence[int],
    most: Sequence[int],
    start: Sequence[int] | None = None,
) -> Trajectory:
    """Solve from the first to the last of the problem's times, or to the event that ends it.

    Parameters
    ----------
    model, events : Model
        The right-hand side, and the function whose elements are the events' values.
    direction, most : sequence of int
        For each event, the sign that its value changes to, or 0 for either, and how many of them
        end the solve, 0 for none.
    start : sequence of int, optional
        For each event, what its value at the start means: 0, the default, that a zero is an event,
        as in SciPy; 1 that a zero is left; 2 that it is zero but for rounding, and left.
    """
    method, python = engine.method(problem), Noted()
    watched = model if events is None else events
    model.refresh()
    watched.refresh()
    info = torch.zeros(8, dtype=torch.float64)
    dtype, t = problem.y0.dtype, problem.t.detach()
    settings = engine.functions.forward_settings(problem, method, python)
    with python.errors(), model.errors(), watched.errors():
        handle = model.run(
            engine.module.follow,
            model.handle,
            settings,
            as_array(problem.y0),
            flatten(model.parameters, dtype).numpy(),
            float(t[0]),
            float(t[-1]),
            watched.handle,
            flatten(watched.parameters, dtype).numpy(),
            np.array(direction, dtype=np.int64),
            np.array(most, dtype=np.int64),
            np.array(start or [0] * len(most), dtype=np.int64),
            info.numpy(),
            how=("follow", method.name, problem.fixed_step),
            beside=[events],
            python=python,
        )
    times, states = (np.array(x) for x in engine.module.steps(handle))
    event_times, event_numbers, event_states = (np.array(x) for x in engine.module.hits(handle))
    success, reached, nf, njacs, naccept, nreject, nw, _ = info.tolist()
    counts = {"nf": nf, "njacs": njacs, "naccept": naccept, "nreject": nreject, "nw": nw}
    retcode = str(engine.functions.retcode(handle))
    return Trajectory(
        success=bool(success) and bool(np.isfinite(states).all()),
        retcode=retcode,
        reached=float(times[-1]) if success else reached,
        counts={k: int(v) for k, v in counts.items()},
        times=times,
        states=states.T,
        event_times=event_times,
        event_numbers=event_numbers,
        event_states=event_states.T,
        stopped=retcode == "Terminated",
        interpolant=JuliaInterpolant(engine.functions, model, handle.solved, problem.y0.detach()),
    )


def solve_event(
    engine: JuliaEngine, problem: Problem, event: Problem, stats: Statistics
) -> tuple[Tensor, Tensor, int]:
    """Find an event, then solve up to it with what gradients need."""
    start = problem.t[:1]
    if problem.fixed_step and "step_size" not in problem.options:
        raise ValueError("With event_fn a fixed-step method needs options['step_size'].")
    with torch.no_grad():
        values = event.func(start[0].detach().to(problem.y0.dtype), problem.y0.detach())
    ends = [float(start.detach()), float("inf")]
    endless = replace(problem, t=torch.tensor(ends, dtype=torch.float64))
    method = engine.method(problem)
    model = engine.models.get(endless, wanted=engine.wanted(problem, method, method))
    if problem.mass is not None:
        model, endless = with_mass(engine.module, model, endless, model.parameters)
    y0 = endless.y0
    watched = engine.models.get(event, wanted=Wanted.VALUES)
    count = values.numel()
    either, first = [0] * count, [1] * count
    found = follow(engine, endless, model, watched, either, first, [LEAVE] * count)
    if found.stopped and len(found.times) == 2:
        # In the first step it may be the zero that the solve starts on, which rounding moved.
        zero = zero_at_start(replace(event, y0=y0, atol=problem.atol))
        if zero[found.event_numbers[-1] - 1]:
            left = [LEAVE_NEAR if x else LEAVE for x in zero]
            found = follow(engine, endless, model, watched, either, first, left)
    if not found.stopped:
        raise _event_failure(engine, endless, model, found)
    stats.take(found.counts)
    time, index = float(found.event_times[-1]), int(found.event_numbers[-1]) - 1
    end = torch.from_numpy(np.ascontiguousarray(found.event_states[-1])).view(y0.shape)
    inputs = (problem.y0, problem.t, *model.parameters)
    at = torch.tensor(time, dtype=torch.float64)
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs) and time > ends[0]:
        times = torch.cat([start.to(torch.float64), at[None]])
        states = engine.solve(replace(problem, t=times), stats)
        # Its last step ends at the event, where the one of the search goes on: of the same
        # tolerance, but only with the very state that was found the event's value is zero.
        end = end + (states[-1] - states[-1].detach())
        return at, torch.stack([states[0], end]), index
    return at, torch.stack([y0, end]), index


def _event_failure(
    engine: JuliaEngine, problem: Problem, model: Model, found: Trajectory
) -> Exception:
    if found.retcode == "MaxIters" or found.success:
        return no_event(problem, engine.method_name(problem), found.retcode, found.reached)
    return trajectory_failure(engine, problem, model, found)


def trajectory_failure(
    engine: JuliaEngine, problem: Problem, model: Model, found: Trajectory
) -> Exception:
    """The error of a solve that did not succeed."""
    return solve_failure(
        engine.functions, model, found.interpolant.solved, problem, engine.method(problem),
        found.reached, found.counts, problem.y0.detach()[None],
    )  # fmt: skip


def solve_failure(
    functions: Functions, model: Model, solved: Any, problem: Problem, method: Method,
    reached: float, counts: Mapping[str, float], states: Tensor,
) -> SolverError:  # fmt: skip
    """The error of a forward solve, of which Julia has ``solved`` and ``states`` were reached."""
    last, nonfinite = examine(functions, model, solved, problem)
    retcode = str(functions.retcode(solved))
    return forward_failure(
        problem,
        Evidence(
            method=method.name,
            explicit=not method.stiff,
            retcode="Unstable" if retcode == "Success" else retcode,
            reached=reached,
            counts=counts,
            states=states,
            last=last,
            nonfinite=nonfinite,
        ),
    )


def examine(
    functions: Functions, model: Model, solved: Any, problem: Problem
) -> tuple[Tensor | None, tuple[float, Tensor] | None]:
    """The last state of a failed solve, and where the function first gave what is not finite.

    The solve is made again for it; one of very many steps in Python is not.
    """
    if model.callback is not None and str(functions.retcode(solved)) == "MaxIters":
        return None, None
    last, state = torch.zeros(2, *problem.y0.shape, dtype=problem.y0.dtype)
    with model.errors():
        time = functions.examine(solved, as_array(last), as_array(state))
    found = None if np.isnan(time) else (float(time), state)
    return last if bool(torch.isfinite(last).all()) else None, found
