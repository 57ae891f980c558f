"""Symplectic and Nyström methods: closed forms, the steps by another hand, energy, refusals."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from reference import assert_close
from torch import Tensor

from pyjlode import (
    ArgumentError,
    Method,
    SolverError,
    UnsupportedError,
    find_method,
    methods,
    odeint,
)

D = torch.float64
SOME = ("VelocityVerlet", "KahanLi8", "DPRKN6")
ALL = [m.name for m in methods() if m.problem]


def steps(method: Method, size: float) -> dict:
    """Options of fixed steps, or of steps that the method chooses."""
    if method.adaptive:
        return {"rtol": 1e-9, "atol": 1e-9}
    return {"options": {"step_size": size}}


@pytest.mark.parametrize("name", ALL if os.environ.get("PYJLODE_ALL_METHODS") else SOME)
def test_oscillator(julia: str, name: str) -> None:
    """q'' = -k q, in closed form: states, and gradients by everything."""
    method = find_method(name)
    k = torch.tensor(1.3, dtype=D, requires_grad=True)
    q0 = torch.tensor([0.3, -1], dtype=D, requires_grad=True)
    p0 = torch.tensor([0.5, 0.2], dtype=D, requires_grad=True)
    t = torch.tensor([0, 0.73, 2], dtype=D, requires_grad=True)
    q, p = odeint(
        lambda t, y: (y[1], -k * y[0]), (q0, p0), t, method=name, engine="julia",
        **steps(method, 0.02),
    )  # fmt: skip
    w, s = k.sqrt(), (t - t[0])[:, None]
    exact_q = q0 * torch.cos(w * s) + p0 / w * torch.sin(w * s)
    exact_p = p0 * torch.cos(w * s) - q0 * w * torch.sin(w * s)
    error = 1e-6 if method.adaptive else max(2 * 0.02**method.order, 1e-8)
    assert_close(q.detach(), exact_q.detach(), error)
    assert_close(p.detach(), exact_p.detach(), error)
    weights = torch.tensor([[0.3, -1], [1.5, 0.7], [-0.4, 2]], dtype=D)

    def gradients(q: Tensor, p: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((weights * (q + p * p)).sum(), (q0, p0, k, t))

    for found, expected in zip(gradients(q, p), gradients(exact_q, exact_p), strict=True):
        assert_close(found, expected, 10 * error)


def leapfrog(
    func: Callable[..., tuple[Tensor, Tensor]], q: Tensor, p: Tensor, t: Tensor, h: float
) -> tuple[Tensor, Tensor]:
    """Kick, drift, kick in steps of ``h`` and a shorter one before each save point."""
    states = [(q, p)]
    for start, end in pairwise(t):
        count = int((float((end - start).detach()) - 1e-9) / h)
        for i in range(count + 1):
            time = start + i * h
            dt = h if i < count else end - time
            p = p + dt / 2 * func(time, (q, p))[1]
            q = q + dt * func(time, (q, p))[0]
            p = p + dt / 2 * func(time + dt, (q, p))[1]
        states.append((q, p))
    return torch.stack([q for q, _ in states]), torch.stack([p for _, p in states])


@pytest.mark.parametrize("name", ["VerletLeapfrog", "VelocityVerlet"])
def test_gradient_of_the_numbers(julia: str, name: str) -> None:
    """Against torch's autograd through the same steps, on a batch, with a network as force."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).to(D)

    def func(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        q, p = y
        return p, net(q) - torch.sin(q)

    q0, p0 = torch.linspace(-1, 1, 12, dtype=D).view(2, 3, 2)
    t = torch.tensor([0.2, 0.95, 1.6], dtype=D)
    inputs = [x.clone().requires_grad_() for x in (q0, p0, t)]
    found = odeint(
        func, (inputs[0], inputs[1]), inputs[2], method=name, options={"step_size": 0.1},
        engine="julia",
    )  # fmt: skip
    expected = leapfrog(func, *inputs, 0.1)
    leaves = [*inputs, *net.parameters()]
    results = []
    for q, p in (found, expected):
        weights = torch.linspace(0.5, 1.5, q.numel(), dtype=D).view_as(q)
        loss = (weights * (q - p**2)).sum()
        results.append([q, p, *torch.autograd.grad(loss, leaves, retain_graph=True)])
    for a, b in zip(*results, strict=True):
        assert_close(a.detach(), b.detach(), 1e-11)


@pytest.mark.parametrize("name", ["VerletLeapfrog", "DPRKN6"])
def test_a_force_that_depends_on_time(julia: str, name: str) -> None:
    method = find_method(name)
    y0, t = (torch.zeros(1, dtype=D), torch.zeros(1, dtype=D)), [0.0, 1.0, 3.0]
    q, _ = odeint(
        lambda t, y: (y[1], torch.cos(1.7 * t) - y[0]), y0, t, method=name, engine="julia",
        **steps(method, 0.02),
    )  # fmt: skip
    s = torch.tensor(t, dtype=D)
    exact = (torch.cos(1.7 * s) - torch.cos(s)) / (1 - 1.7**2)
    assert_close(q[:, 0], exact, 1e-6 if method.adaptive else 3e-4)


def kepler(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    q, p = y
    return p, -q / q.norm() ** 3


def test_energy_does_not_drift(julia: str) -> None:
    """An orbit of eccentricity 0.5, thirty times round; Tsit5 with the same steps spirals."""
    q0, p0 = torch.tensor([0.5, 0], dtype=D), torch.tensor([0, 3**0.5], dtype=D)
    t = torch.linspace(0, 60 * torch.pi, 61, dtype=D)
    worst = {}
    for name in ("KahanLi8", "VerletLeapfrog", "Tsit5"):
        q, p = odeint(kepler, (q0, p0), t, method=name, options={"step_size": 0.05}, engine="julia")
        energy = (p**2).sum(1) / 2 - 1 / q.norm(dim=1)
        worst[name] = [float((x + 0.5).abs().max()) for x in (energy[:21], energy[41:])]
    assert worst["KahanLi8"][1] < 1e-7
    assert worst["KahanLi8"][1] < 2 * worst["KahanLi8"][0] + 1e-12
    assert worst["VerletLeapfrog"][1] < 1.5 * worst["VerletLeapfrog"][0] < 0.1
    assert worst["Tsit5"][1] > 1.8 * worst["Tsit5"][0]


def test_the_gradient_of_a_general_hamiltonian(julia: str) -> None:
    """H = sqrt(m² + p²) + cos q: a velocity that is not p, a parameter in each half."""
    m, g = (torch.tensor(x, dtype=D, requires_grad=True) for x in (0.7, 1.2))

    def func(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        q, p = y
        return p / torch.sqrt(m**2 + p**2), g * torch.sin(q)

    q0, p0 = (torch.tensor(x, dtype=D, requires_grad=True) for x in ([0.4], [-0.9]))
    t, results = [0.0, 1.0, 3.0], []
    for method, options in (("KahanLi8", {"step_size": 0.05}), ("Vern9", None)):
        q, p = odeint(
            func, (q0, p0), t, method=method, options=options, rtol=1e-11, atol=1e-12,
            engine="julia",
        )  # fmt: skip
        results.append((q, *torch.autograd.grad((q + 2 * p).sum(), (m, g, q0, p0))))
    for a, b in zip(*results, strict=True):
        assert_close(a.detach(), b.detach(), 1e-8)


def test_backward_in_time_and_failures(julia: str) -> None:
    q0, p0 = torch.tensor([0.5, 0], dtype=D), torch.tensor([0, 3**0.5], dtype=D)
    options = {"method": "KahanLi8", "options": {"step_size": 0.02}, "engine": "julia"}
    there = odeint(kepler, (q0, p0), [0.0, 2.0], **options)
    back = odeint(kepler, (there[0][1], there[1][1]), [2.0, 0.0], **options)
    assert_close(back[0][1], q0, 1e-9)
    assert_close(back[1][1], p0, 1e-9)
    with pytest.raises(SolverError) as caught:  # blows up
        odeint(lambda t, y: (y[1], y[0] ** 3), (q0, 9 * p0), [0.0, 1.0, 9.0], **options)
    assert torch.isfinite(caught.value.solution.y[0]).all()


PAIR = (torch.ones(2, dtype=D), torch.zeros(2, dtype=D))


def free(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return y[1], -y[0]


def check_refusal(change: dict, error: type[Exception], message: str) -> None:
    arguments = {
        "func": free, "y0": PAIR, "t": [0.0, 1.0], "method": "KahanLi8",
        "options": {"step_size": 0.1},
    } | change  # fmt: skip
    with pytest.raises(error, match=message):
        odeint(arguments.pop("func"), arguments.pop("y0"), arguments.pop("t"), **arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y0": PAIR[0]}, ArgumentError, r"tuple \(q, p\)"),
        ({"y0": (PAIR[0], PAIR[0][:1])}, ArgumentError, r"tuple \(q, p\)"),
        ({"options": None}, ArgumentError, "step_size"),
        ({"t": [1.0, 0.0], "method": "VelocityVerlet"}, UnsupportedError, "forward in time"),
        ({"sensealg": "gauss"}, UnsupportedError, "DiscreteAdjoint"),
        ({"return_solution": True}, UnsupportedError, "times in t"),
        ({"event_fn": lambda t, y: y[0][0]}, UnsupportedError, "times in t"),
        ({"mass_matrix": torch.eye(4)}, UnsupportedError, "Rodas5P"),
        ({"engine": "torch"}, UnsupportedError, "dopri8"),
    ],
)
def test_what_is_refused(change: dict, error: type[Exception], message: str) -> None:
    check_refusal(change, error, message)


@pytest.mark.parametrize(
    ("func", "method", "message"),
    [
        (lambda t, y: (y[1] + y[0] ** 2, y[0]), "KahanLi8", "depend on q"),
        (lambda t, y: (y[1], -y[0] - y[1]), "KahanLi8", "depend on p"),
        (lambda t, y: (y[1], torch.cos(t) - y[0]), "KahanLi8", "depend on t"),
        (lambda t, y: (2 * y[1], -y[0]), "VelocityVerlet", "KahanLi8"),
        (lambda t, y: (y[1], -y[0] - y[1]), "DPRKN6", "FineRKN5"),
    ],
)
def test_what_func_may_not_depend_on(
    julia: str, func: Callable[..., tuple[Tensor, Tensor]], method: str, message: str
) -> None:
    """Every time, and though a method that allows it solves the same before."""
    odeint(func, PAIR, [0.0, 0.1], method="Vern9", engine="julia")
    options = None if find_method(method).adaptive else {"step_size": 0.1}
    for _ in range(2):
        check_refusal(
            {"func": func, "method": method, "options": options, "engine": "julia"},
            ArgumentError, message,
        )  # fmt: skip


def test_a_look_changes_nothing(julia: str) -> None:
    """Batch norm's running statistics move once for each saved state, as without the look."""
    counts = []
    for method, options in (("KahanLi8", {"step_size": 0.1}), ("Vern9", None)):
        norm = torch.nn.BatchNorm1d(2).to(D)
        y0 = (torch.randn(4, 2, dtype=D), torch.zeros(4, 2, dtype=D))
        odeint(
            lambda t, y, norm=norm: (y[1], -norm(y[0])), y0, [0.0, 0.5], method=method,
            options=options, engine="julia",
        )  # fmt: skip
        counts.append(int(norm.num_batches_tracked))
    assert counts[0] == counts[1] == 2
