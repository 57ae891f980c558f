"""Jump processes, against closed forms: bounds are five standard errors of what is measured."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pyjlode import (
    ArgumentError,
    PyjlodeWarning,
    SolverError,
    UnsupportedError,
    jumpint,
    runtime,
)

D = torch.float64
#: Standard errors by which a right process may be off: one number in two million is by more.
Z = 5.0


def near_mean(y: Tensor, mean: float, variance: float) -> None:
    """The mean of independent values, and their variance, whose fourth moment is estimated."""
    count = len(y)
    assert abs(float(y.mean()) - mean) < Z * math.sqrt(variance / count)
    off = (y - mean) ** 2
    assert abs(float(off.mean()) - variance) < Z * float(off.std()) / math.sqrt(count)


def birth_death(t: Tensor, y: Tensor) -> Tensor:
    return torch.cat([torch.full_like(y, 6.0), 0.5 * y], dim=-1)


UP_DOWN = torch.tensor([[1.0], [-1.0]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_poisson_process(julia: str, dtype: torch.dtype) -> None:
    y0 = torch.zeros(4000, 1, dtype=dtype)
    y = jumpint(
        lambda t, y: 3.0 * torch.ones_like(y), torch.tensor([[2]]), y0, [0.5, 1.0, 2.5], seed=1
    )
    assert y.shape == (3, 4000, 1) and y.dtype == dtype
    assert (y[0] == 0).all() and (y.diff(dim=0) >= 0).all() and (y % 2 == 0).all()
    near_mean(y[1, :, 0].double() / 2, 1.5, 1.5)
    near_mean(y[2, :, 0].double() / 2, 6.0, 6.0)
    # Increments are independent.
    first, second = y[1, :, 0].double(), (y[2] - y[1])[:, 0].double()
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < Z / math.sqrt(4000)


@pytest.mark.parametrize("method", ["Direct", "FRM", "NRM"])
def test_births_and_deaths(julia: str, method: str) -> None:
    """Poisson with mean 12 (1 - exp(-t/2)) from zero; each probability beside the closed form."""
    count = 4000
    y0 = torch.zeros(count, 1, dtype=D)
    y = jumpint(birth_death, UP_DOWN, y0, [0.0, 1.0, 40.0], method=method, seed=2)
    for state, t in ((y[1, :, 0], 1.0), (y[2, :, 0], 40.0)):
        mean = 12 * (1 - math.exp(-0.5 * t))
        near_mean(state, mean, mean)
        for k in range(25):
            p = math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))
            if p * count > 20:
                found = float((state == k).double().mean())
                assert abs(found - p) < Z * math.sqrt(p * (1 - p) / count), k


def test_kinds_of_jumps_by_their_rates(julia: str) -> None:
    """Three reactions of one molecule with rates 1, 2 and 5: which comes first."""
    rates = torch.tensor([1.0, 0.0, 2.0, 5.0], dtype=D)
    change = torch.eye(5, dtype=D)[1:].clone()
    change[:, 0] = -1
    y0 = torch.tensor([1.0, 0, 0, 0, 0], dtype=D).repeat(4000, 1)
    for func in (None, lambda t, y: 0 * y):  # also by the solver between jumps
        y = jumpint(lambda t, y: y[..., :1] * rates, change, y0, [0.0, 100.0], func=func, seed=3)
        assert (y[-1].sum(1) == 1).all()
        for kind, p in enumerate(rates / rates.sum()):
            found = float(y[-1, :, kind + 1].mean())
            assert abs(found - float(p)) <= Z * math.sqrt(float(p * (1 - p)) / 4000)


def test_a_rate_that_depends_on_time(julia: str) -> None:
    """From a start that is not zero; the mean and the variance are the rate's integral."""

    def rate(t: Tensor, y: Tensor) -> Tensor:
        return 4 * (1 + torch.sin(3 * t)) + 0 * y

    def integral(a: float, b: float) -> float:
        return 4 * (b - a) - 4 / 3 * (math.cos(3 * b) - math.cos(3 * a))

    y0 = torch.zeros(3000, 1, dtype=D)
    times = [2.0, 2.7, 4.5]
    y = jumpint(rate, torch.ones(1, 1), y0, times, seed=4)[..., 0]
    for a, b, increment in zip(times, times[1:], y.diff(dim=0), strict=False):
        near_mean(increment, integral(a, b), integral(a, b))


def test_a_rate_that_is_switched_on(julia: str) -> None:
    """Its derivative with respect to time is zero."""
    y = jumpint(
        lambda t, y: torch.where(t > 1.0, 3.0, 0.5) * torch.ones_like(y), torch.ones(1, 1),
        torch.zeros(3000, 1, dtype=D), [0.0, 1.0, 2.0], seed=5,
    )[..., 0]  # fmt: skip
    near_mean(y[1], 0.5, 0.5)
    near_mean(y[2] - y[1], 3.0, 3.0)


def test_shot_noise(julia: str) -> None:
    """``y' = -a y`` with shots of ``h`` at rate ``r``: Campbell's formulas."""
    a, r, h = 1.5, 4.0, 0.7
    y = jumpint(
        lambda t, y: r * torch.ones_like(y), torch.tensor([[h]]), torch.ones(3000, 1, dtype=D),
        [0.0, 0.8, 3.0], func=lambda t, y: -a * y, seed=6,
    )[..., 0]  # fmt: skip
    for state, t in ((y[1], 0.8), (y[2], 3.0)):
        mean = math.exp(-a * t) + r * h / a * (1 - math.exp(-a * t))
        near_mean(state, mean, r * h**2 / (2 * a) * (1 - math.exp(-2 * a * t)))


def test_a_rate_that_follows_the_state_between_jumps(julia: str) -> None:
    """``y' = y``, halted by its first jump, of rate ``y``: ``P(no jump) = exp(1 - exp(t))``."""
    y0 = torch.tensor([1.0, 1.0], dtype=D).repeat(3000, 1)  # a number, and whether it still grows

    def rate(t: Tensor, y: Tensor) -> Tensor:
        return y[..., :1] * y[..., 1:]

    def grow(t: Tensor, y: Tensor) -> Tensor:
        return torch.cat([y[..., :1] * y[..., 1:], 0 * y[..., 1:]], dim=-1)

    times = torch.linspace(0, 1.5, 4, dtype=D)
    y = jumpint(rate, torch.tensor([[0.0, -1.0]]), y0, times, func=grow, seed=7)
    for state, t in zip(y[1:], times[1:].tolist(), strict=True):
        p = math.exp(1 - math.exp(t))
        going = state[:, 1] > 0.5
        assert abs(float(going.double().mean()) - p) < Z * math.sqrt(p * (1 - p) / 3000)
        grown = torch.full_like(state[going, 0], math.exp(t))
        torch.testing.assert_close(state[going, 0], grown, rtol=1e-5, atol=0)
    # The time of a jump is the logarithm of the number then; its distribution in closed form.
    stopped = y[-1, y[-1, :, 1] < 0.5, 0].log().sort().values
    exact = (1 - (1 - stopped.exp()).exp()) / (1 - math.exp(1 - math.exp(1.5)))
    steps = torch.arange(1, len(stopped) + 1, dtype=D) / len(stopped)
    assert float((exact - steps).abs().max()) < 2.5 / math.sqrt(len(stopped))  # Kolmogorov: 1e-5


@pytest.mark.parametrize("func", [None, lambda t, y: -0.3 * y])
def test_seeds(julia: str, func: Any) -> None:
    y0 = torch.full((40, 1), 5.0, dtype=D)
    t = torch.linspace(0, 3, 6, dtype=D)

    def solve(y0: Tensor, seed: int | None) -> Tensor:
        return jumpint(birth_death, UP_DOWN, y0, t, func=func, seed=seed)

    y = solve(y0, 11)
    torch.testing.assert_close(solve(y0, 11), y, rtol=0, atol=0)
    assert not torch.equal(solve(y0, 12), y)
    assert len(y.transpose(0, 1).unique(dim=0)) == 40
    # A row is what it is alone, whatever the batch.
    torch.testing.assert_close(solve(y0[:7], 11), y[:, :7], rtol=0, atol=0)
    torch.testing.assert_close(solve(y0[0], 11), y[:, 0], rtol=0, atol=0)
    torch.manual_seed(3)
    drawn = solve(y0, None)
    torch.manual_seed(3)
    torch.testing.assert_close(solve(y0, None), drawn, rtol=0, atol=0)
    workers = runtime.start().main.seval("n -> (Pyjlode.WORKERS[] = n)")
    workers(1)  # as many as there are threads, else
    try:
        torch.testing.assert_close(solve(y0, 11), y, rtol=0, atol=0)
    finally:
        workers(0)


def test_rows_are_independent(julia: str) -> None:
    y = jumpint(birth_death, UP_DOWN, torch.zeros(4000, 1, dtype=D), [0.0, 2.0], seed=8)[-1, :, 0]
    for lag in (1, 2, 7):
        pair = torch.stack([y[lag:], y[:-lag]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < Z / math.sqrt(4000)


def test_a_function_that_stays_in_python(julia: str) -> None:
    """In callback mode there is no trace to say whether time counts: it is solved as if it did."""

    def rate(t: Tensor, y: Tensor) -> Tensor:
        return torch.full_like(y, 2.0 if float(y.detach().max()) < 1e6 else 0.0)

    with pytest.warns(PyjlodeWarning, match="callback mode"):
        y = jumpint(rate, torch.ones(1, 1), torch.zeros(60, 1, dtype=D), [0.0, 1.0], seed=9)
    near_mean(y[-1, :, 0], 2.0, 2.0)


def test_bad_rates_are_errors(julia: str) -> None:
    y0 = torch.tensor([[3.0], [2.0], [3.0]], dtype=D)
    down = torch.tensor([[-1.0]])

    def negative(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(y > 0.5, 1.0, -1.0).to(y)

    for func in (None, lambda t, y: 0 * y):
        with pytest.raises(SolverError, match=r"jump 0 is -1 at .* the state is \(0\)") as caught:
            jumpint(negative, down, y0, [0.0, 100.0], func=func, seed=1)
        assert caught.value.row == 0
        with pytest.raises(SolverError, match="jump 0 is nan at t = 0 in row 1"):
            jumpint(
                lambda t, y: torch.where(y == 2, torch.nan, 0.0).to(y),
                down, y0, [0.0, 1.0], func=func, seed=1,
            )  # fmt: skip
    # Below zero within a step alone, and from a time on.
    with pytest.raises(SolverError, match="jump 0 is -"):
        jumpint(lambda t, y: (t - 0.5) ** 2 - 0.02 + 0 * y, down, y0[0], [0.0, 1.0], seed=1)
    with pytest.raises(SolverError, match="jump 0 is inf"):
        jumpint(lambda t, y: 1e-9 / (1.0 - t).clamp(min=0) + 0 * y, down, y0, [0.0, 2.0], seed=1)
    with pytest.raises(SolverError, match="more than 500 jumps"):
        jumpint(
            lambda t, y: y**2, torch.ones(1, 1), y0, [0.0, 9.0], seed=1, options={"max_jumps": 500}
        )
    with pytest.raises(SolverError, match="max_num_steps"):
        jumpint(
            lambda t, y: 1 + torch.sin(t) + 0 * y, down, y0, [0.0, 9.0], seed=1,
            options={"max_num_steps": 3},
        )  # fmt: skip


def test_there_is_no_gradient(julia: str) -> None:
    r = torch.tensor(1.0, dtype=D, requires_grad=True)
    y0 = torch.zeros(1, dtype=D)
    with pytest.raises(UnsupportedError, match="Langevin equation by sdeint"):
        jumpint(lambda t, y: r + 0 * y, torch.ones(1, 1), y0, [0.0, 1.0])
    with pytest.raises(UnsupportedError, match="by odeint"):
        jumpint(lambda t, y: 1 + 0 * y, torch.ones(1, 1), y0.clone().requires_grad_(), [0.0, 1.0])
    with torch.no_grad():
        assert not jumpint(lambda t, y: r + 0 * y, torch.ones(1, 1), y0, [0.0, 1.0]).requires_grad


def test_what_only_a_trace_tells(julia: str) -> None:
    y0, up = torch.ones(4, 1, dtype=D), torch.ones(1, 1)
    with pytest.raises(UnsupportedError, match="FRM is for rates that are constant"):
        jumpint(lambda t, y: t + y, up, y0, [0.0, 1.0], method="FRM")
    with pytest.raises(ValueError, match="mixes rows"):
        jumpint(lambda t, y: y - y.mean(0) + 1, up, y0, [0.0, 1.0])
    with pytest.raises(UnsupportedError, match="draws random numbers"):
        jumpint(lambda t, y: torch.rand_like(y), up, y0[0], [0.0, 1.0])


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"t": [0.0]}, ArgumentError, "two or more"),
        ({"t": [0.0, 0.0]}, ArgumentError, "increasing"),
        ({"t": torch.tensor([0.0, 1.0], requires_grad=True)}, UnsupportedError, "detach"),
        ({"y0": torch.zeros(2, 2, 1)}, ArgumentError, r"shape \(D,\) or \(B, D\)"),
        ({"y0": torch.zeros(1, dtype=torch.int64)}, TypeError, "float32"),
        ({"y0": torch.full((1,), torch.nan)}, ArgumentError, "not finite"),
        ({"change": torch.ones(2)}, ArgumentError, r"shape \(M, 1\)"),
        ({"change": [[1.0]]}, TypeError, "real tensor"),
        ({"change": torch.ones(2, 1)}, TypeError, r"must be \(2,\)"),
        ({"rate": lambda t, y: 1.0}, TypeError, "tensor of torch.float32"),
        ({"func": lambda t, y: torch.ones(3)}, TypeError, r"func gives shape \(3,\)"),
        ({"rate": 1.0}, TypeError, "callable"),
        ({"method": "direct"}, ArgumentError, "nearest is 'Direct'"),
        ({"ode_method": "Rodas5P"}, UnsupportedError, "Between jumps Rodas5P"),
        ({"rtol": 0.0}, ArgumentError, "rtol"),
        ({"options": {"max_jump": 3}}, ArgumentError, "max_jumps"),
        ({"options": {"max_step": 0}}, ArgumentError, "above zero"),
        ({"seed": -1}, ArgumentError, "seed"),
    ],
)
def test_arguments(change: dict[str, Any], error: type[Exception], says: str) -> None:
    arguments: dict[str, Any] = {
        "rate": lambda t, y: torch.ones_like(y), "change": torch.ones(1, 1),
        "y0": torch.zeros(1), "t": [0.0, 1.0], **change,
    }  # fmt: skip
    with pytest.raises(error, match=says):
        jumpint(**arguments)


def test_the_torch_engine_has_none() -> None:
    with pytest.raises(UnsupportedError, match="pyjlode setup"):
        jumpint(lambda t, y: y, torch.ones(1, 1), torch.ones(1), [0.0, 1.0], engine="torch")
