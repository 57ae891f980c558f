"""``solve_ivp`` beside SciPy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp as scipy_solve_ivp

from pyjlode import PyjlodeWarning, UnsupportedError, find_method, solve_ivp
from pyjlode.solve_ivp import SCIPY_METHODS


def decay(t: float, y: np.ndarray) -> np.ndarray:
    return -0.5 * y


def lotka(t: float, y: np.ndarray, a: float, b: float, c: float, d: float) -> list[float]:
    return [a * y[0] - b * y[0] * y[1], -c * y[1] + d * y[0] * y[1]]


def oscillator(t: float, y: np.ndarray) -> list[float]:
    return [y[1], -y[0]]


def forced(t: float, y: np.ndarray) -> np.ndarray:
    return -50.0 * (y - np.cos(t))


def van_der_pol(t: float, y: np.ndarray, mu: float = 1e3) -> list[float]:
    return [y[1], mu * ((1 - y[0] ** 2) * y[1] - y[0])]


def van_der_pol_jacobian(t: float, y: np.ndarray, mu: float = 1e3) -> np.ndarray:
    return np.array([[0, 1], [mu * (-2 * y[0] * y[1] - 1), mu * (1 - y[0] ** 2)]])


def robertson(t: float, y: np.ndarray) -> np.ndarray:
    a, b, c = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return np.array([-a + b, a - b - c, c])


def columns(t: float, y: np.ndarray) -> np.ndarray:
    assert y.ndim == 2
    return np.stack([y[1], -y[0] - 0.1 * y[1]])


def rotate(t: float, y: np.ndarray) -> np.ndarray:
    return 1j * np.array([1.0, 2.0]) * y - 0.1 * y


LINEAR = np.array([[-1.0, 0.5], [0.2, -2.0]])

PROBLEMS: dict[str, tuple[Callable[..., Any], tuple[float, float], Any, dict[str, Any]]] = {
    "exponential": (decay, (0, 10), [2.0, 4.0, 8.0], {}),
    "integers": (decay, (0, 1), [2, 4], {"method": "RK45"}),
    "lotka-volterra": (lotka, (0, 5), [10.0, 5.0], {"args": (1.5, 1, 3, 1), "method": "DOP853"}),
    "reversed": (oscillator, (3, -2), [1.0, 0.5], {}),
    "reversed with RK23": (oscillator, (3, -2), [1.0, 0.5], {"method": "RK23", "rtol": 1e-6}),
    "driven": (forced, (0, 2), [0.0], {"method": "Radau"}),
    "driven backwards": (lambda t, y: 5 * (y - np.cos(t)), (2, 0), [0.0], {"method": "BDF"}),
    "van der Pol, Radau": (
        van_der_pol, (0, 2), [2.0, 0.0], {"method": "Radau", "jac": van_der_pol_jacobian},
    ),
    "van der Pol, BDF": (
        van_der_pol, (0, 2), [2.0, 0.0], {"method": "BDF", "jac": van_der_pol_jacobian},
    ),
    "van der Pol, LSODA, args": (
        van_der_pol, (0, 2), [2.0, 0.0],
        {"method": "LSODA", "jac": van_der_pol_jacobian, "args": (500.0,)},
    ),
    "Robertson": (
        robertson, (0, 1e4), [1.0, 0.0, 0.0],
        {"method": "Radau", "rtol": 1e-8, "atol": [1e-8, 1e-12, 1e-8]},
    ),
    "matrix": (lambda t, y: LINEAR @ y, (0, 3), [1.0, -1.0], {"method": "BDF", "jac": LINEAR}),
    "vectorized": (columns, (0, 5), [1.0, 0.0], {"vectorized": True}),
    "vectorized, stiff": (columns, (0, 5), [1.0, 0.0], {"vectorized": True, "method": "Radau"}),
    "complex": (rotate, (0, 3), [1.0 + 0j, 1j], {}),
    "complex, stiff": (
        rotate, (0, 3), [1.0 + 0j, 1j],
        {"method": "BDF", "jac": lambda t, y: np.diag(1j * np.array([1.0, 2.0]) - 0.1)},
    ),
}  # fmt: skip


def both(engine: str, fun: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, Any]:
    """Ours and SciPy's, at tolerances at which they must agree closely."""
    options = {"rtol": 1e-9, "atol": 1e-10, **options}
    ours = solve_ivp(fun, *args, engine=engine, **options)
    method = options.pop("method", "RK45")
    theirs = scipy_solve_ivp(fun, *args, method=method, **options)
    assert ours.engine == ("julia" if engine == "julia" else "scipy")
    return ours, theirs


@pytest.mark.parametrize("name", PROBLEMS)
def test_beside_scipy(engine: str, name: str) -> None:
    fun, span, y0, options = PROBLEMS[name]
    t_eval = np.linspace(*span, 17)
    ours, theirs = both(engine, fun, span, y0, t_eval=t_eval, dense_output=True, **options)
    assert set(ours) >= set(theirs)
    assert ours.success and ours.status == 0 and ours.message == theirs.message
    assert ours.y.dtype == theirs.y.dtype and ours.y.shape == theirs.y.shape
    assert_allclose(ours.t, theirs.t)
    scale = np.abs(theirs.y).max(axis=1, keepdims=True)
    # RK23 is as far from the solution as its tolerance lets it be.
    tolerance = 1e-4 if options.get("method") == "RK23" else 2e-6
    assert_allclose(ours.y / scale, theirs.y / scale, atol=tolerance)
    between = np.random.default_rng(0).uniform(min(span), max(span), 9)
    assert_allclose(ours.sol(between) / scale, theirs.sol(between) / scale, atol=10 * tolerance)
    assert ours.sol(between[0]).shape == (len(y0),)
    assert ours.t_events is None and ours.y_events is None
    assert ours.nfev > 0
    stiff = options.get("method") in ("Radau", "BDF", "LSODA")
    if options.get("method") != "LSODA" and not isinstance(options.get("jac"), np.ndarray):
        assert (ours.njev > 0) == (ours.nlu > 0) == stiff
    # Without t_eval, the solver's own steps.
    options = {"rtol": 1e-9, "atol": 1e-10, **options}
    steps = solve_ivp(fun, span, y0, engine=engine, **options)
    assert steps.t[0] == span[0] and steps.t[-1] == span[1]
    assert np.all(np.diff(steps.t) * (span[1] - span[0]) > 0)
    assert steps.y.shape == (len(y0), len(steps.t))
    assert steps.sol is None
    assert_allclose(steps.y / scale, ours.sol(steps.t) / scale, atol=1e-9)
    assert_allclose(steps.y[:, 0], y0)


def falling(t: float, y: np.ndarray, g: float = 9.81) -> list[float]:
    return [y[1], -g]


def ground(t: float, y: np.ndarray, *args: float) -> float:
    return y[0]


def apex(t: float, y: np.ndarray, *args: float) -> float:
    return y[1]


def marked(
    event: Callable[..., Any], terminal: bool | int = False, direction: float = 0
) -> Callable[..., Any]:
    def copy(*args: Any) -> Any:
        return event(*args)

    copy.terminal, copy.direction = terminal, direction  # type: ignore[attr-defined]
    return copy


def same_events(ours: Any, theirs: Any) -> None:
    assert ours.status == theirs.status and ours.message == theirs.message
    assert len(ours.t_events) == len(theirs.t_events)
    for a, b in zip(ours.t_events, theirs.t_events, strict=True):
        assert_allclose(a, b, atol=1e-7)
    for a, b in zip(ours.y_events, theirs.y_events, strict=True):
        assert a.shape == b.shape
        assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("method", ["RK45", "DOP853", "Radau"])
@pytest.mark.parametrize("t_eval", [None, np.linspace(0, 10, 7)])
def test_cannon(engine: str, method: str, t_eval: np.ndarray | None) -> None:
    """SciPy's own example: the shot ends on the ground, which it does not hit when it starts."""
    events = [marked(ground, True, -1), apex]
    ours, theirs = both(
        engine, falling, (0, 10), [0.0, 10.0], t_eval=t_eval, events=events, args=(9.81,),
        dense_output=True, method=method, max_step=0.5,
    )  # fmt: skip
    same_events(ours, theirs)
    assert ours.status == 1
    assert_allclose(ours.t[-1], theirs.t[-1] if t_eval is None else 10 / 6, atol=1e-7)
    if t_eval is not None:
        assert_allclose(ours.y, theirs.y, atol=1e-6)
    assert_allclose(ours.sol(ours.t_events[1][0]), ours.y_events[1][0], atol=1e-9)
    if engine == "julia":  # SciPy's extrapolates
        with pytest.raises(ValueError, match="outside"):
            ours.sol(10.5)


@pytest.mark.parametrize("span", [(0, 20), (20, 0)])
@pytest.mark.parametrize("direction", [-1, 0, 1])
@pytest.mark.parametrize("terminal", [False, True, 3])
def test_directions_and_counts(
    engine: str, span: tuple[float, float], direction: float, terminal: bool | int
) -> None:
    events = [marked(lambda t, y: y[0] - 0.3, terminal, direction), lambda t, y: y[1] + 0.2 * t]
    ours, theirs = both(engine, oscillator, span, [1.0, 0.5], events=events, max_step=0.5)
    same_events(ours, theirs)
    assert_allclose(ours.t[-1], theirs.t[-1], atol=1e-7)
    assert_allclose(ours.y[:, -1], theirs.y[:, -1], atol=1e-6)


def test_events_leave_the_steps_alone(engine: str) -> None:
    plain = solve_ivp(oscillator, (0, 9), [1.0, 0.5], engine=engine)
    watched = solve_ivp(oscillator, (0, 9), [1.0, 0.5], events=ground, engine=engine)
    assert np.array_equal(plain.t, watched.t)
    assert np.array_equal(plain.y, watched.y)
    assert len(watched.t_events[0]) == 3
    none = solve_ivp(decay, (0, 1), [1.0], events=[lambda t, y: y[0] + 1], engine=engine)
    assert none.t_events[0].shape == (0,) and none.y_events[0].shape == (0,)


@pytest.mark.parametrize("method", ["RK45", "Radau"])
def test_torch_functions(engine: str, method: str) -> None:
    """Traced; the result is as SciPy's with the same numbers."""
    matrix = torch.tensor(LINEAR)

    def fun(t: torch.Tensor, y: torch.Tensor, k: float) -> torch.Tensor:
        return torch.tanh(matrix @ y) * k + torch.sin(t)

    y0, span = [1.0, -1.0], (4.0, 0.0)
    event = marked(lambda t, y, k: y[0] - 0.5, 1)
    options = {"method": method, "rtol": 1e-9, "atol": [1e-9, 1e-10], "args": (1.1,)}
    ours = solve_ivp(
        fun, span, torch.tensor(y0, dtype=torch.float64), events=event, engine=engine, **options
    )
    theirs = scipy_solve_ivp(
        lambda t, y, k: np.tanh(LINEAR @ y) * k + np.sin(t), span, y0, events=event, **options
    )
    same_events(ours, theirs)
    assert isinstance(ours.y, np.ndarray)
    assert_allclose(ours.y[:, -1], theirs.y[:, -1], atol=1e-6)
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh()).double()

    class Field(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.net(y)

    found = solve_ivp(Field(), (0, 1), y0, method=method, rtol=1e-8, engine=engine)
    with torch.no_grad():
        expected = scipy_solve_ivp(
            lambda t, y: net(torch.as_tensor(y)).numpy(), (0, 1), y0, rtol=1e-8
        )
    assert_allclose(found.y[:, -1], expected.y[:, -1], atol=1e-5)


def test_torch_complex_and_float32(julia: str) -> None:
    def fun(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 1j * y * torch.tensor([1.0, 2.0], dtype=torch.float64) - 0.1 * y

    y0 = torch.tensor([1.0 + 0j, 1j], dtype=torch.complex128)
    ours = solve_ivp(fun, (0, 3), y0, rtol=1e-9, atol=1e-10, engine="julia")
    assert_allclose(
        ours.y[:, -1], y0.numpy() * np.exp((1j * np.array([1, 2]) - 0.1) * 3), atol=1e-7
    )
    single = solve_ivp(lambda t, y: -y, (0, 1), torch.ones(2), engine="julia", rtol=1e-5)
    assert_allclose(single.y[:, -1], np.exp(-1), atol=1e-5)


def test_methods_of_the_catalogue(julia: str) -> None:
    t_eval = [3.0, 1.0, 0.5]
    expected = 2 * np.exp(-0.5 * (np.array(t_eval) - 3))
    for name in ("Tsit5", "Vern7", "QNDF", "rodas5p"):
        found = solve_ivp(decay, (3, 0), [2.0], name, t_eval, rtol=1e-8, atol=1e-9, engine="julia")
        assert found.method == find_method(name).name
        assert_allclose(found.y[0], expected, rtol=1e-4)
    for name, ours in SCIPY_METHODS.items():
        assert solve_ivp(decay, (0, 1), [1.0], name, engine="julia").method == ours
    for name in ("Euler", "explicit_adams"):
        with pytest.raises(UnsupportedError, match="solve_ivp"):
            solve_ivp(decay, (0, 1), [1.0], name, engine="julia")


def test_without_julia() -> None:
    for name, theirs in (("Tsit5", "RK45"), ("RK23", "RK23"), ("dopri5", "RK45"), ("BDF", "BDF")):
        found = solve_ivp(decay, (0, 1), [1.0], name, engine="torch")
        assert (found.engine, found.method) == ("scipy", theirs)
    with pytest.raises(UnsupportedError, match="Julia"):
        solve_ivp(decay, (0, 1), [1.0], "Vern9", engine="torch")


WRONG: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"t_eval": [0.5, 2.0]}, ValueError),
    ({"t_eval": [0.5, 0.2]}, ValueError),
    ({"t_eval": [[0.5]]}, ValueError),
    ({"method": "Tsit6"}, ValueError),
    ({"y0": [[1.0]]}, ValueError),
    ({"y0": [np.nan]}, ValueError),
    ({"y0": ["a"]}, ValueError),
    ({"args": 1.5}, TypeError),
    ({"max_step": 0}, ValueError),
    ({"first_step": -1}, ValueError),
    ({"first_step": 2}, ValueError),
    ({"atol": [1e-6, 1e-6]}, ValueError),
    ({"atol": -1}, ValueError),
    ({"events": marked(ground, -1)}, ValueError),
    ({"t_span": (0, 1, 2)}, ValueError),
    ({"fun": lambda t, y: 1 / 0}, ZeroDivisionError),
    ({"method": "Radau", "jac": np.ones((2, 3))}, ValueError),
]


@pytest.mark.parametrize("change", range(len(WRONG)))
def test_the_same_errors(engine: str, change: int) -> None:
    arguments, error = WRONG[change]
    call = {"fun": decay, "t_span": (0, 1), "y0": [1.0], "method": "RK45", **arguments}
    with pytest.raises(error):
        scipy_solve_ivp(**call)
    with pytest.raises(error):
        solve_ivp(**call, engine=engine)


def test_errors_within(julia: str) -> None:
    """What the functions raise comes out as it is."""

    def late(t: float, y: np.ndarray) -> Any:
        return {}["missing"] if t > 0.5 else -y

    for call in (
        {"fun": late},
        {"fun": decay, "events": lambda t, y: late(t, y)[0]},
        {"fun": decay, "method": "BDF", "jac": late},
    ):
        with pytest.raises((KeyError, ValueError)):
            solve_ivp(t_span=(0, 1), y0=[1.0], engine="julia", **call)
    with pytest.raises(ValueError, match="shape"):
        solve_ivp(lambda t, y: y[:1], (0, 1), [1.0, 2.0], engine="julia")
    for options in ({"atol": [0, 1e-3]}, {"jac_sparsity": np.eye(2)}):
        with pytest.raises(UnsupportedError):
            solve_ivp(decay, (0, 1), [1.0, 2.0], engine="julia", **options)
    with pytest.warns(UserWarning, match="lband"):
        solve_ivp(decay, (0, 1), [1.0], engine="julia", lband=1)
    with pytest.warns(UserWarning, match="too low"):
        solve_ivp(decay, (0, 1), [1.0], engine="julia", rtol=1e-20)


def test_failure(engine: str) -> None:
    """As SciPy, no exception; but a warning too, and what was reached."""
    with pytest.warns(PyjlodeWarning, match="solve_ivp"):
        found = solve_ivp(lambda t, y: y**2, (0, 2), [1.0], rtol=1e-6, engine=engine)
    assert not found.success and found.status == -1
    assert 0.9 < found.t[-1] < 1.1
    assert found.y.shape == (1, len(found.t))
    early = found.t < 0.9
    assert early.sum() > 3
    assert_allclose(found.y[0, early], 1 / (1 - found.t[early]), rtol=1e-4)
    if engine == "julia":
        assert "blew up" in found.message


def test_nothing_to_solve(julia: str) -> None:
    found = solve_ivp(decay, (1, 1), [2.0, 3.0], engine="julia", dense_output=True)
    assert found.success and found.y.shape == (2, 2)
    assert_allclose(found.sol(1.0), [2.0, 3.0])
