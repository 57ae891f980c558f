"""The discrete adjoint of implicit methods against torch's reverse mode through the same steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from reference import Func, assert_close
from test_discrete import check, network, tapes
from torch import Tensor, nn
from translated import compare_second

from pyjlode import DiscreteAdjoint, UnsupportedError, methods, odeint

D = torch.float64
METHODS = [m.name for m in methods() if m.implicit and m.has_discrete]
ROSENBROCK = ["Rosenbrock23", "Rodas4", "Rodas5P"]

__all__ = ["tapes"]


class Tableau:
    """A tableau of Julia's as lists."""

    def __init__(self, tableau: Any) -> None:
        self.a, self.weights = _rows(tableau.a), _rows(tableau.weights)
        self.b, self.c = np.asarray(tableau.b).tolist(), np.asarray(tableau.c).tolist()
        self.gamma = float(tableau.γ)
        self.rosenbrock = hasattr(tableau, "C")
        if self.rosenbrock:
            self.C, self.d = _rows(tableau.C), np.asarray(tableau.d).tolist()


def _rows(matrix: Any) -> list[list[float]]:
    return [np.asarray(row).tolist() for row in matrix]


def rosenbrock_stages(tableau: Tableau, func: Func, y: Tensor, t: Tensor, h: Any) -> list[Tensor]:
    flat = y.reshape(-1)

    def f(s: Tensor, x: Tensor) -> Tensor:
        return func(s, x.view(y.shape)).reshape(-1)

    by_t, by_y = torch.autograd.functional.jacobian(f, (t, flat), create_graph=True)
    matrix = torch.eye(flat.numel(), dtype=y.dtype) / (h * tableau.gamma) - by_y
    k: list[Tensor] = []
    for a, c, from_k, d in zip(tableau.a, tableau.c, tableau.C, tableau.d, strict=True):
        start = flat + sum(r * x for r, x in zip(a, k, strict=False))
        right = f(t + c * h, start) + sum(r / h * x for r, x in zip(from_k, k, strict=False))
        k.append(torch.linalg.solve(matrix, right + h * d * by_t))
    return [x.view(y.shape) for x in k]


def sdirk_stages(tableau: Tableau, func: Func, y: Tensor, t: Tensor, h: Any) -> list[Tensor]:
    """Newton's iteration; the last of its steps carry the gradient of the solution."""
    k = [h * func(t, y)]
    for a, c in zip(tableau.a[1:], tableau.c[1:], strict=True):
        base = (y + sum(r * x for r, x in zip(a, k, strict=False))).reshape(-1)

        def residual(z: Tensor, base: Tensor = base, s: Tensor = t + c * h) -> Tensor:
            return z - h * func(s, (base + tableau.gamma * z).view(y.shape)).reshape(-1)

        z = k[-1].detach().reshape(-1)
        for _ in range(6):
            matrix = torch.autograd.functional.jacobian(residual, z.detach())
            z = z.detach() - torch.linalg.solve(matrix, residual(z.detach()))
        k.append(z.view(y.shape))
    return k


def same_steps(tape: Any, func: Func, y0: Tensor, t: Tensor) -> Tensor:
    """Torch's solve with the tableau and the lengths of the steps of another, noted one."""
    tableau = Tableau(tape.tableau)
    stages = rosenbrock_stages if tableau.rosenbrock else sdirk_stages
    sign = -1 if t[-1] < t[0] else 1
    y, start, passed, states = y0, t[0], 1, [y0]
    for length, inside, upto in zip(tape.dt, tape.inside, tape.upto, strict=True):
        h = sign * length
        k = stages(tableau, func, y, start, h)
        for s in t[passed:inside]:
            theta = (s - start) / h
            w = [sum(q * theta ** (j + 1) for j, q in enumerate(row)) for row in tableau.weights]
            states.append(y + sum(q * x for q, x in zip(w, k, strict=True)))
        y, start = y + sum(q * x for q, x in zip(tableau.b, k, strict=True)), start + h
        if upto > inside:  # a save point at the step's end moves along the slope there
            states.append(y + (t[upto - 1] - start) * func(start, y))
        passed = upto
    return torch.stack(states)


def stiff_network(dtype: torch.dtype) -> tuple[Func, list[Tensor]]:
    """A network, and one direction in which it is stiff."""
    func, tensors = network(dtype)
    rate = torch.tensor(200.0, dtype=dtype, requires_grad=True)

    def stiff(t: Tensor, y: Tensor) -> Tensor:
        fast = rate * (torch.sin(2 * t.to(y.dtype)) - y[..., :1]) * (1 + y[..., 1:] ** 2)
        return func(t, y) + torch.cat([fast, torch.zeros_like(fast)], dim=-1)

    return stiff, [rate, *tensors]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_same_steps(julia: str, tapes: list[Any], method: str, reverse: bool) -> None:
    """Several save points in one step, and steps without any."""
    torch.manual_seed(3)
    func, tensors = stiff_network(D) if not reverse else network(D)
    y0 = torch.tensor([[0.5, -0.3], [1.0, 0.4]], dtype=D)
    t = torch.tensor([0.0, 0.01, 0.02, 0.021, 0.7, 0.9], dtype=D)
    if not reverse:  # the stiff one: torch's steps, with a Jacobian in each iteration, are slow
        t[-2:] = torch.tensor([0.1, 0.15])
    # The states of SDIRK methods are those of an iteration that stops at the tolerances.
    rtol = 1e-4 if method in ("TRBDF2", "KenCarp4") else 1e-3
    tolerance = 1e-11 if method in ROSENBROCK else rtol / 10
    check(
        tapes, func, y0, t.flip(0) if reverse else t, tensors, tolerance, same_steps,
        method=method, rtol=rtol, atol=rtol, sensealg="discrete",
    )  # fmt: skip
    assert len(tapes[-1].t) > 2


@pytest.mark.parametrize("method", ["Rodas5P", "KenCarp4"])
def test_checkpoints(julia: str, tapes: list[Any], method: str) -> None:
    func, tensors = stiff_network(D)
    y0, t = torch.tensor([0.5, -0.3], dtype=D), torch.linspace(0, 2, 9, dtype=D)
    check(
        tapes, func, y0, t, tensors, 1e-6, same_steps, method=method, rtol=1e-5, atol=1e-5,
        sensealg=DiscreteAdjoint(checkpoints=3),
    )  # fmt: skip
    assert len(tapes[-1].states) <= 3 < len(tapes[-1].t)


def chain(t: Tensor, y: Tensor) -> Tensor:
    """A sparse Jacobian."""
    neighbours = torch.cat([y[1:], y[-1:]]) + torch.cat([y[:1], y[:-1]])
    return 50 * (neighbours - 2 * y) + torch.sin(t) * y * (1 - y)


def test_sparse(julia: str, tapes: list[Any]) -> None:
    y0, t = torch.linspace(0, 1, 130, dtype=D), torch.tensor([0.0, 0.1, 0.2], dtype=D)
    check(
        tapes, chain, y0, t, [], 1e-10, same_steps, method="Rodas5P", rtol=1e-2, atol=1e-2,
    )  # fmt: skip


def kinetics(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([-y[0] * y[1] * t, y[0] ** 3 / (1 + y[2]), torch.exp(-y[0]) * torch.cos(t)])


def test_second_derivatives(julia: str) -> None:
    y = torch.tensor([0.3, -0.5, 0.8], dtype=D)
    compare_second(kinetics, 0.7, y)
    func, tensors = stiff_network(D)
    compare_second(func, 0.7, torch.tensor([[0.5, -0.3], [1.0, 0.4]], dtype=D), tensors)
    compare_second(lambda t, y: -y, 0.7, y)
    compare_second(lambda t, y: torch.ones_like(y), 0.7, y)
    convolution = nn.Conv1d(2, 2, 3, padding=1).to(D)
    compare_second(lambda t, y: torch.tanh(convolution(y)) ** 2, 0.7, torch.randn(1, 2, 6, dtype=D))
    attention = nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True).to(D)
    compare_second(lambda t, y: attention(y) * t, 0.7, torch.randn(1, 3, 4, dtype=D))


def test_it_is_the_default(julia: str, tapes: list[Any]) -> None:
    """Of the methods whose numbers' gradients are near the solution's too."""
    for method in ("Rodas5P", "Rosenbrock23", "KenCarp4", "FBDF"):
        y0 = torch.ones(2, dtype=D, requires_grad=True)
        odeint(kinetics_2, y0, [0.0, 1.0], method=method, engine="julia")
        assert (tapes[-1] is not None) == (method == "Rodas5P")


def kinetics_2(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([-y[0] * y[1], y[0] - y[1]])


def once(t: Tensor, y: Tensor) -> Tensor:
    """Torch differentiates ``torch.cond`` only once."""
    return torch.cond(y.sum() > 0, lambda x: -x * x, lambda x: -x, (y,))


def in_python(t: Tensor, y: Tensor) -> Tensor:
    return -y if float(y.detach().sum()) > 0 else y


@pytest.mark.filterwarnings("ignore:.*callback mode")
@pytest.mark.parametrize("func", [once, in_python])
def test_without_second_derivatives(julia: str, func: Func) -> None:
    """Gauss's adjoint by default, and a refusal where the discrete one was asked for."""
    y0 = torch.tensor([1.0, 2.0], dtype=D, requires_grad=True)
    y = odeint(func, y0, [0.0, 1.0], method="Rodas5P", rtol=1e-8, atol=1e-8, engine="julia")
    (found,) = torch.autograd.grad(y[-1].sum(), y0)
    start = y0.detach()
    expected = (1 + start) ** -2 if func is once else torch.full((2,), float(np.exp(-1)), dtype=D)
    assert_close(found, expected, 1e-6)
    with pytest.raises(UnsupportedError, match="GaussAdjoint"):
        odeint(func, y0, [0.0, 1.0], method="Rodas5P", sensealg="discrete", engine="julia")
