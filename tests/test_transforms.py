"""A solve within torch's transforms: ``torch.func``, ``vmap``, forward mode.

Torchdiffeq's solves, so the torch engine's, cannot be part of most of these: torch says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from pyjlode import (
    ManifoldProjection,
    UnsupportedError,
    daeint,
    ddeint,
    odeint,
    odeint_event,
    sdeint,
    solve_ivp,
    steady_state,
)

D = torch.float64
SPAN = [0.0, 0.4, 1.0]
TIGHT: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-12}
Y0 = torch.tensor([1.0, 0.5], dtype=D)
RATES = torch.tensor([0.5, 1.0, 2.0], dtype=D)
FUNCTIONAL = torch.autograd.functional


def solution(engine: str) -> Callable[[Tensor], Tensor]:
    """States of shape ``(3, 2)`` by the initial ones."""
    k = torch.tensor(0.7, dtype=D, requires_grad=True)

    def func(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[1], -k * y[0] ** 3])

    return lambda y0: odeint(func, y0, SPAN, engine=engine, **TIGHT)


def decayed(engine: str) -> Callable[[Tensor], Tensor]:
    """``exp(-k)`` by ``k``, a number that the function closes over."""
    one = torch.ones(1, dtype=D)
    return lambda k: odeint(lambda t, y: -k * y, one, SPAN, engine=engine, **TIGHT)[-1, 0]


def test_jacobians(julia: str) -> None:
    solve = solution(julia)
    jacobian = FUNCTIONAL.jacobian(solve, Y0)
    ones = torch.ones_like(Y0)
    found = {
        "jacrev": torch.func.jacrev(solve)(Y0),
        "jacfwd": torch.func.jacfwd(solve)(Y0),
        "vectorize": FUNCTIONAL.jacobian(solve, Y0, vectorize=True),
        "forward mode": FUNCTIONAL.jacobian(solve, Y0, vectorize=True, strategy="forward-mode"),
    }
    for value in found.values():
        torch.testing.assert_close(value, jacobian)
    cotangent = torch.randn(3, 2, dtype=D)
    pulled = torch.einsum("ti,tij->j", cotangent, jacobian)
    torch.testing.assert_close(torch.func.vjp(solve, Y0)[1](cotangent)[0], pulled)
    torch.testing.assert_close(torch.func.jvp(solve, (Y0,), (ones,))[1], jacobian.sum(2))


def test_dual_numbers(julia: str) -> None:
    tangent = torch.tensor([0.3, -1.0], dtype=D)
    expected = FUNCTIONAL.jvp(solution(julia), Y0, tangent)[1]
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(solution(julia)(forward_ad.make_dual(Y0, tangent)))
        torch.testing.assert_close(out.tangent, expected)
        k = forward_ad.make_dual(RATES[0], torch.tensor(1.0, dtype=D))
        out = forward_ad.unpack_dual(decayed(julia)(k))
        torch.testing.assert_close(out.tangent, -torch.exp(-RATES[0]))


def test_hessians(julia: str) -> None:
    def last(y0: Tensor) -> Tensor:
        return solution(julia)(y0)[-1].sum()

    expected = FUNCTIONAL.hessian(last, Y0)
    func = torch.func
    for outer, inner in (
        (func.jacfwd, func.jacrev), (func.jacrev, func.jacrev), (func.jacfwd, func.jacfwd),
        (func.jacrev, func.jacfwd),
    ):  # fmt: skip
        torch.testing.assert_close(outer(inner(last))(Y0), expected, rtol=1e-7, atol=1e-8)


def test_vmap(julia: str) -> None:
    solve = solution(julia)
    many = torch.stack([Y0, 0.5 * Y0, Y0 + 1])

    def last(y0: Tensor) -> Tensor:
        return solve(y0)[-1].sum()

    each: dict[str, tuple[Any, Any]] = {
        "values": (solve, solve),
        "gradients": (torch.func.grad(last), lambda y: FUNCTIONAL.jacobian(last, y)),
        "Hessians": (torch.func.hessian(last), lambda y: FUNCTIONAL.hessian(last, y)),
    }
    for mapped, one in each.values():
        expected = torch.stack([one(y) for y in many])
        torch.testing.assert_close(torch.vmap(mapped)(many), expected, rtol=1e-7, atol=1e-8)
    found = torch.vmap(solve, in_dims=1, out_dims=1)(many.T)
    torch.testing.assert_close(found, torch.stack([solve(y) for y in many], dim=1))


def test_closed_over(julia: str) -> None:
    solve, grad = decayed(julia), torch.func.grad
    torch.testing.assert_close(torch.vmap(solve)(RATES), torch.exp(-RATES))
    torch.testing.assert_close(torch.vmap(grad(solve))(RATES), -torch.exp(-RATES))
    torch.testing.assert_close(torch.vmap(grad(grad(solve)))(RATES), torch.exp(-RATES))
    torch.testing.assert_close(grad(grad(grad(solve)))(RATES[0]), -torch.exp(-RATES[0]))


def test_ensemble_of_networks(julia: str) -> None:
    """Gradients of ``functional_call`` by all parameters of a batch of networks."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).to(D)
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        def func(t: Tensor, y: Tensor) -> Tensor:
            return torch.func.functional_call(net, parameters, (y,))

        return odeint(func, Y0, SPAN, engine=julia, **TIGHT)[-1].sum()

    found = torch.func.grad(loss)(parameters)
    leaves = {name: p.clone().requires_grad_() for name, p in parameters.items()}
    expected = torch.autograd.grad(loss(leaves), list(leaves.values()))
    torch.testing.assert_close(list(found.values()), list(expected))

    both = {name: torch.stack([p, 0.5 * p]) for name, p in parameters.items()}
    second = {name: 0.5 * p for name, p in parameters.items()}
    values = torch.vmap(loss)(both)
    torch.testing.assert_close(values, torch.stack([loss(parameters), loss(second)]))
    grads = torch.vmap(torch.func.grad(loss))(both)
    torch.testing.assert_close({n: g[1] for n, g in grads.items()}, torch.func.grad(loss)(second))


def test_batches_of_gradients(julia: str) -> None:
    y0 = Y0.clone().requires_grad_()
    out, eye = solution(julia)(y0)[-1], torch.eye(2, dtype=D)
    (found,) = torch.autograd.grad(out, y0, eye, is_grads_batched=True)
    torch.testing.assert_close(found, FUNCTIONAL.jacobian(solution(julia), Y0)[-1])


def test_gradcheck(julia: str) -> None:
    y0 = Y0.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        solution(julia), (y0,), check_forward_ad=True, check_batched_grad=True,
        check_batched_forward_grad=True, atol=1e-4,
    )  # fmt: skip


def test_rosenbrock(julia: str) -> None:
    def solve(y0: Tensor) -> Tensor:
        return odeint(lambda t, y: -(y**2), y0, SPAN, method="Rodas5P", engine=julia, **TIGHT)[-1]

    y0 = torch.tensor([1.0], dtype=D)
    # y(1) = y0 / (1 + y0)
    torch.testing.assert_close(torch.func.jacfwd(solve)(y0), torch.full((1, 1), 0.25, dtype=D))
    found = torch.func.hessian(lambda y0: solve(y0).sum())(y0)
    torch.testing.assert_close(found, torch.full((1, 1), -0.25, dtype=D))


def test_numbers_read(julia: str) -> None:
    """Of a batch there is not one number, and a number has no derivative."""
    one = torch.ones(1, dtype=D)

    def solve(k: Tensor) -> Tensor:
        return odeint(lambda t, y: -k.item() * y, one, SPAN, engine=julia)[-1, 0]

    for transform in (torch.func.grad, torch.vmap):
        with pytest.raises((UnsupportedError, RuntimeError), match=r"number|item"):
            transform(solve)(RATES[0] if transform is torch.func.grad else RATES)


def _noise(k: Tensor) -> Any:
    class Noise:
        sde_type, noise_type = "ito", "diagonal"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return -k * y

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return 0.1 * y

    return Noise()


ONE = torch.ones(1, dtype=D)
WITHOUT: dict[str, Callable[[Tensor], Any]] = {
    "daeint": lambda k: daeint(lambda t, y, dy: dy + k * y, ONE, None, SPAN)[-1, 0],
    "ddeint": lambda k: ddeint(lambda t, y, past: -k * past, ONE, SPAN, lags=[0.5])[-1, 0],
    "sdeint": lambda k: sdeint(_noise(k), ONE[None], SPAN, dt=0.1, seed=0)[-1, 0, 0],
    "steady_state": lambda k: steady_state(lambda t, y: 1 - k * y, ONE)[0],
    "odeint_event": lambda k: odeint_event(
        lambda t, y: -k * y, ONE, 0.0, event_fn=lambda t, y: y[0] - 0.5
    )[0],
    "ManifoldProjection": lambda k: odeint(
        lambda t, y: -k * y, ONE, SPAN, callback=ManifoldProjection(lambda t, y: y - 1)
    )[-1, 0],
    "solve_ivp": lambda k: solve_ivp(lambda t, y: -k * y, (0.0, 1.0), [1.0]).y[0, -1],
}


@pytest.mark.parametrize("name", WITHOUT)
def test_without(julia: str, name: str) -> None:
    for transform in (torch.func.grad, torch.vmap):
        with pytest.raises(UnsupportedError):
            transform(WITHOUT[name])(RATES[0] if transform is torch.func.grad else RATES)
    with forward_ad.dual_level(), pytest.raises(UnsupportedError):
        WITHOUT[name](forward_ad.make_dual(RATES[0], torch.tensor(1.0, dtype=D)))
