"""Fully implicit equations against closed forms, eliminations by hand and finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from reference import assert_close, gradients
from scipy.integrate import solve_ivp
from stiff_problems import PROBLEMS, rober
from torch import Tensor

from pyjlode import (
    ArgumentError,
    NeuralDAE,
    SolverError,
    Statistics,
    UnsupportedError,
    daeint,
    odeint,
)

D = torch.float64
ROBER = PROBLEMS["rober"]
FIRST_TWO = [True, True, False]
TIGHT = {"rtol": 1e-9, "atol": 1e-11, "engine": "julia"}


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=D)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_guess_chooses_the_branch(julia: str, sign: int) -> None:
    """(dy)² = k y + 0 t has √y = √y0 ± √k t / 2: all gradients, times included."""
    k = torch.tensor([1.0, 4.0], dtype=D, requires_grad=True)

    def solve(y0: Tensor, t: Tensor) -> Tensor:
        return daeint(lambda t, y, dy: dy**2 - k * y, y0, sign * torch.ones(2, dtype=D), t, **TIGHT)

    def exact(y0: Tensor, t: Tensor) -> Tensor:
        return (y0.sqrt() + sign * k.sqrt() * (t - t[0])[:, None] / 2) ** 2

    y0, t = vector(4, 5), torch.linspace(0.5, 1.5, 4, dtype=D)
    states, found = gradients(solve, y0, t, [k])
    expected, reference = gradients(exact, y0, t, [k])
    assert_close(states, expected, 1e-8)
    for g, e, what in zip(found, reference, ("y0", "t", "k"), strict=True):
        assert_close(g, e, 1e-4 if what == "t" else 1e-7, what)


def implicit_rober(k: Tensor, y: Tensor, dy: Tensor) -> Tensor:
    """The rates in two equations of which none is of one derivative, and the sum."""
    a, b = (dy - rober(k, y))[:2]
    return torch.stack([a + 2 * b, b - a, y.sum() - 1])


@pytest.mark.parametrize("method", ["Rodas5P", "FBDF"])
def test_robertson_beside_the_mass_matrix(julia: str, method: str) -> None:
    """From a third species that is wrong by 0.3, and no derivative at all."""
    M, weights = torch.diag(vector(1, 1, 0)), vector(1.0, 1e4, 2)
    results = []
    for implicit in (True, False):
        logarithms = ROBER.rates.log().requires_grad_()
        y0 = vector(1, 0, 0.3).requires_grad_()
        given: dict[str, Any] = {"method": method, "rtol": 1e-8, "atol": 1e-10, "engine": "julia"}
        if implicit:
            y = daeint(
                lambda t, y, dy, k=logarithms: implicit_rober(k.exp(), y, dy), y0, None, ROBER.t,
                differential_vars=FIRST_TWO, **given,
            )  # fmt: skip
        else:
            y = odeint(
                lambda t, y, k=logarithms: torch.cat([rober(k.exp(), y)[:2], y.sum()[None] - 1]),
                y0, ROBER.t, mass_matrix=M, **given,
            )  # fmt: skip
        by = torch.autograd.grad((y @ weights).sum(), (logarithms, y0))
        results.append((*y.detach().unbind(1), *by))
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected, 1e-5)
    assert results[0][4][2] == 0


def circuit(t: Tensor, y: Tensor, dy: Tensor, ohm: Tensor, diode: Tensor) -> Tensor:
    """A source over a resistor into a capacitor whose capacity rests on its voltage, and a diode.

    Voltages of node and capacitor, which are tied, and the current: q(v) = v + v³ / 3 gives
    (1 + v²) v' = i - diode (exp(v) - 1), with i = (sin(t) + 1 - v) / ohm.
    """
    node, v, i = y.unbind(-1)
    leak = diode * (torch.exp(v) - 1)
    charge = (1 + v**2) * dy[..., 1] + leak - i
    return torch.stack([node - v, ohm * i - (torch.sin(t) + 1 - node), charge], dim=-1)


def test_circuit_against_scipy(julia: str) -> None:
    """A batch, each row with its own resistor; SciPy solves what elimination by hand leaves."""
    ohm, diode = vector(0.5, 1, 2), torch.tensor(0.1, dtype=D)
    v0, t = vector(0.3, -0.2, 1), torch.linspace(0, 5, 6, dtype=D)
    y0 = torch.stack([torch.zeros(3, dtype=D), v0, torch.ones(3, dtype=D)], dim=1)
    y = daeint(
        lambda t, y, dy: circuit(t, y, dy, ohm, diode), y0, None, t,
        differential_vars=[False, True, False], **TIGHT,
    )  # fmt: skip

    def eliminated(t: float, v: np.ndarray) -> np.ndarray:
        return ((np.sin(t) + 1 - v) / ohm.numpy() - 0.1 * (np.exp(v) - 1)) / (1 + v**2)

    v = torch.from_numpy(
        solve_ivp(eliminated, (0, 5), v0, "DOP853", t.numpy(), rtol=1e-12, atol=1e-12).y.T
    )
    assert_close(y, torch.stack([v, v, (torch.sin(t)[:, None] + 1 - v) / ohm], dim=-1), 1e-7)


def differences(solve: Callable[..., Tensor], inputs: Sequence[Tensor], step: float) -> None:
    """Central differences of the last solve's numbers, by every number of every input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    found = torch.autograd.grad(solve(*leaves), leaves)
    expected = [torch.zeros_like(x) for x in inputs]
    for i, x in enumerate(inputs):
        for k in range(x.numel()):
            ends = []
            for sign in (1, -1):
                moved = [z.detach().clone() for z in inputs]
                moved[i].view(-1)[k] += sign * step
                with torch.no_grad():
                    ends.append(float(solve(*moved)))
            expected[i].view(-1)[k] = (ends[0] - ends[1]) / (2 * step)
    assert_close(found[0], expected[0], 1e-4, "t")
    together = (torch.cat([g.reshape(-1) for g in gs[1:]]) for gs in (found, expected))
    assert_close(*together, 1e-6)


def test_every_gradient_by_differences(julia: str) -> None:
    """Times, the state, both guesses, what func closes over; an algebraic slope at the start."""

    def solve(t: Tensor, y0: Tensor, dy0: Tensor, ohm: Tensor, diode: Tensor) -> Tensor:
        y = daeint(
            lambda t, y, dy: circuit(t, y, dy, ohm, diode), y0, dy0, t,
            differential_vars=[False, True, False], **TIGHT,
        )  # fmt: skip
        weights = torch.linspace(0.5, 1.5, y.numel(), dtype=D).view_as(y)
        return (weights * y + 0.3 * y**2).sum()

    ohm, diode = vector(0.5, 2), torch.tensor(0.1, dtype=D)
    y0 = vector(0.0, 0.3, 1, 0, -0.2, 1).view(2, 3)
    t = vector(0, 0.4, 1.1)
    differences(solve, [t, y0, torch.zeros_like(y0), ohm, diode], 1e-4)


def test_pendulum_of_index_one(julia: str) -> None:
    """Its constraint differentiated twice: the tension is algebraic; against the angle's ODE."""
    g, length = 9.81, 1.3

    def func(t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        x, z, u, w, tension = y
        return torch.stack([
            dy[0] - u,
            dy[1] - w,
            dy[2] + tension * x,
            dy[3] + tension * z + g,
            u**2 + w**2 - g * z - tension * (x**2 + z**2),
        ])  # fmt: skip

    angle = vector(1.0)
    t = torch.linspace(2, 0, 5, dtype=D)  # and backwards in time
    y0 = torch.cat([length * angle.sin(), -length * angle.cos(), vector(0, 0, 0)])
    mask = torch.tensor([True] * 4 + [False])
    y = daeint(func, y0, None, t, differential_vars=mask, **TIGHT)
    swing = solve_ivp(
        lambda t, s: [s[1], -g / length * np.sin(s[0])], (2, 0), [1.0, 0.0], "DOP853", t.numpy(),
        rtol=1e-12, atol=1e-12,
    )  # fmt: skip
    theta, omega = torch.from_numpy(swing.y)
    assert_close(y[:, 0], length * theta.sin(), 1e-6)
    assert_close(y[:, 4], omega**2 + g / length * theta.cos(), 1e-6)


def test_tuples_rows_that_differ_and_interpolation(julia: str) -> None:
    """x' = -z with z = 2 x, as two tensors; then which is algebraic changes from row to row."""

    def apart(t: Tensor, y: Sequence[Tensor], dy: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return dy[0] + y[1], y[1] - 2 * y[0]

    x0 = vector(1, 2)
    stats = Statistics()
    solution = daeint(
        apart, (x0, torch.zeros(2, dtype=D)), None, [0.0, 1.0], return_solution=True, stats=stats,
        differential_vars=(True, False), rtol=(1e-9, 1e-9), atol=(1e-11, 1e-10), engine="julia",
    )  # fmt: skip
    (x, z), (slope, _) = solution(0.4), solution.derivative(0.4)
    assert_close(x, x0 * torch.tensor(-0.8, dtype=D).exp(), 1e-7)
    assert_close(z, 2 * x, 1e-7)
    assert_close(slope, -2 * x, 1e-4)
    assert solution.y[0].shape == (2, 2) and stats.naccept > 0

    def rows(t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        (a, b), (c, d) = y
        return torch.stack(
            [torch.stack([dy[0, 0] + b, b - 2 * a]), torch.stack([c - 2 * d, dy[1, 1] + c])]
        )

    mask = torch.tensor([[True, False], [False, True]])
    y0 = torch.tensor([[1.0, 0], [0, 2]], dtype=D)
    y = daeint(rows, y0, None, [0.0, 0.4], differential_vars=mask, **TIGHT)
    assert_close(y[1], torch.stack([x[0], z[0], z[1], x[1]]).view(2, 2), 1e-7)


def test_a_scalar(julia: str) -> None:
    """dy + dy³ = -y: with the slope s, dt = -(1 / s + 3 s) ds."""
    one = torch.tensor(1.0, dtype=D)
    y = daeint(lambda t, y, dy: dy + y + dy**3, one, None, [0.0, 1.0], **TIGHT)
    assert y.shape == (2,)
    start, end = (float(np.roots([1, 0, 1, float(v)])[-1].real) for v in y)
    assert abs(np.log(start / end) + 1.5 * (start**2 - end**2) - 1) < 1e-7


def test_event(julia: str) -> None:
    """An algebraic variable of tuples reaches a level, in closed form; backwards in time."""
    inputs = [torch.tensor(v, dtype=D, requires_grad=True) for v in (0.5, 1.3, 0.8, 2.0)]
    t0, x0, rate, level = inputs

    def func(t: Tensor, y: Sequence[Tensor], dy: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return dy[0] + dy[0] ** 3 - (rate * y[0] + (rate * y[0]) ** 3), y[1] - y[0] - t**2

    time, (x, z) = daeint(
        func, (x0, x0.detach()), None, torch.stack([t0, t0.detach() - 1]),
        differential_vars=(True, False), event_fn=lambda t, y: y[1] + 0 * t - level / 2, **TIGHT,
    )  # fmt: skip
    # x = x0 exp(rate (t - t0)), and z = x + t² is level / 2 where Newton's method finds it.
    when = torch.tensor(0.0, dtype=D)
    for _ in range(20):
        grown = x0 * torch.exp(rate * (when - t0))
        when = when - (grown + when**2 - level / 2) / (rate * grown + 2 * when)
    expected = (when, x0 * torch.exp(rate * (when - t0)), level / 2)
    for found, e in zip((time, x[1], z[1]), expected, strict=True):
        assert_close(found.detach(), e.detach(), 1e-7)
        have, want = (
            torch.stack(
                torch.autograd.grad(
                    value, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
                )
            )
            for value in (found, e)
        )
        assert_close(have, want, 1e-5)
    assert float(time.detach()) < 0.5 and z.shape == (2,)


def test_jumps(julia: str) -> None:
    """dy = -c(t) y with c from 1 to 3 at 1/2: the derivative is found again after the jump."""
    y = daeint(
        lambda t, y, dy: dy + torch.where(t > 0.5, 3.0, 1.0) * y, vector(1), None, [0.0, 1.0],
        options={"jump_t": torch.tensor([0.5])}, **TIGHT,
    )  # fmt: skip
    assert_close(y[1], vector(-2).exp(), 1e-7)


def test_failure_after_a_jump_backwards_in_time(julia: str) -> None:
    """dy = -y² from one at -2 is infinite at -3: the error has the caller's time and states."""
    with pytest.raises(SolverError, match="stopped at t = -3") as caught:
        daeint(
            lambda t, y, dy: dy + y**2, vector(1), None, [-2.0, -2.5, -5.0],
            options={"jump_t": torch.tensor([-2.2])}, engine="julia",
        )  # fmt: skip
    assert abs(caught.value.t + 3) < 1e-3 and caught.value.solution is not None
    assert_close(caught.value.solution.y[1], vector(2), 1e-6)


def test_check_init(julia: str) -> None:
    given = {"differential_vars": FIRST_TWO, "initializealg": "CheckInit", "engine": "julia"}

    def func(t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        return torch.stack([dy[0] + y[0], y[0] + y[1] + y[2] - 3, dy[1] - 2])

    y0 = vector(1, 1, 1)
    with pytest.raises(SolverError, match=r"func has there 0\.25 at \[0\], -2 at \[2\]") as caught:
        daeint(func, y0, vector(-0.75, 0, 0), [0.0, 1.0], **given)
    assert caught.value.retcode == "InitialFailure" and "dy0 that do" in str(caught.value)
    y = daeint(func, y0, vector(-1, 2, 7), [0.0, 1.0], **given)
    assert_close(
        y[1], torch.stack([vector(-1).exp()[0], vector(3)[0], 0 - vector(-1).exp()[0]]), 1e-6
    )


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (lambda t, y, dy: torch.stack([dy[0] - y[1], y[0] - torch.sin(t)]), "index"),
        (lambda t, y, dy: torch.stack([dy[0] * 0 + y[0], y[1] - 1]), "dy of the differential"),
        (lambda t, y, dy: torch.stack([(dy[0] + 0.7) ** 2 - y[0], y[1]]), "give another dy0"),
        (lambda t, y, dy: torch.stack([dy[0] ** 2 + 1, y[1]]), "was not brought to one"),
        (lambda t, y, dy: torch.stack([dy[0].log(), y[1]]), "not finite"),
    ],
)
def test_no_consistent_start(julia: str, func: Callable[..., Tensor], message: str) -> None:
    with pytest.raises(SolverError, match=message) as caught:
        daeint(
            func, vector(1, 1), vector(-0.7, 0), [0.0, 1], differential_vars=[True, False],
            engine="julia",
        )  # fmt: skip
    assert caught.value.retcode == "InitialFailure"


def test_an_index_that_rounding_hides(julia: str) -> None:
    """``A dy = f(t, y)`` with A of rank 3, from a state that satisfies what follows for ``y``."""
    for _ in range(4):
        A = torch.randn(4, 4, dtype=D)
        A[:, 3] = A[:, :3] @ torch.randn(3, dtype=D)
        with pytest.raises(SolverError, match="index of the equation may be above one"):
            daeint(
                lambda t, y, dy, A=A: A @ dy + y - torch.sin(t), A @ torch.randn(4, dtype=D), None,
                [0.0, 1.0], engine="julia",
            )  # fmt: skip


@pytest.mark.parametrize(
    "func",
    [
        lambda t, y, dy: dy + y,
        lambda t, y, dy: torch.stack([dy[0], dy[1], y[2] + (y[2] - 1) * dy[2]]),
        lambda t, y, dy: torch.stack([dy[0], dy[1], y[2] + torch.where(t > 0.5, dy[2], 0.0)]),
    ],
)
def test_derivatives_of_algebraic_variables_are_refused(
    julia: str, func: Callable[..., Tensor]
) -> None:
    with pytest.raises(ArgumentError, match=r"depends on dy at \[2\], which differential_vars"):
        daeint(func, torch.ones(3), None, [0.0, 1.0], differential_vars=FIRST_TWO, engine="julia")


def residual(t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
    return dy + y


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"func": 1}, TypeError, "func must be callable"),
        ({"y0": torch.ones(3) * 1j}, UnsupportedError, "real state"),
        ({"dy0": torch.ones(2)}, ArgumentError, r"dy0 has shape \(2,\)"),
        ({"dy0": torch.ones(3) / 0}, ArgumentError, "dy0 has values"),
        ({"dy0": "steep"}, TypeError, "dy0 must be like y0"),
        ({"y0": (torch.ones(3),), "dy0": torch.ones(3)}, ArgumentError, "tuple of 1 tensors"),
        ({"differential_vars": [1, 0, 1]}, ArgumentError, "True and False"),
        ({"differential_vars": [True, False]}, ArgumentError, "does not fit"),
        ({"differential_vars": [False] * 3}, ArgumentError, "steady_state"),
        ({"y0": (torch.ones(3),), "differential_vars": True}, ArgumentError, "with 1 entries"),
        ({"method": "Tsit5"}, UnsupportedError, "Rodas5P"),
        ({"method": "DFBDF"}, UnsupportedError, "Rodas5P"),
        ({"initializealg": "x"}, ArgumentError, "must be one of"),
        ({"t": [0.0]}, ArgumentError, "two times"),
        ({"engine": "torch"}, UnsupportedError, "implicit equations"),
    ],
)
def test_what_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"func": residual, "y0": torch.ones(3), "dy0": None, "t": [0.0, 1.0], **options}
    with pytest.raises(error, match=message):
        daeint(**given)


def test_what_julia_refuses(julia: str) -> None:
    y0 = torch.ones(3, requires_grad=True)
    with pytest.raises(UnsupportedError, match="GaussAdjoint is not there with daeint"):
        daeint(residual, y0, None, [0.0, 1.0], sensealg="gauss", engine="julia")
    with pytest.raises(UnsupportedError, match="draw them before"):
        daeint(
            lambda t, y, dy: dy + torch.nn.functional.dropout(y, 0.5), y0, None, [0.0, 1.0],
            engine="julia",
        )  # fmt: skip
    with pytest.raises(TypeError, match=r"func returned shape \(2,\)"):
        daeint(lambda t, y, dy: dy[:2], y0, None, [0.0, 1.0], engine="julia")


class Residual(torch.nn.Module):
    """``x' + x'^3 / 10 + rate x z``, for the second of three variables ``(w, x, z)``."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(rate, dtype=D))

    def forward(self, t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        assert dy.shape == (*y.shape[:-1], 1)
        return dy + 0.1 * dy**3 + self.rate * y[..., 1:2] * y[..., 2:]


def ties(t: Tensor, y: Tensor) -> Tensor:
    w, x, z = y.unbind(-1)
    return torch.stack([w - 2 * x, z + x - 2], dim=-1)


def test_the_layer_learns(julia: str) -> None:
    """The rate behind states; and one step further along with the other guess of ``dy``."""
    t = torch.linspace(0, 1, 4, dtype=D)
    mask = torch.tensor([False, True, False])
    target, layer = (
        NeuralDAE(Residual(rate), ties, t, differential_vars=mask, engine="julia")
        for rate in (1.5, 1.0)
    )
    y0 = torch.tensor([[0.0, 1.0, 0], [0, 0.5, 0]], dtype=D)
    with torch.no_grad():
        wanted = target(y0, torch.ones_like(y0))
    assert_close(wanted[..., 0], 2 * wanted[..., 1], 1e-7)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=8, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = ((layer(y0) - wanted) ** 2).sum()
        loss.backward()
        return loss

    before = float(closure().detach())
    optimizer.step(closure)
    assert float(closure().detach()) < 1e-6 * before
    assert abs(float(layer.model.rate.detach()) - 1.5) < 1e-3
    assert layer.nfe > 0 and [name for name, _ in layer.named_parameters()] == ["model.rate"]


def test_what_the_layer_refuses(julia: str) -> None:
    with pytest.raises(ValueError, match="True and False"):
        NeuralDAE(Residual(1.0), ties, differential_vars=[0, 1, 0])
    with pytest.raises(TypeError, match="takes no batch"):
        NeuralDAE(Residual(1.0), ties, differential_vars=[True], batch="joint")
    layer = NeuralDAE(
        Residual(1.0), lambda t, y: y, [0.0, 1], differential_vars=[True, False, False]
    )
    with pytest.raises(ValueError, match="no times"):
        NeuralDAE(Residual(1.0), ties, differential_vars=[True])(torch.ones(1, 1))
    with pytest.raises(TypeError, match=r"constraints_model gave shape \(3,\), not \(2,\)"):
        layer(vector(1, 1, 1))
