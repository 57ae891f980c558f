"""A solve's result as an object: states, interpolation between them, and how they were found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .eager import eager
from .engine import Engine
from .errors import SolverError, UnsupportedError
from .problem import Interpolant, Problem, Statistics
from .states import as_numbers


@dataclass(eq=False)
class Solution:
    """What :func:`pyjlode.odeint` gives with ``return_solution=True``.

    Attributes
    ----------
    t : torch.Tensor
        The times that were asked for, of shape ``(T,)``.
    y : torch.Tensor or tuple of torch.Tensor
        The states there, of shape ``(T, *y0.shape)``, differentiable as ``odeint``'s result.
    stats : Statistics
        Counts of evaluations, Jacobians and steps.
    retcode : str
        The solver's return code in SciML's words: ``"Success"``, or in the solution of a
        :class:`pyjlode.SolverError` why the solve stopped.
    engine, method : str
        What solved.

    Examples
    --------
    >>> import torch
    >>> from pyjlode import odeint
    >>> y0 = torch.ones(1, dtype=torch.float64)
    >>> solution = odeint(lambda t, y: -y, y0, [0.0, 1.0], return_solution=True)
    >>> bool(abs(solution(0.5) - torch.exp(torch.tensor(-0.5))) < 1e-5)
    True
    """

    t: Tensor
    y: Any
    stats: Statistics
    retcode: str
    engine: str
    method: str
    _interpolant: Interpolant | None = field(default=None, repr=False)
    _unflatten: Callable[[Tensor], Any] = field(default=lambda y: y, repr=False)
    _direction: int = field(default=1, repr=False)

    @eager
    def __call__(self, t: float | Sequence[float] | Tensor) -> Any:
        """States at any times of the span, from the interpolation that the method has.

        Parameters
        ----------
        t : float, sequence of float or torch.Tensor
            One time, or times of shape ``(S,)``, in any order.

        Returns
        -------
        torch.Tensor or tuple of torch.Tensor
            Like ``y0`` for one time, with a first dimension ``S`` for several. It has no gradient:
            ask for the times in ``odeint`` where one is needed.

        Raises
        ------
        ValueError
            If a time is outside the span.
        UnsupportedError
            If the engine has no interpolation of this method.
        """
        return self._at(t, 0)

    def derivative(self, t: float | Sequence[float] | Tensor) -> Any:
        """The interpolation's derivative with respect to time; as :meth:`__call__` otherwise.

        On the torch engine it is ``func`` at the interpolated state.
        """
        return self._at(t, 1)

    def _at(self, t: float | Sequence[float] | Tensor, order: int) -> Any:
        times = as_numbers("t", t).detach().to(torch.float64)
        if times.dim() > 1:
            raise ValueError(f"t must be a number or of one dimension; it has {times.dim()}.")
        ends = self.t.detach().to(torch.float64)[[0, -1]] if self.t.numel() else times.new_zeros(2)
        inside = (times >= ends.min()) & (times <= ends.max())
        if not bool(inside.all()):
            outside = float(times[~inside].reshape(-1)[0])
            raise ValueError(
                f"t = {outside:g} is outside the solution's span, "
                f"{float(ends[0]):g} to {float(ends[1]):g}."
            )
        if self._interpolant is None:
            raise UnsupportedError(
                "This solution has no interpolation: its solve stopped early. Use its t and y."
            )
        flat = self._interpolant(self._direction * times.reshape(-1), order)
        found = self._unflatten(self._direction * flat if order else flat)
        if times.dim():
            return found
        return tuple(x[0] for x in found) if isinstance(found, tuple) else found[0]

    def plot(self, ax: Any = None) -> Any:
        """Draw every component over time; matplotlib is imported here.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure's if left out.

        Returns
        -------
        matplotlib.axes.Axes
        """
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.subplots()[1]
        t, parts = self.t.detach(), self.y if isinstance(self.y, tuple) else (self.y,)
        states = torch.cat([y.detach().reshape(t.numel(), -1) for y in parts], dim=1)
        if self._interpolant is not None and t.numel() > 1:
            between = torch.linspace(float(t[0]), float(t[-1]), 401, dtype=torch.float64)
            fine = self(between)
            fine = fine if isinstance(fine, tuple) else (fine,)
            lines = torch.cat([y.reshape(between.numel(), -1) for y in fine], dim=1)
        else:
            between, lines = t, states
        for i in range(states.shape[1]):
            (line,) = ax.plot(between.numpy(), lines[:, i].numpy(), label=f"y{i}")
            ax.plot(t.numpy(), states[:, i].numpy(), "o", ms=3, color=line.get_color())
        ax.set_xlabel("t")
        if 1 < states.shape[1] <= 10:
            ax.legend()
        return ax

    def __repr__(self) -> str:
        parts = self.y if isinstance(self.y, tuple) else (self.y,)
        shapes = ", ".join(str(tuple(y.shape)) for y in parts)
        times = self.t.detach()
        span = f"from {float(times[0]):g} to {float(times[-1]):g}" if times.numel() else "nowhere"
        s = self.stats
        return (
            f"Solution({self.retcode}, {times.numel()} times {span}, y of shape {shapes}, "
            f"{self.method} on the {self.engine} engine, {s.nfe} evaluations, "
            f"{s.naccept} steps and {s.nreject} rejected)"
        )


def solve_dense(
    problem: Problem, unflatten: Callable[[Tensor], Any], solver: Engine, stats: Statistics
) -> Solution:
    """Solve, and keep what interpolation needs."""
    if problem.t.numel() == 1 or problem.y0.numel() == 0:
        states, interpolant = torch.stack([problem.y0] * problem.t.numel()), nowhere(problem)
    else:
        states, interpolant = solver.solve_dense(problem, stats)
    return Solution(
        problem.direction * problem.t,
        unflatten(states),
        stats,
        "Success",
        solver.name,
        solver.method_name(problem),
        interpolant,
        unflatten,
        problem.direction,
    )


def nowhere(problem: Problem) -> Interpolant:
    """The interpolation of a solve that goes nowhere."""

    def interpolant(times: Tensor, order: int) -> Tensor:
        y = problem.y0.detach()
        with torch.no_grad():
            return torch.stack([problem.func(t.to(y.dtype), y) if order else y for t in times])

    return interpolant


def add_solution(
    error: SolverError, problem: Problem, unflatten: Callable[[Tensor], Any], solver: Engine
) -> None:
    """Give a failure what was computed, in the caller's shapes and times."""
    states = error.states
    if states is not None:
        t = problem.direction * problem.t.detach()[: len(states)]
        stats = Statistics()
        stats.take(error.stats)
        error.solution = Solution(
            t, unflatten(states), stats, error.retcode, solver.name, solver.method_name(problem)
        )
    if error.nonfinite is not None:
        time, state = error.nonfinite
        part = unflatten(state[None])
        whole = tuple(x[0] for x in part) if isinstance(part, tuple) else part[0]
        error.nonfinite = (time, whole)
