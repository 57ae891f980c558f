"""What torchdiffeq does, with the import changed: both side by side."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
import torchdiffeq
from reference import assert_close
from side_by_side import Y0, D, Field, T, compare, halved
from torch import Tensor, nn

from pyjlode import (
    ArgumentError,
    DiscreteAdjoint,
    PyjlodeWarning,
    SolverError,
    UnsupportedError,
    odeint,
    odeint_adjoint,
)


@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
def test_signatures(name: str) -> None:
    """All that torchdiffeq takes is taken, by position where it is by position there."""
    ours = inspect.signature(globals()[name]).parameters
    theirs = inspect.signature(getattr(torchdiffeq, name)).parameters
    for parameter in theirs.values():
        if parameter.name != "event_fn" or name == "odeint_adjoint":
            assert ours[parameter.name].kind == parameter.kind
    assert list(ours)[:3] == list(theirs)[:3]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("method", "options", "tolerance"),
    [
        (None, None, 1e-5),
        ("dopri5", {"first_step": 0.01, "max_step": 0.2, "safety": 0.8}, 1e-5),
        ("dopri5", {"ifactor": 3.0, "dfactor": 0.5, "min_step": 1e-6, "max_num_steps": 900}, 1e-5),
        ("dopri5", {"dtype": torch.float64, "step_t": torch.tensor([0.5])}, 1e-5),
        ("dopri8", None, 1e-4),  # torchdiffeq's interpolation is of order 4
        ("bosh3", {"norm": lambda y: y.abs().max()}, 2e-4),
        ("adaptive_heun", {"max_num_steps": 10**5}, 1e-3),
        ("fehlberg2", {"max_num_steps": 10**5}, 1e-3),
        ("euler", None, 1e-12),
        ("midpoint", {"perturb": False, "interp": "linear"}, 1e-12),
        ("heun2", {"grid_constructor": halved}, 1e-12),
        ("heun3", {"interp": "cubic"}, 1e-12),
        ("rk4", {"grid_constructor": halved}, 1e-12),
    ],
)
def test_methods_and_options(
    engine: str, method: str | None, options: dict[str, Any] | None, tolerance: float,
    reverse: bool,
) -> None:  # fmt: skip
    t = T.flip(0) if reverse else T
    compare(engine, Field(), Y0, t, tolerance, method=method, options=options, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun2", "heun3", "rk4"])
def test_step_size(engine: str, method: str) -> None:
    """The same numbers where the times lie on the grid."""
    compare(
        engine, Field(), Y0, torch.tensor([0.0, 0.5, 1.0], dtype=D, requires_grad=False), 1e-12,
        method=method, options={"step_size": 0.125}, without_t=True,
    )  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"adjoint_rtol": 1e-9, "adjoint_atol": 1e-9},
        {"adjoint_method": "bosh3"},
        {"adjoint_options": {"max_step": 0.1, "norm": "seminorm"}},
        {"options": {"max_step": 0.3}, "method": "dopri5"},
        {"method": "dopri5", "adjoint_method": "rk4", "adjoint_options": {"step_size": 0.02}},
    ],
)
def test_adjoint(engine: str, options: dict[str, Any], reverse: bool) -> None:
    t = T.flip(0) if reverse else T
    compare(engine, Field(), Y0, t, 5e-6, adjoint=True, rtol=1e-8, atol=1e-9, **options)


class Closed(nn.Module):
    """With a parameter, a tensor computed from another, and one that it only closes over."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([0.3, -0.4], dtype=D))
        self.b = nn.Parameter(torch.tensor(0.7, dtype=D))
        object.__setattr__(self, "outside", torch.tensor(0.2, dtype=D, requires_grad=True))
        object.__setattr__(self, "computed", self.outside * 2)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.a * y + torch.sin(self.b * y) + self.computed


@pytest.mark.parametrize("which", [(), ("a",), ("a", "b"), ("outside",), ("b", "frozen")])
def test_adjoint_params(engine: str, which: tuple[str, ...]) -> None:
    """Only those get a gradient, as in torchdiffeq; also what a tensor was computed from."""
    found = []
    for solve, options in ((odeint_adjoint, {"engine": engine}), (torchdiffeq.odeint_adjoint, {})):
        func = Closed()
        func.frozen = torch.zeros(3, dtype=D)
        y0 = torch.tensor([0.5, 1.0], dtype=D, requires_grad=True)
        y = solve(
            func, y0, T, adjoint_params=(getattr(func, name) for name in which),
            rtol=1e-9, atol=1e-9, **options,
        )  # fmt: skip
        y[-1].sum().backward()
        found.append([x.grad for x in (y0, func.a, func.b, func.outside)])
    for g, e in zip(*found, strict=True):
        assert (g is None) == (e is None)
        if e is not None:
            assert_close(g, e, 1e-6)


def test_adjoint_finds_what_it_closes_over(engine: str) -> None:
    """torchdiffeq asks for a module, and leaves out what is no parameter."""
    k = torch.tensor(0.5, dtype=D, requires_grad=True)
    y = odeint_adjoint(lambda t, y: -k * y, torch.ones(1, dtype=D), T, engine=engine)
    y[-1].sum().backward()
    assert_close(k.grad, torch.tensor(-math.exp(-0.5), dtype=D), 1e-5)


def test_adjoint_arguments(engine: str) -> None:
    def solve(**options: Any) -> None:
        odeint_adjoint(Field(), Y0, T, engine=engine, **options)

    with pytest.raises(ValueError, match="adjoint_options"):
        solve(method="dopri5", options={"first_step": 0.1}, adjoint_method="bosh3")
    with pytest.raises(ValueError, match="adjoint_rtol"):
        solve(adjoint_rtol=-1.0)
    with pytest.raises(ValueError, match="nearest"):
        solve(adjoint_method="bosh4")
    with pytest.raises(UnsupportedError, match="one number"):
        solve(adjoint_atol=(1e-3, 1e-3))
    with pytest.raises(UnsupportedError, match="DiscreteAdjoint"):
        solve(sensealg=DiscreteAdjoint(), adjoint_rtol=1e-9)


class Oscillator(nn.Module):
    """Complex: two modes, coupled by a complex matrix."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        real = torch.tensor([[0.1, 0.4], [-0.2, -0.3]])
        self.w = nn.Parameter(torch.complex(real, real.T.flip(0)).to(dtype))
        self.s = nn.Parameter(torch.tensor(0.3).to(self.w.real.dtype))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return y @ self.w * 1j + self.s * torch.sin(t) * y.conj() * y.abs()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64])
def test_complex_states(engine: str, dtype: torch.dtype, reverse: bool) -> None:
    y0 = torch.tensor([[0.5 + 0.1j, -0.3j], [1.0, 0.4 + 0.2j]], dtype=dtype)
    t = torch.tensor([0.0, 0.4, 1.0], dtype=y0.real.dtype)
    tolerance, tol = (1e-6, 1e-9) if dtype == torch.complex128 else (1e-3, 1e-5)
    compare(
        engine, Oscillator(dtype), y0, t.flip(0) if reverse else t, tolerance, rtol=tol, atol=tol
    )


def test_complex_and_real_parts(engine: str) -> None:
    """Of a tuple each part keeps its type, where torchdiffeq makes all of them complex."""
    a = torch.tensor(0.3 + 0.8j, dtype=torch.complex128, requires_grad=True)
    z, x = odeint(
        lambda t, s: (a * s[0], -s[1] + s[0].abs().sum()),
        (torch.ones(2, dtype=torch.complex128), torch.ones(3, dtype=D)), T,
        rtol=1e-9, atol=1e-9, engine=engine,
    )  # fmt: skip
    assert (z.dtype, x.dtype) == (torch.complex128, D)
    assert_close(torch.view_as_real(z[-1]), torch.view_as_real(torch.exp(a)).expand(2, 2), 1e-7)
    z[-1].real.sum().backward()
    expected = 2 * torch.exp(a.detach()).conj()
    assert_close(torch.view_as_real(a.grad), torch.view_as_real(expected), 1e-6)


@pytest.mark.parametrize("kind", ["number", "tensor", "column", "0-d"])
def test_tolerances_by_component(engine: str, kind: str) -> None:
    rtol: Any = {
        "number": 1e-7,
        "tensor": torch.tensor([1e-7, 1e-5], dtype=D),
        "column": torch.tensor([[1e-6], [1e-8]], dtype=D),
        "0-d": torch.tensor(1e-7, dtype=D),
    }[kind]
    compare(engine, Field(), Y0, T, 1e-4, rtol=rtol, atol=torch.full((2, 2), 1e-8, dtype=D))


def test_tolerances_act_by_component(engine: str) -> None:
    """A part whose tolerance is loose does not shorten the steps of one that is smooth."""

    def count(rtol: Any) -> int:
        calls = []

        def func(t: Tensor, y: Tensor) -> Tensor:
            return torch.stack([-y[0], 30 * torch.cos(30 * t)])

        func.callback_step = lambda t, y, dt: calls.append(t)  # type: ignore[attr-defined]
        y = odeint(
            func, torch.tensor([1.0, 0.0], dtype=D), [0.0, 1.0], rtol=rtol, atol=rtol,
            engine=engine,
        )  # fmt: skip
        assert_close(y[-1, 0], torch.tensor(math.exp(-1), dtype=D), 1e-4)
        return len(calls)

    loose, tight = torch.tensor([1e-6, 10.0]), torch.tensor([1e-6, 1e-6])
    assert count(loose) * 2 < count(tight)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[0.2, -1.0], [0.9, 0.1]], dtype=D))

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z, logp = state
        return torch.tanh(z @ self.w), -torch.cos(z).sum(-1, keepdim=True) * logp.exp()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rtol": (1e-7, 1e-5), "atol": (torch.full((6,), 1e-8), 1e-6)},
        {"options": {"norm": lambda state: max(y.abs().max() for y in state)}, "method": "dopri5"},
    ],
)
def test_tuples(engine: str, options: dict[str, Any]) -> None:
    z, logp = torch.randn(3, 2, dtype=D), torch.zeros(3, 1, dtype=D)
    func, found = Pair(), []
    for solve, extra in ((odeint, {"engine": engine}), (torchdiffeq.odeint, {})):
        a, b = z.clone().requires_grad_(), logp.clone().requires_grad_()
        states = solve(func, (a, b), T, **options, **extra)
        loss = (states[0] ** 2).sum() + states[1].sum()
        found.append([*states, *torch.autograd.grad(loss, [a, b, func.w])])
    for g, e in zip(*found, strict=True):
        assert_close(g, e, 1e-5)


def test_the_default_norm_of_a_tuple_is_that_of_its_worst_part(engine: str) -> None:
    """A small part beside a large quiet one decides the steps as if it were alone."""
    y0 = (torch.ones(1, dtype=D), torch.ones(10**4, dtype=D))

    def func(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return 10 * torch.cos(20 * t) * state[0], torch.zeros_like(state[1])

    y = odeint(func, y0, [0.0, 1.0], rtol=1e-6, atol=1e-6, engine=engine)
    expected = torch.exp(torch.sin(torch.tensor(20.0, dtype=D)) / 2)
    alone = odeint(
        lambda t, y: 10 * torch.cos(20 * t) * y, y0[0], [0.0, 1.0], rtol=1e-6, atol=1e-6,
        engine=engine,
    )  # fmt: skip
    assert_close(y[0][-1, 0], expected, 3e-5)
    assert_close(y[0][-1], alone[-1], 3e-5)


@pytest.mark.parametrize("t", [T.float(), [0, 1], torch.tensor([0, 1]), torch.tensor([0.3])])
def test_times_of_other_types(engine: str, t: Any) -> None:
    y0 = torch.ones(2, dtype=D)
    y = odeint(lambda s, y: -y, y0, t, rtol=1e-9, atol=1e-9, engine=engine)
    times = torch.as_tensor(t).to(D)
    assert_close(y, torch.exp(times[0] - times)[:, None].expand(-1, 2), 1e-7)


def test_bad_arguments_raise_what_torchdiffeq_raises() -> None:
    y0 = torch.ones(2, dtype=D)
    tuple_y0 = (y0, y0)
    cases: list[tuple[type[Exception], dict[str, Any]]] = [
        (AssertionError, {"t": torch.tensor([0.0, 1.0, 0.5])}),
        (AssertionError, {"t": torch.tensor([[0.0, 1.0]])}),
        (AssertionError, {"t": torch.tensor([0.0, 0.0])}),
        (ValueError, {"method": "dopri6"}),
        (AssertionError, {"rtol": torch.tensor(1e-3, requires_grad=True)}),
        (AssertionError, {"y0": tuple_y0, "rtol": (1e-3,)}),
        (AssertionError, {"y0": torch.tensor([float("nan")] * 2)}),
        (ValueError, {"method": "euler", "options": {"step_size": 0.1, "grid_constructor": max}}),
        (
            ValueError,
            {
                "method": "dopri5",
                "options": {"step_t": torch.tensor([0.5]), "jump_t": torch.tensor([0.5])},
            },
        ),
    ]
    for error, change in cases:
        arguments: dict[str, Any] = {"y0": y0, "t": torch.tensor([0.0, 1.0]), **change}
        for solve in (torchdiffeq.odeint, odeint):
            with pytest.raises(error):
                solve(lambda t, y: y, **arguments)
    with pytest.raises(TypeError, match="float32 or float64"):
        odeint(lambda t, y: -y, torch.ones(2, dtype=torch.float16), [0.0, 1.0])
    with pytest.raises(TypeError, match="one dtype"):
        odeint(lambda t, y: y, (y0, y0.float()), [0.0, 1.0])
    assert issubclass(ArgumentError, (ValueError, AssertionError))


def test_failures_are_assertion_errors_too(engine: str) -> None:
    """torchdiffeq's way to say that a step became too short."""
    for solve, options in ((torchdiffeq.odeint, {}), (odeint, {"engine": engine})):
        with pytest.raises(AssertionError) as caught:
            solve(
                lambda t, y: y * y, torch.ones(1, dtype=D), torch.tensor([0.0, 2.0], dtype=D),
                method="dopri5", options={"max_num_steps": 2000}, **options,
            )  # fmt: skip
    assert isinstance(caught.value, SolverError)


def test_options_that_do_nothing_say_so(engine: str) -> None:
    y0 = torch.ones(1, dtype=D)
    for method, options, name in (
        ("dopri5", {"step_size": 0.1}, "step_size"),
        ("rk4", {"first_step": 0.1}, "first_step"),
        ("euler", {"max_order": 3}, "max_order"),
    ):
        with pytest.warns(UserWarning, match=name):
            torchdiffeq.odeint(lambda t, y: -y, y0, T, method=method, options=options)
        with pytest.warns(PyjlodeWarning, match=name):
            odeint(lambda t, y: -y, y0, T, method=method, options=options, engine=engine)
    for options, message in (
        ({"stepsize": 0.1}, "nearest is 'step_size'"),
        ({"grid_points": T}, "jump_t"),
        ({"first_step": 0.0}, "above zero"),
        ({"norm": "max"}, "norm"),
        ({"jump_t": torch.tensor([0.1, 0.1])}, "twice"),
    ):
        with pytest.raises(ValueError, match=message):
            odeint(lambda t, y: -y, y0, T, method="dopri5", options=options, engine=engine)


def test_methods_that_only_torchdiffeq_has(engine: str) -> None:
    field = Field()
    for method, options in (
        ("implicit_adams", {"step_size": 0.05}),
        ("fixed_adams", {"step_size": 0.05, "max_order": 5}),
        ("explicit_adams", {"step_size": 0.05, "max_order": 4}),
    ):
        if engine == "julia":
            with pytest.raises(UnsupportedError, match="VCABM"):
                odeint(field, Y0, T, method=method, options=options, engine=engine)
        else:
            compare(engine, field, Y0, T, 1e-12, method=method, options=options, without_t=True)
    if engine == "torch":
        y0 = Y0.clone().requires_grad_()
        y = odeint(field, y0, T, method="scipy_solver", options={"solver": "RK45"}, engine=engine)
        expected = torchdiffeq.odeint(
            field, y0, T, method="scipy_solver", options={"solver": "RK45"}
        )
        assert torch.equal(y.detach(), expected)
        y[-1].sum().backward()
        found, y0.grad = y0.grad, None
        torchdiffeq.odeint(field, y0, T, rtol=1e-9, atol=1e-9)[-1].sum().backward()
        assert_close(found, y0.grad, 1e-5)
