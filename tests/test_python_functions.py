"""Functions that stay in Python: why they do, and what the backward pass reads."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import assert_close
from torch import Tensor

from pyjlode import BacksolveAdjoint, PyjlodeWarning, Statistics, UnsupportedError, odeint
from pyjlode.engine.callback import Callback
from pyjlode.trace.snapshot import Snapshot

D = torch.float64
T = torch.tensor([0.0, 1.0], dtype=D)
Y0 = torch.zeros(1, dtype=D)


def _in_python(func: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The same function, with a branch that no trace can follow."""

    def branches(t: Tensor, y: Tensor) -> Tensor:
        return func(t, y) if bool(y.sum() > -1e9) else y

    return branches


def _solve(func: Any, engine: str, y0: Tensor = Y0, **arguments: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PyjlodeWarning)
        found: Tensor = odeint(func, y0, T, engine=engine, **arguments)
    return found[-1]


# Each engine's way to call the function again in the backward pass.
_WAYS = {"torch": {"sensealg": BacksolveAdjoint()}, "julia": {}}


def test_an_attribute_set_anew_between_two_solves(engine: str) -> None:
    w = torch.ones(1, dtype=D, requires_grad=True)
    model = types.SimpleNamespace(u=torch.tensor(1.0, dtype=D))
    func = _in_python(lambda t, y: w * model.u + 0 * y)
    total = _solve(func, engine, **_WAYS[engine]).sum()
    model.u = torch.tensor(10.0, dtype=D)
    total = total + _solve(func, engine, **_WAYS[engine]).sum()
    total.backward()
    assert w.grad is not None and float(w.grad) == pytest.approx(11.0, rel=1e-6)
    assert float(model.u) == 10.0


def test_graphs_one_for_each_interval(engine: str) -> None:
    w = torch.ones(1, dtype=D, requires_grad=True)
    model = types.SimpleNamespace(graph=0.0)
    func = _in_python(lambda t, y: w * model.graph * y)
    y = torch.ones(1, dtype=D)
    for graph in (0.5, 1.0, -0.7):
        model.graph = graph
        y = _solve(func, engine, y, rtol=1e-9, atol=1e-11, **_WAYS[engine])
    y.sum().backward()
    assert w.grad is not None
    assert float(w.grad) == pytest.approx(0.8 * math.exp(0.8), rel=1e-5)


def test_a_change_in_place_is_refused(engine: str) -> None:
    w = torch.ones(1, dtype=D, requires_grad=True)
    u, table = torch.ones(1, dtype=D), {"u": 1.0}
    for change in (lambda: u.fill_(10.0), lambda: table.update(u=10.0)):
        func = _in_python(lambda t, y: w * u * table["u"] + 0 * y)
        state = _solve(func, engine, **_WAYS[engine])
        change()
        with pytest.raises(UnsupportedError, match="changed in place"):
            state.sum().backward()


def test_a_snapshot_ignores_what_the_function_changes_itself() -> None:
    model = types.SimpleNamespace(running=torch.zeros(1), u=1.0)
    kept = Snapshot(lambda t, y: model.running * model.u)
    model.running.add_(1)
    kept.end()
    model.running.add_(1)
    model.u = 2.0
    with kept.restored():
        assert model.u == 1.0
    assert model.u == 2.0


def test_complex_parameters(julia: str) -> None:
    c = torch.tensor([0.3 + 0.7j], dtype=torch.complex128, requires_grad=True)
    y0 = torch.ones(1, dtype=torch.complex128)
    state = _solve(_complex(c), julia, y0)
    (state.real**2 + 2 * state.imag).sum().backward()
    other = c.detach().clone().requires_grad_()
    end = torch.exp(other) * y0
    (end.real**2 + 2 * end.imag).sum().backward()
    assert c.grad is not None and other.grad is not None
    assert torch.allclose(c.grad, other.grad, rtol=1e-5)


def _complex(c: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda t, y: c * y if bool(y.real.sum() > -1e9) else y


def test_the_gradient_of_a_complex_parameter_has_both_parts() -> None:
    c = torch.tensor([1.0 + 2.0j], dtype=torch.complex128, requires_grad=True)
    func = lambda t, y: torch.view_as_real(c * 3.0).reshape(-1) * y  # noqa: E731
    callback = Callback(func, torch.ones(2, dtype=D), (c,), func)
    assert callback.sizes == (2, 2)
    out, v = torch.full((2,), math.nan, dtype=D), torch.tensor([1.0, 10.0], dtype=D)
    callback._pull(1, out.numpy(), v.numpy(), torch.ones(2, dtype=D).numpy(), None, 0.0)
    assert out.tolist() == [3.0, 30.0]


def _appends_item(log: list[object], t: Tensor, y: Tensor) -> None:
    log.append(t.item())


def _extends(log: list[object], t: Tensor, y: Tensor) -> None:
    log.extend(y.tolist())


def _appends_nested(log: list[object], t: Tensor, y: Tensor) -> None:
    log.append({"at": (t.item(), y.max().item())})


def _appends_state(log: list[object], t: Tensor, y: Tensor) -> None:
    log.append(y)


def _appends_text(log: list[object], t: Tensor, y: Tensor) -> None:
    log.append(f"{t.item():.3f} {y}")


def _prints(log: list[object], t: Tensor, y: Tensor) -> None:
    print("at", t.item(), y)


@pytest.mark.parametrize(
    "keep",
    [_appends_item, _extends, _appends_nested, _appends_state, _appends_text, _prints],
)
def test_a_log_of_values(
    julia: str, keep: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the values of every evaluation, and nothing of a trace."""
    log: list[object] = []

    def func(t: Tensor, y: Tensor) -> Tensor:
        keep(log, t, y)
        return -y

    stats = Statistics()
    y0 = torch.ones(2, dtype=torch.float64)
    with pytest.warns(PyjlodeWarning, match="runs in Python"):
        states = odeint(func, y0, [0.0, 1.0], engine=julia, stats=stats)
    assert_close(states[1], y0 * math.exp(-1), 1e-6)
    lines = [str(x) for x in log] or capsys.readouterr().out.splitlines()
    assert len(lines) >= stats.nfe
    assert not any("Fake" in line or "zuf" in line for line in lines)


_last: object = None


def test_variables_that_a_function_assigns(julia: str) -> None:
    """A global and one of the function around."""
    nearest = None

    def func(t: Tensor, y: Tensor) -> Tensor:
        nonlocal nearest
        global _last
        _last, nearest = t, y.detach()
        return -y

    y0 = torch.ones(2, dtype=torch.float64)
    with pytest.warns(PyjlodeWarning, match="it keeps a value that it computes"):
        states = odeint(func, y0, [0.0, 1.0], engine=julia)
    assert isinstance(_last, Tensor)
    assert isinstance(nearest, Tensor)
    assert_close(_last, torch.ones((), dtype=torch.float64), 1e-12)
    assert_close(nearest, states[1], 1e-3)
