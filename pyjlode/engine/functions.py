"""Julia's functions and settings, as the engine calls them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate, pairwise
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..methods import Method
from ..problem import Problem, Tolerance
from .callback import Noted

_MAX_STEPS = 100_000


class Functions:
    """Julia's functions, looked up once, and what small values they make, made once.

    A look-up through juliacall takes as long as a call, and a training step on a small model is
    not much longer than a few of them.
    """

    def __init__(self, module: Any) -> None:
        self.load = module.load
        self.forward = module.forward
        self.forward_rows = module.forward_rows
        self.backward = module.backward
        self.retcode = module.retcode
        self.interpolate = module.interpolate
        self.examine = module.examine
        self.plain_settings = lru_cache(maxsize=64)(module.Settings)
        self.settings = module.settings
        self.sensitivity = lru_cache(maxsize=64)(module.sensitivity)

    def forward_settings(self, problem: Problem, method: Method, python: Noted) -> Any:
        """Julia's ``Settings`` of a problem; ``python`` keeps what the caller's norm raises."""
        layout = problem.layout
        sizes = layout.sizes if layout is not None and layout.joined else []
        return self.make_settings(
            method, problem.fixed_step, problem.rtol, problem.atol, problem.options,
            _norm(problem, python), parts_of(sizes),
        )  # fmt: skip

    def make_settings(
        self, method: Method, fixed: bool, rtol: Tolerance, atol: Tolerance,
        options: Mapping[str, Any], norm: Any, parts: list[int],
    ) -> Any:  # fmt: skip
        step = options.get("step_size") if fixed else options.get("first_step")
        numbers = [float(options.get(name, 0.0)) for name in ("min_step", "max_step")]
        factors = [float(options.get(name, 0.0)) for name in ("safety", "ifactor", "dfactor")]
        common = (
            int(options.get("max_num_steps", _MAX_STEPS)), float(step or 0.0), fixed,
            *(x if isfinite(x) else 0.0 for x in numbers),
        )  # fmt: skip
        floats = isinstance(rtol, float) and isinstance(atol, float)
        if floats and norm is None and not parts and not any(factors):
            return self.plain_settings(method.algorithm, rtol, atol, *common)
        return self.settings(
            method.algorithm,
            _numbers(rtol),
            _numbers(atol),
            *common,
            *factors,
            norm,
            np.array(parts, dtype=np.int64),
        )


def parts_of(sizes: list[int]) -> list[int]:
    """First and last index of each part, one after the other."""
    ends = [0, *accumulate(sizes)]
    return [x for a, b in pairwise(ends) for x in (a + 1, b)]


def _numbers(tolerance: Tolerance) -> Any:
    return tolerance.numpy() if isinstance(tolerance, Tensor) else tolerance


def _norm(problem: Problem, python: Noted) -> Any:
    """The caller's norm as a function of a Julia vector."""
    norm, shape = problem.norm, problem.y0.shape
    if norm is None:
        return None

    def called(x: Any) -> float:
        with torch.no_grad():
            return float(norm(torch.from_numpy(np.array(x)).view(shape)))

    return python.noted(called)
