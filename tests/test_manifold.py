"""Projections onto a manifold: what is kept and refused, and gradients by finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyjlode import (
    ArgumentError,
    DiscreteAdjoint,
    GaussAdjoint,
    ManifoldProjection,
    SolverError,
    Statistics,
    UnsupportedError,
    odeint,
    odeint_adjoint,
)

D = torch.float64
LOOSE = {"rtol": 1e-3, "atol": 1e-3}


def oscillate(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[..., 1], -y[..., 0]], dim=-1)


def circle(t: Tensor, y: Tensor) -> Tensor:
    return y.square().sum() - 1


Y0 = torch.tensor([1.0, 0.0], dtype=D)


@pytest.mark.parametrize("method", ["Tsit5", "RK4"])
def test_an_energy_is_kept(julia: str, method: str) -> None:
    """At 40 times in a hundred, most of them within steps, and at the order of the method."""
    t = torch.linspace(0, 100, 41, dtype=D)
    plain = odeint(oscillate, Y0, t, method=method, engine=julia, **LOOSE)
    stats = Statistics()
    kept = odeint(
        oscillate, Y0, t, method=method, engine=julia, callback=ManifoldProjection(circle),
        stats=stats, **LOOSE,
    )  # fmt: skip
    assert (plain.square().sum(1) - 1).abs().max() > 1e-3
    assert (kept.square().sum(1) - 1).abs().max() < 1e-12
    assert 40 < stats.naccept < 400
    exact = torch.stack([t.cos(), -t.sin()], dim=1)
    assert (kept - exact).abs().max() < (plain - exact).abs().max() + 0.05
    tight = odeint(oscillate, Y0, t, engine=julia, callback=ManifoldProjection(circle), rtol=1e-9)
    torch.testing.assert_close(tight, exact, rtol=0, atol=1e-6)


def test_single_precision_reversed_time_and_a_tolerance(julia: str) -> None:
    t = torch.tensor([0.0, -7.0, -50.0])
    y = odeint(oscillate, Y0.float(), t, engine=julia, callback=ManifoldProjection(circle), **LOOSE)
    assert (y.square().sum(1) - 1).abs().max() < 2e-6
    wide = ManifoldProjection(circle, abstol=1e-3)
    y = odeint(oscillate, Y0, t.double(), engine=julia, callback=wide, **LOOSE)
    assert 1e-9 < (y.square().sum(1) - 1).abs().max() <= 1e-3


def test_the_nearest_state_is_taken(julia: str) -> None:
    """One step of Euler's, projected onto an ellipse: the difference is along its normal."""

    def ellipse(t: Tensor, y: Tensor) -> Tensor:
        return y[0] ** 2 + 4 * y[1] ** 2 - 1

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([-2 * y[1] + 0 * t, y[0] / 2])

    y0 = torch.tensor([0.6, 0.4], dtype=D)
    given: dict[str, Any] = {"method": "Euler", "options": {"step_size": 0.05}, "engine": julia}
    plain = odeint(field, y0, [0.0, 0.05], **given)[1]
    y = odeint(field, y0, [0.0, 0.05], callback=ManifoldProjection(ellipse), **given)[1]
    off, normal = plain - y, torch.stack([2 * y[0], 8 * y[1]])
    assert abs(float(ellipse(torch.zeros(()), y))) < 1e-12 and float(off.norm()) > 1e-4
    assert abs(float(off[0] * normal[1] - off[1] * normal[0])) < 1e-6 * float(off.norm())


def test_conditions_that_repeat_each_other(julia: str) -> None:
    """Rotations: nine conditions, of which three say what others do."""
    identity = torch.eye(3, dtype=D)

    def turn(t: Tensor, R: Tensor) -> Tensor:
        a, b, o = torch.cos(t), torch.sin(2 * t), torch.zeros_like(t)
        rows = [[o, -a, b], [a, o, o - 1], [-b, o + 1, o]]
        return torch.stack([torch.stack(row) for row in rows]) @ R

    keep = ManifoldProjection(lambda t, R: R @ R.T - identity)
    R = odeint(turn, identity, [0.0, 3.0, 20.0], engine=julia, callback=keep, **LOOSE)
    assert (R @ R.transpose(1, 2) - identity).abs().max() < 1e-12


def test_rows_of_a_batch_are_projected_apart(julia: str) -> None:
    """As the whole state is by a residual of another shape."""
    angles = torch.linspace(0, 2, 5, dtype=D)
    radii = 1 + torch.arange(5, dtype=D)
    y0 = radii[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1)
    shapes = {
        "apart": lambda t, y: y.square().sum(1) - radii**2,
        "as a whole": lambda t, y: (y.square().sum(1) - radii**2)[None],
    }
    found = []
    for residual in shapes.values():
        keep = ManifoldProjection(residual)
        y = odeint(oscillate, y0, [0.0, 10.0, 40.0], engine=julia, callback=keep, **LOOSE)
        assert (y.norm(dim=2) - radii).abs().max() < 5e-12
        found.append(y)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-11)
    # Tuples, projected as a whole: the energy of all oscillators.
    position, velocity = y0.unbind(1)
    q, p = odeint(
        lambda t, y: (y[1], -y[0]), (position, velocity), [0.0, 40.0], engine=julia, **LOOSE,
        callback=ManifoldProjection(lambda t, y: (y[0] ** 2 + y[1] ** 2).sum() - 55),
    )  # fmt: skip
    assert abs(float((q[1] ** 2 + p[1] ** 2).sum()) - 55) < 1e-11


@pytest.mark.parametrize(("method", "checkpoints"), [("Tsit5", None), ("RK4", None), ("Tsit5", 2)])
def test_gradients(julia: str, method: str, checkpoints: int | None) -> None:
    """Of a pendulum's energy that parameters and the start are part of; steps of one length."""
    k = torch.tensor([1.3, 0.7], dtype=D)
    y0 = torch.tensor([0.8, 0.3], dtype=D)
    times = {"RK4": [0.0, 0.5, 3.0]}.get(method, [0.0, 0.4, 1.3, 3.0])
    w = torch.randn(len(times), 2, dtype=D)

    def loss(k: Tensor, y0: Tensor, e: Tensor) -> Tensor:
        def pendulum(t: Tensor, y: Tensor) -> Tensor:
            return torch.stack([k[0] * y[1], -k[1] * torch.sin(y[0])])

        def energy(y: Tensor) -> Tensor:
            return k[0] * y[1] ** 2 / 2 - k[1] * torch.cos(y[0])

        keep = ManifoldProjection(lambda t, y: energy(y) - energy(y0) - e * t)
        y = odeint(
            pendulum, y0, times, engine=julia, method=method, callback=keep,
            options={"step_size": 0.25}, sensealg=DiscreteAdjoint(checkpoints=checkpoints),
        )  # fmt: skip
        return (w * y).sum()

    inputs = [x.clone().requires_grad_() for x in (k, y0, torch.tensor(1e-2, dtype=D))]
    found = torch.autograd.grad(loss(*inputs), inputs)
    h = 1e-5
    with torch.no_grad():
        for i, x in enumerate(inputs):
            for j in range(x.numel()):
                ends = []
                for sign in (1, -1):
                    moved = [v.clone() for v in inputs]
                    moved[i].view(-1)[j] += sign * h
                    ends.append(float(loss(*moved)))
                difference = (ends[0] - ends[1]) / (2 * h)
                assert abs(float(found[i].view(-1)[j]) - difference) < 2e-7, (i, j)


def test_gradients_of_save_points_within_steps(julia: str) -> None:
    """Adaptive steps count as constants, so the bound is that of the tolerances."""
    y0 = Y0.clone().requires_grad_()
    t = torch.linspace(0, 5, 23, dtype=D)
    radius = ManifoldProjection(lambda t, y: y.square().sum() - y0.square().sum())
    y = odeint(oscillate, y0, t, engine=julia, callback=radius, rtol=1e-8, atol=1e-10)
    w = torch.randn(23, 2, dtype=D)
    (found,) = torch.autograd.grad((w * y).sum(), y0)
    turns = torch.stack(
        [torch.stack([t.cos(), t.sin()], 1), torch.stack([-t.sin(), t.cos()], 1)], 1
    )
    torch.testing.assert_close(found, torch.einsum("ti,tij->j", w, turns), rtol=0, atol=1e-6)


def test_gradients_of_rows(julia: str) -> None:
    y0 = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.5, 0.5]], dtype=D, requires_grad=True)
    w = torch.randn(3, 2, dtype=D)

    def gradient(rows: Tensor, wanted: Tensor) -> Tensor:
        radii = rows.detach().square().sum(1)
        keep = ManifoldProjection(lambda t, y: y.square().sum(1) - radii)
        y = odeint(
            oscillate, rows, [0.0, 3.0], engine=julia, callback=keep,
            options={"step_size": 0.3}, method="Tsit5",
        )  # fmt: skip
        return torch.autograd.grad((wanted * y[1]).sum(), rows)[0]

    together = gradient(y0, w)
    for i in range(3):
        alone = gradient(y0[i : i + 1].detach().requires_grad_(), w[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-12)


def test_what_fails(julia: str) -> None:
    with pytest.raises(ArgumentError, match="y0 is not on the manifold: the residual there is 1"):
        odeint(
            oscillate, 2**0.5 * Y0, [0.0, 1.0], engine=julia, callback=ManifoldProjection(circle)
        )
    # A circle that shrinks to nothing, and then is none.
    shrink = ManifoldProjection(lambda t, y: y.square().sum() - (1 - t), maxiters=20)
    with pytest.raises(SolverError, match="did not converge in the step to t = ") as caught:
        odeint(oscillate, Y0, torch.linspace(0, 2, 21), engine=julia, callback=shrink)
    assert caught.value.retcode == "ConvergenceFailure" and 0.9 < caught.value.t < 2
    assert caught.value.solution is not None and len(caught.value.solution.t) >= 10
    three = ManifoldProjection(lambda t, y: circle(t, y) * torch.ones(3, dtype=D))
    with pytest.raises(ArgumentError, match="3 numbers for 2 of the state"):
        odeint(oscillate, Y0, [0.0, 1.0], engine=julia, callback=three)
    with pytest.raises(UnsupportedError, match="not for Rodas5P"):
        odeint(
            oscillate, Y0, [0.0, 1.0], engine=julia, callback=ManifoldProjection(circle),
            method="Rodas5P",
        )  # fmt: skip
    y0 = Y0.clone().requires_grad_()
    with pytest.raises(UnsupportedError, match="leave GaussAdjoint out"):
        odeint(
            oscillate, y0, [0.0, 1.0], engine=julia, callback=ManifoldProjection(circle),
            sensealg=GaussAdjoint(),
        )  # fmt: skip
    t = torch.tensor([0.0, 1.0], dtype=D, requires_grad=True)
    with pytest.raises(UnsupportedError, match="no gradient with respect to t"):
        odeint(oscillate, Y0, t, engine=julia, callback=ManifoldProjection(circle))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"event_fn": lambda t, y: y[0]}, "with event_fn"),
        ({"return_solution": True}, "with return_solution"),
        ({"mass_matrix": torch.eye(2)}, "with mass_matrix"),
        ({"batch": "independent", "y0": Y0[None]}, "independent"),
        ({"func": (oscillate, oscillate)}, "with split equation"),
        ({"engine": "torch"}, "torch engine has no ManifoldProjection"),
    ],
)
def test_what_is_refused(change: dict[str, Any], says: str) -> None:
    given = {"func": oscillate, "y0": Y0, "t": [0.0, 1.0], **change}
    with pytest.raises(UnsupportedError, match=says):
        odeint(**given, callback=ManifoldProjection(circle))


def test_arguments() -> None:
    for arguments, says in (
        ({"residual": 1.0}, "callable"),
        ({"residual": circle, "abstol": 0.0}, "abstol must be above zero"),
        ({"residual": circle, "maxiters": 0}, "maxiters must be a whole number"),
    ):
        with pytest.raises((ArgumentError, TypeError), match=says):
            ManifoldProjection(**arguments)
    keep: Any = ManifoldProjection(circle)
    with pytest.raises(UnsupportedError, match="odeint_adjoint has no ManifoldProjection"):
        odeint_adjoint(oscillate, Y0, [0.0, 1.0], callback=keep, adjoint_params=())
    other: Any = circle
    with pytest.raises(TypeError, match="a PresetTimeCallback or a ManifoldProjection"):
        odeint(oscillate, Y0, [0.0, 1.0], callback=other)
