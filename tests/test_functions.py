"""Torch functions and layers in a right-hand side: value and gradients in Julia against torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchdiffeq
from direct import compare
from functions import CASES
from torch import nn

from pyjlode import PyjlodeWarning, odeint
from pyjlode.errors import SolverError
from pyjlode.trace.capture import trace


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients(julia: str, name: str) -> None:
    shape, make = CASES[name]
    func = make()
    y = 0.3 + torch.rand(shape, dtype=torch.float64)
    errors = compare(func, y)
    assert errors.value < 1e-12
    assert errors.gradients < 1e-10


HISTORIES = {
    # Of the first nothing is saved for the backward pass, so following it twice is no error.
    "sum": lambda k: k + torch.tensor([1.5, 2.0], dtype=torch.float64),
    "product": lambda k: k * torch.tensor([1.5, 2.0], dtype=torch.float64),
    "view": lambda k: k.expand(2),
    "itself": lambda k: torch.cat([k.exp(), k.sin()]),
}


@pytest.mark.filterwarnings("ignore::pyjlode.PyjlodeWarning")
@pytest.mark.parametrize("branch", [False, True])
@pytest.mark.parametrize("method", ["Tsit5", "Rodas5P"])
@pytest.mark.parametrize("name", HISTORIES)
def test_tensors_with_a_history(julia: str, name: str, method: str, branch: bool) -> None:
    """What was computed from a parameter that the function uses too: each has its own gradient."""

    def gradients(solve: Callable[..., torch.Tensor], **options: object) -> list[torch.Tensor]:
        k = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
        y0 = torch.tensor([1.0, 0.5], dtype=torch.float64, requires_grad=True)
        computed = HISTORIES[name](k)

        def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            if branch and float(y.detach().sum()) > 1e9:
                return y
            return -k * y + computed * torch.sin(t) - computed.sum() * y**3

        y = solve(func, y0, torch.tensor([0.0, 0.5, 1.0]), rtol=1e-9, atol=1e-9, **options)
        return list(torch.autograd.grad(y[1:].pow(2).sum(), [k, y0]))

    found = gradients(odeint, engine="julia", method=method)
    for g, e in zip(found, gradients(torchdiffeq.odeint), strict=True):
        assert torch.allclose(g, e, rtol=1e-6), (g, e)


def test_a_tensor_with_a_history_is_the_derivative(julia: str) -> None:
    k = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    rate = k * torch.tensor([1.5, 2.0], dtype=torch.float64)
    y = odeint(lambda t, y: rate, torch.zeros(2).double(), torch.tensor([0.0, 2.0]), engine="julia")
    (gradient,) = torch.autograd.grad(y[-1].sum(), [k])
    assert torch.allclose(gradient, torch.tensor([7.0]).double())


def test_a_trace_leaves_what_it_reads_alone() -> None:
    """To torch, what was written to since a product was saved has no derivative any more."""
    c, w = torch.tensor([2.0, 3.0]), torch.ones(2, requires_grad=True)
    product = (w * c).sum()
    trace(lambda t, y: -c[0] * y @ torch.outer(c, c).T, torch.ones(2), derivatives=True)
    assert c._version == 0
    product.backward()
    assert torch.equal(w.grad, c)


def test_compiled_modules_run_as_they_were_written(julia: str) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh()).double()
    compiled = torch.compile(net)
    errors = compare(lambda t, y: compiled(y), torch.rand(4, 3, dtype=torch.float64))
    assert errors.value < 1e-12 and errors.gradients < 1e-10


def test_single_precision(julia: str) -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU())
    net.append(nn.Conv2d(4, 2, 3, padding=1))

    def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft(torch.fft.rfft(net(y)), n=6)

    errors = compare(func, torch.rand(2, 2, 6, 6))
    assert errors.value < 1e-5 and errors.gradients < 1e-4


@pytest.mark.parametrize(
    "func",
    [
        lambda t, y: torch.linalg.solve(y.new_ones(2, 2) * y.sum() * 0.0, y),
        lambda t, y: torch.linalg.inv(torch.outer(y, y) * 0.0) @ y,
        lambda t, y: torch.linalg.cholesky(-torch.outer(y, y)) @ y,
    ],
)
@pytest.mark.filterwarnings("ignore::pyjlode.PyjlodeWarning")
def test_singular_matrices_are_errors(julia: str, func: object) -> None:
    y0 = torch.ones(2, dtype=torch.float64)
    with pytest.raises((SolverError, torch.linalg.LinAlgError)):
        odeint(func, y0, torch.tensor([0.0, 1.0]), engine="julia")


class TestDropout:
    def setup_method(self) -> None:
        self.rate = torch.ones(50, dtype=torch.float64, requires_grad=True)
        self.y0 = torch.ones(50, dtype=torch.float64)
        self.t = torch.tensor([0.0, 1.0])

    def func(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(-self.rate * y, 0.5)

    def solve(self) -> torch.Tensor:
        return odeint(self.func, self.y0, self.t, engine="julia")[-1]

    def test_one_mask_a_solve(self, julia: str) -> None:
        out = self.solve()
        kept = torch.exp(torch.tensor(-2.0, dtype=torch.float64))
        dropped = out == 1
        assert 5 < int(dropped.sum()) < 45
        assert torch.allclose(out[~dropped], kept, rtol=1e-6)

    def test_each_solve_draws_anew_and_a_seed_repeats(self, julia: str) -> None:
        self.solve()
        torch.manual_seed(5)
        first, second = self.solve(), self.solve()
        torch.manual_seed(5)
        assert torch.equal(first, self.solve())
        assert not torch.equal(first, second)
        torch.manual_seed(5)
        mask = nn.functional.dropout(torch.ones(50, dtype=torch.float64), 0.5)
        assert torch.equal(first == 1, mask == 0)

    def test_the_gradient_has_the_mask_of_its_solve(self, julia: str) -> None:
        out = self.solve()
        self.solve()  # another mask in between
        (gradient,) = torch.autograd.grad(out.sum(), self.rate)
        expected = torch.where(out == 1, 0.0, -2 * out.detach())
        assert torch.allclose(gradient, expected, rtol=1e-5)

    def test_noise_that_depends_on_the_state_is_not_traced(self, julia: str) -> None:
        with pytest.warns(PyjlodeWarning, match="distribution"):
            odeint(
                lambda t, y: -y * torch.bernoulli(y.sigmoid() * 0 + 1),
                self.y0,
                self.t,
                engine="julia",
            )


class TestRunningStatistics:
    def test_are_updated_once_for_each_saved_state(self, julia: str) -> None:
        norm, y0 = nn.BatchNorm1d(3).double(), torch.rand(6, 3, dtype=torch.float64)
        twin = nn.BatchNorm1d(3).double()
        t = torch.tensor([0.0, 0.5, 1.0])
        for solves in (1, 2):
            with torch.no_grad():
                states = odeint(lambda t, y: norm(y) - y, y0, t, engine="julia")
            for y in states:
                twin(y)
            assert int(norm.num_batches_tracked) == 3 * solves
            assert torch.allclose(norm.running_mean, twin.running_mean)
            assert torch.allclose(norm.running_var, twin.running_var)

    def test_do_not_change_in_eval_mode(self, julia: str) -> None:
        norm, y0 = nn.BatchNorm1d(3).double().eval(), torch.rand(6, 3, dtype=torch.float64)
        odeint(lambda t, y: norm(y) - y, y0, torch.tensor([0.0, 1.0]), engine="julia")
        assert int(norm.num_batches_tracked) == 0
        assert not norm.running_mean.any()

    def test_a_buffer_that_the_result_reads_is_not_dropped(self, julia: str) -> None:
        count = torch.zeros((), dtype=torch.float64)

        def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            count.add_(1.0)
            return -y / (1 + 1e-9 * count)

        with pytest.warns(PyjlodeWarning, match="in place"):
            odeint(func, torch.ones(2, dtype=torch.float64), torch.tensor([0.0, 1.0]))
