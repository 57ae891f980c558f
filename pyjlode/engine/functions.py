"""Julia's functions and settings, as the engine calls them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
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
        self._forward = module.forward_handed
        self._forward_rows = module.forward_rows_handed
        self._backward = module.backward_handed
        # What a solve and its gradient say of themselves, read at once.
        self.report = torch.zeros(8, dtype=torch.float64)
        self._addresses = (ctypes.c_int64 * 16).from_address(int(module.address_table()))
        self.retcode = module.retcode
        self.accepted_steps = module.accepted_steps
        self.tableau_fields = module.tableau_fields
        self.interpolate = module.interpolate
        self.examine = module.examine
        self.plain_settings = lru_cache(maxsize=64)(module.Settings)
        self.settings = module.settings
        self.sensitivity = lru_cache(maxsize=64)(module.sensitivity)

    def forward(
        self, run: Callable[..., Any], model: Any, settings: Any, arrays: Sequence[Tensor],
        parameters: Sequence[Tensor], keep: str, checkpoints: int, *, watch: Any = None,
        dense: bool = False, rows: bool = False,
    ) -> Any:  # fmt: skip
        """Julia's ``forward`` of the arrays u0, ts, out and info and of the parameters.

        With ``rows`` it is ``forward_rows``. ``run`` makes the call, as :meth:`Model.run`.
        """
        u0, *rest = arrays
        table = _table(parameters)
        self._hand_over((u0, None, *rest), 1, table)
        function = self._forward_rows if rows else self._forward
        more = () if watch is None and not dense else (watch, dense)
        alive = (arrays, parameters, table)
        return run(function, model, settings, keep, checkpoints, *more, alive=alive)

    def backward(
        self, run: Callable[..., Any], solved: Any, algorithm: Any, settings: Any,
        arrays: Sequence[Tensor], gradients: Sequence[Tensor],
    ) -> str | None:  # fmt: skip
        """Julia's ``backward`` of the arrays cotangent, gradients of u and t, and info.

        ``gradients`` are those of the parameters. ``run`` makes the call, as :meth:`Model.run`.
        """
        cotangent, gradient_u, *rest = arrays
        table = _table(gradients)
        self._hand_over((cotangent, gradient_u, None, *rest), 2, table)
        alive = (arrays, gradients, table)
        message = run(self._backward, solved, algorithm, settings, alive=alive)
        return None if message is None else str(message)

    def _hand_over(self, arrays: Sequence[Tensor | None], place: int, table: Any) -> None:
        addresses = self._addresses
        for i, x in enumerate(arrays):
            if x is not None:
                addresses[2 * i] = x.data_ptr()
                addresses[2 * i + 1] = x.numel()
        addresses[2 * place] = ctypes.addressof(table)
        addresses[2 * place + 1] = len(table)

    def forward_settings(self, problem: Problem, method: Method, python: Noted) -> Any:
        """Julia's ``Settings`` of a problem; ``python`` keeps what the caller's norm raises."""
        layout = problem.layout
        sizes = layout.sizes if layout is not None and layout.joined else []
        parts = parts_of(sizes)
        if problem.mass is not None:
            parts = problem.mass.measured(parts)
        return self.make_settings(
            method, problem.fixed_step, problem.rtol, problem.atol, problem.options,
            _norm(problem, python), parts,
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


def _table(arrays: Sequence[Tensor]) -> Any:
    """Addresses and lengths, for Julia."""
    pairs = [n for x in arrays for n in (x.data_ptr(), x.numel())]
    return (ctypes.c_int64 * len(pairs))(*pairs)


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
