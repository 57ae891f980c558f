"""``explain`` says what was traced, or what prevented it."""

from __future__ import annotations

import pytest
import torch

from pyjlode import explain


def test_a_traced_function(capsys: pytest.CaptureFixture[str]) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    shift = torch.ones(2)
    found = explain(lambda t, y: net(y) + shift, torch.zeros(3, 2))
    printed = capsys.readouterr().out
    assert found.traced
    assert found.parameters == ((5, 2), (5,), (2, 5), (2,))
    assert found.constants == ((2,),)
    assert set(found.steps) == {"value", "vjp", "vjp_p", "vjp_both", "vjp_t"}
    assert any("addmm, tanh" in step for step in found.steps["value"])
    assert "function value(du, u, p, time, c, w)" in printed
    assert printed.rstrip("\n") == str(found).rstrip("\n")


def test_a_function_that_needs_values(capsys: pytest.CaptureFixture[str]) -> None:
    def branching(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if y.sum() > 0:
            return -y
        return y

    found = explain(branching, torch.ones(2))
    assert not found.traced
    assert "needs the value of a tensor" in found.reason
    assert "if y.sum() > 0:" in found.reason
    assert found.reason in capsys.readouterr().out


def test_an_operation_that_is_not_covered() -> None:
    def distances(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -y * torch.pdist(y).sum()

    found = explain(distances, torch.ones(2, 2), quiet=True)
    assert not found.traced
    assert "aten._pdist_forward is not in the table" in found.reason
    assert "return -y * torch.pdist" in found.reason


def test_a_function_that_is_wrong_says_its_own_error() -> None:
    with pytest.raises(ZeroDivisionError):
        explain(lambda t, y: y / (1 // 0), torch.ones(2))
    with pytest.raises(TypeError, match="shape"):
        explain(lambda t, y: y[:1], torch.ones(2))
