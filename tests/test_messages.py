"""What errors say of arguments and results that cannot be used, and what they name as the cure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import assert_close
from torch import Tensor

from pyjlode import (
    PresetTimeCallback,
    PyjlodeWarning,
    SolverError,
    cdeint,
    daeint,
    ddeint,
    jumpint,
    odeint,
    odeint_event,
    sdeint,
    steady_state,
)

D = torch.float64
Y0 = torch.ones(2, dtype=D)
T = [0.0, 1.0]


def decay(t: Tensor, y: Tensor) -> Tensor:
    return -y


class Noise:
    sde_type, noise_type = "ito", "diagonal"

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return -y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.1 * y


CHANGE = torch.tensor([[1.0, -1.0]], dtype=D)
# What is called, and what it says: the argument's name, and what was got.
ARGUMENTS: dict[str, tuple[Callable[[], Any], str]] = {
    "jump_t": (lambda: odeint(decay, Y0, T, options={"jump_t": "a"}), "option jump_t must be"),
    "min_step": (
        lambda: odeint(decay, Y0, T, options={"min_step": 1.0, "max_step": 0.1}),
        "min_step must not be above max_step",
    ),
    "norm": (
        lambda: odeint(decay, Y0, T, options={"norm": lambda y: y}),
        r"norm must give one number, not a tensor of shape \(2,\)",
    ),
    "norm, text": (
        lambda: odeint(decay, Y0, T, options={"norm": lambda y: "a"}),
        "norm must give one number, not 'a'",
    ),
    "tstops": (lambda: PresetTimeCallback(None, decay), "tstops must be .* not None"),
    "t0": (lambda: odeint_event(decay, Y0, "a", event_fn=decay), "t0 must be .* not 'a'"),
    "lags": (lambda: ddeint(lambda t, y, d: -d, Y0, T, lags="a"), "lags must be .* not 'a'"),
    "ts": (lambda: sdeint(Noise(), Y0[None], None), "ts must be .* not None"),
    "dt": (lambda: sdeint(Noise(), Y0[None], T, dt="a"), "dt must be a number"),
    "sdeint's method": (lambda: sdeint(Noise(), Y0[None], T, method=3), "method must be a name"),
    "sdeint's options": (lambda: sdeint(Noise(), Y0[None], T, options=3), "options must be a dict"),
    "names": (lambda: sdeint(Noise(), Y0[None], T, names=3), "names must be a dict"),
    "jumpint's t": (lambda: jumpint(decay, CHANGE, Y0, None), "t must be .* not None"),
    "jumpint's method": (
        lambda: jumpint(decay, CHANGE, Y0, T, method=3), "no method of jumpint 3; there are Direct"
    ),
    "jumpint's options": (
        lambda: jumpint(lambda t, y: y[:1], CHANGE, Y0, T, options={"max_step": "a"}),
        "max_step must be a number",
    ),
    "differential_vars": (
        lambda: daeint(decay, Y0, None, T, differential_vars="a"), "must be of True and False"
    ),
    "steady_state's method": (lambda: steady_state(decay, Y0, method=3), "no method 3; there are"),
    "cdeint's func": (lambda: cdeint(None, "a", Y0, T), "func must be callable"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(engine: str, name: str) -> None:
    call, message = ARGUMENTS[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def pairs(t: Tensor, y: Tensor) -> Tensor:
    """Bodies that attract each other: themselves too, with a force of zero of no derivative."""
    distance = y[:, None] - y[None]
    size = distance.abs()
    return torch.where(size > 0, -distance / size**3, 0 * size).sum(1)


@pytest.mark.parametrize("method", ["Rodas5P", "FBDF", "KenCarp4", "RadauIIA5"])
def test_a_jacobian_that_is_not_finite(julia: str, method: str) -> None:
    message = r"the Jacobian of func .* not finite at t = 0, y = \[0, 2\].*torch\.where.*Vern7"
    y0 = torch.tensor([0.0, 2.0], dtype=D)
    with pytest.raises(SolverError, match=message):
        odeint(pairs, y0, T, method=method, engine=julia)


def test_switching_methods_do_without_a_jacobian(julia: str) -> None:
    """Where the implicit one cannot step, the explicit one solves it all."""

    def stiff(t: Tensor, y: Tensor) -> Tensor:
        return 0 * pairs(t, y) - 1e4 * (y - torch.cos(t))

    y0 = torch.tensor([1.0, 2.0], dtype=D)
    time = 0.1
    exact = torch.tensor(time, dtype=D).cos()
    with pytest.warns(PyjlodeWarning, match="Vern7 solves it all"):
        found = odeint(stiff, y0, [0.0, time], method="auto", engine=julia)
    assert_close(found[-1], exact.expand(2), 1e-4)
    with pytest.warns(PyjlodeWarning, match="Vern7 solves it all"):
        dense = odeint(stiff, y0, [0.0, time], method="auto", engine=julia, return_solution=True)
    assert_close(dense(time), exact.expand(2), 1e-4)
    with pytest.warns(PyjlodeWarning, match="Vern7 solves it all"):
        event, _ = odeint_event(
            stiff, y0, 0.0, event_fn=lambda t, y: t - time, method="auto", engine=julia
        )
    assert abs(float(event) - time) < 1e-9
