"""Solutions that interpolate, and what a failed solve leaves."""

from __future__ import annotations

import math

import matplotlib
import pytest
import torch
from reference import assert_close, gradients

from pyjlode import (
    GaussAdjoint,
    PyjlodeWarning,
    Solution,
    SolverError,
    UnsupportedError,
    find_method,
    odeint,
)
from pyjlode.engine import choose_engine

matplotlib.use("Agg")
D = torch.float64


def decay(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return y @ torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=y.dtype)


def decay_at(t: torch.Tensor) -> torch.Tensor:
    t = t.to(D)
    return torch.exp(-0.1 * t)[:, None] * torch.stack([torch.cos(2 * t), torch.sin(2 * t)], dim=1)


# Of each kind of interpolation one: the method's own, with further stages, of a stiff method, of a
# multistep one, Hermite's; and torchdiffeq's.
METHODS = [None, "DP5", "Vern7", "Rodas5P", "FBDF", "TRBDF2", "dopri8", "fehlberg2"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("needs_gradient", [False, True])
def test_interpolation(engine: str, method: str | None, needs_gradient: bool) -> None:
    entry = None if method is None else find_method(method)
    if entry is not None and engine not in entry.engines:
        with pytest.raises(UnsupportedError):
            odeint(
                decay, torch.ones(2), [0.0, 1.0], method=method, engine=engine, return_solution=True
            )
        return
    if engine == "julia" and needs_gradient and method not in (None, "Vern7", "Rodas5P"):
        return
    order = 5 if entry is None else entry.order
    rtol, tolerance = (1e-8, 1e-6) if order > 3 else (1e-6, 2e-3)
    if entry is not None and (not entry.julia or (engine == "torch" and order > 5)):
        tolerance = 1e-3  # torchdiffeq's interpolations of these are of low order
    y0 = torch.tensor([1.0, 0.0], dtype=D, requires_grad=needs_gradient)
    solution = odeint(
        decay, y0, [0.0, 0.7, 2.0], rtol=rtol, atol=rtol, method=method, engine=engine,
        return_solution=True,
    )  # fmt: skip
    t = torch.tensor([1.9, 0.0, 0.123, 0.7, 2.0, 1.0], dtype=D)
    assert isinstance(solution, Solution)
    assert solution.y.requires_grad == needs_gradient
    assert_close(solution(t), decay_at(t), tolerance)
    assert_close(solution.derivative(t), decay(t, decay_at(t)), 100 * tolerance)
    assert solution(0.123).shape == (2,)
    assert torch.equal(solution(0.123), solution([0.123])[0])
    assert solution.engine == engine
    assert solution.retcode == "Success"


@pytest.mark.parametrize("method", ["rk4", "heun2"])
def test_fixed_steps(engine: str, method: str) -> None:
    solution = odeint(
        decay, torch.tensor([1.0, 0.0], dtype=D), [0.0, 2.0], method=method,
        options={"step_size": 0.01}, engine=engine, return_solution=True,
    )  # fmt: skip
    if engine == "torch":
        with pytest.raises(UnsupportedError, match="Julia"):
            solution(0.5)
        return
    t = torch.tensor([0.1234, 1.5], dtype=D)
    assert_close(solution(t), decay_at(t), 1e-3)


def test_reversed_tuple(engine: str) -> None:
    y0 = (torch.tensor([[1.0, 0.0]], dtype=D), torch.ones(1, dtype=D))
    solution = odeint(
        lambda t, y: (decay(t, y[0]), 2 * t * y[1]), y0, [1.0, 0.4, -1.0], rtol=1e-9, atol=1e-9,
        engine=engine, return_solution=True,
    )  # fmt: skip
    t = torch.tensor([0.3, -0.9], dtype=D)
    first, second = solution(t)
    assert_close(first[:, 0], decay_at(t - 1), 1e-7)
    assert_close(second[:, 0], torch.exp(t**2 - 1), 1e-7)
    slope = solution.derivative(0.3)
    assert [x.shape for x in slope] == [(1, 2), (1,)]
    assert_close(slope[1], torch.tensor([0.6 * math.exp(0.09 - 1)], dtype=D), 1e-5)
    assert torch.equal(solution.t, torch.tensor([1.0, 0.4, -1.0], dtype=D))


@pytest.mark.parametrize("end", [5.0, -5.0])
@pytest.mark.parametrize("method", ["QNDF", "FBDF", "KenCarp4"])
def test_derivative_of_first_steps(julia: str, method: str, end: float) -> None:
    """QNDF's interpolation alone is 16% off at the start, where steps are shorter than 1e-8."""
    y0 = torch.tensor([1.0, 0.0], dtype=D)
    solution = odeint(
        lambda t, y: torch.stack([y[1], -y[0]]), y0, [0.0, end], rtol=1e-7, atol=1e-7,
        method=method, engine=julia, return_solution=True,
    )  # fmt: skip
    t = torch.cat([torch.zeros(1, dtype=D), torch.logspace(-10, -1, 40, dtype=D)])
    t = t * (1 if end > 0 else -1)
    expected = torch.stack([-torch.sin(t), -torch.cos(t)], dim=1)
    assert_close(solution.derivative(t), expected, 1e-4)


@pytest.mark.parametrize("method", ["Tsit5", "Vern7", "Heun", "Rodas5P"])
def test_gradient_is_odeints(julia: str, method: str) -> None:
    """Keeping the dense output changes nothing of what the gradient reads."""
    k = torch.tensor([0.3, 2.0], dtype=D, requires_grad=True)

    def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sin(k * y.flip(0)) * (1 + t)

    def solve(y: torch.Tensor, t: torch.Tensor, dense: bool) -> torch.Tensor:
        found = odeint(
            func, y, t, rtol=1e-6, atol=1e-6, method=method, engine="julia", return_solution=dense
        )
        if dense:
            found(0.5)
        return found.y if dense else found

    y0, t = torch.tensor([0.4, -0.2], dtype=D), torch.tensor([0.0, 0.3, 1.0], dtype=D)
    plain, expected = gradients(lambda y, s: solve(y, s, False), y0, t, [k])
    dense, found = gradients(lambda y, s: solve(y, s, True), y0, t, [k])
    assert_close(dense, plain, 1e-6)
    for g, e in zip(found, expected, strict=True):
        assert_close(g, e, 1e-5)


def test_constants_are_those_of_the_solve(julia: str) -> None:
    """Verner's methods evaluate the function when they interpolate: as it was in the solve."""
    rate = torch.tensor(-1.0, dtype=D)
    solution = odeint(
        lambda t, y: rate * y, torch.ones(1, dtype=D), [0.0, 5.0], method="Vern9", rtol=1e-9,
        atol=1e-9, engine="julia", return_solution=True,
    )  # fmt: skip
    rate.fill_(100.0)
    t = torch.tensor([0.5, 2.7], dtype=D)
    assert_close(solution(t)[:, 0], torch.exp(-t), 1e-7)


def test_outside_and_trivial(engine: str) -> None:
    y0 = torch.ones(2, dtype=D)
    solution = odeint(decay, y0, [0.0, 1.0], engine=engine, return_solution=True)
    for t in (-0.1, 1.1, [0.5, 2.0], float("nan")):
        with pytest.raises(ValueError, match="outside"):
            solution(t)
    with pytest.raises(ValueError, match="dimension"):
        solution([[0.1]])
    start = odeint(decay, y0, [3.0], engine=engine, return_solution=True)
    assert torch.equal(start(3.0), y0)
    assert torch.equal(start.derivative(3.0), decay(torch.tensor(3.0), y0))


def test_repr_and_plot(engine: str) -> None:
    y0 = torch.ones(3, 2, dtype=D)
    solution = odeint(decay, y0, [0.0, 0.5, 1.0], engine=engine, return_solution=True)
    assert "3 times from 0 to 1" in repr(solution)
    assert engine in repr(solution)
    axes = solution.plot()
    assert len(axes.lines) == 12
    x, y = axes.lines[2].get_data()
    i = len(x) // 3
    assert abs(y[i] - float(solution(float(x[i])).reshape(-1)[1])) < 1e-9
    assert solution.plot(ax=axes) is axes
    matplotlib.pyplot.close("all")


FAILURES = [
    (lambda t, y: y * y, 1.0, {}, "blew up"),
    (lambda t, y: torch.sqrt(0.5 - t) * y, 1.0, {}, "not finite, first at t = 0.5"),
    (lambda t, y: torch.sin(1e6 * t) * 1e6 * y, 1.0, {"max_num_steps": 500}, "too many steps"),
    (lambda t, y: 1e5 * (torch.cos(t) - y), 1.0, {"max_num_steps": 500}, "stiff method"),
]


@pytest.mark.parametrize("case", range(len(FAILURES)))
def test_failures_say_why_and_keep_what_there_is(engine: str, case: int) -> None:
    func, y0, options, message = FAILURES[case]
    t = torch.tensor([0.0, 1e-5, 2e-5, 4.0], dtype=D)
    state = torch.full((2,), y0, dtype=D)
    with pytest.raises(SolverError, match=message) as caught:
        odeint(func, state, t, engine=engine, options=options)
    error = caught.value
    assert error.solution is not None
    assert torch.equal(error.solution.t, t[:3])
    assert_close(error.solution.y, odeint(func, state, t[:3], engine=engine), 1e-6)
    assert error.solution.retcode == error.retcode != "Success"
    assert 2e-5 < error.t < 4
    with pytest.raises(UnsupportedError, match="stopped early"):
        error.solution(1e-5)
    with pytest.raises(SolverError, match=message):
        odeint(func, state.requires_grad_(), t, engine=engine, options=options)


def test_first_state_that_is_not_finite(engine: str) -> None:
    """Backwards in time and in a tuple: in the caller's times and shapes."""

    def func(t: torch.Tensor, y: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return 1 + 0 * torch.log(y[0]), y[1]

    y0 = (torch.tensor([[2.5]], dtype=D), torch.ones(2, dtype=D))
    with pytest.raises(SolverError, match="logarithm") as caught:
        odeint(func, y0, [1.0, 0.9, 0.0, -9.0, -20.0], engine=engine)
    error = caught.value
    assert error.nonfinite is not None
    t, (first, second) = error.nonfinite
    assert -20 < t < -1.5
    assert first.shape == (1, 1) and float(first) < 0
    # A stage of a step that was tried, so it is near the solution and no more.
    assert_close(second, torch.full((2,), math.exp(t - 1), dtype=D), 0.1)
    assert bool(torch.isnan(func(torch.tensor(t), (first, second))[0]))
    assert error.solution is not None
    assert error.solution.y[0].shape == (3, 1, 1)
    assert_close(error.solution.y[0][-1], torch.full((1, 1), 1.5, dtype=D), 1e-6)
    assert error.t < 0


def test_tolerances_below_rounding(engine: str) -> None:
    with pytest.raises(SolverError, match="more digits than float32 has") as caught:
        odeint(
            lambda t, y: torch.cos(10 * t) * y + 0.1, torch.ones(1), [0.0, 0.01, 30.0], rtol=1e-13,
            atol=1e-14, engine=engine, options={"max_num_steps": 3000},
        )  # fmt: skip
    assert caught.value.solution is not None


def test_an_implicit_methods_failure(julia: str) -> None:
    def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(0.5 - t) * y

    with pytest.raises(SolverError, match="not finite") as caught:
        odeint(func, torch.ones(1, dtype=D), [0.0, 0.2, 1.0], method="Rodas5P", engine="julia")
    assert caught.value.solution is not None
    assert torch.equal(caught.value.solution.t, torch.tensor([0.0, 0.2], dtype=D))


@pytest.mark.parametrize("sensealg", [None, GaussAdjoint()])
def test_failure_in_callback_mode(julia: str, sensealg: GaussAdjoint | None) -> None:
    choose_engine("julia").models.clear()  # and with them the warnings given
    k = torch.tensor(0.5, dtype=D, requires_grad=True)

    def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(k - t) * y if float(t) > -1 else y

    with (
        pytest.warns(PyjlodeWarning, match="callback"),
        pytest.raises(SolverError, match=r"not finite, first at t = 0\.5") as caught,
    ):
        odeint(func, torch.ones(1, dtype=D), [0.0, 0.2, 1.0], engine="julia", sensealg=sensealg)
    assert caught.value.solution is not None
    assert len(caught.value.solution.t) == 2
