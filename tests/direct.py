"""The generated right-hand side and its vector-Jacobian products, at one point, against torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pyjlode.engine import choose_engine
from pyjlode.engine.models import ModelCache
from pyjlode.trace.capture import trace
from pyjlode.translate.operations.complex import as_real

Func = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Errors:
    """The largest errors, as parts of the largest expected numbers."""

    value: float
    gradients: float

    def __str__(self) -> str:
        return f"value {self.value:.1e}, gradients {self.gradients:.1e}"


@cache
def _call() -> Any:
    """Run one of a model's functions on numpy arrays, in place."""
    return choose_engine("julia").runtime.main.seval(
        "(f, out, args...) -> (f(map(Pyjlode.plain, (out, args[1:(end - 1)]...))..., args[end]); "
        "nothing)"
    )


def compare(
    func: Func, y: Tensor, tensors: Sequence[Tensor] = (), t: float = 0.3, seed: int = 0
) -> Errors:
    """Trace, compile and evaluate; raises where ``func`` cannot be traced.

    Every tensor of ``tensors`` must get the gradient that torch gives it. Random draws are the
    same on both sides.
    """
    engine = choose_engine("julia")
    traced = trace(func, y, derivatives=True)
    model = ModelCache(engine.runtime).compile(traced)
    v = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).view_as(y)

    torch.manual_seed(seed)
    time = torch.tensor(t, dtype=y.dtype, requires_grad=True)
    state = y.detach().clone().requires_grad_()
    expected = func(time, state)
    inputs = [state, time, *model.tensors]
    found = torch.autograd.grad(expected, inputs, v, allow_unused=True)
    reference = [
        as_real(torch.zeros_like(x) if g is None else g) for g, x in zip(found, inputs, strict=True)
    ]
    missing = [x.shape for x in tensors if not any(x is p for p in model.tensors)]
    assert not missing, f"tensors without a gradient: {missing}"

    torch.manual_seed(seed)
    model.refresh()
    handle, u = model.handle, y.detach().reshape(-1)
    p = torch.cat([x.detach().reshape(-1) for x in model.parameters] or [y.new_zeros(1)])
    value = torch.full_like(u, float("nan"))
    _call()(handle.value, value.numpy(), u.numpy(), p.numpy(), t)
    results = []
    for function, like in (
        (handle.vjp, u),
        (handle.vjp_t, y.new_zeros(1)),
        (handle.vjp_p, y.new_zeros(sum(x.numel() for x in model.parameters))),
    ):
        out = torch.full_like(like, float("nan"))
        if out.numel():
            _call()(function, out.numpy(), v.reshape(-1).numpy(), u.numpy(), p.numpy(), t)
        results.append(out)
    pieces = results[2].split([x.numel() for x in model.parameters]) if model.parameters else []
    errors = [
        relative_error(a, e.reshape(-1))
        for a, e in zip([results[0], results[1], *pieces], reference, strict=True)
    ]
    return Errors(relative_error(value, expected.detach().reshape(-1)), max(errors))


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a part of the largest expected number, NaN where either is."""
    if expected.numel() == 0:
        return 0.0
    scale = max(float(expected.abs().max()), 1e-3)
    return float((found - expected).abs().max()) / scale
