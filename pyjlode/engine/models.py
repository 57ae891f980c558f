"""Models for the Julia engine: traced, translated, compiled, and remembered while they hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor
from torch.random import fork_rng

from ..errors import SolverError, TraceError, UnsupportedError, warn
from ..independent import check_rows
from ..partitioned import check_forces
from ..problem import Problem
from ..runtime import Runtime, julia_error
from ..trace.capture import Traced, trace
from ..trace.fingerprint import Structure, fingerprint, ignore_own_changes
from ..trace.kept import nothing_kept
from ..trace.leaves import gradient_leaves
from ..trace.locate import reason
from ..trace.modes import put_back, without_compilation
from ..translate import ModelSource, translate
from ..translate.draws import Constant, Draw
from ..translate.numbers import check_exact, exact_integers
from ..translate.operations.complex import as_real
from .arrays import flatten
from .callback import Callback, PythonFunction


class Wanted(IntEnum):
    """What a solve needs of a function beside its values; each includes the one before."""

    VALUES = 0
    GRADIENTS = 1
    JACOBIAN = 2
    SECOND = 3


_CAPACITY = 128
_KINDS = {torch.float32: "float32", torch.float64: "float64"}


@dataclass(frozen=True)
class Model:
    """A right-hand side in Julia.

    Attributes
    ----------
    handle : Any
        Julia's ``Model``.
    tensors : tuple of torch.Tensor
        Tensors that get a gradient; their values are read at each solve.
    constants : tuple of torch.Tensor or Draw
        Tensors that need none, likewise, and random numbers, drawn for each solve.
    updated : tuple of torch.Tensor
        What the function changes when it runs, such as running statistics.
    set_constants : Any
        The Julia function that hands over the constants' values.
    dtype : torch.dtype
    has_second : bool
        Whether it has second derivatives.
    uses_time : bool
        Whether its value rests on the time; in callback mode it may.
    callback : PythonFunction or None
        The Python function that is called, in callback mode.
    """

    handle: Any
    tensors: tuple[Tensor, ...]
    constants: tuple[Constant, ...]
    updated: tuple[Tensor, ...]
    set_constants: Any
    dtype: torch.dtype
    has_second: bool = False
    uses_time: bool = True
    callback: PythonFunction | None = None

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that get a gradient, complex ones as pairs of real numbers."""
        return tuple(as_real(x) for x in self.tensors)

    def numbers(self) -> Any:
        """The parameters' values now, as a numpy vector: generated code wants one at least."""
        values = flatten(self.parameters, self.dtype)
        return (values if len(values) else values.new_zeros(1)).numpy()

    def refresh(self) -> None:
        """Hand over the constants' current values, and random numbers drawn now."""
        if self.constants:
            current = [as_real(x() if isinstance(x, Draw) else x.detach()) for x in self.constants]
            for x in current:
                check_exact(x, exact_integers(self.dtype))
            values = torch.cat([x.reshape(-1).to(self.dtype) for x in current])
            self.set_constants(self.handle, values.numpy())

    def errors(self) -> AbstractContextManager[None]:
        """Around a call of Julia: the user's exceptions come out as themselves, Julia's as ours."""
        return _JULIA_ERRORS if self.callback is None else _all_errors(self.callback)

    def update(self, problem: Problem, states: Tensor) -> None:
        """Have the function change what it changes, once for each saved state."""
        if self.updated:
            with torch.no_grad(), fork_rng(devices=[]):
                for t, y in zip(problem.t.detach(), states.detach(), strict=True):
                    problem.func(t.to(y.dtype), y)


class _JuliaErrors(AbstractContextManager[None]):
    """Julia's errors leave as ours."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None and issubclass(kind, julia_error()):
            raise SolverError(
                f"Julia stopped the solve: {_first_line(error)}", retcode="Failure", t=float("nan")
            ) from error


_JULIA_ERRORS = _JuliaErrors()


@contextmanager
def _all_errors(callback: PythonFunction) -> Iterator[None]:
    with _JULIA_ERRORS, callback.errors():
        yield


@dataclass(frozen=True)
class _Entry:
    """What the cache keeps: a model, and for each of its tensors where the function has it.

    Tensors of a function are numbered (see :class:`~pyjlode.trace.fingerprint.Structure`), so that
    the model serves every function of the same structure. A tensor without a number is kept
    itself. ``model`` is None for a function that cannot be traced. The owner is kept because ids
    are part of the key.
    """

    model: Model | None
    tensors: tuple[Any, ...]
    constants: tuple[Any, ...]
    owner: object

    def bind(self, reached: Sequence[Tensor]) -> Model | None:
        """The model with a function's own tensors."""
        if self.model is None:
            return None
        tensors, constants = (
            tuple(reached[x] if isinstance(x, int) else x for x in places)
            for places in (self.tensors, self.constants)
        )
        return replace(self.model, tensors=tensors, constants=constants)


class ModelCache:
    """Models by what they rest on; the least recently used goes first."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.module = runtime.module
        self._entries: OrderedDict[Any, dict[Wanted, _Entry]] = OrderedDict()
        self._latest: tuple[Any, dict[Wanted, _Entry]] = (None, {})
        self._warned: set[str] = set()

    def get(self, problem: Problem, *, wanted: Wanted) -> Model:
        """The model of a problem's function, with at least the derivatives that are wanted."""
        structure = fingerprint(problem.owner)
        entries = self._find(self._key(structure, problem))
        for enough in Wanted:
            if enough >= wanted and enough in entries:
                return entries[enough].bind(structure.tensors) or self._callback(problem)
        model = self._make(problem, wanted)
        after = fingerprint(problem.owner)
        if ignore_own_changes(structure, after):
            after = fingerprint(problem.owner)
        elif model.callback:
            after = structure  # whatever the function has kept since, it could not be traced
        number = {id(x): i for i, x in enumerate(after.tensors)}
        places = [
            tuple(number.get(id(x), x) for x in tensors)
            for tensors in (model.tensors, model.constants)
        ]
        traced = None if model.callback else replace(model, tensors=(), constants=())
        has = wanted if model.callback is None else Wanted.SECOND
        entry = _Entry(traced, places[0], places[1], problem.owner)
        self._entries.setdefault(self._key(after, problem), {})[has] = entry
        if len(self._entries) > _CAPACITY:
            self._entries.popitem(last=False)
            self._latest = (None, {})  # it may be the one that went
        return model

    def _find(self, key: Any) -> dict[Wanted, _Entry]:
        """The entries of a key. To compare it with the last one's takes less than its hash."""
        if key != self._latest[0]:
            entries = self._entries.get(key)
            if entries is None:
                return {}
            self._entries.move_to_end(key)
            self._latest = (key, entries)
        return self._latest[1]

    def __len__(self) -> int:
        return sum(len(entries) for entries in self._entries.values())

    def clear(self) -> None:
        """Forget every model and every warning given."""
        self._entries.clear()
        self._latest = (None, {})
        self._warned.clear()

    def _key(self, structure: Structure, problem: Problem) -> Any:
        y0 = problem.state
        return (structure.key, problem.key, y0.shape, y0.dtype)

    def _make(self, problem: Problem, wanted: Wanted) -> Model:
        check_rows(problem)
        check_forces(problem)
        if problem.mass is not None:
            problem.mass.check(problem)
        try:
            model = self._trace(problem, wanted)
            self._verify(problem, model)
        except TraceError as error:
            # A function that fails on plain tensors fails for the user's own reasons: say those.
            with torch.no_grad():
                problem.func(problem.t[0].to(problem.state.dtype), problem.state.detach())
            self._warn(problem, error)
            return self._callback(problem)
        return model

    def _trace(self, problem: Problem, wanted: Wanted) -> Model:
        with nothing_kept(problem.owner):
            traced = trace(
                problem.func,
                problem.state,
                derivatives=wanted >= Wanted.GRADIENTS,
                jacobian=wanted >= Wanted.JACOBIAN,
                second=wanted >= Wanted.SECOND,
            )
        try:
            return self.compile(traced)
        except TraceError:
            if not traced.has_second:
                raise
        # It may be only the second derivatives that have no Julia code.
        return self._trace(problem, Wanted.JACOBIAN)

    def compile(self, traced: Traced) -> Model:
        """Compile what was traced; nothing is remembered."""
        source = translate(traced)
        handle = self.module.generate(
            _KINDS[traced.dtype],
            source.code,
            traced.shape.numel(),
            sum(as_real(p).numel() for p in source.parameters),
            sum(c.numel() if isinstance(c, Draw) else as_real(c).numel() for c in source.constants),
            source.workspace,
            source.depends_on_time,
            self._pattern(source),
            () if source.rows is None else astuple(source.rows),
        )
        return Model(
            handle,
            source.parameters,
            source.constants,
            traced.updated,
            self.module.set_constants_b,
            traced.dtype,
            traced.has_second,
            traced.uses_time,
        )

    def _pattern(self, source: ModelSource) -> Any:
        found = source.pattern
        if found is None:
            return None
        return self.module.compressed_pattern(found.colptr, found.rowval, found.colors)

    def _verify(self, problem: Problem, model: Model) -> None:
        """Compare the generated code with the function itself, once.

        A function whose result rests on more than its inputs and tensors (a hidden random state,
        a file) can trace to something else than it computes.
        """
        y = problem.state.detach().contiguous()
        t = problem.t[0].detach().to(y.dtype)
        saved = [x.clone() for x in model.updated]
        with torch.no_grad(), fork_rng(devices=[]):
            before = torch.get_rng_state()
            with without_compilation():
                # A copy, detached: func may ask for gradients of its argument and of what it gives.
                expected = problem.func(t, y.clone()).detach()
            torch.set_rng_state(before)
            model.refresh()
            put_back(zip(model.updated, saved, strict=True))
        result = torch.empty(expected.shape, dtype=y.dtype)
        parameters = [p.detach().reshape(-1) for p in model.parameters]
        flat = torch.cat(parameters) if parameters else y.new_zeros(1)
        arrays = (result.view(-1).numpy(), y.view(-1).numpy(), flat.numpy())
        try:
            self.module.evaluate(model.handle, *arrays, float(t))
        except julia_error() as error:
            raise TraceError(f"its traced form fails ({_first_line(error)})") from error
        tolerance = 1e-9 if y.dtype == torch.float64 else 1e-4
        scale = float(expected.abs().nan_to_num(0, 0, 0).max()) if expected.numel() else 0.0
        same = torch.allclose(
            result, expected, rtol=tolerance, atol=tolerance * max(scale, 1e-30), equal_nan=True
        )
        if not same:
            raise TraceError("its traced form gives another result than the function itself")

    def _callback(self, problem: Problem) -> Model:
        """A model of this very function: nothing of it is compiled, so nothing is kept."""
        t = problem.t[0].detach().to(problem.state.dtype)
        parameters = gradient_leaves(problem.func, t, problem.state)
        if any(x.layout is not torch.strided for x in parameters):
            raise UnsupportedError(
                "func uses a sparse tensor that requires a gradient, which the Julia engine does "
                "not give. Let its values be the parameter: read rows of the state with "
                'index_select, multiply, and sum with index_add; or use engine="torch".'
            )
        callback = Callback(problem.func, problem.state, parameters)
        handle = callback.model(self.module, _KINDS[problem.state.dtype])
        return Model(
            handle, parameters, (), (), self.module.set_constants_b, problem.state.dtype,
            callback=callback,
        )  # fmt: skip

    def _warn(self, problem: Problem, error: TraceError) -> None:
        name = getattr(problem.owner, "__qualname__", type(problem.owner).__name__)
        cause = reason(error, problem.func, problem.t[0], problem.state)
        text = f"{name} runs in Python, called from Julia (callback mode), because {cause}."
        if text not in self._warned:
            self._warned.add(text)
            warn(text)


def depends_on_time(model: Model) -> bool:
    """Whether the trace says so; in callback mode there is none."""
    return model.callback is None and bool(model.handle.depends_on_time)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
