"""Models for the Julia engine: traced, translated, compiled, and remembered while they hold."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.random import fork_rng

from ..errors import PyjlodeWarning, TraceError
from ..problem import Problem
from ..runtime import Runtime
from ..trace.capture import Traced, trace
from ..trace.fingerprint import attributes, fingerprint, ignore_own_changes
from ..trace.leaves import gradient_leaves
from ..trace.modes import without_compilation
from ..translate import translate
from ..translate.draws import Constant, Draw
from ..translate.operations.complex import as_real
from .callback import callback_model

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
    has_derivatives : bool
    set_constants : Any
        The Julia function that hands over the constants' values.
    """

    handle: Any
    tensors: tuple[Tensor, ...]
    constants: tuple[Constant, ...]
    updated: tuple[Tensor, ...]
    has_derivatives: bool
    set_constants: Any
    dtype: torch.dtype

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that get a gradient, complex ones as pairs of real numbers."""
        return tuple(as_real(x) for x in self.tensors)

    def refresh(self) -> None:
        """Hand over the constants' current values, and random numbers drawn now."""
        if self.constants:
            current = [as_real(x() if isinstance(x, Draw) else x.detach()) for x in self.constants]
            values = torch.cat([x.reshape(-1).to(self.dtype) for x in current])
            self.set_constants(self.handle, values.numpy())

    def update(self, problem: Problem, states: Tensor) -> None:
        """Have the function change what it changes, once for each saved state."""
        if self.updated:
            with torch.no_grad(), fork_rng(devices=[]):
                for t, y in zip(problem.t.detach(), states.detach(), strict=True):
                    problem.func(t.to(y.dtype), y)


class ModelCache:
    """Models by what they rest on; the least recently used goes first."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.module = runtime.module
        self._models: OrderedDict[Any, tuple[Model, object]] = OrderedDict()
        self._warned: set[str] = set()

    def get(self, problem: Problem, *, derivatives: bool) -> Model:
        """The model of a problem's function, with derivatives if they are asked for."""
        for with_derivatives in (True,) if derivatives else (True, False):
            key = self._key(problem, with_derivatives)
            if key in self._models:
                self._models.move_to_end(key)
                return self._models[key][0]
        before = attributes(problem.owner)
        model = self._make(problem, derivatives)
        ignore_own_changes(problem.owner, before)
        # The owner is kept: its id is in the key and must not be given to another object.
        self._models[self._key(problem, derivatives)] = (model, problem.owner)
        if len(self._models) > _CAPACITY:
            self._models.popitem(last=False)
        return model

    def __len__(self) -> int:
        return len(self._models)

    def clear(self) -> None:
        """Forget every model and every warning given."""
        self._models.clear()
        self._warned.clear()

    def _key(self, problem: Problem, derivatives: bool) -> Any:
        y0 = problem.y0
        return (fingerprint(problem.owner), problem.key, y0.shape, y0.dtype, derivatives)

    def _make(self, problem: Problem, derivatives: bool) -> Model:
        try:
            model = self.compile(trace(problem.func, problem.y0, derivatives=derivatives))
            self._verify(problem, model)
        except TraceError as error:
            # A function that fails on plain tensors fails for the user's own reasons: say those.
            with torch.no_grad():
                problem.func(problem.t[0].to(problem.y0.dtype), problem.y0.detach())
            self._warn(problem, error)
            return self._callback(problem)
        return model

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
        )
        return Model(
            handle,
            source.parameters,
            source.constants,
            traced.updated,
            traced.has_derivatives,
            self.module.set_constants_b,
            traced.dtype,
        )

    def _verify(self, problem: Problem, model: Model) -> None:
        """Compare the generated code with the function itself, once.

        A function whose result rests on more than its inputs and tensors (a hidden random state,
        a file) can trace to something else than it computes.
        """
        y = problem.y0.detach().contiguous()
        t = problem.t[0].detach().to(y.dtype)
        saved = [x.clone() for x in model.updated]
        with torch.no_grad(), fork_rng(devices=[]):
            before = torch.get_rng_state()
            with without_compilation():
                expected = problem.func(t, y)
            torch.set_rng_state(before)
            model.refresh()
            for x, value in zip(model.updated, saved, strict=True):
                x.copy_(value)
        result = torch.empty_like(y)
        parameters = [p.detach().reshape(-1) for p in model.parameters]
        flat = torch.cat(parameters) if parameters else y.new_zeros(1)
        self.module.evaluate(
            model.handle, result.view(-1).numpy(), y.view(-1).numpy(), flat.numpy(), float(t)
        )
        tolerance = 1e-9 if y.dtype == torch.float64 else 1e-4
        scale = float(expected.abs().nan_to_num(0, 0, 0).max()) if expected.numel() else 0.0
        same = torch.allclose(
            result, expected, rtol=tolerance, atol=tolerance * max(scale, 1e-30), equal_nan=True
        )
        if not same:
            raise TraceError("its traced form gives another result than the function itself")

    def _callback(self, problem: Problem) -> Model:
        t = problem.t[0].detach().to(problem.y0.dtype)
        parameters = gradient_leaves(problem.func, t, problem.y0)
        handle = callback_model(self.module, problem, parameters, _KINDS[problem.y0.dtype])
        return Model(
            handle, parameters, (), (), True, self.module.set_constants_b, problem.y0.dtype
        )

    def _warn(self, problem: Problem, error: TraceError) -> None:
        name = getattr(problem.owner, "__qualname__", type(problem.owner).__name__)
        text = f"{name} runs in Python, called from Julia (callback mode), because {error}."
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, PyjlodeWarning, stacklevel=7)
