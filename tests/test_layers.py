"""Augmented, Hamiltonian and latent layers, splines and tensor products."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torchdiffeq
from reference import assert_close
from scipy.interpolate import CubicSpline
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

import pyjlode
from pyjlode import (
    AugmentedNDELayer,
    HamiltonianNN,
    LatentODE,
    NeuralHamiltonianDE,
    NeuralODE,
    SplineLayer,
    TensorLayer,
    layers,
)
from pyjlode.trace.capture import trace
from pyjlode.translate import translate

D = torch.float64
T = torch.tensor([0.0, 0.4, 0.9], dtype=D)
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def mlp(*sizes: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for a, b in pairwise(sizes):
        parts += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*parts[:-1]).to(D)


def compare(layer: nn.Module, loss: object, expected: object) -> None:
    """Two losses and all their gradients by the layer's parameters agree."""
    results = []
    for function in (loss, expected):
        value = function()
        results.append((value.detach(), torch.autograd.grad(value, list(layer.parameters()))))
    assert_close(results[0][0], results[1][0], 1e-6)
    for found, reference in zip(results[0][1], results[1][1], strict=True):
        assert_close(found, reference, 1e-5)


@pytest.mark.parametrize(("shape", "dim"), [((3, 2), -1), ((3, 2, 4), 1)])
def test_augmented(engine: str, shape: tuple[int, ...], dim: int) -> None:
    weight = torch.nn.Parameter(torch.randn(5, 5, dtype=D))

    def func(t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y.movedim(dim, -1) @ weight).movedim(-1, dim)

    node = NeuralODE(func, T, engine=engine, **TIGHT)
    layer = AugmentedNDELayer(node, 3, dim)
    layer.weight = weight
    y0 = torch.randn(shape, dtype=D)
    zeros = torch.zeros([3 if i == dim % len(shape) else n for i, n in enumerate(shape)], dtype=D)
    compare(
        layer,
        lambda: layer(y0).square().sum(),
        lambda: torchdiffeq.odeint(func, torch.cat([y0, zeros], dim), T, **TIGHT).square().sum(),
    )
    assert layer.nfe == node.nfe > 0
    assert layer(y0, [0.0, 1.0]).shape[0] == 2
    with pytest.raises(ValueError, match="at least 1"):
        AugmentedNDELayer(node, 0)


@pytest.mark.parametrize("method", [None, "Rodas5P"])
def test_a_hamiltonian_net_keeps_its_energy(julia: str, method: str | None) -> None:
    layer = NeuralHamiltonianDE(mlp(4, 8, 1), [0.0, 1.0, 5.0], method=method, **TIGHT)
    y = layer(torch.randn(3, 4, dtype=D))
    energy = layer.func.energy(y)
    assert energy.shape == (3, 3)
    assert (y[-1] - y[0]).abs().max() > 0.1
    assert_close(energy[2], energy[0], 1e-7)


def test_a_hamiltonian_nets_gradients(engine: str) -> None:
    layer = NeuralHamiltonianDE(mlp(2, 6, 1), T, engine=engine, **TIGHT)
    y0 = torch.tensor([[1.0, 0.3], [0.2, -0.4]], dtype=D)

    def field(t: Tensor, y: Tensor) -> Tensor:
        """By torch.autograd.grad, which torchdiffeq's steps run in the open."""
        y = y if y.requires_grad else y.requires_grad_()
        (slope,) = torch.autograd.grad(layer.func.energy(y).sum(), y, create_graph=True)
        return torch.stack([slope[:, 1], -slope[:, 0]], 1)

    # The energy's constant has no part in the dynamics.
    layer.func.model[-1].bias.requires_grad_(False)
    trained = nn.ParameterList(p for p in layer.parameters() if p.requires_grad)
    compare(
        trained,
        lambda: layer(y0).square().sum(),
        lambda: torchdiffeq.odeint(field, y0.clone(), T, **TIGHT).square().sum(),
    )
    with pytest.raises(ValueError, match="even number"):
        HamiltonianNN(mlp(3, 1))(T[0], torch.ones(2, 3, dtype=D))


def test_a_state_whose_gradient_func_asks_for(engine: str) -> None:
    """The way of torchdiffeq's examples: ``requires_grad_`` on the very argument."""
    net = mlp(2, 6, 1)

    def func(t: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            y = y.requires_grad_()
            (slope,) = torch.autograd.grad(net(y).sum(), y, create_graph=True)
        return -slope

    y0 = torch.ones(3, 2, dtype=D)
    y = pyjlode.odeint(func, y0, T, engine=engine, **TIGHT)
    gradient = torch.func.grad(lambda y: net(y).sum())
    expected = pyjlode.odeint(lambda t, y: -gradient(y), y0, T, engine=engine, **TIGHT)
    assert_close(y.detach(), expected.detach(), 1e-8)
    found = torch.autograd.grad(y[-1].sum(), list(net.parameters())[:3])
    for a, b in zip(
        found, torch.autograd.grad(expected[-1].sum(), list(net.parameters())[:3]), strict=True
    ):
        assert_close(a, b, 1e-7)


def test_a_parameter_that_only_the_derivative_uses() -> None:
    w = torch.tensor(2.0, requires_grad=True)
    traced = trace(
        lambda t, y: -w * y if y.requires_grad else -2.0 * y, torch.zeros(3), derivatives=True
    )
    assert translate(traced).parameters[0] is w


def latent(engine: str) -> LatentODE:
    torch.manual_seed(4)
    net = mlp(3, 5, 3)
    model = LatentODE(
        lambda t, z: net(z), mlp(3, 4, 2), obs_dim=2, latent_dim=3, hidden_dim=5, noise_std=0.3,
        engine=engine, **TIGHT,
    ).to(D)  # fmt: skip
    model.net = net
    return model


def series() -> tuple[Tensor, Tensor, Tensor]:
    y = torch.randn(5, 4, 2, dtype=D)
    t = torch.tensor([0.0, 0.1, 0.5, 0.6, 1.3], dtype=D)
    mask = torch.rand(5, 4) < 0.7
    mask[:, 1] = True
    mask[0, 0] = False
    return y, t, mask


@pytest.mark.parametrize("masked", [False, True])
def test_the_evidences_lower_bound(engine: str, masked: bool) -> None:
    """With torch's distributions and torchdiffeq's solver; missing values may be anything."""
    model = latent(engine)
    y, t, mask = series()

    def bound() -> Tensor:
        torch.manual_seed(2)
        if not masked:
            return model.elbo(y, t, kl_weight=0.7)
        return model.elbo(torch.where(mask[..., None], y, torch.nan), t, mask, kl_weight=0.7)

    def expected() -> Tensor:
        there = mask if masked else torch.ones_like(mask)
        mean, logvar = model.recognition(y, t, there)
        posterior = Normal(mean, (logvar / 2).exp())
        torch.manual_seed(2)
        z0 = posterior.rsample()
        z = torchdiffeq.odeint(lambda t, z: model.net(z), z0, t, **TIGHT)
        likelihood = Normal(model.decoder(z), 0.3).log_prob(y).sum(-1)
        prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
        total = (likelihood * there).sum() - 0.7 * kl_divergence(posterior, prior).sum()
        return total / y.shape[1]

    compare(model, bound, expected)
    assert model.nfe > 0


def test_what_the_recognition_net_reads() -> None:
    """Missing observations are as if they were not there; times count."""
    rnn = layers.RecognitionRNN(2, 3, 5).to(D)
    y, t, mask = series()
    mean, logvar = rnn(y, t, mask)
    for i in range(4):
        read = mask[:, i]
        alone = y[read, i : i + 1]
        # By hand: backwards, with the time to the one read before.
        hidden, later = torch.zeros(1, 5, dtype=D), None
        for value, time in zip(alone.flip(0), t[read].flip(0), strict=True):
            gap = torch.zeros(()) if later is None else later - time
            hidden = rnn.cell(torch.cat([value, gap.to(D).view(1, 1)], 1), hidden)
            later = time
        first = (later - t[0]).view(1, 1)
        expected = rnn.out(torch.cat([hidden, first], 1))
        assert_close(torch.cat([mean, logvar], 1)[i : i + 1].detach(), expected.detach(), 1e-12)
    assert not torch.allclose(rnn(y, t * 2)[0], rnn(y, t)[0])


def test_latent_predictions(engine: str) -> None:
    model = latent(engine)
    y, t, mask = series()
    mean, _ = model.encode(y, t, mask)
    at = torch.tensor([0.2, 2.0], dtype=D)
    full = torch.cat([t[:1], at])
    z = torchdiffeq.odeint(lambda t, z: model.net(z), mean, full, **TIGHT)
    assert_close(model(y, t, at, mask).detach(), model.decoder(z[1:]).detach(), 1e-6)
    assert_close(model(y, t, full, mask)[1:].detach(), model.decoder(z[1:]).detach(), 1e-6)
    assert model(y, t).shape == y.shape
    with pytest.raises(ValueError, match="before the first time"):
        model(y, t, at - 1)
    with pytest.raises(ValueError, match="must increase"):
        model.elbo(y, t.flip(0))
    with pytest.raises(ValueError, match=r"t \(T,\)"):
        model.elbo(y, t[:3])
    with pytest.raises(ValueError, match="mask must be"):
        model.elbo(y, t, mask.double())


def test_splines() -> None:
    times = torch.linspace(-0.5, 2.0, 6, dtype=D)
    points = torch.randn(6, 2, dtype=D)
    t = torch.linspace(-0.5, 2.0, 41, dtype=D)

    def curve(interpolation: str) -> Tensor:
        return SplineLayer([-0.5, 2.0], 0.5, interpolation, points)(t).detach()

    cubic = CubicSpline(times.numpy(), points.numpy(), bc_type="natural")(t.numpy())
    assert_close(curve("cubic"), torch.from_numpy(cubic), 1e-10)
    linear = np.stack([np.interp(t, times, points[:, i]) for i in range(2)], 1)
    assert_close(curve("linear"), torch.from_numpy(linear), 1e-10)
    before = torch.searchsorted(times, t + 1e-9).clamp(1) - 1
    assert_close(curve("constant"), points[before], 1e-12)
    # Through the points, level at first, without a kink.
    layer = SplineLayer([-0.5, 2.0], 0.5, "quadratic", points)
    assert_close(layer(times).detach(), points, 1e-10)
    slopes = torch.stack(
        [torch.autograd.functional.jacobian(lambda s: layer(s), s) for s in (times[0], times[2])]
    )
    assert_close(slopes[0], torch.zeros(2, dtype=D), 1e-10)
    nearly = torch.autograd.functional.jacobian(lambda s: layer(s), times[2] - 1e-9)
    assert_close(nearly, slopes[1], 1e-6)
    assert layer(torch.zeros(3, 4, dtype=D)).shape == (3, 4, 2)


@pytest.mark.parametrize("interpolation", ["constant", "linear", "quadratic", "cubic"])
def test_a_spline_in_a_right_hand_side(engine: str, interpolation: str) -> None:
    """A learnt control: every point's gradient, in Julia as through torchdiffeq's steps."""
    spline = SplineLayer([0.0, 2.0], 0.5, interpolation, torch.randn(5, dtype=D))
    t = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0], dtype=D)
    y0 = torch.ones(2, dtype=D)
    options = {"jump_t": t[1:-1]}

    def func(t: Tensor, y: Tensor) -> Tensor:
        return spline(t) - 0.3 * y

    compare(
        spline,
        lambda: pyjlode.odeint(func, y0, t, engine=engine, options=options, **TIGHT).sum(),
        lambda: torchdiffeq.odeint(func, y0, t, options=options, **TIGHT).sum(),
    )


def test_spline_arguments() -> None:
    with pytest.raises(ValueError, match="interpolation must be one of"):
        SplineLayer([0.0, 1.0], 0.1, "quintic")
    with pytest.raises(ValueError, match="within the time span"):
        SplineLayer([0.0, 1.0], 2.0)
    with pytest.raises(ValueError, match="11 points"):
        SplineLayer([0.0, 1.0], 0.1, points=torch.zeros(10))


def test_bases() -> None:
    x = torch.linspace(-1.0, 1.0, 7, dtype=D)
    n = 5
    degrees = range(n)
    expected = {
        "chebyshev": [np.polynomial.chebyshev.Chebyshev.basis(k)(x.numpy()) for k in degrees],
        "legendre": [np.polynomial.legendre.Legendre.basis(k)(x.numpy()) for k in degrees],
        "polynomial": [x.numpy() ** k for k in degrees],
        "sin": [np.sin((k + 1) * x.numpy()) for k in degrees],
        "cos": [np.cos((k + 1) * x.numpy()) for k in degrees],
        "fourier": [
            np.cos(k * x.numpy() / 2) if k % 2 == 0 else np.sin(k * x.numpy() / 2)
            for k in range(1, n + 1)
        ],
    }
    for name, values in expected.items():
        found = getattr(layers, f"{name}_basis")(n)(x)
        assert_close(found, torch.from_numpy(np.stack(values, -1)), 1e-12)
        assert getattr(layers, f"{name}_basis")(1)(x).shape == (7, 1)


def test_tensor_layer(engine: str) -> None:
    bases = [layers.chebyshev_basis(3), layers.sin_basis(2)]
    layer = TensorLayer(bases, 2).to(D)
    x = torch.randn(6, 2, dtype=D)
    expected = torch.einsum("oij,bi,bj->bo", layer.weight, bases[0](x[:, 0]), bases[1](x[:, 1]))
    assert_close(layer(x).detach(), expected.detach(), 1e-12)
    compare(
        layer,
        lambda: NeuralODE(lambda t, y: -layer(y), T, engine=engine, **TIGHT)(x).square().mean(),
        lambda: torchdiffeq.odeint(lambda t, y: -layer(y), x, T, **TIGHT).square().mean(),
    )
    with pytest.raises(ValueError, match="2 bases and 3 inputs"):
        layer(torch.ones(3, dtype=D))
