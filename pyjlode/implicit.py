"""Fully implicit equations ``0 = func(t, y, dy)`` as ones with a mass matrix.

The derivatives ``z`` of the differential variables are unknowns beside ``y``. With ``u = (y, z)``
the differential variables have ``y' = z``, and all of ``func`` is algebraic: it determines ``z``
and the algebraic variables, wherever its derivative by these is regular (index one).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from .errors import ArgumentError, SolverError
from .independent import nothing_changed
from .mass_matrix import MassMatrix
from .problem import Problem, Tolerance
from .states import Layout
from .trace.modes import without_compilation

_SHOWN = 5
_LOOKED_AT = 100


@dataclass(frozen=True)
class ImplicitForm:
    """Which variables are differential, and how they lie in the state that is solved.

    Attributes
    ----------
    layout : Layout
        Of the caller's ``y``.
    shape : torch.Size
        Of ``y`` as it is solved: the caller's, or one dimension of all its numbers.
    runs : tuple of (int, int, bool)
        Along the last dimension, first and last index of variables of one kind, and whether they
        are differential.

    Examples
    --------
    >>> layout = Layout.of(torch.ones(2, 3))
    >>> form = ImplicitForm.of(layout, torch.tensor([True, False, True] * 2))
    >>> form.shape, form.runs
    (torch.Size([2, 3]), ((0, 1, True), (1, 2, False), (2, 3, True)))
    """

    layout: Layout
    shape: torch.Size
    runs: tuple[tuple[int, int, bool], ...]

    @classmethod
    def of(cls, layout: Layout, differential: Tensor) -> ImplicitForm:
        """The form of a mask with an element for each number of the state."""
        shape = layout.shapes[0]
        if layout.joined or not shape:
            shape = torch.Size([differential.numel()])
        rows = differential.view(-1, shape[-1]) if differential.numel() else differential.view(1, 0)
        if not bool((rows == rows[0]).all()):
            shape, rows = torch.Size([differential.numel()]), differential.view(1, -1)
        runs, first = [], 0
        for kind, run in groupby(rows[0].tolist()):
            last = first + len(list(run))
            runs.append((first, last, kind))
            first = last
        return cls(layout, shape, tuple(runs))

    @property
    def variables(self) -> int:
        """How many there are in the last dimension."""
        return self.shape[-1]

    @property
    def differential(self) -> Tensor:
        """Which of them are."""
        return torch.cat([torch.full((b - a,), kind) for a, b, kind in self.runs])

    @property
    def matrix(self) -> Tensor:
        """The mass matrix, of a state's last dimension."""
        differential = self.differential.to(torch.float64)
        return torch.diag(torch.cat([differential, torch.zeros(int(differential.sum()))]))

    def states(self, u: Tensor) -> Any:
        """The caller's states, of solved ones, which may have more dimensions in front."""
        y = u[..., : self.variables]
        if self.layout.joined:
            return self.layout.split(y)
        return y.reshape((*y.shape[: y.dim() - len(self.shape)], *self.layout.shapes[0]))

    def initial(self, y0: Tensor, dy0: Tensor) -> Tensor:
        """The state to begin with; only the differential variables have gradients."""
        known = [
            y if differential else _without_gradient(y)
            for y, differential in self.pieces(y0.reshape(self.shape))
        ]
        dy = dy0.reshape(self.shape)
        guessed = [_without_gradient(x) for x, differential in self.pieces(dy) if differential]
        return self._joined([*known, *guessed])

    def system(self, func: Callable[..., Any]) -> Callable[[Tensor, Tensor], Tensor]:
        """What stands for ``func(t, y, dy)``: ``z``, and the residual in the other places."""

        def system(t: Tensor, u: Tensor) -> Tensor:
            y, z = u[..., : self.variables], u[..., self.variables :]
            dy = self._derivative(y, z)
            residual = self.residual(func, t, y, dy)
            pieces = zip(self.pieces(dy), self.pieces(residual), strict=True)
            first = [slope if kind else value for (slope, kind), (value, _) in pieces]
            return self._joined([*first, *(x for x, kind in self.pieces(residual) if kind)])

        # Warnings name the caller's.
        system.__qualname__ = getattr(func, "__qualname__", type(func).__name__)
        return system

    def residual(self, func: Callable[..., Any], t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        """The caller's residual, checked, of states as they are solved."""
        slope = self._caller(dy.clone())  # func may write into it
        checked = self.layout.wrap(lambda t, state: func(t, state, slope))
        return checked(t, y if self.layout.joined else self._caller(y)).reshape(self.shape)

    def in_place(self, values: Tensor) -> Tensor:
        """The residual in values of :meth:`system`."""
        own = values[..., : self.variables]
        moved = self._derivative(own, values[..., self.variables :])
        pieces = zip(self.pieces(own), self.pieces(moved), strict=True)
        return self._joined([there if kind else here for (here, kind), (there, _) in pieces])

    def tolerance(self, tolerance: Tolerance) -> Tolerance:
        """One number for each of a state, from those of the caller's; of ``z`` none counts."""
        if not isinstance(tolerance, Tensor):
            return tolerance
        y = tolerance.reshape(self.shape)
        most = float(tolerance.max())
        z = [torch.full_like(x, most) for x, kind in self.pieces(y) if kind]
        return self._joined([y, *z]).reshape(-1)

    @property
    def measured(self) -> list[int]:
        """First and last index, from 1, of each part of a state whose error counts.

        The error of ``z`` counts by what it does to ``y``: to measure it in the units of ``y``
        would mean something else in each unit of time.
        """
        sizes = self.layout.sizes if self.layout.joined else [self.variables]
        ends = [0, *accumulate(sizes)]
        row = self.variables + int(self.differential.sum())
        starts = range(0, row * (self.shape.numel() // self.variables), row)
        return [start + x for start in starts for a, b in pairwise(ends) for x in (a + 1, b)]

    def pieces(self, x: Tensor) -> Iterator[tuple[Tensor, bool]]:
        """Neighbours of one kind in the last dimension, and whether they are differential."""
        for first, last, differential in self.runs:
            yield x[..., first:last], differential

    def _derivative(self, y: Tensor, z: Tensor) -> Tensor:
        """``dy``: ``z`` at the differential variables, 0 elsewhere."""
        parts, place = [], 0
        for x, differential in self.pieces(y):
            size = x.shape[-1] if differential else 0
            parts.append(z[..., place : place + size] if differential else torch.zeros_like(x))
            place += size
        return self._joined(parts)

    def _caller(self, y: Tensor) -> Any:
        return self.layout.split(y) if self.layout.joined else y.reshape(self.layout.shapes[0])

    @staticmethod
    def _joined(parts: list[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


@dataclass(frozen=True)
class ImplicitMass(MassMatrix):
    """The mass matrix of an implicit equation, with what is known of it.

    Attributes
    ----------
    form : ImplicitForm
    func : callable
        The caller's ``func(t, y, dy)``.
    start : tuple of torch.Tensor
        The caller's times and ``y0`` and ``dy0`` as they are solved.
    """

    form: ImplicitForm
    func: Callable[..., Any]
    start: tuple[Tensor, Tensor, Tensor]

    name: ClassVar[str] = "daeint"
    equations: ClassVar[str] = "the equations"
    unknowns: ClassVar[str] = "dy of the differential variables and y of the algebraic ones"
    initial: ClassVar[str] = "y0 and a dy0"

    @property
    def singular(self) -> str:
        """What an initial state does where there is no telling the unknowns."""
        return f"{super().singular}; or it is so at this first guess alone: give another dy0"

    def residual(self, values: Tensor) -> Tensor:
        """The equations' values as the caller's ``func`` has them; of a tuple, in one dimension."""
        own, layout = self.form.in_place(values), self.form.layout
        return own if layout.joined else own.reshape(layout.shapes[0])

    def measured(self, parts: list[int]) -> list[int]:
        """Only ``y``: of a batch the worst row counts, of a tuple the worst tensor."""
        return self.form.measured

    def check(self, problem: Problem) -> None:
        """Refuse a ``func`` that would be solved wrongly without a word.

        Raises
        ------
        ArgumentError
            If it depends on derivatives of algebraic variables, in the initial state or one near
            it, at the first or the last time.
        SolverError
            If the index is above one. Where rounding leaves a singular derivative regular, the
            solve itself may not notice.
        """
        t, y0, dy0 = (x.detach() for x in self.start)
        generator = torch.Generator().manual_seed(0)

        def near(x: Tensor, size: float) -> Tensor:
            change = size * torch.rand(x.shape, generator=generator, dtype=x.dtype)
            return x * (1 + change) + change

        with nothing_changed(problem), without_compilation():
            differential = bool(self.form.differential.all())
            for time, size in () if differential else ((t[0], 0.0), (t[0], 1e-2), (t[-1], 1e-2)):
                at = (time.to(y0.dtype), near(y0, size), near(dy0, size))
                with torch.no_grad():
                    found = self._depends_on(*at, near(torch.zeros_like(dy0), 1.0))
                if found:
                    raise self._depends(found)
            if self._is_singular(t[0].to(y0.dtype), y0, dy0):
                raise SolverError(
                    f"The initial state {self.singular}.", retcode="InitialFailure", t=float(t[0])
                )

    def _is_singular(self, t: Tensor, y0: Tensor, dy0: Tensor) -> bool:
        """Whether the residual's derivative by the unknowns is, as far as its numbers tell."""
        if y0.numel() > _LOOKED_AT:
            return False
        y, dy = y0.clone().requires_grad_(), dy0.clone().requires_grad_()
        rows = []
        try:
            with torch.enable_grad():
                values = self.form.residual(self.func, t, y, dy).reshape(-1).unbind()
            for value in values:
                by_y, by_dy = torch.autograd.grad(
                    value, (y, dy), retain_graph=True, allow_unused=True, materialize_grads=True
                )
                rows.append(torch.where(self.form.differential, by_dy, by_y).reshape(-1))
        except RuntimeError:  # func has no derivative: a solve that needs it says so
            return False
        matrix = torch.stack(rows).to(torch.float64)
        if not bool(torch.isfinite(matrix).all()):
            return False
        for dim in (0, 1, 0, 1):  # the units of equations and variables do not count
            most = matrix.abs().amax(dim, keepdim=True)
            matrix = matrix / most.where(most > 0, 1.0).sqrt()
        sizes = torch.linalg.svdvals(matrix)
        return bool(sizes[-1] <= len(sizes) * torch.finfo(y0.dtype).eps * sizes[0])

    def _depends_on(self, t: Tensor, y: Tensor, dy: Tensor, other: Tensor) -> list[list[int]]:
        """Algebraic variables on whose derivatives func depends."""
        form, random = self.form, torch.get_rng_state()
        algebraic = (~form.differential).expand(form.shape)

        def residual(changed: Tensor) -> Tensor:
            torch.set_rng_state(random)
            return form.residual(self.func, t, y, torch.where(changed, other, at_zero))

        at_zero = torch.where(algebraic, 0.0, dy)
        before = residual(torch.zeros_like(algebraic))

        def differs(changed: Tensor) -> bool:
            return not torch.allclose(residual(changed), before, rtol=0, atol=0, equal_nan=True)

        if not differs(algebraic):
            return []
        found = []
        for place in algebraic.nonzero()[:_LOOKED_AT]:
            one = torch.zeros_like(algebraic)
            one[tuple(place)] = True
            if differs(one):
                found.append(place.tolist())
            if len(found) == _SHOWN:
                break
        return found or algebraic.nonzero()[:_SHOWN].tolist()

    def _depends(self, places: list[list[int]]) -> ArgumentError:
        shown = ", ".join(str(place) for place in places)
        counted = " (of all numbers of y, one after the other)" if self.form.layout.joined else ""
        return ArgumentError(
            f"func depends on dy at {shown}{counted}, which differential_vars says are algebraic: "
            "their derivatives are no unknowns, and would be taken to be 0. Say True there in "
            "differential_vars, or write func without these derivatives."
        )


def _without_gradient(x: Tensor) -> Tensor:
    """The same values with a gradient of exactly zero."""
    return torch.where(torch.zeros_like(x, dtype=torch.bool), x, x.detach())
