"""``CNF`` and ``FFJORD`` against closed forms, determinants, finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from reference import assert_close
from torch import Tensor, nn

from pyjlode import CNF, FFJORD
from pyjlode.layers.divergence import exact_trace

D = torch.float64
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


class Field(nn.Module):
    def __init__(self, dims: int = 2, hidden: int = 4) -> None:
        super().__init__()
        self.inner = nn.Linear(dims + 1, hidden).to(D)
        self.outer = nn.Linear(hidden, dims).to(D)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        time = t.expand(len(z), 1)
        return self.outer(torch.tanh(self.inner(torch.cat([z, time], 1))))


class Convolution(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(1, 1, 3, padding=1, bias=False, dtype=D)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return super().forward(z)


T0 = torch.zeros((), dtype=D)
A = torch.tensor([[-0.3, 1.0], [-0.5, 0.4]], dtype=D)
X = torch.tensor([[0.3, -0.5], [1.0, 0.2], [-0.7, 0.9]], dtype=D)


def linear(t: Tensor, z: Tensor) -> Tensor:
    return z @ A.T


def normal(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum(1) - math.log(2 * math.pi)


def parameter_differences(flow: CNF, loss: object, step: float = 1e-5) -> list[Tensor]:
    """Central differences of ``loss()`` by every number of every parameter."""
    found = []
    for p in flow.parameters():
        slope = torch.zeros_like(p)
        for i in range(p.numel()):
            values = []
            for sign in (1, -1):
                p.data.view(-1)[i] += sign * step
                values.append(loss().detach())
                p.data.view(-1)[i] -= sign * step
            slope.view(-1)[i] = (values[0] - values[1]) / (2 * step)
        found.append(slope)
    return found


def test_a_linear_flow_is_a_normal_distribution(engine: str) -> None:
    flow = CNF(linear, 2, engine=engine, **TIGHT)
    z = X @ torch.matrix_exp(A).T
    found, log_det = flow.transform(X)
    assert_close(found, z, 1e-7)
    assert_close(log_det, torch.trace(A).expand(3), 1e-7)
    assert_close(flow.log_prob(X), normal(z) + torch.trace(A), 1e-7)
    assert flow.nfe > 0


def test_the_trace_is_the_logarithm_of_the_flows_determinant(engine: str) -> None:
    flow = CNF(Field(), 2, engine=engine, **TIGHT)
    x = X.clone().requires_grad_()
    z, log_det = flow.transform(x)
    rows = [torch.autograd.grad(z[:, i].sum(), x, retain_graph=True)[0] for i in range(2)]
    assert_close(log_det, torch.linalg.slogdet(torch.stack(rows, 1)).logabsdet, 1e-6)


def test_the_probability_is_one(engine: str) -> None:
    flow = CNF(Field(), 2, engine=engine)
    axis = torch.linspace(-9, 9, 91, dtype=D)
    grid = torch.cartesian_prod(axis, axis)
    total = flow.log_prob(grid).detach().exp().sum() * (axis[1] - axis[0]) ** 2
    assert_close(total, torch.ones((), dtype=D), 1e-5)


def test_both_directions(engine: str) -> None:
    flow = CNF(Field(), 2, (0.0, 2.0), engine=engine, **TIGHT)
    z, log_det = flow.transform(X)
    back, back_det = flow.inverse(z)
    assert_close(back, X, 1e-6)
    assert_close(back_det, -log_det, 1e-6)
    x, log_prob = flow.sample_and_log_prob(3)
    assert_close(log_prob, flow.log_prob(x), 1e-6)
    torch.manual_seed(5)
    x, _ = flow.sample_and_log_prob(3)
    torch.manual_seed(5)
    assert_close(flow.sample(3), x, 1e-6)


def test_a_base_of_ones_own(engine: str) -> None:
    from torch.distributions import MultivariateNormal, Normal

    mean, scale = torch.tensor([1.0, -1.0], dtype=D), torch.tensor([0.5, 2.0], dtype=D)
    bases = [Normal(mean, scale), MultivariateNormal(mean, torch.diag(scale**2))]
    values = []
    for base in bases:
        flow = CNF(linear, 2, base=base, engine=engine, **TIGHT)
        values.append(flow.log_prob(X))
        assert flow.sample(7).shape == (7, 2)
        x, log_prob = flow.sample_and_log_prob(3)
        assert_close(flow.log_prob(x), log_prob, 1e-7)
    expected = bases[0].log_prob(X @ torch.matrix_exp(A).T).sum(1) + torch.trace(A)
    assert_close(values[0], expected, 1e-7)
    assert_close(values[1], expected, 1e-7)


@pytest.mark.parametrize("monte_carlo", [False, True])
def test_every_gradient(engine: str, monte_carlo: bool) -> None:
    """Also the regularizing integrals', which rest on derivatives of the field."""
    flow = FFJORD(
        Field(hidden=2),
        2,
        regularize=True,
        monte_carlo=monte_carlo,
        engine=engine,
        rtol=1e-8,
        atol=1e-8,
    )
    x = X.clone().requires_grad_()

    def loss() -> Tensor:
        torch.manual_seed(1)
        density = flow(x)
        return (density.log_prob + density.kinetic_energy + 0.5 * density.jacobian_norm).sum()

    loss().backward()
    for p, expected in zip(flow.parameters(), parameter_differences(flow, loss), strict=True):
        assert_close(p.grad, expected, 1e-5)
    with torch.no_grad():
        for i in range(2):
            step = torch.zeros_like(X)
            step[0, i] = 1e-5
            values = []
            for sign in (1, -1):
                x.data += sign * step
                values.append(loss())
                x.data -= sign * step
            assert abs(x.grad[0, i] - (values[0] - values[1]) / 2e-5) < 1e-5


def test_integrals_of_the_regularization(engine: str) -> None:
    times = torch.linspace(0, 1, 401, dtype=D)
    speeds = torch.stack([X @ torch.matrix_exp(A * s).T @ A.T for s in times])
    energy = torch.trapezoid(speeds.square().sum(-1), times, dim=0)
    density = CNF(linear, 2, regularize=True, engine=engine, **TIGHT)(X)
    assert_close(density.kinetic_energy, energy, 1e-5)
    assert_close(density.jacobian_norm, A.square().sum().expand(3), 1e-7)
    assert CNF(linear, 2, engine=engine)(X).kinetic_energy is None


@pytest.mark.parametrize(("noise", "sensealg"), [("gaussian", None), ("rademacher", "backsolve")])
def test_the_estimate_is_of_the_noise_of_the_solve(
    engine: str, noise: str, sensealg: str | None
) -> None:
    """And the backward pass of an earlier solve has that solve's, not the last one's."""
    matrix = A.clone().requires_grad_()
    flow = FFJORD(
        lambda t, z: z @ matrix.T,
        2,
        noise=noise,
        regularize=True,
        sensealg=sensealg,
        engine=engine,
        **TIGHT,
    )
    drawn, densities = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        drawn.append(
            torch.randn_like(X) if noise == "gaussian" else torch.randint_like(X, 2) * 2 - 1
        )
        torch.manual_seed(seed)
        densities.append(flow(X))
    assert not torch.equal(*drawn)
    for e, density in zip(drawn, densities, strict=True):
        z = X @ torch.matrix_exp(A).T
        estimate = torch.einsum("bi,ij,bj->b", e, A, e)
        assert_close(density.log_prob.detach(), normal(z) + estimate, 1e-7)
        assert_close(density.jacobian_norm.detach(), (e @ A).square().sum(1), 1e-7)
    for e, density in zip(drawn, densities, strict=True):
        (found,) = torch.autograd.grad(density.log_prob.sum(), matrix)
        again = A.clone().requires_grad_()
        estimate = torch.einsum("bi,ij,bj->", e, again, e)
        loss = normal(X @ torch.matrix_exp(again).T).sum() + estimate
        assert_close(found, torch.autograd.grad(loss, again)[0], 1e-6)


def test_without_noise_it_is_exact(engine: str) -> None:
    flow = FFJORD(Field(), 2, engine=engine, **TIGHT)
    exact = CNF(flow.func, 2, engine=engine, **TIGHT)
    assert not torch.allclose(flow.log_prob(X), exact.log_prob(X), rtol=1e-6)
    flow.monte_carlo = False
    assert_close(flow.log_prob(X), exact.log_prob(X), 1e-8)


def test_samples_of_more_dimensions(engine: str) -> None:
    """A convolution; its flow's matrix is known by columns."""
    field = Convolution()
    flow = CNF(field, (1, 2, 3), engine=engine, **TIGHT)
    x = torch.randn(4, 1, 2, 3, dtype=D)
    columns = field(T0, torch.eye(6, dtype=D).view(6, 1, 2, 3)).flatten(1).detach()
    z, log_det = flow.transform(x)
    assert_close(z.flatten(1), x.flatten(1) @ torch.matrix_exp(columns), 1e-6)
    assert_close(log_det, torch.trace(columns).expand(4), 1e-7)
    assert flow.sample(3).shape == (3, 1, 2, 3)


def test_each_row_by_its_own_steps(engine: str) -> None:
    field = Field()
    joint = CNF(field, 2, engine=engine, **TIGHT).log_prob(X)
    alone = CNF(field, 2, engine=engine, batch="independent", **TIGHT).log_prob(X)
    assert_close(alone, joint, 1e-7)


def test_rows_that_are_computed_in_blocks(julia: str) -> None:
    """The exact trace keeps rows apart, as Julia sees, so that it can take many at a time."""
    flow = CNF(Field(), 2, engine="julia", **TIGHT)
    x = torch.randn(40, 2, dtype=D)
    expected = CNF(flow.func, 2, engine="torch", **TIGHT).log_prob(x)
    assert_close(flow.log_prob(x), expected, 1e-7)


def test_the_trace_of_a_matrix() -> None:
    value, trace, norm = exact_trace(linear, T0, X)
    assert_close(value, X @ A.T, 1e-12)
    assert_close(trace, torch.trace(A).expand(3), 1e-12)
    assert_close(norm, A.square().sum().expand(3), 1e-12)


def test_wrong_arguments() -> None:
    flow = CNF(linear, 2, engine="torch")
    with pytest.raises(ValueError, match=r"shape \(B, 2\), not \(3,\)"):
        flow.log_prob(X[:, 0])
    with pytest.raises(ValueError, match="two different times"):
        CNF(linear, 2, (1.0, 1.0))
    with pytest.raises(TypeError, match="CNF takes no step_size"):
        CNF(linear, 2, step_size=0.1)
    with pytest.raises(ValueError, match="rademacher"):
        FFJORD(linear, 2, noise="uniform")
    with pytest.raises(ValueError, match="monte_carlo=False"):
        FFJORD(linear, 2, batch="independent")


def test_evaluations_are_counted_both_ways(engine: str) -> None:
    flow = CNF(linear, 2, engine=engine, sensealg="backsolve", **TIGHT)
    x = X.clone().requires_grad_()
    loss = flow.log_prob(x).sum()
    assert flow.nfe > 0
    assert flow.nfe_backward == 0
    loss.backward()
    assert flow.nfe_backward > 0
    end = torch.matrix_exp(A)
    assert_close(x.grad, -X @ end.T @ end, 1e-6)
