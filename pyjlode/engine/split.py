"""Split equations in Julia: the model of the sum, with those of its parts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import UnsupportedError
from ..problem import Problem
from ..translate.draws import Draw
from .arrays import flatten
from .models import Model, Wanted

if TYPE_CHECKING:
    from .julia import JuliaEngine


def with_split(engine: JuliaEngine, model: Model, parts: tuple[Problem, Problem]) -> Model:
    """The model of the sum, which is solved as such."""
    if any(isinstance(x, Draw) for x in model.constants):
        raise UnsupportedError(
            "func draws random numbers, which would differ between the solve and its gradient; "
            "give the sum of the two functions, or draw them before the solve."
        )
    arguments = []
    for problem, wanted in zip(parts, (Wanted.JACOBIAN, Wanted.VALUES), strict=True):
        part = engine.models.get(problem, wanted=wanted)
        part.refresh()
        arguments += [part.handle, flatten(part.parameters, problem.y0.dtype).numpy()]
    return replace(model, handle=engine.module.with_split(model.handle, *arguments))
