"""Steady states: closed forms, and their gradients; where there is none, an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from reference import assert_close
from stiff_problems import PROBLEMS, rober
from torch import Tensor

from pyjlode import ArgumentError, SolverError, Statistics, UnsupportedError, steady_state
from pyjlode.steady_state import METHODS

D = torch.float64


@pytest.mark.parametrize("method", METHODS)
def test_harvest(julia: str, method: str) -> None:
    h = torch.tensor([0.1, 0.2], dtype=D, requires_grad=True)
    y0, stats = torch.ones(3, 2, dtype=D, requires_grad=True), Statistics()
    y = steady_state(lambda t, y: y * (1 - y) - h, y0, method=method, engine="julia", stats=stats)
    exact = (1 + torch.sqrt(1 - 4 * h)) / 2 * torch.ones(3, 1)
    weights = torch.linspace(1, 2, 6, dtype=D).view(3, 2)
    found, expected = (torch.autograd.grad((weights * x).sum(), h)[0] for x in (y, exact))
    assert_close(y.detach(), exact.detach(), 1e-12)
    assert_close(found, expected, 1e-11)
    assert stats.nfe > 0
    assert not y0.requires_grad or y0.grad is None


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_of_equilibrium(julia: str, method: str) -> None:
    """A deep equilibrium model, in tensors apart, against autograd through its iteration."""
    net = torch.nn.Linear(4, 4).to(D)
    with torch.no_grad():
        net.weight.mul_(0.5)
    x = torch.linspace(-1, 1, 12, dtype=D).view(3, 4).requires_grad_()

    def func(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        whole = torch.cat(y, dim=1)
        return torch.split(torch.tanh(net(whole) + x) - whole, [1, 3], dim=1)

    y0 = (torch.zeros(3, 1, dtype=D), torch.zeros(3, 3, dtype=D))
    found = torch.cat(steady_state(func, y0, method=method, engine="julia"), dim=1)
    expected = torch.zeros(3, 4, dtype=D)
    for _ in range(100):
        expected = torch.tanh(net(expected) + x)
    leaves, results = (x, *net.parameters()), []
    for y in (found, expected):
        loss = (torch.linspace(1, 2, 12, dtype=D).view(3, 4) * y + y**2).sum()
        results.append((y.detach(), *torch.autograd.grad(loss, leaves)))
    for a, b in zip(*results, strict=True):
        assert_close(a, b, 1e-10)


@pytest.mark.parametrize("method", ["DynamicSS", "TrustRegion"])
def test_a_sparse_jacobian(julia: str, method: str) -> None:
    """Diffusion between neighbours, a sink and a source: a linear system of 200 equations."""
    n = 200
    d = torch.linspace(1, 3, n - 1, dtype=D).requires_grad_()
    source = torch.linspace(0, 1, n, dtype=D).requires_grad_()

    def func(t: Tensor, y: Tensor) -> Tensor:
        flow = d * (y[1:] - y[:-1])
        zero = torch.zeros(1, dtype=D)
        return torch.cat([flow, zero]) - torch.cat([zero, flow]) - 0.1 * y + source

    y = steady_state(func, torch.zeros(n, dtype=D), method=method, engine="julia")
    matrix = 0.1 * torch.eye(n, dtype=D)
    for i, j, sign in ((0, 0, 1), (1, 1, 1), (0, 1, -1), (1, 0, -1)):
        at = torch.arange(n - 1)
        matrix = matrix.index_put((at + i, at + j), sign * d, accumulate=True)
    exact = torch.linalg.solve(matrix, source)
    assert_close(y.detach(), exact.detach(), 1e-10)
    weights = torch.linspace(1, 2, n, dtype=D)
    found, expected = (torch.autograd.grad((weights * x).sum(), (d, source)) for x in (y, exact))
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, 1e-9)


@pytest.mark.parametrize(
    ("func", "method", "message"),
    [
        (lambda t, y: y**2 + 1, "DynamicSS", "TrustRegion"),
        (lambda t, y: y**2 + 1, "TrustRegion", "DynamicSS"),
        (lambda t, y: torch.stack([y[1], -y[0], -y[2]]), "DynamicSS", "TrustRegion"),  # a circle
        (lambda t, y: rober(PROBLEMS["rober"].rates, y), "DynamicSS", "conserved"),
    ],
)
def test_no_steady_state(
    julia: str, func: Callable[..., Tensor], method: str, message: str
) -> None:
    y0 = torch.tensor([1.0, 0.3, 0.2], dtype=D)
    with pytest.raises(SolverError, match=message):
        steady_state(func, y0, method=method, engine="julia")


def test_refusals(julia: str) -> None:
    y0 = torch.ones(2, dtype=D)
    with pytest.raises(ArgumentError, match="depends on t"):
        steady_state(lambda t, y: torch.cos(t) - y, y0, engine="julia")
    with pytest.raises(ValueError, match="nearest is 'TrustRegion'"):
        steady_state(lambda t, y: -y, y0, method="TrustRegions")
    with pytest.raises(ArgumentError, match="above zero"):
        steady_state(lambda t, y: -y, y0, rtol=0)
    with pytest.raises(UnsupportedError, match="odeint at a late time"):
        steady_state(lambda t, y: -y, y0, engine="torch")
