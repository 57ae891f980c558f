"""Stiff problems: gradients that are right, or an error; never a quiet wrong number."""

from __future__ import annotations

import functools

import pytest
import torch
from reference import assert_close
from scipy.integrate import solve_ivp
from stiff_problems import PROBLEMS, loss, rober
from stiff_problems import reference as forward_sensitivities

from pyjlode import SolverError, odeint

D = torch.float64
STIFF = ["Rosenbrock23", "Rodas4", "Rodas5P", "TRBDF2", "KenCarp4", "Kvaerno5", "FBDF", "QNDF"]
RATES = [0.04, 3e7, 1e4]


def _times() -> torch.Tensor:
    return torch.cat([torch.zeros(1, dtype=D), torch.logspace(-5, 5, 40, dtype=D)])


@pytest.fixture(scope="module")
def reference() -> tuple[torch.Tensor, torch.Tensor]:
    """States, and the gradient of the third one's sum, by SciPy's Radau on the forward
    sensitivity equations."""

    def right(t: float, z: object) -> object:
        y = torch.as_tensor(z[:3])
        s = torch.as_tensor(z[3:]).reshape(3, 3)
        k = torch.tensor(RATES, dtype=D)
        by_k, by_y = torch.autograd.functional.jacobian(rober, (k, y))
        # Sensitivities with respect to the logarithms of k, all of a size.
        return torch.cat([rober(k, y), (by_y @ s + by_k * k).reshape(-1)]).numpy()

    t = _times().numpy()
    solved = solve_ivp(
        right, (0, t[-1]), [1.0, 0, 0] + [0.0] * 9, t_eval=t, method="Radau", rtol=1e-9, atol=1e-13
    )
    z = torch.as_tensor(solved.y.T)
    return z[:, :3], z[:, 9:].sum(0) / torch.tensor(RATES, dtype=D)


@pytest.mark.parametrize("method", STIFF)
def test_robertson(julia: str, method: str, reference: tuple[torch.Tensor, torch.Tensor]) -> None:
    k = torch.tensor(RATES, dtype=D, requires_grad=True)
    y = odeint(
        lambda t, y: rober(k, y), torch.tensor([1.0, 0, 0], dtype=D), _times(),
        rtol=1e-8, atol=1e-10, method=method, engine="julia",
    )  # fmt: skip
    y[:, 2].sum().backward()
    states, gradient = reference
    assert_close(y.detach(), states, 1e-5)
    assert_close(k.grad / gradient, torch.ones(3, dtype=D), 1e-4)


@pytest.mark.parametrize("sensealg", ["gauss", "interpolating", "quadrature", "forward"])
def test_robertson_adjoints(
    julia: str, sensealg: str, reference: tuple[torch.Tensor, torch.Tensor]
) -> None:
    k = torch.tensor(RATES, dtype=D, requires_grad=True)
    y = odeint(
        lambda t, y: rober(k, y), torch.tensor([1.0, 0, 0], dtype=D), _times(),
        rtol=1e-8, atol=1e-10, method="FBDF", sensealg=sensealg, engine="julia",
    )  # fmt: skip
    y[:, 2].sum().backward()
    assert_close(k.grad / reference[1], torch.ones(3, dtype=D), 1e-6)


def test_backsolve_raises(julia: str) -> None:
    """Backwards in time Robertson's problem is unstable: that must not pass unseen."""
    k = torch.tensor(RATES, dtype=D, requires_grad=True)
    y = odeint(
        lambda t, y: rober(k, y), torch.tensor([1.0, 0, 0], dtype=D), _times(),
        rtol=1e-8, atol=1e-10, method="Rodas5P", sensealg="backsolve", engine="julia",
    )  # fmt: skip
    with pytest.raises(SolverError, match="backward solve"):
        y[:, 2].sum().backward()


def test_explicit_method_says_so(julia: str) -> None:
    k = torch.tensor(RATES, dtype=D)
    with pytest.raises(SolverError, match="stiff method") as caught:
        odeint(
            lambda t, y: rober(k, y), torch.tensor([1.0, 0, 0], dtype=D), _times(), engine="julia"
        )
    assert caught.value.retcode == "MaxIters"
    assert 0 < caught.value.t < 1e5


@pytest.mark.parametrize("method", ["KenCarp4", "FBDF", "Rodas5P"])
def test_van_der_pol(julia: str, method: str) -> None:
    """μ = 1000 in its own time: relaxation oscillations. SDIRK's own adjoint is off by 90% here."""
    mu = torch.tensor(1e3, dtype=D, requires_grad=True)

    def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.stack([y[1], mu * ((1 - y[0] ** 2) * y[1] - y[0])])

    y0, t = torch.tensor([2.0, 0.0], dtype=D), torch.linspace(0, 2, 5, dtype=D)
    y = odeint(func, y0, t, rtol=1e-9, atol=1e-11, method=method, engine="julia")
    y[:, 0].sum().backward()

    def right(s: float, z: object) -> list[float]:
        a, b, c, d = z
        m = 1e3
        return [
            b, m * ((1 - a * a) * b - a), d,
            (1 - a * a) * b - a + m * ((-2 * a * b - 1) * c + (1 - a * a) * d),
        ]  # fmt: skip

    solved = solve_ivp(
        right, (0, 2), [2.0, 0, 0, 0], t_eval=t.numpy(), method="Radau", rtol=1e-10, atol=1e-12
    )
    assert_close(mu.grad, torch.as_tensor(solved.y[2].sum()), 1e-4)


@functools.cache
def expected(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return forward_sensitivities(PROBLEMS[name])


@pytest.mark.parametrize("method", ["Rodas5P", "Rodas4", "KenCarp4", "FBDF"])
@pytest.mark.parametrize("name", list(PROBLEMS))
def test_every_gradient(julia: str, name: str, method: str) -> None:
    """By the initial state and by the logarithms of the rates, against forward sensitivities."""
    problem = PROBLEMS[name]
    y0 = problem.y0.clone().requires_grad_()
    logarithms = problem.rates.log().requires_grad_()
    y = odeint(
        lambda t, y: problem.func(logarithms.exp(), y), y0, problem.t, rtol=problem.rtol,
        atol=problem.atol, method=method, engine="julia",
    )  # fmt: skip
    found = torch.autograd.grad(loss(y), (y0, logarithms))
    for gradient, reference, what in zip(found, expected(name), ("y0", "rates"), strict=True):
        assert_close(gradient, reference, 1e-4, what)
