"""``odeint``: values and gradients against closed forms, finite differences and torchdiffeq."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torchdiffeq
from reference import assert_close, gradients, rk4
from scipy.integrate import solve_ivp
from torch import Tensor

from pyjlode import (
    BacksolveAdjoint,
    DiscreteAdjoint,
    ForwardSensitivity,
    GaussAdjoint,
    InterpolatingAdjoint,
    PyjlodeWarning,
    QuadratureAdjoint,
    SolverError,
    UnsupportedError,
    methods,
    odeint,
)
from pyjlode.engine import choose_engine
from pyjlode.problem import Statistics
from pyjlode.sensealg import SensitivityAlgorithm

D = torch.float64
# The rest of the catalogue is in test_methods.py.
COMMON = ["Tsit5", "Vern7", "Vern9", "RK4", "Rosenbrock23", "Rodas4", "Rodas5P"]
COMMON += ["TRBDF2", "KenCarp4", "Kvaerno5", "FBDF", "QNDF"]
ADJOINTS = {
    "torch": [DiscreteAdjoint(), BacksolveAdjoint()],
    "julia": [
        DiscreteAdjoint(),
        DiscreteAdjoint(checkpoints=2),
        GaussAdjoint(),
        GaussAdjoint(checkpointing=True),
        InterpolatingAdjoint(),
        InterpolatingAdjoint(checkpointing=True),
        QuadratureAdjoint(),
        BacksolveAdjoint(),
        BacksolveAdjoint(checkpointing=False),
        ForwardSensitivity(),
    ],
}


def spiral(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return y @ torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=y.dtype)


def spiral_at(t: float) -> torch.Tensor:
    """From (1, 0)."""
    scale = math.exp(-0.1 * t)
    return torch.tensor([scale * math.cos(2 * t), scale * math.sin(2 * t)], dtype=D)


def test_a_tuple_of_numbers(engine: str) -> None:
    y0 = (torch.tensor(1.0, dtype=D), torch.tensor(2.0, dtype=D))
    x, z = odeint(lambda t, y: (-y[1], y[0]), y0, [0.0, 1.0], engine=engine)
    assert x.shape == z.shape == (2,)
    assert_close(x[1], torch.tensor(math.cos(1) - 2 * math.sin(1), dtype=D), 1e-6)


@pytest.mark.parametrize("t", [[0.0, 0.7, 2.0], [2.0, 0.7, 0.0], [-1.0, 1.5]])
def test_closed_form(engine: str, t: list[float]) -> None:
    y = odeint(spiral, spiral_at(t[0]), t, rtol=1e-9, atol=1e-9, engine=engine)
    assert_close(y, torch.stack([spiral_at(s) for s in t]), 1e-7)


@pytest.mark.parametrize("method", [m.name for m in methods() if m.torch_name] + COMMON)
def test_common_methods(engine: str, method: str) -> None:
    """Each solves to what its order promises, on the engines that the catalogue names."""
    entry = next(m for m in methods() if m.name == method)
    y0 = spiral_at(0)
    if engine not in entry.engines:
        with pytest.raises(UnsupportedError, match=r"engine|Julia"):
            odeint(spiral, y0, [0.0, 1.0], method=method, engine=engine)
        return
    name = entry.torch_name if entry.fixed and entry.torch_name else method
    options = {"step_size": 0.005} if entry.fixed else {}
    y = odeint(
        spiral, y0, [0.0, 1.0], rtol=1e-8, atol=1e-8, method=name, options=options, engine=engine
    )
    tolerance = 100 * 0.005**entry.order * 2 ** (entry.order + 1) if entry.fixed else 1e-4
    assert_close(y[-1], spiral_at(1.0), max(tolerance, 1e-9))


def test_agrees_with_scipy_and_torchdiffeq(engine: str) -> None:
    def lotka(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        a, b = y[0], y[1]
        return torch.stack([1.5 * a - a * b, a * b - 3 * b + 0.1 * torch.sin(t)])

    t = torch.linspace(0, 5, 20, dtype=D)
    y = odeint(lotka, torch.tensor([1.0, 1.0], dtype=D), t, rtol=1e-9, atol=1e-9, engine=engine)
    independent = solve_ivp(
        lambda s, z: [1.5 * z[0] - z[0] * z[1], z[0] * z[1] - 3 * z[1] + 0.1 * math.sin(s)],
        (0, 5), [1.0, 1.0], t_eval=t.numpy(), method="DOP853", rtol=1e-11, atol=1e-11,
    )  # fmt: skip
    assert_close(y, torch.as_tensor(independent.y.T), 1e-6)
    other = torchdiffeq.odeint(lotka, torch.tensor([1.0, 1.0], dtype=D), t, rtol=1e-9, atol=1e-9)
    assert_close(y, other, 1e-6)


def _network() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).to(D)
    scale = torch.tensor(0.8, dtype=D, requires_grad=True)
    return net, scale, torch.tensor([[0.5, -0.3], [1.0, 0.4]], dtype=D)


@pytest.mark.parametrize("i", range(10))
@pytest.mark.parametrize("reverse", [False, True])
def test_every_adjoint(engine: str, i: int, reverse: bool) -> None:
    """Gradients with respect to the state, the times, the parameters and a closed-over tensor."""
    if i >= len(ADJOINTS[engine]):
        other: SensitivityAlgorithm = ADJOINTS["julia"][i] if engine == "torch" else GaussAdjoint()
        assert engine == "torch"
        if not isinstance(other, BacksolveAdjoint):
            with pytest.raises(UnsupportedError, match="DiscreteAdjoint"):
                odeint(spiral, spiral_at(0), [0.0, 1.0], sensealg=other, engine=engine)
        return
    sensealg = ADJOINTS[engine][i]
    net, scale, y0 = _network()

    def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return scale * net(torch.cat([y, t.expand(*y.shape[:-1], 1)], dim=-1))

    def solve(y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return odeint(func, y, s, rtol=1e-10, atol=1e-11, sensealg=sensealg, engine=engine)

    t = torch.tensor([0.0, 0.3, 1.0], dtype=D)
    t = t.flip(0) if reverse else t
    others = [scale, *net.parameters()]
    _, found = gradients(solve, y0, t, others)
    _, expected = gradients(lambda y, s: rk4(func, y, s), y0, t, others)
    for k, (g, e) in enumerate(zip(found, expected, strict=True)):
        assert_close(g, e, 1e-6, f"{sensealg}, gradient {k}")


def test_finite_differences(engine: str) -> None:
    """Torch's own check, for every element of every input."""
    weight = (0.3 * torch.randn(2, 2, dtype=D)).requires_grad_()
    y0 = torch.tensor([0.4, -0.2], dtype=D, requires_grad=True)
    t = torch.tensor([0.0, 0.5, 0.8], dtype=D, requires_grad=True)

    def solve(w: torch.Tensor, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return odeint(
            lambda a, b: torch.tanh(b @ w) * (1 + a), y, s, rtol=1e-11, atol=1e-12, engine=engine
        )

    assert torch.autograd.gradcheck(solve, (weight, y0, t), eps=1e-5, atol=1e-6, rtol=1e-5)


def test_float32(engine: str) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    y0, t = torch.rand(5, 2), torch.tensor([0.0, 0.5, 1.0])
    states, found = gradients(
        lambda y, s: odeint(lambda a, b: net(b), y, s, engine=engine), y0, t, [*net.parameters()]
    )
    assert states.dtype == torch.float32
    _, expected = gradients(lambda y, s: rk4(lambda a, b: net(b), y, s), y0, t, [*net.parameters()])
    for g, e in zip(found, expected, strict=True):
        assert g.dtype == torch.float32
        assert_close(g, e, 2e-3)


def test_tuple_state(engine: str) -> None:
    a = torch.tensor(0.5, dtype=D, requires_grad=True)
    y0 = (torch.ones(2, dtype=D), torch.ones(1, 3, dtype=D, requires_grad=True))
    y, z = odeint(
        lambda t, s: (-a * s[0], s[1] * t), y0, [0.0, 1.0, 2.0], rtol=1e-9, atol=1e-9, engine=engine
    )
    assert y.shape == (3, 2)
    assert z.shape == (3, 1, 3)
    assert_close(y[-1], torch.full((2,), math.exp(-1.0), dtype=D), 1e-7)
    assert_close(z[-1], torch.full((1, 3), math.exp(2.0), dtype=D), 1e-7)
    (y[-1].sum() + z[-1].sum()).backward()
    assert_close(a.grad, torch.tensor(-4 * math.exp(-1.0), dtype=D), 1e-6)
    assert_close(y0[1].grad, torch.full((1, 3), math.exp(2.0), dtype=D), 1e-6)


def test_scalar_state_and_views(engine: str) -> None:
    y = odeint(lambda t, s: -s, torch.tensor(1.0, dtype=D), [0.0, 1.0], engine=engine)
    assert y.shape == (2,)
    matrix = torch.arange(6.0, dtype=D).reshape(2, 3).T  # not contiguous
    z = odeint(lambda t, s: -s, matrix, [0.0, 1.0], rtol=1e-9, atol=1e-9, engine=engine)
    assert_close(z[-1], matrix * math.exp(-1.0), 1e-7)


def test_inputs_may_be_overwritten(julia: str) -> None:
    """Writing to an input after the solve changes no gradient."""
    k = torch.tensor([2.0], dtype=D, requires_grad=True)
    y0 = torch.ones(1, dtype=D)
    y = odeint(lambda t, s: -k * s, y0, [0.0, 1.0], rtol=1e-9, atol=1e-9, engine="julia")
    y0.fill_(7.0)
    y[-1].sum().backward()
    assert_close(k.grad, torch.tensor([-math.exp(-2.0)], dtype=D), 1e-6)


def test_two_solves_one_backward(engine: str) -> None:
    k = torch.tensor(0.3, dtype=D, requires_grad=True)

    def run(y: torch.Tensor) -> torch.Tensor:
        return odeint(lambda t, s: -k * s, y, [0.0, 1.0], rtol=1e-9, atol=1e-9, engine=engine)[-1]

    run(run(torch.ones(1, dtype=D))).sum().backward()
    assert_close(k.grad, torch.tensor(-2 * math.exp(-0.6), dtype=D), 1e-6)


def test_one_time_and_no_gradient(engine: str) -> None:
    y0 = torch.ones(2, dtype=D)
    assert torch.equal(odeint(spiral, y0, [0.0], engine=engine), y0.unsqueeze(0))
    with torch.no_grad():
        assert not odeint(spiral, y0.requires_grad_(), [0.0, 1.0], engine=engine).requires_grad


def test_statistics(engine: str) -> None:
    stats = Statistics()
    k = torch.tensor(1.0, dtype=D, requires_grad=True)
    y = odeint(lambda t, s: -k * s, torch.ones(1, dtype=D), [0.0, 1.0], engine=engine, stats=stats)
    assert stats.nfe > 5
    y.sum().backward()
    if engine == "julia":
        assert stats.naccept > 0
        assert stats.nfe_backward > 5


def test_bad_arguments(engine: str) -> None:
    y0 = torch.ones(2, dtype=D)

    def solve(**changes: object) -> None:
        arguments: dict = {"func": spiral, "y0": y0, "t": [0.0, 1.0], "engine": engine, **changes}
        odeint(arguments.pop("func"), arguments.pop("y0"), arguments.pop("t"), **arguments)

    for change, error, message in [
        ({"func": 3}, TypeError, "callable"),
        ({"y0": "one"}, TypeError, "tensor"),
        ({"y0": torch.ones(2, dtype=torch.int64)}, TypeError, "float32 or float64"),
        ({"y0": torch.tensor([math.nan])}, ValueError, "not finite"),
        ({"y0": torch.tensor([[1.0, complex(0, math.inf)]])}, ValueError, "not finite"),
        ({"t": [0.0, 0.0]}, ValueError, "strictly"),
        ({"t": [0.0, 1.0, 0.5]}, ValueError, "strictly"),
        ({"t": []}, ValueError, "one dimension"),
        ({"t": [0.0, math.inf]}, ValueError, "not finite"),
        ({"rtol": -1.0}, ValueError, "rtol"),
        ({"atol": math.nan}, ValueError, "atol"),
        ({"method": "Tsit6"}, ValueError, "nearest is 'Tsit5'"),
        ({"sensealg": "gaus"}, ValueError, "nearest is 'gauss'"),
        ({"options": {"stepsize": 1}}, ValueError, "step_size"),
        ({"engine": "jax"}, ValueError, "engine"),
        ({"t": [0.0, "x"]}, TypeError, "sequence of numbers"),
        ({"rtol": "tight"}, TypeError, "rtol must be a number"),
        ({"method": 5}, TypeError, "method must be a name"),
        ({"sensealg": GaussAdjoint}, TypeError, r"give GaussAdjoint\(\)"),
        ({"sensealg": 3}, TypeError, "such as GaussAdjoint"),
        ({"options": [0.1]}, TypeError, "options must be a dict"),
        ({"options": {"max_step": "x"}}, TypeError, "max_step must be a number"),
        ({"stats": {}}, TypeError, "Statistics"),
    ]:
        with pytest.raises(error, match=message):
            solve(**change)


@pytest.mark.parametrize(
    ("func", "y0", "retcodes"),
    [
        (lambda t, y: y * y, 1.0, {"Unstable", "DtLessThanMin", "MaxIters"}),
        (lambda t, y: torch.sqrt(0.5 - t) * y, 1.0, {"Unstable", "DtLessThanMin", "DtNaN"}),
        (lambda t, y: torch.sin(1e6 * t) * 1e6 * y, 1.0, {"MaxIters"}),
    ],
)
def test_a_failed_solve_raises(engine: str, func: object, y0: float, retcodes: set[str]) -> None:
    with pytest.raises(SolverError, match=r"stopped|finite") as caught:
        odeint(
            func, torch.full((1,), y0, dtype=D), [0.0, 2.0], engine=engine,
            options={"max_num_steps": 2000},
        )  # fmt: skip
    assert caught.value.retcode in retcodes


def test_what_julia_throws_is_a_solver_error(julia: str) -> None:
    """Integers beyond what the state's type holds are refused in the solve, with Julia's error."""

    def powers(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y * ((10 * y).long() * 2**50).sign()

    with pytest.raises(SolverError, match="OverflowError") as caught:
        odeint(powers, torch.full((1,), 0.55, dtype=D), [0.0, 1.0], engine="julia")
    assert type(caught.value.__cause__).__name__ == "JuliaError"


def test_wrong_shape_of_derivative(engine: str) -> None:
    y0 = torch.ones(2, dtype=D)
    for func, message in [
        (lambda t, y: y[:1], r"shape \(1,\)"),
        (lambda t, y: y.float(), "torch.float32"),
        (lambda t, y: 0.0, "float"),
    ]:
        with pytest.raises(TypeError, match=message):
            odeint(func, y0, [0.0, 1.0], engine=engine)
    with pytest.raises(TypeError, match="tuple of 2"):
        odeint(lambda t, y: y[0], (y0, y0), [0.0, 1.0], engine=engine)


def test_callback_mode(julia: str) -> None:
    """A function that branches on values runs in Python, said once, with right gradients."""
    choose_engine("julia").models.clear()
    k = torch.tensor(0.7, dtype=D, requires_grad=True)

    def branching(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -k * y if float(y.detach().sum()) > 0 else -(k**2) * y

    def solve(y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return odeint(branching, y, s, rtol=1e-10, atol=1e-11, engine="julia")

    y0, t = torch.tensor([1.0, -3.0], dtype=D), torch.tensor([0.0, 0.5, 1.0], dtype=D)
    with pytest.warns(PyjlodeWarning, match=r"branching.*callback mode.*value of a tensor"):
        _, found = gradients(solve, y0, t, [k])
    _, expected = gradients(lambda y, s: rk4(branching, y, s), y0, t, [k])
    for g, e in zip(found, expected, strict=True):
        assert_close(g, e, 1e-6)


def test_exceptions_of_the_function_reach_the_user(engine: str) -> None:
    def failing(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if float(t) > 0.5:
            raise ZeroDivisionError("the user's own")
        return -y

    context = pytest.warns(PyjlodeWarning) if engine == "julia" else _nothing()
    with context, pytest.raises(ZeroDivisionError, match="the user's own"):
        odeint(failing, torch.ones(1, dtype=D), [0.0, 1.0], engine=engine)
    y = odeint(lambda t, y: -y, torch.ones(1, dtype=D), [0.0, 1.0], engine=engine)
    assert_close(y[-1], torch.tensor([math.exp(-1)], dtype=D), 1e-6)


def test_exceptions_in_the_backward_pass_reach_the_user(julia: str) -> None:
    choose_engine("julia").models.clear()

    def failing(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if float(t.detach()) > 0.5 and torch.is_grad_enabled():
            raise ZeroDivisionError("the user's own")
        return -y

    y0 = torch.ones(1, dtype=D, requires_grad=True)
    with pytest.warns(PyjlodeWarning, match=r"test_odeint.py:\d+: if float\(t") as given:
        y = odeint(failing, y0, [0.0, 1.0], engine="julia")
    assert given[0].filename == __file__
    with pytest.raises(ZeroDivisionError, match="the user's own") as caught:
        y[-1].backward()
    assert any(entry.name == "failing" for entry in caught.traceback)
    odeint(lambda t, y: -y, y0, [0.0, 1.0], engine="julia")[-1].backward()
    assert_close(y0.grad, torch.tensor([math.exp(-1)], dtype=D), 1e-6)


def test_callbacks_are_of_the_function_given(julia: str) -> None:
    """In callback mode too, a function made anew at each pass is the one that is called."""
    for rate in (1.0, 2.0):
        k = torch.tensor(rate, dtype=D, requires_grad=True)

        def branching(t: torch.Tensor, y: torch.Tensor, k: torch.Tensor = k) -> torch.Tensor:
            return -k * y if float(y) > -1.0 else y

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PyjlodeWarning)
            y = odeint(branching, torch.ones(1, dtype=D), [0.0, 1.0], engine="julia")
        (found,) = torch.autograd.grad(y[-1], k)
        assert_close(found, torch.tensor(-math.exp(-rate), dtype=D), 1e-6)


class Once(torch.autograd.Function):
    """The identity, with a derivative that has none itself."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, v: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return v.clone()


def test_time_in_callback_mode_with_a_stiff_method(julia: str) -> None:
    """df/dt counts in a Rosenbrock step; it must not be lost where torch derives only once."""
    t = torch.tensor([0.0, 1.0], dtype=D)

    def timed(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return Once.apply(torch.sin(3 * t)) * (1.0 if float(y.detach()) > -9 else 2.0) - y

    counts = {}
    for name, func in (("called", timed), ("traced", lambda t, y: torch.sin(3 * t) - y)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PyjlodeWarning)
            stats = Statistics()
            odeint(func, torch.ones(1, dtype=D), t, method="Rodas5P", engine="julia", stats=stats)
        counts[name] = (stats.naccept, stats.nreject)
    assert counts["called"] == counts["traced"]


def _nothing() -> object:
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize(
    ("y0", "dtype", "shape"),
    [
        (2.0, torch.float64, ()),
        (2, torch.float64, ()),
        ([1, 2.5], torch.float64, (2,)),
        ([[1.0, 2.0]], torch.float64, (1, 2)),
        (np.ones(2), torch.float64, (2,)),
        (np.ones(2, np.float32), torch.float32, (2,)),
        (np.arange(2), torch.float64, (2,)),
        (np.float64(2), torch.float64, ()),
        (1j, torch.complex128, ()),
        ([np.ones(1), 2.0], torch.float64, None),
    ],
)
def test_numbers_as_initial_state(
    engine: str, y0: Any, dtype: torch.dtype, shape: tuple[int, ...] | None
) -> None:
    def decay(t: Tensor, y: Any) -> Any:
        return tuple(-x for x in y) if isinstance(y, tuple) else -y

    found = odeint(decay, y0, np.linspace(0, 1, 3), engine=engine)
    parts = found if shape is None else (found,)
    for part in parts:
        assert part.dtype == dtype
        assert shape is None or part.shape == (3, *shape)
        assert_close(part[-1], part[0] * math.exp(-1), 1e-4)


def test_numbers_take_the_parameters_dtype(engine: str) -> None:
    class Field(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = torch.nn.Parameter(torch.ones(1))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return -self.rate * y

    assert odeint(Field(), [1, 2], [0, 1], engine=engine).dtype == torch.float32


@pytest.mark.parametrize("y0", ["x", None, [], (), [1, [2]], np.array(["a"]), {}, [None]])
def test_no_initial_state(engine: str, y0: Any) -> None:
    with pytest.raises(TypeError, match="must be"):
        odeint(lambda t, y: -y, y0, [0.0, 1.0], engine=engine)


@pytest.mark.parametrize("kind", ["constant", "of the time", "detached"])
def test_backsolve_of_what_does_not_depend_on_the_state(engine: str, kind: str) -> None:
    y0 = torch.ones(2, dtype=D, requires_grad=True)
    t = torch.tensor([0.0, 1.0], dtype=D, requires_grad=True)
    rates = {
        "constant": lambda t, y: torch.full_like(y, 2.0),
        "of the time": lambda t, y: 2 * t * torch.ones_like(y),
        "detached": lambda t, y: -y.detach(),
    }
    y = odeint(rates[kind], y0, t, engine=engine, sensealg="backsolve")
    by_y0, by_t = torch.autograd.grad(y[-1].sum(), [y0, t])
    assert_close(by_y0, torch.ones(2, dtype=D), 1e-12)
    slopes = [float(rates[kind](s, x).sum()) for s, x in zip(t, y, strict=True)]
    if kind == "constant":
        assert_close(by_t, torch.tensor([-slopes[0], slopes[1]], dtype=D), 1e-6)


def test_backsolve_of_complex_parameters(engine: str) -> None:
    """Of a real and a complex state; against the gradient through the steps."""
    k = torch.tensor(0.5, dtype=D, requires_grad=True)
    z = torch.tensor([0.5 + 0.2j, -0.3j], dtype=torch.complex128, requires_grad=True)
    for y0 in (torch.ones(2, dtype=D), torch.tensor([1.0, 1j], dtype=torch.complex128)):
        y0 = y0.requires_grad_()

        def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            rate = k * z * y
            return rate if y.is_complex() else rate.real

        found = []
        for sensealg in ("backsolve", "discrete"):
            y = odeint(func, y0, [0.0, 1.0], engine=engine, sensealg=sensealg, rtol=1e-9, atol=1e-9)
            loss = (y[-1].abs() ** 2).sum() + y[-1].real.sum()
            found.append(torch.autograd.grad(loss, [y0, k, z]))
        for one, other in zip(*found, strict=True):
            assert_close(one, other, 1e-6)
