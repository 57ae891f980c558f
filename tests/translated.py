"""The generated functions themselves, called at one point, beside torch and its autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyjlode import runtime
from pyjlode.engine import choose_engine
from pyjlode.engine.models import Model
from pyjlode.trace.capture import Traced, trace

Func = Callable[[Tensor, Tensor], Tensor]

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def _model(traced: Traced) -> tuple[Any, Model, Tensor]:
    """Julia's model, what stands for it here, and the parameters' values."""
    model = choose_engine("julia").models.compile(traced)
    model.refresh()
    flat = [p.detach().reshape(-1) for p in model.parameters]
    return model.handle, model, torch.cat(flat or [torch.zeros(1, dtype=traced.dtype)])


def run(traced: Traced, t: float, y: Tensor) -> Tensor:
    """The value alone."""
    handle, _, parameters = _model(traced)
    value = torch.full_like(y, torch.nan)
    flat = y.contiguous().view(-1).numpy()
    runtime.start().module.evaluate(handle, value.view(-1).numpy(), flat, parameters.numpy(), t)
    return value


def in_julia(func: Func, t: float, y: Tensor, v: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """The value, and the products of ``v`` with the Jacobians by ``id`` of what they are of.

    The keys of those of ``t`` and ``y`` are 0 and 1.
    """
    return _products(*_model(trace(func, y, derivatives=True)), t, y, v)


def _products(
    handle: Any, model: Model, parameters: Tensor, t: float, y: Tensor, v: Tensor
) -> tuple[Tensor, dict[int, Tensor]]:
    module = runtime.start().module
    sizes = [p.numel() for p in model.tensors]
    # What the functions leave untouched stays NaN, and differs from everything.
    value, gy = (torch.full((y.numel(),), torch.nan, dtype=y.dtype) for _ in range(2))
    gp, gt = (torch.full((n,), torch.nan, dtype=y.dtype) for n in (sum(sizes), 1))
    state = (y.contiguous().view(-1).numpy(), parameters.numpy(), t)
    module.evaluate(handle, value.numpy(), *state)
    cotangent = v.contiguous().view(-1).numpy()
    module.evaluate_vjp(handle, gy.numpy(), gp.numpy(), gt.numpy(), cotangent, *state)
    found = {0: gt.view(()), 1: gy.view(y.shape)}
    for p, g in zip(model.tensors, gp.split(sizes), strict=True):
        found[id(p)] = g.view(p.shape)
    return value.view(y.shape), found


def in_torch(
    func: Func, t: float, y: Tensor, v: Tensor, tensors: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The same from torch; the gradients are those of ``t``, ``y`` and ``tensors``."""
    inputs = [torch.tensor(t, dtype=y.dtype), y.detach().clone()]
    inputs = [x.requires_grad_() for x in inputs]
    value = func(inputs[0], inputs[1])
    inputs += tensors
    if not value.requires_grad:
        return value, [torch.zeros_like(x) for x in inputs]
    gradients = torch.autograd.grad(value, inputs, v, allow_unused=True)
    return value.detach(), [
        torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True)
    ]


def compare(
    func: Func, t: float, y: Tensor, tensors: Sequence[Tensor] = (),
    tolerance: float | None = None, jacobian: bool = False,
) -> None:  # fmt: skip
    """Value and vector-Jacobian products agree with torch's, NaN and infinities included."""
    tolerance = TOLERANCE[y.dtype] if tolerance is None else tolerance
    v = torch.linspace(0.5, 1.5, max(y.numel(), 1), dtype=y.dtype)[: y.numel()].view(y.shape)
    handle, model, parameters = _model(trace(func, y, derivatives=True, jacobian=jacobian))
    value, found = _products(handle, model, parameters, t, y, v)
    expected, gradients = in_torch(func, t, y, v, tensors)
    assert_equal(value, expected, tolerance, "value")
    keys = {"t": 0, "y": 1, **{f"tensor {i}": id(x) for i, x in enumerate(tensors)}}
    for (what, key), gradient in zip(keys.items(), gradients, strict=True):
        if key in found:
            assert_equal(found[key], gradient, tolerance, f"gradient of {what}")
        else:
            assert not gradient.any(), f"gradient of {what} is left out"
    if jacobian:
        _compare_jacobians(handle, parameters, func, t, y)


def _compare_jacobians(handle: Any, parameters: Tensor, func: Func, t: float, y: Tensor) -> None:
    """The Jacobian and the derivative by time agree with torch's, row by row."""
    n = y.numel()
    jacobian, by_time = (torch.full((size,), torch.nan, dtype=y.dtype) for size in (n * n, n))
    runtime.start().module.evaluate_jacobian(
        handle, jacobian.numpy(), by_time.numpy(), y.reshape(-1).numpy(), parameters.numpy(), t
    )
    rows = [in_torch(func, t, y, unit.view(y.shape), ())[1] for unit in torch.eye(n, dtype=y.dtype)]
    expected = torch.stack([row[1].reshape(-1) for row in rows])
    assert_equal(jacobian.view(n, n).T, expected, TOLERANCE[y.dtype], "Jacobian")
    assert_equal(by_time, torch.stack([row[0] for row in rows]), TOLERANCE[y.dtype], "by time")


def compare_second(func: Func, t: float, y: Tensor, tensors: Sequence[Tensor] = ()) -> None:
    """The second derivatives agree with differences of torch's vector-Jacobian products."""
    traced = trace(func, y, derivatives=True, jacobian=True, second=True)
    assert traced.has_second
    handle, model, parameters = _model(traced)
    n = y.numel()
    v, k = (torch.linspace(a, b, n, dtype=y.dtype) for a, b in ((0.5, 1.5), (-0.7, 1.0)))
    direction = torch.cat([k, torch.full((1,), 0.8, dtype=y.dtype)])
    g, gp = (torch.full((m,), torch.nan, dtype=y.dtype) for m in (n + 1, parameters.numel()))
    runtime.start().module.evaluate_vjp_jvp(
        handle, g.numpy(), gp.numpy(), v.numpy(), direction.numpy(), y.reshape(-1).numpy(),
        parameters.numpy(), t,
    )  # fmt: skip

    def products(h: float) -> list[Tensor]:
        return in_torch(
            func, t + 0.8 * h, y + h * k.view(y.shape), v.view(y.shape), [*model.tensors, *tensors]
        )[1]

    h = 1e-3
    inner, outer = (
        [(a - b) / (2 * h * m) for a, b in zip(products(h * m), products(-h * m), strict=True)]
        for m in (1, 2)
    )
    by_t, by_y, *by_p = [(4 * a - b) / 3 for a, b in zip(inner, outer, strict=True)]
    expected = torch.cat([x.reshape(-1) for x in by_p[: len(model.tensors)]] or [y[:0].reshape(-1)])
    assert_equal(g[:n].view(y.shape), by_y, 1e-8, "by the state")
    assert_equal(g[n], by_t, 1e-8, "by time")
    if model.tensors:
        assert_equal(gp, expected, 1e-8, "by the parameters")


def assert_equal(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Elements agree, to a tolerance relative to the largest one that is finite."""
    assert found.shape == expected.shape, f"{what}: {found.shape}, expected {expected.shape}"
    scale = float(expected.nan_to_num(0, 0, 0).abs().max()) if expected.numel() else 0.0
    same = torch.isclose(
        found, expected, rtol=0.0, atol=tolerance * max(scale, 1.0), equal_nan=True
    )
    assert bool(same.all()), f"{what}: {found}, expected {expected}"
