"""Fifty steps of training from the same weights, here and with torchdiffeq: the same losses."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

from pyjlode import CNF, NeuralODE

D = torch.float64
TOLERANCES = {"rtol": 1e-4, "atol": 1e-5}


Problem = Callable[["str | None"], "tuple[nn.Module, Callable[[], Tensor]]"]


class Cubic(nn.Module):
    """The field of torchdiffeq's example of a spiral."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 2)).to(D)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y**3)


def spiral(engine: str | None) -> tuple[nn.Module, Callable[[], Tensor]]:
    matrix = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=D)
    y0, t = torch.tensor([[2.0, 0.0]], dtype=D), torch.linspace(0.0, 1.0, 8, dtype=D)
    target = torch.stack([y0 @ torch.matrix_exp(matrix * s) for s in t])
    field = Cubic()
    if engine is not None:
        layer = NeuralODE(field, t, engine=engine, **TOLERANCES)
        return field, lambda: (layer(y0) - target).square().mean()
    return (
        field,
        lambda: (torchdiffeq.odeint(field, y0, t, **TOLERANCES) - target).square().mean(),
    )


class Density(nn.Module):
    """A continuous normalizing flow in torchdiffeq's way: trace by autograd, a tuple as state."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = state[0].requires_grad_()
            dz = self.field(t, z)
            trace = sum(
                torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i] for i in (0, 1)
            )
        return dz, -trace


def flow(engine: str | None) -> tuple[nn.Module, Callable[[], Tensor]]:
    angle = torch.linspace(0.0, 3.1, 40, dtype=D)
    data = torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(40, 2, dtype=D)
    field = Cubic()
    if engine is not None:
        layer = CNF(field, 2, engine=engine, **TOLERANCES)
        return field, lambda: -layer.log_prob(data).mean()
    density, t = Density(field), torch.tensor([0.0, 1.0], dtype=D)

    def loss() -> Tensor:
        z, change = torchdiffeq.odeint(density, (data, data.new_zeros(40)), t, **TOLERANCES)
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(z[-1]).sum(1)
        return -(normal - change[-1]).mean()

    return field, loss


def train(problem: Problem, solver: str | None) -> list[float]:
    torch.manual_seed(3)
    model, loss = problem(solver)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(51):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


@functools.cache
def reference(problem: Problem) -> list[float]:
    return train(problem, None)


@pytest.mark.parametrize("problem", [spiral, flow])
def test_the_losses_are_torchdiffeqs(engine: str, problem: Problem) -> None:
    ours, theirs = train(problem, engine), reference(problem)
    assert ours[-1] < 0.95 * ours[0]
    assert max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True)) < 0.01
