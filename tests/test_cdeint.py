"""Controlled equations and the paths through data that control them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchdiffeq
from scipy.interpolate import CubicSpline as SciPySpline
from torch import Tensor, nn

import pyjlode
from pyjlode import (
    CubicSpline,
    LinearInterpolation,
    Statistics,
    UnsupportedError,
    cdeint,
    hermite_cubic_coefficients_with_backward_differences,
    linear_interpolation_coeffs,
    natural_cubic_coeffs,
)
from tests.reference import assert_close, gradients, rk4

NAN = float("nan")
T = torch.tensor([0.0, 0.4, 1.0, 1.3, 2.0, 2.2], dtype=torch.float64)
TIGHT = {"rtol": 1e-9, "atol": 1e-10}


def _data(*shape: int) -> Tensor:
    return torch.randn(*shape, len(T), 2, dtype=torch.float64)


class Field(nn.Module):
    """From states of 3 to matrices of 3 by 2."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 6, dtype=torch.float64)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return torch.tanh(self.linear(z) + 0.1 * t).unflatten(-1, (3, 2))


def _cubic(x: Tensor) -> CubicSpline:
    return CubicSpline(natural_cubic_coeffs(x, T), T)


def _hermite(x: Tensor) -> CubicSpline:
    return CubicSpline(hermite_cubic_coefficients_with_backward_differences(x, T), T)


def _linear(x: Tensor) -> LinearInterpolation:
    return LinearInterpolation(linear_interpolation_coeffs(x, T), T)


PATHS: dict[str, Callable[[Tensor], nn.Module]] = {
    "natural": _cubic, "hermite": _hermite, "linear": _linear
}  # fmt: skip


def test_natural_spline_is_scipy_s() -> None:
    x = _data(3)
    path, expected = _cubic(x), SciPySpline(T.numpy(), x.numpy(), axis=1, bc_type="natural")
    s = torch.linspace(0, 2.2, 40, dtype=torch.float64)
    np.testing.assert_allclose(path.evaluate(s).numpy(), expected(s.numpy()), atol=1e-12)
    np.testing.assert_allclose(path.derivative(s).numpy(), expected(s.numpy(), 1), atol=1e-11)


def test_two_points_are_a_line() -> None:
    x = torch.tensor([[1.0], [4.0]])
    for path in (CubicSpline(natural_cubic_coeffs(x)), LinearInterpolation(x)):
        assert path.evaluate(0.5).item() == 2.5 and path.derivative(0.5).item() == 3
        assert path.interval.tolist() == [0, 1]


def test_a_gap_is_filled_in() -> None:
    x = _data(2)
    x[0, [0, 3], 0], x[1, 2:, 1], x[1, :, 0] = NAN, NAN, NAN
    filled = linear_interpolation_coeffs(x, T)
    for i, c in ((0, 0), (0, 1), (1, 1)):
        known = ~torch.isnan(x[i, :, c])
        expected = np.interp(T, T[known], x[i, known, c])
        np.testing.assert_allclose(filled[i, :, c], expected, atol=1e-14)
    assert (filled[1, :, 0] == 0).all()


def test_a_spline_goes_through_what_there_is() -> None:
    x = _data()
    x[[0, 3, 4], 0], x[5, 1] = NAN, NAN
    path = _cubic(x)
    s = torch.linspace(0, 2.2, 40, dtype=torch.float64)
    held = x.clone()
    held[0, 0], held[5, 1] = held[1, 0], held[4, 1]  # at the ends the nearest value goes on
    for c in range(2):
        known = ~torch.isnan(held[:, c])
        expected = SciPySpline(T[known], held[known, c], bc_type="natural")
        np.testing.assert_allclose(path.evaluate(s)[:, c], expected(s), atol=1e-12)


def test_hermite_has_the_slopes_before() -> None:
    x = _data(2)
    path, slope = _hermite(x), x.diff(dim=-2) / T.diff().unsqueeze(-1)
    assert_close(path.evaluate(T), x, 1e-12)
    for side in (-1e-9, 1e-9):
        assert_close(path.derivative(T[1:-1] + side), slope[:, :-1], 1e-6)
    assert_close(path.derivative(T[-1]), slope[:, -1], 1e-12)
    assert_close(path.derivative(T[0]), slope[:, 0], 1e-12)


def test_rectilinear_goes_in_time_first() -> None:
    x = torch.tensor([[0.0, 5.0], [1.0, NAN], [3.0, 7.0]])
    expected = [[0, 5], [1, 5], [1, 5], [3, 5], [3, 7]]
    assert linear_interpolation_coeffs(x, rectilinear=0).tolist() == expected
    with pytest.warns(pyjlode.PyjlodeWarning, match="begins with missing"):
        linear_interpolation_coeffs(torch.tensor([[0.0, NAN], [1.0, 2.0]]), rectilinear=0)


@pytest.mark.parametrize("name", PATHS)
def test_closed_form(engine: str, name: str) -> None:
    """The solution of dz = z dX is z0 exp(X - X(0)), whatever way X goes."""
    X = PATHS[name](_data(4)[..., :1])
    z0 = torch.rand(4, 1, dtype=torch.float64) + 1
    s = torch.tensor([0.0, 0.5, 1.0, 2.2], dtype=torch.float64)
    stats = Statistics()
    found = cdeint(X, lambda t, z: z.unsqueeze(-1), z0, s, engine=engine, stats=stats, **TIGHT)
    expected = z0.unsqueeze(1) * torch.exp(X.evaluate(s) - X.evaluate(T[0]).unsqueeze(1))
    assert found.shape == (4, 4, 1)
    assert_close(found, expected, 1e-6)
    assert 0 < stats.nfe < 3000


@pytest.mark.parametrize("name", PATHS)
def test_gradients(engine: str, name: str) -> None:
    """With respect to state, times, data and parameters, against steps of our own."""
    x, func = _data(2).requires_grad_(), Field()
    z0 = torch.randn(2, 3, dtype=torch.float64)
    others = [x, *func.parameters()]
    s = torch.tensor([0.0, 0.3, 1.2, 2.1], dtype=torch.float64)  # between the data

    def field(t: Tensor, z: Tensor) -> Tensor:
        return (func(t, z) @ PATHS[name](x).derivative(t).unsqueeze(-1)).squeeze(-1)

    def in_pieces(z0: Tensor, t: Tensor) -> Tensor:
        """The states at t, each piece of the path with a derivative of its own side."""
        stops, order = torch.cat([t, T[1:-1]]).sort()
        states = [z0]
        for i in range(len(stops) - 1):
            a, b = (x + e for x, e in zip(stops[i : i + 2].detach(), (1e-12, -1e-12), strict=True))
            inside = lambda s, z, a=a, b=b: field(s + (s.clamp(a, b) - s).detach(), z)  # noqa: E731
            states.append(rk4(inside, states[-1], stops[i : i + 2])[-1])
        return torch.stack(states)[order < len(t)]

    expected = gradients(in_pieces, z0, s, others)
    # A spline has a kink in its derivative at the data, where a step's order drops.
    call = {"engine": engine, "options": {"jump_t": T[1:-1]}, **TIGHT}

    def solve(z0: Tensor, t: Tensor) -> Tensor:
        return cdeint(PATHS[name](x), func, z0, t, False, **call).transpose(0, 1)

    found = gradients(solve, z0, s, others)
    assert_close(found[0], expected[0], 1e-6)
    for what, a, b in zip(("z0", "t", "x", "W", "b"), found[1], expected[1], strict=True):
        assert_close(a, b, 1e-5, what)


def test_adjoint_reaches_the_data(engine: str) -> None:
    """As torchcde does not without adjoint_params; against finite differences."""
    x, func = _data().requires_grad_(), Field()
    z0 = torch.randn(3, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        z = cdeint(
            _cubic(x), func, z0, T[[0, -1]], engine=engine, options={"jump_t": T[1:-1]}, **TIGHT
        )
        return z[-1].sin().sum()

    loss(x).backward()
    direction, h = torch.randn_like(x), 1e-4
    with torch.no_grad():
        numeric = (loss(x + h * direction) - loss(x - h * direction)) / (2 * h)
    assert_close((x.grad * direction).sum(), numeric, 1e-5)


@pytest.mark.parametrize("adjoint", [True, False])
def test_torchdiffeq_gives_the_same(engine: str, adjoint: bool) -> None:
    X, func = _cubic(_data(2)), Field()
    z0 = torch.randn(2, 3, dtype=torch.float64)
    expected = torchdiffeq.odeint(
        lambda t, z: torch.einsum("bhc,bc->bh", func(t, z), X.derivative(t)), z0, T, **TIGHT
    )
    found = cdeint(X, func, z0, T, adjoint, engine=engine, **TIGHT)
    assert_close(found, expected.transpose(0, 1), 1e-7)


def test_prod_and_tuples(engine: str) -> None:
    x, func = _data(2), Field()
    X, z0 = _cubic(x), torch.randn(2, 3, dtype=torch.float64)
    plain = cdeint(X, func, z0, T, engine=engine, **TIGHT)

    class Pair(nn.Module):
        def derivative(self, t: Tensor) -> tuple[Tensor, Tensor]:
            dX = X.derivative(t)
            return dX, 2 * dX

    class Product:
        def prod(self, t: Tensor, z: Tensor, dX: Tensor) -> Tensor:
            return (func(t, z) * dX.unsqueeze(-2)).sum(-1)

        def __call__(self, t: Tensor, z: Tensor) -> Tensor:
            raise AssertionError

    def both(t: Tensor, z: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return func(t, z[0]), func(t, z[1]) / 2

    assert_close(cdeint(X, Product(), z0, T, engine=engine, **TIGHT), plain, 1e-7)
    for part in cdeint(Pair(), both, (z0, z0), T, engine=engine, **TIGHT):
        assert_close(part, plain, 1e-7)


def test_fixed_steps_along_lines() -> None:
    """A step from a time of the data on sees the piece that comes, not the one that was."""
    X = LinearInterpolation(torch.tensor([[0.0], [1.0], [0.0], [2.0]], dtype=torch.float64))
    z0, t = torch.zeros(1, dtype=torch.float64), torch.arange(4.0, dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    call = {"method": "euler", "options": {"step_size": 0.25}}
    found = cdeint(X, lambda t, z: one, z0, t, False, engine="torch", **call)
    assert_close(found, X.evaluate(t), 1e-6)


def test_julia_refuses_what_would_be_wrong(julia: str) -> None:
    X = LinearInterpolation(torch.rand(4, 1))
    with pytest.raises(UnsupportedError, match="adaptive method"):
        cdeint(
            X, lambda t, z: z.unsqueeze(-1), torch.ones(1), [0.0, 1.0], engine=julia,
            method="rk4", options={"step_size": 0.25},
        )  # fmt: skip


def test_arguments_are_checked() -> None:
    X, func, z0 = _cubic(_data(2)), Field(), torch.ones(2, 3, dtype=torch.float64)
    for change, message in (
        ({"z0": z0[0]}, "all but the last"),
        ({"z0": z0.float()}, "convert one"),
        ({"func": lambda t, z: z}, "must be"),
        ({"func": lambda t, z: (z, z)}, "must give a tensor"),
        ({"z0": (z0, z0)}, "tuple of 2"),
        ({"X": func}, "derivative"),
    ):
        with pytest.raises(ValueError, match=message):
            cdeint(**({"X": X, "func": func, "z0": z0, "t": T} | change), engine="torch")
    for change in (
        {"backend": "torchsde"}, {"event_fn": func}, {"return_solution": True},
        {"batch": "independent"},
    ):  # fmt: skip
        with pytest.raises(UnsupportedError):
            cdeint(X, func, z0, T, **change)
    for wrong in (torch.ones(3), torch.ones(3, 2, dtype=torch.int64)):
        with pytest.raises(ValueError, match="x must be"):
            natural_cubic_coeffs(wrong)
    with pytest.raises(ValueError, match="increasing"):
        natural_cubic_coeffs(torch.ones(3, 1), torch.tensor([0.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="times"):
        LinearInterpolation(torch.ones(4, 1), torch.arange(3.0))
    with pytest.raises(ValueError, match="cubic"):
        CubicSpline(torch.ones(4, 6))
