"""``NeuralODE`` as a module: pickles, copies, a state dict, and never a stale model."""

from __future__ import annotations

import copy
import functools
import pickle
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from reference import assert_close, gradients, rk4
from torch import Tensor, nn

from pyjlode import (
    CNF,
    CubicSpline,
    NeuralCDE,
    NeuralDAE,
    NeuralDSDE,
    NeuralODE,
    NeuralODEMM,
    PyjlodeWarning,
    natural_cubic_coeffs,
    odeint,
)
from pyjlode.engine import choose_engine

D = torch.float64
T = torch.tensor([0.0, 0.4, 0.9], dtype=D)


class Field(nn.Module):
    """Parameters, a buffer, a mode, plain attributes: all that a trace could hold too long."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2)).to(D)
        self.register_buffer("shift", torch.tensor([0.1, -0.2], dtype=D))
        self.gain = 1.0
        self.calls = 0

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        out = self.gain * self.net(y) + self.shift
        return out if self.training else 0.5 * out


def check(field: nn.Module, engine: str) -> None:
    """A solve and its gradients agree with Runge-Kutta on the function as it is now."""
    y0 = torch.tensor([[0.3, -0.5]], dtype=D)
    needed = [p for p in field.parameters() if p.requires_grad]

    def solve(y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return odeint(field, y, s, rtol=1e-10, atol=1e-11, engine=engine)

    states, found = gradients(solve, y0, T, needed)
    expected_states, expected = gradients(lambda y, s: rk4(field, y, s), y0, T, needed)
    assert_close(states, expected_states, 1e-8)
    for g, e in zip(found, expected, strict=True):
        assert_close(g, e, 1e-6)


def _step(field: Field) -> None:
    optimizer = torch.optim.Adam(field.parameters(), lr=0.1)
    field.net(torch.ones(1, 2, dtype=D)).sum().backward()
    optimizer.step()


def _load(field: Field) -> None:
    field.load_state_dict({k: v * 1.5 for k, v in field.state_dict().items()})


def _replace(field: Field) -> None:
    field.net[0] = nn.Linear(2, 6).to(D)


def _wider(field: Field) -> None:
    field.net = nn.Sequential(nn.Linear(2, 9), nn.SiLU(), nn.Linear(9, 2)).to(D)


CHANGES = {
    "in place": lambda f: f.net[0].weight.data.mul_(-1.5),
    "optimizer": _step,
    "load_state_dict": _load,
    "freeze": lambda f: f.net[0].weight.requires_grad_(False),
    "buffer": lambda f: f.shift.add_(1.0),
    "new buffer": lambda f: setattr(f, "shift", torch.ones(2, dtype=D)),
    "attribute": lambda f: setattr(f, "gain", 2.0),
    "eval": lambda f: f.eval(),
    "other module": _replace,
    "wider": _wider,
    "hook": lambda f: f.net.register_forward_hook(lambda m, i, o: o * 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen(engine: str, change: str) -> None:
    field = Field()
    check(field, engine)
    CHANGES[change](field)
    check(field, engine)


def test_values_need_no_new_trace(julia: str) -> None:
    """Only what changes the code is traced again; a counter that the function keeps is not."""
    field = Field()
    models = choose_engine("julia").models
    models.clear()
    check(field, "julia")
    before = len(models)
    for change in ("in place", "optimizer", "load_state_dict", "buffer"):
        CHANGES[change](field)
        check(field, "julia")
    assert len(models) == before
    CHANGES["eval"](field)
    check(field, "julia")
    assert len(models) > before


def test_functions_made_anew_need_no_new_trace(julia: str) -> None:
    """Lambdas, bound methods and partial functions are other objects at each pass of a loop."""
    field = Field()
    models = choose_engine("julia").models
    models.clear()
    for _ in range(3):
        for func in (
            lambda t, y: field(t, y) * 2,
            field.forward,
            functools.partial(_scaled, 0.5),
        ):
            y0 = torch.ones(1, 2, dtype=D, requires_grad=True)
            odeint(func, y0, [0.0, 1.0], engine="julia").sum().backward()
    assert len(models) == 3


RATE = 1.0


class Named(nn.Module):
    """Reads a global, a class attribute and a private attribute."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self._sign = -1.0

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self._sign * RATE * self.factor * y

    def through_a_lambda(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (lambda x: self._sign * RATE * x)(y)


def test_what_code_names_is_seen(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Globals and class attributes are not part of the object, and a trace rests on them."""
    named, y0 = Named(), torch.ones(1, dtype=D)
    for func, change, rate in [
        (named, lambda: None, 1.0),
        (named, lambda: monkeypatch.setitem(globals(), "RATE", 2.0), 2.0),
        (named, lambda: monkeypatch.setattr(Named, "factor", 0.5), 1.0),
        (named, lambda: setattr(named, "_sign", -3.0), 3.0),
        (named.through_a_lambda, lambda: None, 6.0),
        (named.through_a_lambda, lambda: monkeypatch.setitem(globals(), "RATE", 0.1), 0.3),
    ]:
        change()
        y = odeint(func, y0, [0.0, 1.0], engine=engine)
        assert_close(y[-1], torch.exp(torch.tensor([-rate], dtype=D)), 1e-6)


def test_new_tensors_need_no_new_trace(julia: str) -> None:
    """A context computed at each pass, and another module of the same make, take their places."""
    models = choose_engine("julia").models
    models.clear()
    y0 = torch.tensor([[0.3, -0.5]], dtype=D)
    weight = torch.full((2,), 0.5, dtype=D, requires_grad=True)
    for i in range(1, 4):
        context = weight * i
        states = odeint(lambda t, y, c=context: -c * y, y0, [0.0, 1.0], engine="julia")
        assert_close(states[-1].detach(), y0 * torch.exp(-0.5 * i * torch.ones(2, dtype=D)), 1e-6)
        (found,) = torch.autograd.grad(states[-1].sum(), weight)
        assert_close(found, (-i * y0 * torch.exp(-weight.detach() * i)).sum(0), 1e-5)
    assert len(models) == 1
    for _ in range(3):
        check(Field(), "julia")
    assert len(models) == 2


class Noisy(nn.Module):
    """FFJORD's way with noise: drawn at the first evaluation, and kept until it is reset."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = None

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self.noise is None:
            self.noise = torch.randn_like(y)
        return self.noise - y


def test_a_tensor_that_the_function_keeps(engine: str) -> None:
    noisy, y0 = Noisy(), torch.ones(2, dtype=D)
    for _ in range(2):
        noisy.noise = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PyjlodeWarning)
            y = odeint(noisy, y0, [0.0, 1.0], rtol=1e-9, atol=1e-9, engine=engine)
        assert type(noisy.noise) is torch.Tensor
        decay = torch.exp(torch.tensor(-1.0, dtype=D))
        assert_close(y[-1], noisy.noise + (y0 - noisy.noise) * decay, 1e-7)


def test_which_tensor_is_shared_counts(engine: str) -> None:
    """Two closures that differ only in whether their tensors are one."""
    a, b = (torch.tensor(x, dtype=D, requires_grad=True) for x in (0.5, 0.5))
    for first, second, expected in ((a, a, 2.0), (a, b, 1.0)):
        y = odeint(
            lambda t, y, p=first, q=second: -(p + q) * y,
            torch.ones(1, dtype=D), [0.0, 1.0], engine=engine,
        )  # fmt: skip
        (found,) = torch.autograd.grad(y[-1].sum(), a)
        assert_close(found, torch.tensor(-expected * 0.36787944117144233, dtype=D), 1e-6)


def test_new_shapes_and_dtypes(engine: str) -> None:
    k = torch.tensor(0.5, requires_grad=True)
    for shape in [(2,), (3, 2), (1, 4, 2), (0, 2)]:
        y = odeint(lambda t, y: -k * y, torch.ones(shape), [0.0, 1.0], engine=engine)
        assert y.shape == (2, *shape)
        assert_close(y[-1], torch.full(shape, 0.60653066), 1e-4)


def test_closures_are_told_apart(engine: str) -> None:
    """Functions made by one line of code with other values are other functions."""
    for rate in (1.0, 2.0):
        y = odeint(lambda t, y, r=rate: -r * y, torch.ones(1, dtype=D), [0.0, 1.0], engine=engine)
        assert_close(y[-1], torch.exp(torch.tensor([-rate], dtype=D)), 1e-6)
        z = odeint(
            functools.partial(_scaled, rate), torch.ones(1, dtype=D), [0.0, 1.0], engine=engine
        )
        assert_close(z[-1], torch.exp(torch.tensor([-rate], dtype=D)), 1e-6)


def _scaled(rate: float, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return -rate * y


def test_a_layer(engine: str) -> None:
    layer = NeuralODE(Field(), T, rtol=1e-9, atol=1e-9, engine=engine)
    y0 = torch.tensor([[0.3, -0.5], [1.0, 0.0]], dtype=D)
    y = layer(y0)
    assert y.shape == (3, 2, 2)
    assert layer.nfe > 0
    y[-1].sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    assert layer(y0, [0.0, 2.0]).shape == (2, 2, 2)
    with pytest.raises(ValueError, match="no times"):
        NeuralODE(Field(), engine=engine)(y0)
    assert sorted(layer.state_dict()) == sorted(f"func.{k}" for k in Field().state_dict())


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(engine: str, how: object) -> None:
    layer = NeuralODE(Field(), T, rtol=1e-9, atol=1e-9, engine=engine)
    y0 = torch.tensor([[0.3, -0.5]], dtype=D)
    before = layer(y0).detach()
    twin = how(layer)
    twin.func.net[0].weight.data.zero_()
    assert_close(layer(y0).detach(), before, 1e-12)
    assert not torch.allclose(twin(y0), before)


def test_a_depth_that_is_learnt(engine: str) -> None:
    """How long ``dy/dt = -y`` has to run to halve the state: ``log 2``."""
    depth = torch.nn.Parameter(torch.tensor([0.0, 1.0]))
    layer = NeuralODE(lambda t, y: -y, depth, rtol=1e-8, atol=1e-8, engine=engine)
    assert "t" in layer.state_dict()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    for _ in range(60):
        optimizer.zero_grad()
        (layer(torch.ones(1, dtype=D))[-1] - 0.5).square().sum().backward()
        optimizer.step()
    assert_close((depth[1] - depth[0]).detach(), torch.tensor(2.0).log(), 1e-5)


def test_training_follows_torchdiffeq(engine: str) -> None:
    """From the same weights, the losses of 20 steps are those of torchdiffeq's odeint."""
    import torchdiffeq

    target = torch.tensor([[0.0, 1.0]], dtype=D)
    losses = []
    for solve in (
        lambda f, y: odeint(f, y, T, rtol=1e-8, atol=1e-9, engine=engine),
        lambda f, y: torchdiffeq.odeint(f, y, T, rtol=1e-8, atol=1e-9),
    ):
        torch.manual_seed(3)
        field = Field()
        optimizer = torch.optim.Adam(field.parameters(), lr=0.02)
        history = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = (solve(field, torch.tensor([[0.3, -0.5]], dtype=D))[-1] - target).square().sum()
            loss.backward()
            optimizer.step()
            history.append(loss.detach())
        losses.append(torch.stack(history))
    assert losses[0][-1] < losses[0][0]
    assert_close(losses[0], losses[1], 1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:.* is traced anew for each solve")
@pytest.mark.parametrize(
    "make",
    [
        lambda net: net,
        lambda net: lambda y: net(y),
        lambda net: lambda t, y: net(y),
        lambda net: lambda y, scale=1.0: scale * net(y),
        lambda net: lambda *args: net(args[1]),
        lambda net: net.forward,
        lambda net: partial(lambda scale, y: scale * net(y), 1.0),
        lambda net: torch.jit.script(net),
        lambda net: torch.jit.trace(net, (torch.ones(3, 2, dtype=torch.float64),)),
        lambda net: torch.compile(net, backend="eager"),
    ],
)
def test_functions_of_the_state_alone(engine: str, make: Any) -> None:
    """As DiffEqFlux's layers take them: what has one required argument."""
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    y0 = torch.randn(3, 2, dtype=torch.float64)
    found = NeuralODE(make(net), [0.0, 1.0], engine=engine)(y0)
    expected = odeint(lambda t, y: net(y), y0, [0.0, 1.0], engine=engine)
    assert_close(found, expected, 1e-12)
    for a, b in zip(
        torch.autograd.grad(found.sum(), list(net.parameters())),
        torch.autograd.grad(expected.sum(), list(net.parameters())),
        strict=True,
    ):
        assert_close(a, b, 1e-12)


@pytest.mark.parametrize("name", ["CNF", "NeuralDSDE", "NeuralCDE", "NeuralODEMM", "NeuralDAE"])
def test_layers_of_the_state_alone(julia: str, name: str) -> None:
    """Each layer with a function of the state, and with the same one of time and state."""
    y0 = torch.randn(3, 4, dtype=D)
    net, rest = nn.Linear(4, 4).to(D), nn.Linear(4, 2).to(D)
    t, both = T[:2], [True, True, False, False]
    x = torch.randn(3, 5, 1, dtype=D)
    path, mass = CubicSpline(natural_cubic_coeffs(x)), torch.diag(torch.tensor(both).to(D))

    def layer(*parts: Any) -> Tensor:
        whole, part, matrix = parts
        if name == "CNF":
            return CNF(whole, 4, engine=julia).log_prob(y0)
        if name == "NeuralDSDE":
            return NeuralDSDE(whole, whole, t, engine=julia, dt=0.1)(y0, seed=1)
        if name == "NeuralCDE":
            return NeuralCDE(nn.Linear(1, 4).to(D), matrix, engine=julia)(path)
        if name == "NeuralODEMM":
            return NeuralODEMM(part, part, t, mass_matrix=mass, engine=julia)(y0)
        return NeuralDAE(
            lambda t, y, dy: dy - rest(y), part, t, differential_vars=both, engine=julia
        )(y0)

    torch.manual_seed(0)
    found = layer(net, rest, lambda z: net(z).unsqueeze(-1))
    torch.manual_seed(0)
    expected = layer(lambda t, y: net(y), lambda t, y: rest(y), lambda t, z: net(z).unsqueeze(-1))
    assert_close(found, expected, 1e-12)
