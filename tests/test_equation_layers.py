"""Layers of stochastic, constrained and controlled equations."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.interpolate
import torch
from reference import assert_close, rk4
from torch import Tensor, nn

from pyjlode import (
    BrownianPath,
    CubicSpline,
    NeuralCDE,
    NeuralDSDE,
    NeuralODEMM,
    NeuralSDE,
    UnsupportedError,
    natural_cubic_coeffs,
    sdeint,
)

D = torch.float64
T = torch.tensor([0.0, 0.2, 0.5], dtype=D)


class Field(nn.Module):
    """A net of time and state, its result in the shape wanted."""

    def __init__(self, n: int, *shape: int) -> None:
        super().__init__()
        self.shape = shape
        self.net = nn.Sequential(nn.Linear(n, 4), nn.Tanh(), nn.Linear(4, int(np.prod(shape)))).to(
            D
        )

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return (self.net(y) * (1 + t)).unflatten(-1, self.shape)


def compare(
    layer: nn.Module, inputs: list[Tensor], found: Tensor, expected: Tensor, tolerance: float
) -> None:
    """Values agree, and a loss's gradients with respect to the inputs and every parameter."""
    assert_close(found.detach(), expected.detach(), tolerance)
    weights = torch.randn_like(found)
    wanted = [*inputs, *layer.parameters()]
    gradients = [
        torch.autograd.grad((weights * y + y.square()).sum(), wanted) for y in (found, expected)
    ]
    for ours, reference in zip(*gradients, strict=True):
        assert reference.abs().max() > 1e-4
        assert_close(ours, reference, 10 * tolerance)


def stochastic_steps(
    layer: NeuralDSDE | NeuralSDE, y: Tensor, path: BrownianPath, milstein: bool = False
) -> Tensor:
    """States at ``T``, by Euler's or Milstein's (without derivatives) steps in torch."""
    states = [y]
    for k, (a, b) in enumerate(pairwise(path.t)):
        h, dW = b - a, path.W[k + 1] - path.W[k]
        drift, g = layer.drift(a, y), layer.diffusion(a, y)
        if isinstance(layer, NeuralSDE):
            g = g.reshape(len(y), y.shape[1], layer.nbrown)
            step = y + h * drift + torch.einsum("bnm,bm->bn", g, dW)
        else:
            step = y + h * drift + g * dW
        if milstein:
            slope = layer.diffusion(a, y + h * drift + h.sqrt() * g) - g
            step = step + slope / (2 * h.sqrt()) * (dW**2 - h)
        y = step
        states.append(y)
    return torch.stack([states[int((path.t - t).abs().argmin())] for t in T])


@pytest.mark.parametrize("kind", ["EM", "RKMil", "flat", "matrices"])
def test_stochastic_layers(julia: str, kind: str) -> None:
    """To rounding, against autograd through the same steps on the same noise."""
    n, m = 2, 3
    if kind in ("EM", "RKMil"):
        method = None if kind == "EM" else "RKMil"
        options = {"dt": 0.02} if method is None else {"dt": 0.02, "method": method}
        layer = NeuralDSDE(Field(n, n), Field(n, n), T, **options)
    else:
        shape = (n * m,) if kind == "flat" else (n, m)
        layer = NeuralSDE(Field(n, n), Field(n, *shape), m, T, dt=0.02)
    y0 = torch.randn(5, n, dtype=D, requires_grad=True)
    found = layer(y0, seed=3)
    assert layer.stats.naccept == 25
    with torch.no_grad():
        # The layer is an equation for sdeint, which tells the noise of a seed.
        again, path = sdeint(layer, y0, T, seed=3, return_noise=True, **layer.solver)
    assert_close(again, found.detach(), 1e-12)
    assert_close(layer(y0, T, bm=path).detach(), found.detach(), 1e-12)
    assert not torch.equal(layer(y0, seed=4), found)
    compare(layer, [y0], found, stochastic_steps(layer, y0, path, kind == "RKMil"), 1e-11)


def test_a_stochastic_layers_noise_is_torchs_or_a_seeds(julia: str) -> None:
    layer = NeuralDSDE(Field(2, 2), Field(2, 2), dt=0.1)
    y0 = torch.zeros(1, 2, dtype=D)
    torch.manual_seed(1)
    first, second = layer(y0, [0.0, 1.0]), layer(y0, [0.0, 1.0])
    torch.manual_seed(1)
    assert torch.equal(layer(y0, [0.0, 1.0]), first)
    assert not torch.equal(first, second)


def test_what_stochastic_layers_refuse() -> None:
    field = Field(2, 2)
    with pytest.raises(TypeError, match="takes no sensealg"):
        NeuralDSDE(field, field, T, sensealg="gauss")
    with pytest.raises(ValueError, match="no times"):
        NeuralDSDE(field, field)(torch.ones(1, 2, dtype=D))
    with pytest.raises(ValueError, match="at least 1"):
        NeuralSDE(field, field, 0, T)
    with pytest.raises(TypeError, match=r"\(1, 2, 3\) or \(1, 6\)"):
        NeuralSDE(field, field, 3, T)(torch.ones(1, 2, dtype=D))
    with pytest.raises(UnsupportedError, match="torch engine"):
        NeuralDSDE(field, field, T, engine="torch")(torch.ones(1, 2, dtype=D))


class Constraint(nn.Module):
    """``0 = z - a sin(x1) - x2 - t``: an algebraic element that can be eliminated."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.7, dtype=D))

    def exact(self, t: Tensor, x: Tensor) -> Tensor:
        return self.a * torch.sin(x[..., :1]) + x[..., 1:2] + t

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return y[..., 2:] - self.exact(t, y)


@pytest.mark.parametrize("order", ["consistent", "found"])
def test_mass_matrix_layer(julia: str, order: str) -> None:
    """Against the ordinary equation in which the algebraic element is eliminated."""
    model, constraint = Field(3, 2), Constraint()
    mass = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]], dtype=D)
    layer = NeuralODEMM(
        model, constraint, T, mass_matrix=mass, rtol=1e-9, atol=1e-10,
        initializealg="CheckInit" if order == "consistent" else None,
    )  # fmt: skip
    x0 = torch.randn(4, 2, dtype=D, requires_grad=True)
    inverse = torch.linalg.inv(mass[:2, :2])

    def whole(t: Tensor, x: Tensor) -> Tensor:
        return torch.cat([x, constraint.exact(t, x)], -1)

    guess = whole(T[0], x0) if order == "consistent" else torch.cat([x0, 0 * x0[:, :1]], -1)
    x = rk4(lambda t, x: model(t, whole(t, x)) @ inverse.T, x0, T, substeps=30)
    expected = torch.stack([whole(t, state) for t, state in zip(T, x, strict=True)])
    compare(layer, [x0], layer(guess), expected, 1e-7)
    assert layer.nfe > 0
    assert "mass_matrix" in layer.state_dict()


def test_what_the_mass_matrix_layer_refuses() -> None:
    field = Field(2, 1)
    with pytest.raises(ValueError, match=r"\(n, n\)"):
        NeuralODEMM(field, field, T, mass_matrix=torch.ones(2))
    with pytest.raises(ValueError, match="no times"):
        NeuralODEMM(field, field, mass_matrix=torch.eye(2))(torch.ones(1, 2, dtype=D))
    with pytest.raises(ValueError, match="mass_matrix"):
        NeuralODEMM(field, field, T, mass_matrix=torch.eye(3))(torch.ones(1, 2, dtype=D))
    with pytest.raises(TypeError, match="takes no dt"):
        NeuralODEMM(field, field, T, mass_matrix=torch.eye(2), dt=0.1)


@pytest.mark.parametrize("reads_out", [False, True])
def test_controlled_layer(engine: str, reads_out: bool) -> None:
    """Against SciPy's spline and Runge-Kutta's steps."""
    readout = nn.Linear(3, 1).to(D) if reads_out else None  # here, where the seed is set
    times = torch.tensor([0.1, 0.4, 0.5, 1.0], dtype=D)
    x = torch.randn(5, 4, 2, dtype=D)
    layer = NeuralCDE(
        nn.Linear(2, 3).to(D), Field(3, 3, 2), readout, engine=engine, rtol=1e-9, atol=1e-9
    )
    spline = scipy.interpolate.CubicSpline(times.numpy(), x.numpy(), axis=1, bc_type="natural")

    def derivative(t: Tensor, z: Tensor) -> Tensor:
        slope = torch.from_numpy(spline(t.item(), 1))
        return torch.einsum("bhc,bc->bh", layer.func(t, z), slope)

    z0 = layer.initial(x[:, 0])
    # Of fixed steps: torchdiffeq differentiates the sizes of its own, and this spline hides time.
    z = rk4(derivative, z0, times, substeps=50).movedim(0, 1)
    expected = z if readout is None else readout(z)
    path = CubicSpline(natural_cubic_coeffs(x, times), times)
    compare(layer, [], layer(path, times), expected, 1e-6)
    assert layer.nfe > 0
    assert_close(layer(path).detach(), expected[:, -1].detach(), 1e-6)


def test_the_datas_gradient(engine: str) -> None:
    """Through the path and the first state, against finite differences."""
    layer = NeuralCDE(nn.Linear(2, 3).to(D), Field(3, 3, 2), engine=engine, rtol=1e-10, atol=1e-10)

    def final(x: Tensor) -> Tensor:
        return layer(CubicSpline(natural_cubic_coeffs(x))).square().sum()

    x = torch.randn(3, 2, dtype=D, requires_grad=True)
    (found,) = torch.autograd.grad(final(x), x)
    h = 1e-3
    shifts = torch.eye(6, dtype=D).view(6, 3, 2) * h
    with torch.no_grad():
        expected = torch.stack([(final(x + s) - final(x - s)) / (2 * h) for s in shifts])
    assert_close(found, expected.view(3, 2), 3e-5)
    with pytest.raises(TypeError, match="takes no batch"):
        NeuralCDE(nn.Identity(), Field(3, 3, 2), batch="independent")
