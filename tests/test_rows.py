"""Functions that are computed for blocks of the batch's rows, and those that must not be."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from reference import Func, assert_close, gradients
from torch import Tensor, nn
from translated import compare

from pyjlode import odeint, runtime
from pyjlode.trace.capture import trace
from pyjlode.translate import ModelSource, translate

D = torch.float64


def source(func: Func, y: Tensor) -> ModelSource:
    return translate(trace(func, y, derivatives=True))


def module(net: nn.Module) -> tuple[Func, list[Tensor]]:
    net = net.double()
    return lambda t, y: net(y), list(net.parameters())


def mlp() -> tuple[Func, list[Tensor]]:
    """Products with both factors small, and with both large; a sum over rows of each."""
    return module(
        nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Linear(20, 17), nn.SiLU(), nn.Linear(17, 3))
    )


def with_time() -> tuple[Func, list[Tensor]]:
    net = nn.Linear(4, 3).double()
    return lambda t, y: net(torch.cat([y.sin(), t.expand(*y.shape[:-1], 1)], -1)), [
        *net.parameters()
    ]


def weight_as_wide_as_the_batch() -> tuple[Func, list[Tensor]]:
    """What has a row for each of the batch's by its shape, and what has none."""
    w = torch.randn(17, 17, dtype=D, requires_grad=True)
    return lambda t, y: torch.tanh(y @ w[:3, :17] @ w)[:, :3], [w]


def context() -> tuple[Func, list[Tensor]]:
    """A tensor with a part for each row that needs a gradient, and one that needs none."""
    own, other = (torch.randn(17, 2, dtype=D) for _ in range(2))
    net = nn.Linear(7, 3).double()
    own.requires_grad_()
    return lambda t, y: net(torch.cat([y, own, other], -1)), [own, *net.parameters()]


def matrices() -> tuple[Func, list[Tensor]]:
    """A matrix for each row."""
    a = torch.randn(17, 3, 3, dtype=D, requires_grad=True)
    return lambda t, y: torch.einsum("bij,bj->bi", a, y.cos()), [a]


def row_reductions() -> tuple[Func, list[Tensor]]:
    scale = torch.tensor(0.7, dtype=D, requires_grad=True)
    return lambda t, y: y.softmax(-1) * scale - y / (1 + y.norm(dim=-1, keepdim=True)), [scale]


def tokens() -> tuple[Func, list[Tensor]]:
    """Several lines to a row, and a product of every row's own matrices."""
    net = nn.Linear(3, 3).double()
    return lambda t, y: net(y) @ y.transpose(1, 2) @ y, list(net.parameters())


def images() -> tuple[Func, list[Tensor]]:
    """Convolutions there and back, of groups too, and a weight's gradient that is a sum."""
    net = nn.Sequential(
        nn.Conv1d(4, 6, 2, padding=1), nn.Tanh(), nn.Conv1d(6, 8, 3, stride=2, groups=2, padding=2),
        nn.Sigmoid(), nn.ConvTranspose1d(8, 4, 1, dilation=2, padding=0), nn.GroupNorm(2, 4),
    ).double()  # fmt: skip
    return lambda t, y: net(y) * t, list(net.parameters())


def images_of_tokens() -> tuple[Func, list[Tensor]]:
    """Several images to a row."""
    net = nn.Conv2d(1, 1, 3, padding=1).double()
    return lambda t, y: net(y.reshape(-1, 1, 2, 3)).view_as(y).cos(), list(net.parameters())


def transposed() -> tuple[Func, list[Tensor]]:
    """The rows in a dimension that is not the first."""
    w = torch.randn(3, 3, dtype=D, requires_grad=True)
    return lambda t, y: torch.tanh(w @ y.T).T.flip(-1) * y, [w]


def in_place() -> tuple[Func, list[Tensor]]:
    w = torch.randn(3, dtype=D, requires_grad=True)

    def func(t: Tensor, y: Tensor) -> Tensor:
        out = torch.zeros_like(y)
        out[:, 0] = y[:, 1] * w[0]
        out[:, 2] = y[:, 0].sin() * t
        return out

    return func, [w]


def shared_work() -> tuple[Func, list[Tensor]]:
    """Weights that are computed, whose gradient is made of sums over rows."""
    w = torch.randn(3, 3, dtype=D, requires_grad=True)
    return lambda t, y: y @ (w / w.norm() * torch.cos(t)), [w]


def constant() -> tuple[Func, list[Tensor]]:
    w = torch.randn(3, dtype=D, requires_grad=True)
    return lambda t, y: (w * t).expand_as(y), [w]


BY_ROWS = {
    f.__name__: f
    for f in (
        mlp, with_time, weight_as_wide_as_the_batch, context, matrices, row_reductions, tokens,
        images, images_of_tokens, transposed, in_place, shared_work, constant,
    )
}  # fmt: skip


def mean() -> tuple[Func, list[Tensor]]:
    return lambda t, y: y - y.mean(0), []


def norm() -> tuple[Func, list[Tensor]]:
    return lambda t, y: y / (1 + y.norm()), []


def softmax() -> tuple[Func, list[Tensor]]:
    return lambda t, y: y.softmax(0), []


def batch_norm() -> tuple[Func, list[Tensor]]:
    return module(nn.BatchNorm1d(3, track_running_stats=False))


def between_rows() -> tuple[Func, list[Tensor]]:
    return lambda t, y: y.roll(1, 0) - y, []


def first_row() -> tuple[Func, list[Tensor]]:
    return lambda t, y: y - y[0], []


def half() -> tuple[Func, list[Tensor]]:
    return lambda t, y: torch.cat([y[1:], y[:1]]), []


def gram() -> tuple[Func, list[Tensor]]:
    return lambda t, y: -y @ (y.T @ y) / 17, []


def attention() -> tuple[Func, list[Tensor]]:
    return lambda t, y: (y @ y.T).softmax(-1) @ y, []


def mixing() -> tuple[Func, list[Tensor]]:
    w = torch.randn(17, 17, dtype=D, requires_grad=True)
    return lambda t, y: w @ y, [w]


MIXED = {
    f.__name__: f
    for f in (
        mean, norm, softmax, batch_norm, between_rows, first_row, half, gram, attention, mixing
    )
}  # fmt: skip


def _state(name: str) -> Tensor:
    """A batch that is no multiple of what is computed at a time."""
    wide = name in ("tokens", "images", "images_of_tokens")
    return torch.randn(17, 4, 3, dtype=D) if wide else torch.randn(17, 3, dtype=D)


@pytest.mark.parametrize("name", BY_ROWS)
def test_rows_apart(name: str) -> None:
    func, _ = BY_ROWS[name]()
    rows = source(func, _state(name)).rows
    assert rows is not None
    assert (rows.batch, rows.block) == (17, 24)


@pytest.mark.parametrize("name", MIXED)
def test_rows_together(name: str) -> None:
    func, _ = MIXED[name]()
    assert source(func, _state(name)).rows is None


def test_few_rows_are_computed_as_one() -> None:
    assert source(lambda t, y: -y, torch.zeros(3, 2)).rows is None


def test_wide_rows_are_computed_few_at_a_time() -> None:
    net = nn.Sequential(nn.Linear(4, 2000), nn.Tanh(), nn.Linear(2000, 4))
    rows = source(lambda t, y: net(y), torch.zeros(256, 4)).rows
    assert rows is not None
    assert rows.block == 16


@pytest.mark.parametrize("name", [*BY_ROWS, *MIXED])
def test_products(julia: str, name: str) -> None:
    """Value and vector-Jacobian products by every input, in one block."""
    func, tensors = {**BY_ROWS, **MIXED}[name]()
    compare(func, 0.3, _state(name), tensors, 1e-11)


@pytest.mark.parametrize("dtype", [D, torch.float32])
@pytest.mark.parametrize("batch", [8, 64, 65, 200])
def test_blocks(julia: str, batch: int, dtype: torch.dtype) -> None:
    """Whole blocks, parts of one, and sums over several."""
    net = nn.Sequential(nn.Linear(2, 33), nn.GELU(), nn.Linear(33, 33), nn.Tanh(), nn.Linear(33, 2))
    net = net.to(dtype)
    tolerance = 1e-12 if dtype is D else 2e-5
    y = torch.randn(batch, 2, dtype=dtype)
    compare(lambda t, y: net(y**3) * t, 0.3, y, list(net.parameters()), tolerance)


def _rk4(func: Func, y0: Tensor, t: Tensor) -> Tensor:
    states = [y0]
    for start, end in itertools.pairwise(t):
        h, y = end - start, states[-1]
        k1 = func(start, y)
        k2 = func(start + h / 2, y + h / 2 * k1)
        k3 = func(start + h / 2, y + h / 2 * k2)
        k4 = func(end, y + h * k3)
        states.append(y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    return torch.stack(states)


@contextmanager
def _threads_from(operations: int) -> Iterator[None]:
    """From how many operations on Julia uses threads."""
    evaluate = runtime.start().module.seval
    names = ("THREADED_CALL[]", "THREADED_SWEEP[]")
    before = [int(evaluate(name)) for name in names]
    try:
        for name in names:
            evaluate(f"{name} = {operations}")
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            evaluate(f"{name} = {value}")


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("name", [*BY_ROWS, *MIXED])
def test_discrete_adjoint(julia: str, name: str, threaded: bool) -> None:
    """All gradients through steps of the same lengths; with threads, as if they were worth it."""
    func, tensors = {**BY_ROWS, **MIXED}[name]()
    y0, t = 0.3 * _state(name), torch.linspace(0, 1, 5, dtype=D)

    def solve(y: Tensor, s: Tensor) -> Tensor:
        return odeint(func, y, s, engine="julia", method="RK4", options={"step_size": 10.0})

    with _threads_from(0 if threaded else 10**15):
        states, found = gradients(solve, y0, t, tensors)
    expected_states, expected = gradients(lambda y, s: _rk4(func, y, s), y0, t, tensors)
    assert_close(states, expected_states, 1e-12, "states")
    for i, (g, e) in enumerate(zip(found, expected, strict=True)):
        assert_close(g, e, 1e-11, f"gradient {i}")


@pytest.mark.parametrize("sensealg", ["gauss", "interpolating", "backsolve", "quadrature"])
def test_other_adjoints(julia: str, sensealg: str) -> None:
    func, tensors = mlp()
    y0, t = torch.randn(40, 3, dtype=D), torch.linspace(0, 1, 4, dtype=D)
    options = {"engine": "julia", "rtol": 1e-10, "atol": 1e-10}
    solve: Callable = lambda how: gradients(  # noqa: E731
        lambda y, s: odeint(func, y, s, sensealg=how, **options), y0, t, tensors
    )
    expected = solve("discrete")[1]
    for i, (g, e) in enumerate(zip(solve(sensealg)[1], expected, strict=True)):
        assert_close(g, e, 1e-6, f"gradient {i}")


_SOLVE = """
import hashlib, torch
from pyjlode import odeint, runtime
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(3, 40), torch.nn.Tanh(), torch.nn.Linear(40, 3)).double()
y0 = torch.randn(1000, 3, dtype=torch.float64, requires_grad=True)
t = torch.linspace(0, 1, 4, dtype=torch.float64)
y = odeint(lambda t, y: net(y), y0, t, engine="julia")
y.pow(2).sum().backward()
numbers = [y, y0.grad, *(p.grad for p in net.parameters())]
print(hashlib.sha256(b"".join(x.detach().numpy().tobytes() for x in numbers)).hexdigest())
print(runtime.start().main.seval("Threads.nthreads()"))
"""


def test_the_same_with_any_number_of_threads(julia: str) -> None:
    """To the last bit: the parts of a batch do not depend on it."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _SOLVE],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHON_JULIACALL_THREADS": threads,
                 "PYTHON_JULIACALL_HANDLE_SIGNALS": signals},
        )
        for threads, signals in (("1", "no"), ("2", "yes"))
    ]  # fmt: skip
    (alone, alone_errors), (together, errors) = [p.communicate() for p in processes]
    assert [p.returncode for p in processes] == [0, 0], alone_errors + errors
    digest, count = alone.split()
    assert count == "1"
    assert together.split() == [digest, "2"]
