"""Multiple shooting and collocation against formulas written out, and against exact data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchdiffeq
from reference import assert_close
from torch import Tensor, nn

from pyjlode import NeuralODE, collocate_data, multiple_shoot
from pyjlode.training import KERNELS, growing_horizons

D = torch.float64
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def test_multiple_shooting(engine: str) -> None:
    """Loss and gradients of three groups, the last of them short, by torchdiffeq."""
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).to(D)

    def func(t: Tensor, y: Tensor) -> Tensor:
        return net(y) + torch.sin(t)

    data, t = torch.randn(6, 2, dtype=D), torch.tensor([0.0, 0.1, 0.3, 0.4, 0.8, 0.9], dtype=D)
    layer = NeuralODE(func, engine=engine, **TIGHT)
    loss, groups = multiple_shoot(layer, data, t, 3, continuity_term=10.0)
    first, second, third = (
        torchdiffeq.odeint(func, data[a], t[a:b], **TIGHT) for a, b in ((0, 3), (2, 5), (4, 6))
    )
    expected = (
        (first - data[0:3]).square().sum()
        + (second - data[2:5]).square().sum()
        + (third - data[4:6]).square().sum()
        + 10 * (first[-1] - data[2]).abs().sum()
        + 10 * (second[-1] - data[4]).abs().sum()
    )
    assert_close(loss.detach(), expected.detach(), 1e-6)
    for found, reference in zip(groups, (first, second, third), strict=True):
        assert_close(found.detach(), reference.detach(), 1e-6)
    parameters = list(net.parameters())
    for found, reference in zip(
        torch.autograd.grad(loss, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        assert_close(found, reference, 1e-5)


def test_losses_of_ones_own() -> None:
    data, t = torch.randn(5, 3, 2, dtype=D), torch.linspace(0, 1, 5, dtype=D)
    layer = NeuralODE(lambda t, y: 0 * y, engine="torch")
    loss, groups = multiple_shoot(
        layer, data, t, 3,
        loss=lambda u, v: (u - v).abs().max(),
        continuity_loss=lambda a, b: (a - b).square().mean(),
        continuity_term=2.0,
    )  # fmt: skip
    expected = (data[0:3] - data[0]).abs().max() + (data[2:5] - data[2]).abs().max()
    assert_close(loss, expected + 2 * (data[0] - data[2]).square().mean(), 1e-12)
    assert [len(g) for g in groups] == [3, 3]
    for size in (1, 6):
        with pytest.raises(ValueError, match="from 2 to 5"):
            multiple_shoot(layer, data, t, size)
    with pytest.raises(ValueError, match="5 for 4"):
        multiple_shoot(layer, data, t[:4], 2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_weigh_one_in_all(kernel: str) -> None:
    x = torch.linspace(-60, 60, 240_001, dtype=D)
    weights = KERNELS[kernel](x)
    assert_close(torch.trapezoid(weights, x), torch.ones((), dtype=D), 1e-3)
    assert_close(weights.flip(0), weights, 1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_collocation_is_local_regression(kernel: str) -> None:
    """By numpy's weighted polynomials, at uneven times and between them."""
    generator = np.random.default_rng(0)
    t = np.sort(generator.uniform(0, 4, 40))
    data = np.stack([np.sin(t), np.cos(t)], 1) + 0.1 * generator.normal(size=(40, 2))
    at = np.array([0.3, 1.7, 3.9])
    slopes, states = collocate_data(
        torch.from_numpy(data), torch.from_numpy(t), kernel, 0.3, at=torch.from_numpy(at)
    )
    for i, time in enumerate(at):
        near = torch.from_numpy((t - time) / (t[-1] - t[0]) / 0.3)
        roots = np.sqrt(KERNELS[kernel](near).clamp(min=0).numpy())
        if (KERNELS[kernel](near) < 0).any():
            pytest.fail("a weight below zero")
        line = np.polyfit(t - time, data, 1, w=roots)
        parabola = np.polyfit(t - time, data, 2, w=roots)
        assert_close(states[i], torch.from_numpy(line[-1]), 1e-8)
        assert_close(slopes[i], torch.from_numpy(parabola[-2]), 1e-8)


def test_collocation_of_a_parabola() -> None:
    """Derivatives are exact, whatever the bandwidth; so are the states of a line."""
    t = torch.linspace(0, 2, 30, dtype=D)
    data = torch.stack([t**2 - t, 3 * t + 1], 1).view(30, 1, 2)
    slopes, states = collocate_data(data, t)
    assert_close(slopes[:, 0], torch.stack([2 * t - 1, torch.full_like(t, 3)], 1), 1e-9)
    assert_close(states[:, 0, 1], data[:, 0, 1], 1e-9)
    assert states.shape == data.shape


def test_collocation_refuses() -> None:
    t = torch.linspace(0, 1, 20)
    with pytest.raises(ValueError, match="too few data within a bandwidth"):
        collocate_data(torch.sin(t), t, "epanechnikov", 0.01)
    with pytest.raises(ValueError, match="kernel must be one of epanechnikov"):
        collocate_data(torch.sin(t), t, "box")
    with pytest.raises(ValueError, match="20 for 19"):
        collocate_data(torch.sin(t), t[:19])


def test_horizons() -> None:
    assert growing_horizons(10, 3) == [2, 6, 10]
    assert growing_horizons(10, 1) == [10]
    with pytest.raises(ValueError, match="from 2 to 10"):
        growing_horizons(10, 2, first=11)
