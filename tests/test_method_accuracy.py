"""How near each method is to closed forms: within 100 tolerances, or as many as it took steps.

In the plain suite the methods whose error estimates had to be corrected; all of the catalogue with
``PYJLODE_ALL_METHODS=1`` (``make methods``).
"""

from __future__ import annotations

import os

import pytest
import torch
from method_accuracy import measure
from reference import assert_close
from torch import Tensor

from pyjlode import find_method, methods, odeint

D = torch.float64
CORRECTED = ["TRBDF2", "KenCarp3", "KenCarp4"]


def chosen() -> list[str]:
    if os.environ.get("PYJLODE_ALL_METHODS"):
        return [m.name for m in methods() if m.julia]
    return CORRECTED


@pytest.mark.parametrize("name", chosen())
def test_errors(julia: str, name: str) -> None:
    """OrdinaryDiffEqSDIRK 2.7.1 alone is up to 60,000 tolerances off on the oscillator."""
    for found in measure(find_method(name)):
        assert found.off < 1, found


def robertson(t: Tensor, y: Tensor) -> Tensor:
    a, b, c = y.unbind(-1)
    first, second, third = 0.04 * a, 1e4 * b * c, 3e7 * b * b
    return torch.stack([second - first, first - second - third, third], dim=-1)


@pytest.mark.parametrize("method", ["Rodas5P", "auto"])
def test_a_first_step_beyond_float32(julia: str, method: str) -> None:
    """It overflows, and is shortened, as any step that is too long."""
    t, y0 = [0.0, 40.0, 1e5], torch.tensor([1.0, 0.0, 0.0])
    found = odeint(robertson, y0, t, method=method, engine=julia, rtol=1e-4, atol=1e-7)
    tight = {"method": "RadauIIA5", "rtol": 1e-9, "atol": 1e-13}
    expected = odeint(robertson, y0.to(D), t, engine=julia, **tight)
    assert_close(found[:, [0, 2]].to(D), expected[:, [0, 2]], 1e-4)
