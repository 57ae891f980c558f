"""The Julia engine: problems of torch tensors, solved by SciML.

Arrays cross the border as numpy views of torch's memory: Julia reads the initial state and the
parameters from them and writes the solution and the gradients into them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import UnsupportedError, warn
from ..methods import Method, find_method, first_of
from ..partitioned import takes_time, time_dependent
from ..problem import Interpolant, Problem, Statistics
from ..runtime import Runtime, in_julia
from ..sensealg import (
    BacksolveAdjoint,
    DiscreteAdjoint,
    ForwardSensitivity,
    GaussAdjoint,
    SensitivityAlgorithm,
)
from ..trace.leaves import depends_on
from ..trace.transforms import StandIns, plain, refuse_transforms, within_transform
from .extension import require
from .failure import JacobianError
from .functions import Functions
from .mass import discrete_adjoint, with_mass
from .models import Model, ModelCache, Wanted, depends_on_time
from .node import Call, Node, States
from .pieces import solve_in_pieces
from .projection import solve_projected
from .solve import Solve, versions
from .split import with_split
from .trajectory import solve_event

R = TypeVar("R")

_DEFAULT = find_method("Tsit5")
_STATES = States()
_SENSITIVITY = "PyjlodeSensitivityExt"


class JuliaEngine:
    """Solve with OrdinaryDiffEq.jl and differentiate with SciMLSensitivity.jl."""

    name = "julia"

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.module = runtime.module
        self.functions = Functions(runtime.module)
        self.models = ModelCache(runtime)
        self.loaded: set[str] = set()

    def versions(self) -> dict[str, str]:
        return self.runtime.versions

    def warm_up(self) -> None:
        """Solve and differentiate a toy problem in both precisions.

        In it torch imports its tracer and Julia compiles what stands between the languages: three
        seconds that would otherwise be part of the user's first gradient.
        """
        for dtype in (torch.float64, torch.float32):
            rate = torch.ones(1, dtype=dtype, requires_grad=True)
            func = partial(_decay, rate)
            y0, t = torch.ones(1, dtype=dtype), torch.tensor([0.0, 0.1])
            problem = Problem(
                func, y0, t, rtol=1e-3, atol=1e-3, method=None, sensealg=None, options={},
                fixed_step=False, owner=func, key=(),
            )  # fmt: skip
            with torch.enable_grad():
                self.solve(problem, Statistics()).sum().backward()

    def method(self, problem: Problem) -> Method:
        """The problem's method, its package loaded."""
        method = problem.method or _DEFAULT
        self.load(method)
        return method

    def method_name(self, problem: Problem) -> str:
        return (problem.method or _DEFAULT).name

    @in_julia
    def solve(self, problem: Problem, stats: Statistics) -> Tensor:
        if "step_t" in problem.options or "jump_t" in problem.options:
            return solve_in_pieces(self.solve, problem, stats)
        if problem.projection is not None:
            return solve_projected(self, problem, stats)
        return self._switching(lambda p: self._solve(p, stats, dense=False)[0], problem)

    @in_julia
    def solve_dense(self, problem: Problem, stats: Statistics) -> tuple[Tensor, Interpolant]:
        if "step_t" in problem.options or "jump_t" in problem.options:
            raise UnsupportedError(
                "A solve in pieces has no interpolation; leave step_t and jump_t out, or ask for "
                "the times in odeint."
            )
        states, solve = self._switching(lambda p: self._solve(p, stats, dense=True), problem)
        return states, solve.interpolants[0]

    @in_julia
    def solve_event(
        self, problem: Problem, event: Problem, stats: Statistics
    ) -> tuple[Tensor, Tensor, int]:
        refuse_transforms("A solve until an event")
        return self._switching(lambda p: solve_event(self, p, event, stats), problem)

    def _switching(self, solve: Callable[[Problem], R], problem: Problem) -> R:
        """Solve; a method that switches stays with its first one where the other cannot step."""
        try:
            return solve(problem)
        except JacobianError as error:
            first = first_of(self.method(problem))
            if first is None:
                raise
            warn(f"{first.name} solves it all. {error}")
            return solve(replace(problem, method=first))

    def wanted(self, problem: Problem, method: Method, backward: Method) -> Wanted:
        """What to derive of the right-hand side."""
        stiff = method.stiff or backward.stiff
        if _needs_second(problem, method) and torch.is_grad_enabled():
            return Wanted.SECOND
        if method.implicit or (stiff and torch.is_grad_enabled()):
            return Wanted.JACOBIAN
        # With gradients enabled one is likely needed; which tensors func uses, the trace says.
        return Wanted.GRADIENTS if torch.is_grad_enabled() else Wanted.VALUES

    def _solve(self, problem: Problem, stats: Statistics, dense: bool) -> tuple[Tensor, Solve]:
        method = self.method(problem)
        asked = problem.adjoint if problem.adjoint is not None and problem.adjoint.asks else None
        backward = method if asked is None or asked.method is None else asked.method
        self.load(backward)
        _refuse(problem)
        inputs: tuple[Tensor, ...] = (problem.y0, problem.t)
        transformed = within_transform()
        if transformed:
            problem, model = self._outside_transforms(problem, method, backward, dense)
        else:
            model = self.models.get(problem, wanted=self.wanted(problem, method, backward))
        sensealg = _choose_sensealg(problem, method, backward, model)
        if method.problem and not takes_time(method) and depends_on_time(model):
            raise time_dependent(method)
        parameters = _restricted(model, problem.adjoint_params)
        if problem.mass is not None:
            model, problem = with_mass(self.module, model, problem, parameters)
        if problem.split is not None:
            model = with_split(self, model, problem.split)
        if not transformed:
            inputs = problem.y0, problem.t  # consistent with a mass matrix
        inputs = (*inputs, *parameters)
        differentiate = transformed or (
            torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        )
        solve = Solve(self.functions, model, problem, method, backward, sensealg, stats, dense)
        if differentiate:
            if not transformed:  # transforms differentiate at once, before anything can change
                solve = replace(solve, versions=versions(model.structure))
            self._load_sensitivities(sensealg)
            states = Node.apply(Call(solve), _STATES, *inputs)[0]
        else:
            states = solve.forward(problem.y0, problem.t, parameters, keep="values")[0]
        model.update(problem, states)
        return states, solve

    def _outside_transforms(
        self, problem: Problem, method: Method, backward: Method, dense: bool
    ) -> tuple[Problem, Model]:
        """The problem with ordinary tensors, and its model, which has those of the transforms."""
        if dense or problem.rows is not None or problem.mass is not None or problem.split:
            refuse_transforms(
                "A solve with return_solution, independent rows, a mass matrix or two functions"
            )
        stand_ins = StandIns()
        problem = replace(problem, y0=plain(problem.y0), t=plain(problem.t))
        with stand_ins.entered(), torch.enable_grad():
            wanted = self.wanted(problem, method, backward)
            model = self.models.get(problem, wanted=wanted, stand_ins=stand_ins)
        return problem, replace(model, tensors=tuple(map(stand_ins.original, model.tensors)))

    def _load_sensitivities(self, sensealg: SensitivityAlgorithm) -> None:
        """Load SciMLSensitivity for its adjoints; it takes longer than all that solves."""
        if (
            isinstance(sensealg, (DiscreteAdjoint, ForwardSensitivity))
            or _SENSITIVITY in self.loaded
        ):
            return
        packages = {"SciMLSensitivity": "1ed8b502-d754-442c-8d5d-10ac956f44a1"}
        require(self, _SENSITIVITY, packages, "continuous adjoints")
        self.loaded.add(_SENSITIVITY)

    def load(self, method: Method) -> None:
        """Load a method's package.

        Raises
        ------
        UnsupportedError
            If Julia has no such method.
        """
        if not method.julia:
            raise UnsupportedError(
                f"The Julia engine has no {method.name}; use VCABM, Vern7 or Tsit5, or "
                'engine="torch".'
            )
        if method.algorithm not in self.loaded:
            self.functions.load(
                method.algorithm, method.package, method.backward, method.interpolates
            )
            self.loaded.add(method.algorithm)


def _needs_second(problem: Problem, method: Method) -> bool:
    """Whether the gradient needs second derivatives: a Rosenbrock step's matrix is a Jacobian."""
    if problem.mass is not None:
        return True
    discrete = isinstance(problem.sensealg or _default(method), DiscreteAdjoint)
    return discrete and method.has_discrete and method.family == "Rosenbrock"


def _default(method: Method) -> SensitivityAlgorithm:
    return DiscreteAdjoint() if method.adjoint == "discrete" else GaussAdjoint()


def _choose_sensealg(
    problem: Problem, method: Method, backward: Method, model: Model
) -> SensitivityAlgorithm:
    """The sensitivity algorithm: the one asked for, or the default."""
    if problem.mass is not None:
        return discrete_adjoint(problem, method.has_discrete)
    asks = problem.adjoint is not None and problem.adjoint.asks
    sensealg = problem.sensealg
    if sensealg is None and asks:
        stiff = method.stiff or backward.stiff
        explicit = "discrete" in (method.adjoint, backward.adjoint) and not stiff
        return BacksolveAdjoint() if explicit else GaussAdjoint()
    sensealg = sensealg or _default(method)
    if not isinstance(sensealg, DiscreteAdjoint):
        return sensealg
    second = torch.is_grad_enabled() and _needs_second(problem, method)
    if not method.has_discrete:
        reason = f"DiscreteAdjoint has no tableau of {method.name}"
    elif second and not model.has_second:
        if problem.sensealg is None:
            return GaussAdjoint()
        reason = "DiscreteAdjoint needs second derivatives of func, and it has none in Julia"
    elif asks:
        reason = "DiscreteAdjoint makes no solve backwards, which adjoint_* arguments are for"
    else:
        return sensealg
    raise UnsupportedError(f"{reason}; use GaussAdjoint or InterpolatingAdjoint.")


def _refuse(problem: Problem) -> None:
    """What only torchdiffeq does."""
    if problem.options.get("perturb"):
        raise UnsupportedError(
            "The Julia engine has no perturb; split the solve at a jump of func with jump_t of an "
            'adaptive method, or use engine="torch".'
        )
    if problem.adjoint is None:
        return
    if problem.adjoint.callbacks:
        names = ", ".join(f"{name}_adjoint" for name in problem.adjoint.callbacks)
        warn(f'The Julia engine does not call {names}; engine="torch" does.')
    if callable((problem.adjoint.options or {}).get("norm")):
        raise UnsupportedError(
            "The Julia engine's adjoint has no norm of one's own: it solves other states than "
            'torchdiffeq\'s. Use "seminorm" or engine="torch".'
        )


def _restricted(model: Model, only: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
    """The parameters, without a gradient where ``adjoint_params`` leaves them out."""
    if only is None:
        return model.parameters
    wanted = {id(x) for x in only if x.requires_grad}
    return tuple(
        p if id(x) in wanted or depends_on(x, wanted) else p.detach()
        for x, p in zip(model.tensors, model.parameters, strict=True)
    )


def _decay(rate: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return -rate * y
