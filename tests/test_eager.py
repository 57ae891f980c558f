"""Solves in programs that torch compiles, exports, records, or runs in inference mode."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from reference import assert_close
from torch import Tensor, nn

from pyjlode import (
    CNF,
    FFJORD,
    AugmentedNDELayer,
    NeuralDSDE,
    NeuralHamiltonianDE,
    NeuralODE,
    UnsupportedError,
    odeint,
    odeint_adjoint,
    odeint_event,
    steady_state,
)

D = torch.float64
T = torch.tensor([0.0, 0.5, 1.0], dtype=D)


class Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2)).to(D)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y)


class Around(nn.Module):
    """A solve between two layers that torch can compile."""

    def __init__(self, solve: nn.Module | Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.before = nn.Linear(3, 2).to(D)
        self.field = Field()
        self.solve = solve
        self.after = nn.Linear(2, 1).to(D)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.before(x))
        states = self.solve(h) if isinstance(self.solve, nn.Module) else self.solve(self.field, h)
        return self.after(states)


def solved(engine: str, kind: str) -> Around:
    """A model with a solve of the given kind."""
    if kind == "odeint":
        return Around(lambda f, y: odeint(f, y, T, engine=engine)[-1])
    if kind == "adjoint":
        return Around(lambda f, y: odeint_adjoint(f, y, T, engine=engine)[-1])
    if kind == "event":
        return Around(
            lambda f, y: odeint_event(f, y, T[0], event_fn=lambda t, y: t - 0.5, engine=engine)[1][
                -1
            ]
        )
    if kind == "solution":
        return Around(lambda f, y: odeint(f, y, T, engine=engine, return_solution=True)(T[1:])[0])
    return Around(nn.Sequential(NeuralODE(Field(), T, engine=engine), _Last()))


class _Last(nn.Module):
    def forward(self, states: Tensor) -> Tensor:
        return states[-1]


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    used = [p for p in model.parameters() if p.requires_grad]
    return [g for g in torch.autograd.grad(loss, used, allow_unused=True) if g is not None]


@pytest.fixture
def compiled(caplog: pytest.LogCaptureFixture) -> Callable[[nn.Module], nn.Module]:
    """Torch's compiler without code generation: what is traced, and where a graph ends."""
    torch._dynamo.reset()
    caplog.set_level(logging.WARNING)
    return lambda model: torch.compile(model, backend="eager")


@pytest.mark.parametrize("kind", ["odeint", "adjoint", "event", "solution", "layer"])
def test_compile(
    engine: str,
    kind: str,
    compiled: Callable[[nn.Module], nn.Module],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, x = solved(engine, kind), torch.randn(4, 3, dtype=D)
    expected = model(x).square().sum()
    found = compiled(model)(x).square().sum()
    assert_close(found, expected, 1e-12)
    pairs = zip(gradients(model, found), gradients(model, expected), strict=True)
    for gradient, reference in pairs:
        assert_close(gradient, reference, 1e-12)
    assert not caplog.records
    breaks = torch._dynamo.utils.counters["graph_break"]
    assert breaks
    assert all("torch.compiler.disable" in reason for reason in breaks)


def _layers(engine: str) -> dict[str, tuple[nn.Module, Tensor]]:
    y = torch.randn(4, 2, dtype=D)
    flow = nn.Sequential(nn.Linear(2, 2)).to(D)
    found: dict[str, tuple[nn.Module, Tensor]] = {
        "CNF": (CNF(lambda t, y: torch.tanh(flow(y)), 2, engine=engine), y),
        "FFJORD": (FFJORD(Field(), 2, engine=engine), y),
        "augmented": (
            AugmentedNDELayer(NeuralODE(lambda t, y: -y, T, engine=engine), 1), y,
        ),
        "hamiltonian": (
            NeuralHamiltonianDE(nn.Sequential(nn.Linear(2, 1)).to(D), T, engine=engine), y,
        ),
    }  # fmt: skip
    return found


def _number(result: object) -> Tensor:
    value = result if isinstance(result, Tensor) else result.log_prob  # type: ignore[attr-defined]
    return value.square().sum()


@pytest.mark.parametrize("name", ["CNF", "FFJORD", "augmented", "hamiltonian"])
def test_compile_layers(
    engine: str,
    name: str,
    compiled: Callable[[nn.Module], nn.Module],
    caplog: pytest.LogCaptureFixture,
) -> None:
    layer, y = _layers(engine)[name]
    y.requires_grad_()
    results = []
    for module in (layer, compiled(layer)):
        torch.manual_seed(1)
        loss = _number(module(y))
        results.append((loss, torch.autograd.grad(loss, y)[0]))
    assert_close(results[1][0], results[0][0], 1e-12)
    assert_close(results[1][1], results[0][1], 1e-12)
    assert not caplog.records


def test_recorders(engine: str) -> None:
    """They would keep one solve's numbers, or memory into which Julia writes."""
    x = torch.randn(4, 3, dtype=D)
    for kind in ("odeint", "layer"):
        model = solved(engine, kind)
        with pytest.raises(UnsupportedError, match=r"torch\.export cannot record"):
            torch.export.export(model, (x,), strict=False)
        with (
            pytest.warns(DeprecationWarning, match="deprecated"),
            pytest.raises(UnsupportedError, match=r"torch\.jit\.trace cannot record"),
        ):
            torch.jit.trace(model, (x,))
        with pytest.raises(Exception, match=r"a solve runs outside the graphs of torch\.compile"):
            torch.compile(model, backend="eager", fullgraph=True)(x)


def test_first_call_in_inference_mode(engine: str) -> None:
    """What it leaves, such as torchdiffeq's tables and the model in Julia, serves training."""
    code = (
        "import torch, pyjlode\n"
        "net = torch.nn.Linear(2, 2)\n"
        "def f(t, y): return net(y)\n"
        "y0, t = torch.ones(2), [0.0, 1.0]\n"
        "with torch.inference_mode():\n"
        f"    y = pyjlode.odeint(f, y0, t, engine={engine!r})\n"
        f"z = pyjlode.odeint(f, y0, t, engine={engine!r})\n"
        "assert torch.equal(y, z) and z.requires_grad\n"
        "z.sum().backward()\n"
        "assert net.weight.grad.abs().sum() > 0\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("method", [None, "Rodas5P"])
def test_inference_mode(engine: str, method: str | None) -> None:
    """Of tensors that inference mode made too, of which a Jacobian cannot be derived."""
    if engine == "torch" and method == "Rodas5P":
        method = "dopri8"
    field, y0 = Field(), torch.randn(4, 2, dtype=D)

    def solve(scale: Tensor, y0: Tensor) -> Tensor:
        return odeint(lambda t, y: scale * field(t, y), y0, T, engine=engine, method=method)

    expected = solve(torch.full((2,), 2.0, dtype=D), 2 * y0)
    with torch.inference_mode():
        found = solve(2 * torch.ones(2, dtype=D), 2 * y0)
    assert not found.is_inference()
    assert_close(found, expected.detach(), 1e-12)
    (again,) = torch.autograd.grad(
        solve(torch.full((2,), 2.0, dtype=D), 2 * y0).sum(), [field.net[0].weight]
    )
    assert_close(again, torch.autograd.grad(expected.sum(), [field.net[0].weight])[0], 1e-12)


def test_inference_mode_elsewhere(engine: str) -> None:
    """Events, dense solutions, independent rows and steady states."""
    y0 = torch.ones(3, 2, dtype=D)
    with torch.inference_mode():
        rate = torch.tensor(1.0, dtype=D) * 2

        def decay(t: Tensor, y: Tensor) -> Tensor:
            return -rate * y

        time, _ = odeint_event(decay, y0, T[0], event_fn=lambda t, y: y[0, 0] - 0.5, engine=engine)
        assert_close(time, torch.log(torch.tensor(2.0, dtype=D)) / 2, 1e-6)
        solution = odeint(decay, y0, T, engine=engine, return_solution=True)
        assert_close(solution(T[1:2])[0], torch.exp(-2 * T[1]) * y0, 1e-6)
        rows = odeint(decay, y0, T, engine=engine, batch="independent")
        assert_close(rows[-1], torch.exp(-2 * T[-1]) * y0, 1e-6)


def test_stiff_in_inference_mode(julia: str) -> None:
    with torch.inference_mode():
        rate = torch.tensor(1.0, dtype=D) * 2
        y0 = torch.full((2,), 3.0, dtype=D)
        found = steady_state(lambda t, y: 1 - rate * y**3, y0, engine=julia)
        noise = NeuralDSDE(lambda t, y: -y, lambda t, y: rate * y, T, engine=julia)(y0[None])
    assert_close(found, torch.full((2,), 0.5, dtype=D) ** (1 / 3), 1e-6)
    assert torch.isfinite(noise).all()
