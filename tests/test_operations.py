"""Operations with parameters, solved and differentiated, against Runge-Kutta steps under autograd.

``test_translate.py`` has every operation by itself, at one point.
"""

from __future__ import annotations

import pytest
import torch
from cases import MODELS, make
from reference import assert_close, gradients, rk4

from pyjlode import odeint
from pyjlode.engine import choose_engine

SHAPES = {"single": (3,), "batch": (4, 3)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_in_julia(julia: str, name: str, shape: str) -> None:
    choose_engine("julia").models.clear()  # callback mode would be said again, which fails
    check("julia", name, SHAPES[shape])


@pytest.mark.parametrize("name", MODELS)
def test_gradients_in_torch(name: str) -> None:
    check("torch", name, SHAPES["batch"])


def check(engine: str, name: str, shape: tuple[int, ...]) -> None:
    func, tensors = make(name)
    y0 = 0.2 + torch.rand(shape, dtype=torch.float64)
    t = torch.tensor([0.1, 0.4, 0.6], dtype=torch.float64)

    def solve(y: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        return odeint(func, y, times, rtol=1e-10, atol=1e-11, engine=engine)

    states, found = gradients(solve, y0, t, tensors)
    expected_states, expected = gradients(lambda y, s: rk4(func, y, s), y0, t, tensors)
    assert_close(states, expected_states, 1e-8, "states")
    for i, (g, e) in enumerate(zip(found, expected, strict=True)):
        assert_close(g, e, 1e-6, f"gradient {i}")
