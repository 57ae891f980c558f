"""Tolerances of each component, with a method of every kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyjlode import (
    UnsupportedError,
    jumpint,
    odeint,
    odeint_adjoint,
    solve_ivp,
    steady_state,
)

D = torch.float64
SYSTEM = torch.tensor([[-1.0, 0.5], [-0.3, -40.0]], dtype=D)
METHODS = ["Tsit5", "Rodas5P", "Rosenbrock23", "KenCarp4", "FBDF", "RadauIIA5", "auto"]


def solve(method: str, rtol: Any, atol: Any) -> tuple[Tensor, Tensor]:
    y0 = torch.ones(2, dtype=D, requires_grad=True)
    y = odeint(
        lambda t, y: SYSTEM @ y, y0, [0.0, 0.3, 1.0], method=method, rtol=rtol, atol=atol,
        engine="julia",
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(y[-1].sum(), y0)
    return y.detach(), gradient


@pytest.mark.parametrize("method", METHODS)
def test_equal_components_are_one_number(julia: str, method: str) -> None:
    rtol, atol = torch.full((2,), 1e-6, dtype=D), torch.full((2,), 1e-8, dtype=D)
    states, gradient = solve(method, 1e-6, 1e-8)
    for given in ((rtol, 1e-8), (1e-6, atol), (rtol, atol)):
        found = solve(method, *given)
        torch.testing.assert_close(found[0], states, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(found[1], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_the_tight_component_is_near(julia: str, method: str) -> None:
    exact = torch.linalg.matrix_exp(SYSTEM).sum(1)
    atol = torch.tensor([1e-10, 1e-2], dtype=D)
    found = solve(method, torch.tensor([1e-9, 1e-2], dtype=D), atol)[0][-1]
    assert abs(found[0] - exact[0]) < 1e-6


def test_scipys_rtol_by_component(engine: str) -> None:
    """As SciPy takes it; with Julia it reaches the solver, too."""
    rtol = [1e-10, 1e-3]
    found = solve_ivp(
        lambda t, y: SYSTEM.numpy() @ y, [0.0, 1.0], [1.0, 1.0], method="RK45", rtol=rtol,
        atol=[1e-12, 1e-3], engine=engine,
    )  # fmt: skip
    exact = torch.linalg.matrix_exp(SYSTEM).sum(1)
    loose = solve_ivp(
        lambda t, y: SYSTEM.numpy() @ y, [0.0, 1.0], [1.0, 1.0], method="RK45", rtol=1e-3,
        atol=1e-3, engine=engine,
    )  # fmt: skip
    assert abs(found.y[0, -1] - exact[0]) < 1e-8 < abs(loose.y[0, -1] - exact[0])
    with pytest.raises(ValueError, match="shape"):
        solve_ivp(lambda t, y: -y, [0.0, 1.0], [1.0, 1.0], rtol=[1e-3] * 3, engine=engine)


def test_where_components_have_no_tolerances_of_their_own() -> None:
    two, y0 = torch.full((2,), 1e-6, dtype=D), torch.ones(2, dtype=D)
    with pytest.raises(UnsupportedError, match=r"atol must be one number here"):
        steady_state(lambda t, y: 1 - y, y0, atol=two)
    with pytest.raises(UnsupportedError, match=r"adjoint_rtol must be one number here"):
        odeint_adjoint(lambda t, y: -y, y0, [0.0, 1.0], adjoint_rtol=two, adjoint_params=())
    with pytest.raises(UnsupportedError, match=r"rtol must be one number here"):
        jumpint(
            lambda t, y: y, torch.tensor([[-1.0, 0.0], [0.0, -1.0]], dtype=D), y0, [0.0, 1.0],
            rtol=two,
        )  # fmt: skip
