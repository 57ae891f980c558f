"""Sparse matrices in a right-hand side."""

from __future__ import annotations

import math

import pytest
import torch
from patterns import dense, pattern_of
from reference import assert_close
from torch import Tensor, nn

import pyjlode
from pyjlode import Statistics, UnsupportedError, odeint
from pyjlode.engine import choose_engine

D = torch.float64

pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")


def shift(by: int, values: float = 1.0, n: int = 5) -> Tensor:
    i = torch.arange(n)
    return torch.sparse_coo_tensor(torch.stack([i, (i + by) % n]), values * torch.ones(n, dtype=D))


def laplacian(n: int) -> Tensor:
    """On the inner points of a unit interval whose ends are at zero."""
    i = torch.arange(n)
    places = [torch.stack([i, i]), torch.stack([i[1:], i[:-1]]), torch.stack([i[:-1], i[1:]])]
    values = torch.cat([torch.full((n,), -2.0), torch.ones(2 * n - 2)]) * (n + 1) ** 2
    return torch.sparse_coo_tensor(torch.cat(places, 1), values.to(D), (n, n))


class Linear(nn.Module):
    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.matrix @ y


def check(func: Linear) -> None:
    """The solution and its gradient against the exponential of the matrix; no warning is given."""
    y0 = torch.linspace(0.2, 1.0, 5, dtype=D, requires_grad=True)
    y = odeint(func, y0, [0.0, 1.0], rtol=1e-10, atol=1e-10, engine="julia")[-1]
    exact = torch.matrix_exp(func.matrix.detach().to_dense())
    assert_close(y.detach(), exact @ y0.detach(), 1e-8)
    (gradient,) = torch.autograd.grad(y.sum(), y0)
    assert_close(gradient, exact.sum(0), 1e-8)


def test_values_are_those_of_the_solve_and_places_those_of_the_matrix(julia: str) -> None:
    func, models = Linear(shift(1)), choose_engine("julia").models
    check(func)
    before = len(models)
    func.matrix = shift(1, 2.0)
    check(func)
    func.matrix._values().mul_(-0.5)
    check(func)
    assert len(models) == before
    func.matrix = shift(2)
    check(func)
    func.matrix.copy_(shift(3))
    check(func)
    compressed = shift(1).to_sparse_csr()
    func.matrix = compressed
    check(func)
    compressed.copy_(shift(3).to_sparse_csr())
    check(func)
    compressed.values().mul_(-1.0)
    check(func)


def test_elements_at_one_place_are_summed(julia: str) -> None:
    twice = torch.tensor([[0, 0, 4], [1, 1, 2]])
    check(Linear(torch.sparse_coo_tensor(twice, torch.tensor([1.0, 2.0, -1.0], dtype=D), (5, 5))))
    check(Linear(torch.sparse_coo_tensor(torch.zeros(2, 0).long(), torch.ones(0, dtype=D), (5, 5))))


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_pattern(layout: str) -> None:
    matrix = laplacian(30)
    if layout != "coo":
        matrix = matrix.to_sparse_csr() if layout == "csr" else matrix.to_sparse_csc()
    y, expected = torch.rand(30, dtype=D), laplacian(30).to_dense().numpy() != 0
    for func in (
        lambda t, y: matrix @ y + y**2,
        lambda t, y: torch.mv(matrix, y),
        lambda t, y: torch.sparse.mm(matrix, y[:, None])[:, 0],
        lambda t, y: (y[None] @ matrix)[0],
        lambda t, y: y @ matrix,
    ):
        pattern = pattern_of(func, y)
        assert (dense(pattern) == expected).all()
        assert pattern.colors.max() == 2


@pytest.mark.parametrize("method", ["Rodas5P", "FBDF"])
def test_heat_equation(julia: str, method: str) -> None:
    """Its Jacobian is sparse: a step takes three products. With the gradient by a parameter."""
    n, stats = 300, Statistics()
    matrix = laplacian(n)
    rate = torch.tensor(0.1, dtype=D, requires_grad=True)
    x = torch.linspace(0, 1, n + 2, dtype=D)[1:-1]
    y = odeint(
        lambda t, y: rate * (matrix @ y), torch.sin(math.pi * x), [0.0, 1.0], method=method,
        rtol=1e-8, atol=1e-8, stats=stats, engine=julia,
    )[-1]  # fmt: skip
    eigenvalue = -4 * (n + 1) ** 2 * math.sin(math.pi / 2 / (n + 1)) ** 2
    expected = math.exp(0.1 * eigenvalue) * torch.sin(math.pi * x)
    assert_close(y.detach(), expected, 1e-6)
    assert stats.nfe < 1000
    (gradient,) = torch.autograd.grad(y.sum(), rate)
    assert_close(gradient, eigenvalue * expected.sum(), 1e-5)


def test_rows_with_steps_of_their_own(julia: str) -> None:
    matrix, y0 = shift(1), torch.rand(3, 5, dtype=D)
    y = odeint(lambda t, y: y @ matrix, y0, [0.0, 1.0], batch="independent", engine=julia)
    assert_close(y[-1], y0 @ torch.matrix_exp(matrix.to_dense()), 1e-6)


def test_a_matrix_that_requires_a_gradient(julia: str) -> None:
    with (
        pytest.warns(pyjlode.PyjlodeWarning, match="another way than in a product"),
        pytest.raises(UnsupportedError, match="index_add"),
    ):
        odeint(Linear(shift(1).requires_grad_()), torch.ones(5, dtype=D), [0.0, 1.0], engine=julia)


def test_other_uses_run_in_python(julia: str) -> None:
    matrix = shift(1)
    with pytest.warns(pyjlode.PyjlodeWarning, match="sparse"):
        y = odeint(
            lambda t, y: matrix.to_dense() @ y, torch.ones(5, dtype=D), [0.0, 1.0], engine=julia
        )
    assert_close(y[-1], torch.full((5,), math.e, dtype=D), 1e-6)
