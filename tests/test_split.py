"""Split equations: against the sum of their parts."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import pytest
import torch
from reference import assert_close, gradients
from torch import Tensor

from pyjlode import ArgumentError, Statistics, UnsupportedError, odeint
from pyjlode.split import METHODS

D = torch.float64
ALL = bool(os.environ.get("PYJLODE_ALL_METHODS"))


@pytest.mark.parametrize("method", METHODS if ALL else ["KenCarp4"])
def test_diffusion_and_reaction(julia: str, method: str) -> None:
    """A stiff linear part and a network, with a parameter that both have: all gradients."""
    net = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 6)).to(D)
    d = torch.tensor(300.0, dtype=D, requires_grad=True)

    def diffusion(t: Tensor, y: Tensor) -> Tensor:
        return d * (torch.roll(y, 1, -1) - 2 * y + torch.roll(y, -1, -1))

    def reaction(t: Tensor, y: Tensor) -> Tensor:
        return torch.cos(t) * net(y) + 1e-3 * d * y

    def total(t: Tensor, y: Tensor) -> Tensor:
        return diffusion(t, y) + reaction(t, y)

    y0 = torch.linspace(-1, 1, 12, dtype=D).view(2, 6)
    t = torch.tensor([0.8, 0.4, 0.0], dtype=D) if method == "KenCarp3" else torch.linspace(0, 1, 3)
    if method == "KenCarp3":  # backwards in time diffusion is anti-diffusion
        d = torch.tensor(-300.0, dtype=D, requires_grad=True)
    options = {"rtol": 1e-8, "atol": 1e-9, "engine": "julia"}
    results = [
        gradients(
            lambda y0, t, func=func, name=name: odeint(func, y0, t, method=name, **options),
            y0, t.to(D), [d, *net.parameters()],
        )
        for func, name in (((diffusion, reaction), method), (total, "Rodas5P"))
    ]  # fmt: skip
    assert_close(results[0][0], results[1][0], 1e-5)
    for i, (a, b) in enumerate(zip(results[0][1], results[1][1], strict=True)):
        # Those of the times are derivatives at states that are off a little, times the stiffness.
        assert_close(a, b, 1e-3 if i == 1 else 1e-4)


def test_parts_of_one_structure(julia: str) -> None:
    """Their constants are two, though one model would do for either alone."""

    def scaled(by: float) -> Callable[..., tuple[Tensor, ...]]:
        factor = torch.tensor(by, dtype=D)
        return lambda t, y: tuple(factor * x for x in y)

    y0 = (torch.ones(2, dtype=D), torch.full((1,), 2.0, dtype=D))
    x, z = odeint((scaled(-3.0), scaled(1.0)), y0, [0.0, 0.5], engine="julia")
    assert_close(x[1], torch.exp(torch.tensor(-1.0, dtype=D)) * y0[0], 1e-6)
    assert_close(z[1], torch.exp(torch.tensor(-1.0, dtype=D)) * y0[1], 1e-6)


def test_only_the_first_is_implicit(julia: str) -> None:
    """With the stiff part second, steps are as short as an explicit method's."""

    def stiff(t: Tensor, y: Tensor) -> Tensor:
        return -1e4 * (y - torch.cos(t))

    def gentle(t: Tensor, y: Tensor) -> Tensor:
        return -torch.sin(t) * torch.ones_like(y)

    counts = []
    for parts, error in (((stiff, gentle), 1e-5), ((gentle, stiff), 1e-2)):
        stats = Statistics()
        y = odeint(
            parts, torch.ones(1, dtype=D), [0.0, 0.1], rtol=1e-7, atol=1e-8, stats=stats,
            engine="julia",
        )  # fmt: skip
        assert abs(float(y[-1]) - math.cos(0.1)) < error
        counts.append(stats.naccept)
    assert counts[1] > 100 > counts[0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"func": (torch.sin,)}, ArgumentError, "pair of two"),
        ({"method": "Tsit5"}, UnsupportedError, "KenCarp4"),
        ({"sensealg": "discrete"}, UnsupportedError, "GaussAdjoint"),
        ({"return_solution": True}, UnsupportedError, "sum of the two"),
        ({"event_fn": lambda t, y: y[0]}, UnsupportedError, "sum of the two"),
        ({"batch": "independent"}, UnsupportedError, "sum of the two"),
        ({"options": {"jump_t": [0.5]}}, UnsupportedError, "sum of the two"),
        ({"mass_matrix": torch.eye(2)}, UnsupportedError, "Rodas5P"),
        ({"engine": "torch"}, UnsupportedError, "sum of the two|has no KenCarp4"),
    ],
)
def test_what_is_refused(options: dict, error: type[Exception], message: str) -> None:
    arguments = {"func": (lambda t, y: -y, lambda t, y: y / 2)} | options
    with pytest.raises(error, match=message):
        odeint(arguments.pop("func"), torch.ones(2, dtype=D), [0.0, 1.0], **arguments)
