"""Derivatives of the gradient: right where they are implemented, an error everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchdiffeq
from torch import Tensor

from pyjlode import (
    BacksolveAdjoint,
    ForwardSensitivity,
    GaussAdjoint,
    InterpolatingAdjoint,
    ManifoldProjection,
    NeuralODE,
    PresetTimeCallback,
    PyjlodeWarning,
    QuadratureAdjoint,
    UnsupportedError,
    daeint,
    ddeint,
    odeint,
    odeint_adjoint,
    sdeint,
    steady_state,
)

D = torch.float64
TIMES = torch.tensor([0.0, 0.4, 1.3], dtype=D)
TIGHT: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-12}
EXPLICIT = ["Tsit5", "dopri5", "Vern7", "DP8", "BS3", "rk4"]
ROSENBROCK = ["Rodas5P", "Rodas4"]
LOW_ORDER = ("BS3",)


def oscillate(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[1], -(y[0] ** 3)])


def reference(func: Any, y0: Tensor, t: Tensor) -> Tensor:
    states: Tensor = torchdiffeq.odeint(func, y0, t, method="dopri5", **TIGHT)
    return states


def penalty(solve: Callable[[Tensor], Tensor], y0: Tensor) -> Tensor:
    """The gradient of a loss that has a gradient in it."""
    y0 = y0.detach().requires_grad_()
    y = solve(y0)
    (g,) = torch.autograd.grad(y[-1].sum(), y0, create_graph=True)
    ((y**2).sum() + (g**2).sum()).backward()
    assert y0.grad is not None
    return y0.grad


def test_gradient_penalty(engine: str) -> None:
    y0, t = torch.tensor([1.0, 0.5], dtype=D), TIMES
    found = penalty(lambda y0: odeint(oscillate, y0, t, engine=engine, **TIGHT), y0)
    torch.testing.assert_close(found, penalty(lambda y0: reference(oscillate, y0, t), y0))


def _net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).to(D)


@pytest.mark.parametrize("method", EXPLICIT + ROSENBROCK)
def test_every_input(julia: str, method: str) -> None:
    """By the initial state, the parameters, a number and the times."""
    net, k = _net(), torch.tensor(0.7, dtype=D, requires_grad=True)

    def func(t: Tensor, y: Tensor) -> Tensor:
        return net(y) * torch.cos(k * t) + k * y

    def second(solve: Any) -> tuple[Tensor, ...]:
        y0 = torch.tensor([[1.0, 0.5], [-0.3, 0.2]], dtype=D, requires_grad=True)
        t = TIMES.clone().requires_grad_()
        inputs = (y0, t, k, *net.parameters())
        grads = torch.autograd.grad(solve(y0, t).pow(2).sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum((g**2).sum() for g in grads), inputs)

    options: dict[str, Any] = {"rtol": 1e-7, "atol": 1e-8} if method in LOW_ORDER else dict(TIGHT)
    if method == "rk4":
        options["options"] = {"step_size": 0.03}  # of which the save points are no multiples
    tolerance = 1e-3 if method in LOW_ORDER else 2e-5
    found = second(lambda y0, t: odeint(func, y0, t, method=method, engine=julia, **options))
    for a, b in zip(found, second(lambda y0, t: reference(func, y0, t)), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("method", ["Tsit5", "rk4", "Rodas5P"])
def test_gradgradcheck(julia: str, method: str) -> None:
    """Of the very numbers of the solve, also at loose tolerances."""
    y0 = torch.tensor([1.0, 0.5], dtype=D, requires_grad=True)
    k = torch.tensor(0.7, dtype=D, requires_grad=True)
    options = {"step_size": 0.07} if method == "rk4" else {}
    tolerance = 1e-9 if method == "Rodas5P" else 1e-12

    def solve(y0: Tensor, k: Tensor) -> Tensor:
        def func(t: Tensor, y: Tensor) -> Tensor:
            return torch.stack([y[1], -k * y[0] ** 3 + torch.sin(t)])

        return odeint(
            func, y0, TIMES, method=method, engine=julia, options=options,
            rtol=tolerance, atol=tolerance,
        )  # fmt: skip

    assert torch.autograd.gradcheck(solve, (y0, k))
    assert torch.autograd.gradgradcheck(solve, (y0, k), atol=1e-4)


@pytest.mark.parametrize("name", ["hessian", "hvp", "vhp", "jvp"])
def test_functional(engine: str, name: str) -> None:
    y0, v = torch.tensor([1.0, 0.5], dtype=D), torch.tensor([0.3, -2.0], dtype=D)
    arguments = (y0,) if name == "hessian" else (y0, v)

    def of(solve: Any) -> Tensor:
        function = getattr(torch.autograd.functional, name)
        found = function(lambda y0: (solve(oscillate, y0, TIMES)[-1] ** 3).sum(), *arguments)
        return found if isinstance(found, Tensor) else found[1]

    found = of(lambda *args: odeint(*args, engine=engine, **TIGHT))
    assert found.abs().max() > 0.1
    torch.testing.assert_close(found, of(reference), rtol=1e-7, atol=1e-8)


def test_odeint_adjoint(julia: str) -> None:
    """Of a name in torchdiffeq without second derivatives: by its default here it has them."""
    y0, k = torch.ones(1, dtype=D), torch.tensor(0.7, dtype=D)

    def solve(y0: Tensor) -> Tensor:
        func = _quadratic(k)
        return odeint_adjoint(func, y0, TIMES, adjoint_params=(k,), engine=julia, **TIGHT)

    found = penalty(solve, y0)
    torch.testing.assert_close(found, penalty(lambda y0: reference(_quadratic(k), y0, TIMES), y0))


def test_backwards_in_time_tuples_and_layers(engine: str) -> None:
    y0, t = torch.tensor([1.0, 0.5], dtype=D), TIMES.flip(0)
    expected = penalty(lambda y0: reference(oscillate, y0, t), y0)
    found = penalty(lambda y0: odeint(oscillate, y0, t, engine=engine, **TIGHT), y0)
    torch.testing.assert_close(found, expected)

    def pair(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return y[1], -(y[0] ** 3)

    def in_parts(y0: Tensor) -> Tensor:
        return torch.stack(odeint(pair, (y0[0], y0[1]), t, engine=engine, **TIGHT), dim=-1)

    torch.testing.assert_close(penalty(in_parts, y0), expected)

    net = _net()
    layer = NeuralODE(lambda t, y: net(y), TIMES, engine=engine, **TIGHT)
    batch = torch.tensor([[1.0, 0.5]], dtype=D)
    torch.testing.assert_close(
        penalty(layer, batch), penalty(lambda y: reference(lambda t, y: net(y), y, TIMES), batch)
    )


def test_in_pieces(engine: str) -> None:
    """Known discontinuities and preset times are several solves of one graph."""
    y0, k = torch.ones(1, dtype=D), torch.tensor(0.7, dtype=D)
    callback = PresetTimeCallback([0.5], lambda t, y: y**2)

    def solve(y0: Tensor) -> Tensor:
        return odeint(
            lambda t, y: -k * y, y0, [0.0, 1.0], engine=engine, callback=callback, **TIGHT
        )

    # y(1) = y0² e^(-1.5k), its gradient 2 y0 e^(-1.5k)
    e = torch.exp(-1.5 * k)
    exact = 2 * y0 + 4 * y0**3 * e**2 + 8 * y0 * e**2
    torch.testing.assert_close(penalty(solve, y0), exact)

    def jump(y0: Tensor) -> Tensor:
        return odeint(
            lambda t, y: torch.where(t < 0.5, k, 2 * k) * y**2, y0, [0.0, 1.0], engine=engine,
            options={"jump_t": torch.tensor([0.5], dtype=D)}, **TIGHT,
        )  # fmt: skip

    # y(1) = 1 / (1 / y0 - 1.5 k): its gradient is (y / y0)², the next one 2 y³ / y0³ 1.5k
    y0 = 0.5 * y0
    y, c = 1 / (1 / y0 - 1.5 * k), 1.5 * k
    exact = 2 * y0 + 2 * y * (y / y0) ** 2 + 2 * (y / y0) ** 2 * 2 * c * (y / y0) ** 3
    torch.testing.assert_close(penalty(jump, y0), exact)


def test_python_functions(julia: str) -> None:
    """Of a function that Julia calls in Python, while what it reads is as it was in the solve."""

    class Branches:
        rate = 0.7

        def __call__(self, t: Tensor, y: Tensor) -> Tensor:
            return -self.rate * y**2 if bool(y.sum() > 0) else y

    func, y0 = Branches(), torch.ones(1, dtype=D, requires_grad=True)
    with pytest.warns(PyjlodeWarning):
        y = odeint(func, y0, [0.0, 1.0], engine=julia, **TIGHT)
    (g,) = torch.autograd.grad(y[-1].sum(), y0, create_graph=True)
    (found,) = torch.autograd.grad(g.sum(), y0, retain_graph=True)
    # y(1) = 1 / (1 / y0 + k), second derivative -2 k / (1 + k y0)³
    torch.testing.assert_close(found, torch.tensor([-1.4 / 1.7**3], dtype=D))
    func.rate = 5.0
    with pytest.raises(UnsupportedError, match="was changed"):
        torch.autograd.grad(g.sum(), y0)


def test_third(julia: str) -> None:
    k = torch.tensor(0.7, dtype=D, requires_grad=True)
    g = odeint(lambda t, y: -k * y, torch.ones(1, dtype=D), [0.0, 1.0], engine=julia, **TIGHT)[-1]
    for order in (1, 2, 3):
        (g,) = torch.autograd.grad(g.sum(), k, create_graph=True)
        torch.testing.assert_close(g, (-1) ** order * torch.exp(-k))


def test_float32(julia: str) -> None:
    y0 = torch.tensor([1.0, 0.5])
    found = penalty(lambda y0: odeint(oscillate, y0, TIMES, engine=julia, rtol=1e-6, atol=1e-7), y0)
    expected = penalty(lambda y0: reference(oscillate, y0, TIMES), y0.to(D))
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)


def test_changed_since(julia: str) -> None:
    """A number and a tensor that are other ones by the time of the second derivative."""

    class Decay:
        def __init__(self) -> None:
            self.rate, self.shift = 0.5, torch.tensor(0.1, dtype=D)

        def __call__(self, t: Tensor, y: Tensor) -> Tensor:
            return -self.rate * y**2 + self.shift

    def change_rate(func: Decay) -> None:
        func.rate = 2.0

    def change_shift(func: Decay) -> None:
        func.shift.fill_(3.0)

    for change in (change_rate, change_shift):
        func, y0 = Decay(), torch.ones(1, dtype=D, requires_grad=True)
        y = odeint(func, y0, [0.0, 1.0], engine=julia)
        (g,) = torch.autograd.grad(y[-1].sum(), y0, create_graph=True)
        change(func)
        with pytest.raises(UnsupportedError, match="changed since the solve"):
            g.sum().backward()


class _Noise:
    sde_type, noise_type = "ito", "diagonal"

    def __init__(self, k: Tensor) -> None:
        self.k = k

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return -self.k * y**2

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.1 * self.k * y


def _quadratic(k: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda t, y: -k * y**2


SPAN = [0.0, 1.0]
WITHOUT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "GaussAdjoint": lambda k, y0: odeint(_quadratic(k), y0, SPAN, sensealg=GaussAdjoint()),
    "InterpolatingAdjoint": lambda k, y0: odeint(
        _quadratic(k), y0, SPAN, sensealg=InterpolatingAdjoint()
    ),
    "QuadratureAdjoint": lambda k, y0: odeint(
        _quadratic(k), y0, SPAN, sensealg=QuadratureAdjoint()
    ),
    "BacksolveAdjoint": lambda k, y0: odeint(_quadratic(k), y0, SPAN, sensealg=BacksolveAdjoint()),
    "ForwardSensitivity": lambda k, y0: odeint(
        _quadratic(k), y0, SPAN, sensealg=ForwardSensitivity()
    ),
    "FBDF": lambda k, y0: odeint(_quadratic(k), y0, SPAN, method="FBDF"),
    "KenCarp4": lambda k, y0: odeint(_quadratic(k), y0, SPAN, method="KenCarp4"),
    "mass_matrix": lambda k, y0: odeint(
        _quadratic(k), y0, SPAN, method="Rodas5P", mass_matrix=2 * torch.eye(1, dtype=D)
    ),
    "independent": lambda k, y0: odeint(
        _quadratic(k), y0[:, None], SPAN, batch="independent"
    ),
    "ManifoldProjection": lambda k, y0: odeint(
        _quadratic(k), y0, SPAN,
        callback=ManifoldProjection(lambda t, y: y * (1 + k * t) - y0, abstol=1e-10),
    ),
    "daeint": lambda k, y0: daeint(lambda t, y, dy: dy + k * y**2, y0, None, SPAN),
    "ddeint": lambda k, y0: ddeint(lambda t, y, past: -k * y * past, y0, SPAN, lags=[0.5]),
    "sdeint": lambda k, y0: sdeint(_Noise(k), y0[None], SPAN, dt=0.1, seed=0),
    "steady_state": lambda k, y0: steady_state(lambda t, y: y0**2 - k * y**3, y0),
}  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT)
def test_without_second_derivatives(julia: str, name: str) -> None:
    """The gradient is the same with a graph and without, and its derivative by each is refused."""
    k = torch.tensor(0.7, dtype=D, requires_grad=True)
    y0 = torch.ones(1, dtype=D, requires_grad=True)
    plain = torch.autograd.grad(WITHOUT[name](k, y0)[-1].sum(), (k, y0))
    for i, x in enumerate((k, y0)):
        grads = torch.autograd.grad(WITHOUT[name](k, y0)[-1].sum(), (k, y0), create_graph=True)
        torch.testing.assert_close(grads, plain)
        with pytest.raises(UnsupportedError):
            torch.autograd.grad(grads[i].sum(), x)
    with pytest.raises(UnsupportedError):
        torch.autograd.functional.hessian(lambda k: WITHOUT[name](k, y0)[-1].sum(), k)


def test_backsolve_of_the_torch_engine() -> None:
    k = torch.tensor(0.7, dtype=D, requires_grad=True)
    y0 = torch.ones(1, dtype=D, requires_grad=True)

    def func(t: Tensor, y: Tensor) -> Tensor:
        return -k * y**2

    y = odeint(func, y0, [0.0, 1.0], engine="torch", sensealg=BacksolveAdjoint())
    with pytest.raises(UnsupportedError, match="DiscreteAdjoint"):
        torch.autograd.grad(y[-1].sum(), y0, create_graph=True)
    y[-1].sum().backward()
    torch.testing.assert_close(y0.grad, 1 / (1 + k.detach() * y0.detach()) ** 2)
