"""Jacobians of the implicit methods: the pattern from the trace, and the values from Julia."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from patterns import Func, dense, nonzeros, pattern_of
from reference import assert_close
from torch import nn

from pyjlode import odeint
from pyjlode.check import make_problem
from pyjlode.engine import choose_engine
from pyjlode.engine.models import Wanted

D = torch.float64


def diffusion(t: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Reaction and diffusion on a line with reflecting ends; three diagonals."""
    neighbours = torch.cat([u[1:], u[-1:]]) + torch.cat([u[:1], u[:-1]])
    return 30 * (neighbours - 2 * u) + u * (1 - u) + torch.sin(3 * t) * u


def oscillators(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Rows that do not see each other: blocks on the diagonal."""
    x, v = y[:, 0], y[:, 1]
    return torch.stack([v, 5 * (1 - x * x) * v - x], dim=1)


def rotation(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.stack([y[1] * y[2], -y[0] * torch.exp(-t), y[2] ** 2])


NET = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).to(D)


def network(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return NET(y) * (1 + t)


def in_place(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(y)
    out[1:] += y[:-1] ** 2
    out[0] = t * y[-1]
    return out


PLACE = torch.tensor([0])


def put(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """What is left alone keeps what it rests on."""
    return torch.roll(y, 1).index_put((PLACE,), t * y[2:3], accumulate=True)


def scattered(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.roll(y, 1).scatter(0, PLACE, t * y[2:3] ** 2)


def piecewise(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Zero at many states, and still part of the pattern."""
    return torch.relu(y.flip(0) - 1e6) - y


CONV = nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular").to(D)
BLOCK = nn.Sequential(
    nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.Tanh(), nn.ConvTranspose2d(4, 2, 1)
).to(D)


def convolution(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.tanh(CONV(y))


def block(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return BLOCK(y) * t


# Function, state, how many products show the whole Jacobian.
CASES: dict[str, tuple[Func, torch.Tensor, int]] = {
    "diffusion": (diffusion, torch.linspace(0.1, 1.0, 40, dtype=D), 3),
    "diffusion, sparse": (diffusion, torch.linspace(0.1, 1.0, 150, dtype=D), 3),
    "oscillators": (oscillators, torch.linspace(-1, 1, 20, dtype=D).view(10, 2), 2),
    "oscillators, sparse": (oscillators, torch.linspace(-1, 1, 200, dtype=D).view(100, 2), 2),
    "rotation": (rotation, torch.tensor([0.3, -0.5, 0.8], dtype=D), 2),
    "network": (network, torch.linspace(-1, 1, 12, dtype=D).view(4, 3), 3),
    "convolution": (convolution, torch.linspace(-1, 1, 24, dtype=D).view(1, 2, 12), 6),
    "block": (block, torch.linspace(-1, 1, 72, dtype=D).view(1, 2, 6, 6), 18),
    "in place": (in_place, torch.linspace(0.2, 1, 6, dtype=D), 2),
    "put": (put, torch.linspace(0.2, 1, 6, dtype=D), 6),
    "scattered": (scattered, torch.linspace(0.2, 1, 6, dtype=D), 6),
    "piecewise": (piecewise, torch.linspace(0.2, 1, 6, dtype=D), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_pattern(name: str) -> None:
    """It holds all that torch's Jacobian has, and rows of one colour share no column."""
    func, y, products = CASES[name]
    pattern = pattern_of(func, y)
    full = dense(pattern)
    assert not (nonzeros(func, y) & ~full).any()
    for color in np.unique(pattern.colors):
        assert full[pattern.colors == color].sum(axis=0).max() <= 1
    assert len(np.unique(pattern.colors)) == products


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_values(julia: str, name: str, dtype: torch.dtype) -> None:
    func, y, _ = CASES[name]
    if dtype == torch.float32:
        func, y = _in_single(name)
    engine = choose_engine("julia")
    problem, _ = make_problem(func, y, [0.7, 1.0], None, None, None, None, None)
    model = engine.models.get(problem, wanted=Wanted.JACOBIAN)
    model.refresh()
    n = y.numel()
    jacobian, dt = np.zeros(n * n, dtype=y.numpy().dtype), np.zeros(n, dtype=y.numpy().dtype)
    p = torch.cat([x.detach().reshape(-1) for x in model.parameters] or [y.new_zeros(1)])
    engine.module.evaluate_jacobian(
        model.handle, jacobian, dt, y.reshape(-1).numpy(), p.numpy(), 0.7
    )
    t = torch.tensor(0.7, dtype=dtype)
    exact = torch.func.jacrev(lambda x: func(t, x))(y).detach().reshape(n, n)
    tolerance = 1e-13 if dtype == D else 1e-5
    assert_close(torch.from_numpy(jacobian).view(n, n).T, exact, tolerance)
    exact_dt = torch.func.jacfwd(lambda s: func(s, y))(t).detach().reshape(n)
    assert_close(torch.from_numpy(dt), exact_dt, tolerance)


def _in_single(name: str) -> tuple[Func, torch.Tensor]:
    func, y, _ = CASES[name]
    modules = {"network": NET, "convolution": CONV, "block": BLOCK}
    if name not in modules:
        return func, y.float()
    twin = copy.deepcopy(modules[name]).float()
    return {
        "network": lambda t, y: twin(y) * (1 + t),
        "convolution": lambda t, y: torch.tanh(twin(y)),
        "block": lambda t, y: twin(y) * t,
    }[name], y.float()


@pytest.mark.parametrize("method", ["Rodas5P", "FBDF"])
def test_a_sparse_solve_and_its_gradient(julia: str, method: str) -> None:
    """The stiff method's states and gradients on 150 points are Tsit5's at tight tolerances."""
    y0 = CASES["diffusion, sparse"][1].clone().requires_grad_()
    k = torch.tensor(1.3, dtype=D, requires_grad=True)
    found = {}
    for name, tolerance in ((method, 1e-8), ("Tsit5", 1e-10)):
        y = odeint(
            lambda t, u: k * diffusion(t, u), y0, [0.0, 0.1, 0.3],
            method=name, rtol=tolerance, atol=tolerance, engine="julia",
        )  # fmt: skip
        found[name] = (y.detach(), *torch.autograd.grad((y**2).sum(), [y0, k]))
    for ours, reference in zip(found[method], found["Tsit5"], strict=True):
        assert_close(ours, reference, 1e-5)
