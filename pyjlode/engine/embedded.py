"""The torch engine: torchdiffeq behind pyjlode's interface, for where there is no Julia."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, SolverError, UnsupportedError
from ..independent import check_rows
from ..problem import Interpolant, Problem, Statistics
from ..sensealg import BacksolveAdjoint
from ..states import as_pairs, from_pairs
from ..trace.cut import Substitution
from ..trace.snapshot import Snapshot
from .arguments import call, method_name
from .crossing import FirstCrossing
from .failure import Evidence, forward_failure, no_event
from .node import first_order

_MAX_STEPS = 100_000


class TorchEngine:
    """Solve with torchdiffeq.

    It has the explicit methods of the catalogue with a ``torch_name``, and two ways to
    gradients: :class:`DiscreteAdjoint` (autograd through the steps, the default) and
    :class:`BacksolveAdjoint`.
    """

    name = "torch"

    def versions(self) -> dict[str, str]:
        return {"torchdiffeq": version("torchdiffeq")}

    def method_name(self, problem: Problem) -> str:
        return method_name(problem)

    def solve(self, problem: Problem, stats: Statistics) -> Tensor:
        if problem.rows is None:
            return self._solve(problem, stats)
        check_rows(problem)
        states, counts = [], []
        for i in range(problem.rows):
            row = replace(problem, y0=problem.y0[i : i + 1], rows=None)
            try:
                states.append(self._solve(row, stats))
            except SolverError as error:
                raise SolverError(
                    f"Row {i}: {error}", retcode=error.retcode, t=error.t, stats=error.stats, row=i
                ) from error
            counts.append(stats.nfe)
        stats.nfe, stats.rows = sum(counts), {"nfe": torch.tensor(counts)}
        return torch.cat(states, dim=1)

    def _solve(self, problem: Problem, stats: Statistics) -> Tensor:
        func = _Counted(problem)
        solve, arguments = func.call(problem)
        times = _times(problem)
        try:
            result = solve(func, problem.y0, times, **arguments)
        except SolverError:
            raise  # of a solve within func
        except AssertionError as error:
            raise forward_failure(problem, _evidence(problem, func, _retcode(error))) from error
        stats.nfe = func.count
        func.ended(stats)
        if not bool(torch.isfinite(result.detach()).all()):
            raise forward_failure(problem, _evidence(problem, func, "Unstable"))
        if solve.__name__ != "odeint_adjoint":
            return result
        return first_order(
            result,
            "torchdiffeq's adjoint gives a gradient without a graph, so create_graph=True and "
            "second derivatives are not supported; use odeint with sensealg=DiscreteAdjoint().",
        )

    def solve_dense(self, problem: Problem, stats: Statistics) -> tuple[Tensor, Interpolant]:
        return self.solve(problem, stats), _SolvedAgain(self, problem)

    def solve_event(
        self, problem: Problem, event: Problem, stats: Statistics
    ) -> tuple[Tensor, Tensor, int]:
        """Torchdiffeq's own events; an event that never comes is given up, not waited for."""
        func = _Counted(problem)
        solve, arguments = func.call(problem)
        width = _event_tolerance(problem)
        start = problem.t[:1].to(problem.y0.dtype)
        if problem.fixed_step:
            if "step_size" not in problem.options:
                raise ValueError("With event_fn a fixed-step method needs options['step_size'].")
        else:
            arguments["options"].setdefault("max_num_steps", _MAX_STEPS)
        first = FirstCrossing(event, func)
        try:
            event_t, states = solve(
                func,
                problem.y0,
                torch.cat([start, start.detach() + 1]),
                event_fn=first,
                **arguments,
            )
        except (AssertionError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "maximum number of iterations" not in str(error):
                raise
            code = "MaxIters" if isinstance(error, RuntimeError) else _retcode(error)
            raise no_event(problem, method_name(problem), code, func.last_time) from error
        # It finds the event to atol; a state as far from it would meet it again.
        time = event_t.detach().to(torch.float64)
        time, end, index = first.refine(time, states[-1].detach(), width)
        end = end + (states[-1] - states[-1].detach())
        stats.nfe = func.count
        func.ended(stats)
        return time, torch.stack([states[0], end]), index


def _event_tolerance(problem: Problem) -> float:
    """How near torchdiffeq comes to an event."""
    if problem.method is not None and problem.method.name == "scipy_solver":
        raise UnsupportedError("scipy_solver has no events; take dopri5.")
    if isinstance(problem.atol, Tensor) or not problem.atol > 0:
        raise UnsupportedError(
            "The torch engine finds an event to atol, which must be one number above zero; give "
            "such a one, or get Julia with `pyjlode setup`."
        )
    return problem.atol


def _times(problem: Problem) -> Tensor:
    """Torchdiffeq's times have the state's precision."""
    times = problem.t.to(problem.y0.dtype)
    if not bool((times.detach().diff() > 0).all()):
        raise ArgumentError(
            "In the state's float32 two times of t are one; count them from another zero, or solve "
            "in float64."
        )
    return times


class _SolvedAgain:
    """Torchdiffeq's steps do not depend on the times asked for, between which it interpolates.

    So a solve anew for other times gives the interpolation of the first solve's very steps.
    """

    def __init__(self, engine: TorchEngine, problem: Problem) -> None:
        self.engine = engine
        self.problem = problem

    def __call__(self, times: Tensor, order: int) -> Tensor:
        problem = self.problem
        if problem.fixed_step:
            raise UnsupportedError(
                f"The torch engine has no interpolation of {method_name(problem)}, whose steps "
                "are fixed; take dopri5, or get Julia with `pyjlode setup`."
            )
        dtype = problem.y0.dtype
        with torch.no_grad():
            asked = torch.cat([problem.t.detach()[:1].to(dtype), times.to(dtype)])
            grid, places = torch.unique(asked, return_inverse=True)
            states = problem.y0[None]
            if grid.numel() > 1:
                states = self.engine.solve(replace(problem, t=grid), Statistics())
            if order:
                states = torch.stack(
                    [problem.func(t, y) for t, y in zip(grid, states, strict=True)]
                )
            return states[places[1:]].clone()


class _Counted(torch.nn.Module):
    """Counts evaluations, those of a backward solve apart; it has the caller's callbacks.

    In a backward solve the function reads what it read in the forward one.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.func = problem.func
        self.snapshot: Snapshot | None = None
        backward = isinstance(problem.sensealg, BacksolveAdjoint) or problem.adjoint is not None
        if backward and torch.is_grad_enabled():
            self.snapshot = Snapshot(problem.owner)
        self.count = 0
        self.last_time = float("nan")
        self.stats: Statistics | None = None
        self.pairs = _Pairs(())
        for name, callback in problem.watch.items():
            setattr(self, name, callback)
        if problem.adjoint is not None:
            for name, callback in problem.adjoint.callbacks.items():
                setattr(self, f"{name}_adjoint", callback)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.count += 1
        self.last_time = float(t.detach())
        if self.stats is None:
            return self.func(t, y)
        self.stats.nfe_backward += 1
        with nullcontext() if self.snapshot is None else self.snapshot.restored(), self.pairs:
            derivative = self.func(t, y)
        if y.requires_grad and not derivative.requires_grad:
            # Torchdiffeq differentiates it, which torch refuses for a constant.
            derivative = derivative + 0 * y
        return derivative

    def call(self, problem: Problem) -> tuple[Any, dict[str, Any]]:
        """Torchdiffeq's function and its arguments; complex parameters are pairs in these."""
        solve, arguments = call(problem)
        if "adjoint_params" in arguments:
            self.pairs = _Pairs(arguments["adjoint_params"])
            found = map(self.pairs.pair, arguments["adjoint_params"])
            arguments["adjoint_params"] = tuple(found)
        return solve, arguments

    def ended(self, stats: Statistics) -> None:
        """The forward solve has ended; evaluations count as those of the backward one."""
        self.stats = stats
        if self.snapshot is not None:
            self.snapshot.end()


class _Pairs(Substitution):
    """In a backward solve ``func`` computes its complex parameters from pairs of real numbers.

    Torchdiffeq has one vector of the state and all parameters, which is real.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        with torch.enable_grad():
            super().__init__({id(x): as_pairs(x) for x in parameters if x.is_complex()})

    def pair(self, x: Tensor) -> Tensor:
        """What is differentiated for a parameter."""
        return self.substitutes.get(id(x), x)

    def stand_in(self, x: Any) -> Any:
        found = self.substitutes.get(id(x)) if isinstance(x, Tensor) else None
        return x if found is None else from_pairs(found)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.substitutes:
            return func(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)


def _retcode(error: BaseException) -> str:
    """SciML's word for what torchdiffeq asserts."""
    text = str(error)
    if "underflow" in text:
        return "DtLessThanMin"
    if "max_num_steps" in text:
        return "MaxIters"
    if "non-finite" in text:
        return "Unstable"
    raise error


class _Watched(torch.nn.Module):
    """Notes the last finite state, and the first where ``func`` gives what is not finite."""

    def __init__(self, func: Any) -> None:
        super().__init__()
        self.func = func
        self.last: Tensor | None = None
        self.nonfinite: tuple[float, Tensor] | None = None

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        value = self.func(t, y)
        if bool(torch.isfinite(y).all()):
            self.last = y.clone()
            if self.nonfinite is None and not bool(torch.isfinite(value).all()):
                self.nonfinite = (float(t), y.clone())
        return value


def _evidence(problem: Problem, func: _Counted, retcode: str) -> Evidence:
    """What a failed solve shows when it is made again, with an eye on every evaluation."""
    import torchdiffeq

    _, arguments = call(replace(problem, sensealg=None, adjoint=None))
    watched = _Watched(problem.func)
    t = problem.t.detach().to(problem.y0.dtype)
    y0 = problem.y0.detach()
    states = y0[None]
    with torch.no_grad():
        with suppress(AssertionError):
            states = torchdiffeq.odeint(watched, y0, t, **arguments)
        # The save points before the failure; those at its very edge may fail too.
        count = int((t < func.last_time).sum()) if len(states) == 1 else 0
        while count > 1:
            with suppress(AssertionError):
                states = torchdiffeq.odeint(problem.func, y0, t[:count], **arguments)
                break
            count //= 2
    finite = torch.isfinite(states).flatten(1).all(dim=1).long().cumprod(0).sum()
    return Evidence(
        method=method_name(problem),
        explicit=True,
        retcode=retcode,
        reached=func.last_time if len(states) < len(t) else float(t[int(finite) - 1]),
        counts={"nf": func.count},
        states=states[: int(finite)],
        last=watched.last,
        nonfinite=watched.nonfinite,
    )
