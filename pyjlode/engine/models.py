"""Models for the Julia engine: traced, translated, compiled, and remembered while they hold."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import PyjlodeWarning, TraceError
from ..problem import Problem
from ..runtime import Runtime
from ..trace.capture import trace
from ..trace.fingerprint import attributes, fingerprint, ignore_own_changes
from ..trace.leaves import gradient_leaves
from ..translate import translate
from ..translate.graph import check_exact, exact_integers
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
    parameters : tuple of torch.Tensor
        Tensors that get a gradient; their values are read at each solve.
    constants : tuple of torch.Tensor
        Tensors that need none; likewise.
    has_derivatives : bool
    set_constants : Any
        The Julia function that hands over the constants' values.
    """

    handle: Any
    parameters: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    has_derivatives: bool
    set_constants: Any
    dtype: torch.dtype

    def refresh(self) -> None:
        """Hand over the constants' current values."""
        if self.constants:
            for x in self.constants:
                check_exact(x, exact_integers(self.dtype))
            values = torch.cat([x.detach().reshape(-1).to(self.dtype) for x in self.constants])
            self.set_constants(self.handle, values.numpy())


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
            model = self._compile(problem, derivatives)
            self._verify(problem, model)
        except TraceError as error:
            # A function that fails on plain tensors fails for the user's own reasons: say those.
            with torch.no_grad():
                problem.func(problem.t[0].to(problem.y0.dtype), problem.y0.detach())
            self._warn(problem, error)
            return self._callback(problem)
        return model

    def _compile(self, problem: Problem, derivatives: bool) -> Model:
        traced = trace(problem.func, problem.y0, derivatives=derivatives)
        source = translate(traced)
        handle = self.module.generate(
            _KINDS[traced.dtype],
            source.code,
            problem.y0.numel(),
            sum(p.numel() for p in source.parameters),
            sum(c.numel() for c in source.constants),
            source.workspace,
            source.depends_on_time,
        )
        return Model(
            handle,
            source.parameters,
            source.constants,
            derivatives,
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
        with torch.no_grad():
            expected = problem.func(t, y)
        model.refresh()
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
        return Model(handle, parameters, (), True, self.module.set_constants_b, problem.y0.dtype)

    def _warn(self, problem: Problem, error: TraceError) -> None:
        name = getattr(problem.owner, "__qualname__", type(problem.owner).__name__)
        text = f"{name} runs in Python, called from Julia (callback mode), because {error}."
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, PyjlodeWarning, stacklevel=7)
