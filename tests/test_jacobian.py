"""Jacobians of the implicit methods: the pattern from the trace, and the values from Julia."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
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
    "put": (put, torch.linspace(0.2, 1, 6, dtype=D), 3),
    "scattered": (scattered, torch.linspace(0.2, 1, 6, dtype=D), 3),
    "piecewise": (piecewise, torch.linspace(0.2, 1, 6, dtype=D), 2),
}


N = 12
INDEX = torch.tensor([(3 * i + 1) % N for i in range(N)])
MASK = torch.arange(N) % 3 == 0
EDGES = torch.stack([torch.arange(N - 1), torch.arange(1, N)])
UPWIND = torch.diag(torch.ones(N - 1, dtype=D), 1) - torch.eye(N, dtype=D)


def on_edges(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A graph's Laplacian, as message passing has it."""
    flow = y[EDGES[0]] - y[EDGES[1]]
    return torch.zeros_like(y).index_add(0, EDGES[1], flow).index_add(0, EDGES[0], -flow)


def masked(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(y)
    out[MASK] = y[MASK] ** 2
    return out


def rearranged(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """An index that is written into before it is read."""
    index = INDEX + 0
    index[0] = 5
    return y[index] ** 2


def _padded(mode: str) -> Func:
    def neighbours(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        wide = F.pad(y[None, None], (1, 1), mode=mode)[0, 0]
        return wide[2:] * wide[:-2]

    return neighbours


def _on_grid(mode: str) -> Func:
    def neighbours(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        wide = F.pad(y.view(1, 1, 3, 4), (1, 1, 1, 1), mode=mode)[0, 0]
        return (wide[2:, 1:-1] + wide[1:-1, :-2]).reshape(-1)

    return neighbours


# Of a state of 12; constant indices and matrices, whose pattern is known to the element.
EXACT: dict[str, Func] = {
    "roll": lambda t, y: y.roll(1) - y,
    "roll, two dimensions": lambda t, y: y.view(3, 4).roll((1, 1), (0, 1)).reshape(-1) ** 2,
    "index": lambda t, y: y[INDEX] ** 2,
    "negative index": lambda t, y: y[INDEX - N] ** 2,
    "computed index": lambda t, y: y[(INDEX + 1) % N] ** 2,
    "list": lambda t, y: y[[5, *range(11)]] ** 2,
    "two indices": lambda t, y: y.view(3, 4)[INDEX // 4, INDEX % 4] ** 2,
    "columns": lambda t, y: y.view(3, 4)[:, torch.tensor([1, 2, 3, 0])].reshape(-1) ** 2,
    "index_select": lambda t, y: y.index_select(0, INDEX) ** 2,
    "gather": lambda t, y: y.gather(0, INDEX) ** 2,
    "gather, rows": lambda t, y: y.view(3, 4).gather(1, INDEX.view(3, 4) % 4).reshape(-1) ** 2,
    "take": lambda t, y: y.take(INDEX) ** 2,
    "index_add": lambda t, y: torch.zeros_like(y).index_add(0, INDEX, y**2),
    "scatter": lambda t, y: torch.zeros_like(y).scatter(0, INDEX, y**2),
    "scatter_add": lambda t, y: torch.zeros_like(y).scatter_add(0, INDEX, y**2),
    "scatter_reduce": lambda t, y: torch.ones_like(y).scatter_reduce(0, INDEX, y, "prod"),
    "index_put": lambda t, y: y.index_put((INDEX,), y**2),
    "edges": on_edges,
    "mask": masked,
    "reflect": _padded("reflect"),
    "replicate": _padded("replicate"),
    "reflect, grid": _on_grid("reflect"),
    "replicate, grid": _on_grid("replicate"),
    "matrix": lambda t, y: UPWIND @ y**2,
    "matrix on the right": lambda t, y: y @ UPWIND,
    "batch of matrices": lambda t, y: torch.bmm(UPWIND[None], y[None, :, None])[0, :, 0],
    "linear": lambda t, y: F.linear(y, UPWIND),
    "einsum": lambda t, y: torch.einsum("ij,j->i", UPWIND, y),
    "product and sum": lambda t, y: (UPWIND * y).sum(1),
    "small matrix": lambda t, y: (y.view(3, 4) @ torch.eye(4, dtype=D).roll(1, 0)).reshape(-1),
    "avg_pool1d": lambda t, y: F.avg_pool1d(y[None, None], 3, 1, 1)[0, 0],
    "avg_pool2d": lambda t, y: F.avg_pool2d(y.view(1, 1, 3, 4), 3, 1, 1).reshape(-1),
    "interpolate": lambda t, y: F.interpolate(
        y[None, None, ::2], size=N, mode="linear", align_corners=True
    )[0, 0],
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_pattern(name: str) -> None:
    y = torch.linspace(0.3, 1, N, dtype=D)
    found, expected = dense(pattern_of(EXACT[name], y)), nonzeros(EXACT[name], y)
    np.fill_diagonal(expected, True)
    # What is overwritten may still have been there.
    more = np.eye(N, dtype=bool) if name == "index_put" else found & ~found
    assert (found | more == expected | more).all()


def test_what_is_written_into_is_not_known() -> None:
    y = torch.linspace(0.3, 1, N, dtype=D)
    matrix = torch.zeros(N, N, dtype=D)

    def filled(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return matrix.index_put((INDEX[:2], INDEX[1:3]), torch.ones(2, dtype=D)) @ y

    for func in (rearranged, filled):
        assert not (nonzeros(func, y) & ~dense(pattern_of(func, y))).any()


def test_indices_and_zeros_that_change(julia: str) -> None:
    """They are read at each solve; what changes again and again has one model for all."""
    models = choose_engine(julia).models
    y0 = torch.linspace(0.3, 1, N, dtype=D)
    index, matrix = INDEX, UPWIND

    def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return matrix @ y[index]

    counts = []
    for step in range(8):
        index = torch.roll(INDEX, step)
        matrix = (1 + step) * torch.roll(UPWIND, step % 2, 0)
        found = odeint(func, y0, [0.0, 0.3], method="Rodas5P", engine=julia)
        expected = odeint(func, y0, [0.0, 0.3], engine="torch")
        assert_close(found, expected, 1e-5)
        counts.append(len(models))
    assert counts[-1] == counts[3]
    matrix = 2 * matrix  # zero where it was
    odeint(func, y0, [0.0, 0.3], method="Rodas5P", engine=julia)
    assert len(models) == counts[-1]


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
