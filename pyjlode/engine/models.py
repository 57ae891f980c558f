"""Models for the Julia engine: traced, translated, compiled, and remembered while they hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass, field, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor
from torch.random import fork_rng

from ..errors import SolverError, TraceError, UnsupportedError, warn
from ..independent import check_rows
from ..partitioned import check_forces
from ..problem import Problem
from ..runtime import Runtime, call_first, julia_error
from ..trace.capture import Traced, trace
from ..trace.copies import on_copies
from ..trace.fingerprint import Structure, fingerprint
from ..trace.kept import nothing_kept
from ..trace.leaves import gradient_leaves
from ..trace.locate import reason
from ..trace.modes import put_back, without_compilation
from ..trace.transforms import StandIns, refuse_transforms
from ..translate import ModelSource, translate
from ..translate.draws import Constant, Draw
from ..translate.numbers import check_exact, exact_integers
from ..translate.operations.complex import as_real
from .arrays import flatten
from .callback import Callback, Noted, PythonFunction
from .repeats import Repeats, difference, pattern_of, values_of


class Wanted(IntEnum):
    """What a solve needs of a function beside its values; each includes the one before."""

    VALUES = 0
    GRADIENTS = 1
    JACOBIAN = 2
    SECOND = 3


_CAPACITY = 128
# So many models of one structure that differ by the values of tensors read as numbers.
_VALUES_OF_ONE = 32
# So many of them by the values of indices, or by which numbers of matrices are zero.
_PATTERNS_OF_ONE = 3
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
    structure : Structure or None
        What the function could read when the model was asked for.
    used : set
        What Julia has solved with it, and compiled.
    fixed : tuple of torch.Tensor
        Constants that the pattern of its Jacobian follows from: by their values where they are
        integers or truth values, else by which are zero.
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
    structure: Structure | None = None
    fixed: tuple[Tensor, ...] = ()
    used: set[Hashable] = field(default_factory=set, compare=False, repr=False)

    def run(
        self, function: Any, *arguments: Any, how: Hashable, beside: Sequence[Model | None] = (),
        python: Noted | None = None, alive: object = None,
    ) -> Any:  # fmt: skip
        """``function(*arguments)``, a call of Julia's; Ctrl-C ends it while Julia compiles for it.

        Parameters
        ----------
        how : hashable
            What Julia compiles another solve for; the first call of each is made in a thread.
        beside : sequence of Model, optional
            Other models that it calls.
        python : Noted, optional
            Functions of the caller's that it may call.
        alive : object, optional
            Memory that it uses beside the arguments.
        """
        models = (self, *beside)
        called = any(m is not None and m.callback is not None for m in models)
        if how in self.used or called or (python is not None and python.called):
            return function(*arguments)
        found = call_first(function, *arguments, alive=alive)
        self.used.add(how)
        return found

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
                    problem.func(t.to(y.dtype, copy=True), y.clone())


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
    the model serves every function of the same structure. A tensor that the function makes itself
    is kept. ``read`` are those whose values the function read as numbers, with these values, and
    ``fixed`` those that the Jacobian's pattern follows from, with what counts of them. ``model``
    is None for a function that cannot be traced. The owner is kept because ids are part of the key.
    """

    model: Model | None
    tensors: tuple[Any, ...]
    constants: tuple[Any, ...]
    read: tuple[tuple[int, bytes], ...]
    fixed: tuple[tuple[int, bytes], ...]
    owner: object

    def holds(self, reached: Sequence[Tensor]) -> bool:
        """Whether what was read as numbers has the same values, and the pattern what it needs."""
        return all(values_of(reached[place]) == value for place, value in self.read) and all(
            pattern_of(reached[place]) == value for place, value in self.fixed
        )

    def bind(self, structure: Structure) -> Model | None:
        """The model with a function's own tensors."""
        reached = structure.tensors
        if self.model is None:
            return None
        tensors, constants = (
            tuple(reached[x] if isinstance(x, int) else x for x in places)
            for places in (self.tensors, self.constants)
        )
        return replace(self.model, tensors=tensors, constants=constants, structure=structure)


_Entries = dict[Wanted, list[_Entry]]


class ModelCache:
    """Models by what they rest on; the least recently used goes first."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.module = runtime.module
        self._entries: OrderedDict[Any, _Entries] = OrderedDict()
        self._latest: tuple[Any, _Entries] = (None, {})
        self._warned: set[str] = set()
        self._repeats = Repeats()

    def get(self, problem: Problem, *, wanted: Wanted, stand_ins: StandIns | None = None) -> Model:
        """The model of a problem's function, with at least the derivatives that are wanted.

        ``stand_ins`` are for the tensors of torch's transforms that the function closes over.
        """
        structure = _structure(problem, stand_ins)
        entries = self._find(self._key(structure, problem))
        patterns = 0
        for enough in Wanted:
            if enough >= wanted and enough in entries:
                for entry in entries[enough]:
                    patterns += bool(entry.fixed)
                    if entry.model is None or (
                        not structure.opaque and entry.holds(structure.tensors)
                    ):
                        if stand_ins is not None:
                            stand_ins.check(structure.tensors[i] for i, _ in entry.read)
                        return entry.bind(structure) or self._callback(problem, structure)
        # Where indices change from solve to solve, the Jacobian's pattern is for all of them.
        fixed = patterns < _PATTERNS_OF_ONE
        model, traced = self._make(problem, wanted, structure, fixed)
        if stand_ins is not None and traced is not None:
            stand_ins.check(traced.reads)
        made, why = self._entry(problem, structure, model, traced, stand_ins)
        if made is None:
            if self._repeats.again(problem.owner):
                self._say(problem, f"is traced anew for each solve, because {why}.")
        else:
            self._keep(self._key(structure, problem), made, wanted)
            self._look_for_repeats(problem, structure)
        return replace(model, structure=structure)

    def _entry(
        self, problem: Problem, structure: Structure, model: Model, traced: Traced | None,
        stand_ins: StandIns | None,
    ) -> tuple[_Entry | None, str]:  # fmt: skip
        """What to remember; or None, and why the trace serves this solve only."""
        if traced is None:
            return _Entry(None, (), (), (), (), problem.owner), ""
        if structure.opaque:
            return None, f"it may read {structure.opaque}, whose changes cannot be seen"
        after = _structure(problem, stand_ins)
        if after.key != structure.key or not _same(after.tensors, structure.tensors):
            return None, f"it changes {difference(structure, after)}, which it reads, when it runs"
        number = {id(x): i for i, x in enumerate(structure.tensors)}
        for x in (*traced.parameters, *traced.constants, *traced.updated, *traced.reads):
            if id(x) not in number and id(x) not in traced.made and not _of_array(x, structure):
                return None, (
                    f"it uses a tensor of shape {tuple(x.shape)} that is found neither among its "
                    "attributes nor its variables"
                )
        places = [
            tuple(x if id(x) in traced.made else number.get(id(x), x) for x in tensors)
            for tensors in (model.tensors, model.constants)
        ]
        read = tuple((number[id(x)], values_of(x)) for x in traced.reads if id(x) in number)
        fixed = tuple((number[id(x)], pattern_of(x)) for x in model.fixed if id(x) in number)
        kept = replace(model, tensors=(), constants=(), structure=None, fixed=())
        return _Entry(kept, places[0], places[1], read, fixed, problem.owner), ""

    def _keep(self, key: Any, entry: _Entry, wanted: Wanted) -> None:
        has = wanted if entry.model is not None else Wanted.SECOND
        found = self._entries.setdefault(key, {}).setdefault(has, [])
        found.insert(0, entry)
        del found[_VALUES_OF_ONE:]
        if len(self._entries) > _CAPACITY:
            self._entries.popitem(last=False)
            self._latest = (None, {})  # it may be the one that went

    def _look_for_repeats(self, problem: Problem, structure: Structure) -> None:
        """Say what makes one function's models differ, where it does so again and again."""
        name = self._repeats.changed(problem.owner, structure)
        if name:
            self._say(
                problem,
                f"is compiled again and again, because {name}, which it reads, changes. Make it a "
                "tensor, whose values may change.",
            )

    def _find(self, key: Any) -> _Entries:
        """The entries of a key. To compare it with the last one's takes less than its hash."""
        if key != self._latest[0]:
            entries = self._entries.get(key)
            if entries is None:
                return {}
            self._entries.move_to_end(key)
            self._latest = (key, entries)
        return self._latest[1]

    def __len__(self) -> int:
        return sum(len(found) for entries in self._entries.values() for found in entries.values())

    def clear(self) -> None:
        """Forget every model and every warning given."""
        self._entries.clear()
        self._latest = (None, {})
        self._warned.clear()
        self._repeats = Repeats()

    def _key(self, structure: Structure, problem: Problem) -> Any:
        y0 = problem.state
        return (structure.key, problem.key, y0.shape, y0.dtype)

    def _make(
        self, problem: Problem, wanted: Wanted, structure: Structure, fixed: bool
    ) -> tuple[Model, Traced | None]:
        check_rows(problem)
        check_forces(problem)
        if problem.mass is not None:
            problem.mass.check(problem)
        try:
            model, traced = self._trace(problem, wanted, fixed)
            self._verify(problem, model)
        except TraceError as error:
            # A function that fails on plain tensors fails for the user's own reasons: say those.
            with torch.no_grad():
                on_copies(problem.func)(
                    problem.t[0].detach().to(problem.state.dtype), problem.state.detach()
                )
            self._warn(problem, error)
            return self._callback(problem, structure), None
        return model, traced

    def _trace(self, problem: Problem, wanted: Wanted, fixed: bool) -> tuple[Model, Traced]:
        with nothing_kept(problem.owner):
            traced = trace(
                problem.func,
                problem.state,
                derivatives=wanted >= Wanted.GRADIENTS,
                jacobian=wanted >= Wanted.JACOBIAN,
                second=wanted >= Wanted.SECOND,
            )
        try:
            return self.compile(traced, fixed), traced
        except TraceError:
            if not traced.has_second:
                raise
        # It may be only the second derivatives that have no Julia code.
        return self._trace(problem, Wanted.JACOBIAN, fixed)

    def compile(self, traced: Traced, fixed: bool = True) -> Model:
        """Compile what was traced; nothing is remembered."""
        source = translate(traced, fixed=fixed)
        origins = frozenset() if source.pattern is None else source.pattern.origins
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
            fixed=tuple(x for x in traced.constants if id(x) in origins),
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
                expected = problem.func(t.clone(), y.clone()).detach()
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

    def _callback(self, problem: Problem, structure: Structure) -> Model:
        """A model of this very function: nothing of it is compiled, so nothing is kept."""
        refuse_transforms("A function that runs in Python, called from Julia,")
        t = problem.t[0].detach().to(problem.state.dtype)
        parameters = gradient_leaves(problem.func, t, problem.state)
        if any(x.layout is not torch.strided for x in parameters):
            raise UnsupportedError(
                "func uses a sparse tensor that requires a gradient, which the Julia engine does "
                "not give. Let its values be the parameter: read rows of the state with "
                'index_select, multiply, and sum with index_add; or use engine="torch".'
            )
        callback = Callback(problem.func, problem.state, parameters, problem.owner)
        handle = callback.model(self.module, _KINDS[problem.state.dtype])
        return Model(
            handle, parameters, (), (), self.module.set_constants_b, problem.state.dtype,
            callback=callback, structure=structure,
        )  # fmt: skip

    def _warn(self, problem: Problem, error: TraceError) -> None:
        cause = reason(error, problem.func, problem.t[0], problem.state)
        self._say(problem, f"runs in Python, called from Julia (callback mode), because {cause}.")

    def _say(self, problem: Problem, what: str) -> None:
        name = getattr(problem.owner, "__qualname__", type(problem.owner).__name__)
        text = f"{name} {what}"
        if text not in self._warned:
            self._warned.add(text)
            warn(text)


def depends_on_time(model: Model) -> bool:
    """Whether the trace says so; in callback mode there is none."""
    return model.callback is None and bool(model.handle.depends_on_time)


def _structure(problem: Problem, stand_ins: StandIns | None) -> Structure:
    structure = fingerprint(problem.owner)
    if stand_ins is None:
        return structure
    return replace(structure, tensors=[stand_ins.stand_in(x) for x in structure.tensors])


def _same(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> bool:
    return len(xs) == len(ys) and all(x is y for x, y in zip(xs, ys, strict=True))


def _of_array(x: Tensor, structure: Structure) -> bool:
    """Whether a tensor is of the memory of an array, whose values are part of the key."""
    start = x.data_ptr()
    return any(
        start >= (first := array.__array_interface__["data"][0]) and start < first + array.nbytes
        for array in structure.arrays
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
