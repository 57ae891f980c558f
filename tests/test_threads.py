"""Solves in several threads, and Python beside a solve."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from pyjlode import (
    PyjlodeWarning,
    ddeint,
    julia_lock,
    jumpint,
    odeint,
    odeint_event,
    sdeint,
    solve_ivp,
)
from pyjlode.runtime import start

D = torch.float64
TURN = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=D)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)
        ).to(D)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.layers(y)


class Noisy(torch.nn.Module):
    sde_type, noise_type = "ito", "diagonal"

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return -y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.1 * y


def gradient(net: Net, **options: Any) -> Tensor:
    y = odeint(net, torch.ones(8, 2, dtype=D), [0.0, 0.5, 1.0], engine="julia", **options)
    return torch.cat([g.flatten() for g in torch.autograd.grad(y.sum(), list(net.parameters()))])


def spin(t: Tensor, y: Tensor) -> Tensor:
    return 100 * y @ TURN


def ode() -> None:
    options = {"max_num_steps": 10**7}
    odeint(spin, torch.ones(20, 2, dtype=D), [0.0, 400.0], engine="julia", options=options)


def event() -> None:
    odeint_event(
        spin, torch.ones(20, 2, dtype=D), 0.0, event_fn=lambda t, y: t - 8, engine="julia",
        options={"max_num_steps": 10**7},
    )  # fmt: skip


def delay() -> None:
    ddeint(
        lambda t, y, past: spin(t, y) + 0 * past, torch.ones(20, 2, dtype=D), [0.0, 20.0],
        lags=[1.0], engine="julia",
    )  # fmt: skip


def stochastic() -> None:
    sdeint(Noisy(), torch.ones(20, 2, dtype=D), [0.0, 40.0], dt=1e-3, seed=1, engine="julia")


def jumps() -> None:
    change = torch.tensor([[1.0], [-1.0]], dtype=D)
    jumpint(
        lambda t, y: torch.cat([torch.full_like(y, 1e3), y], -1), change,
        torch.full((4, 1), 1e3, dtype=D), [0.0, 50.0], seed=1, engine="julia",
    )  # fmt: skip


def long(solve: Callable[[], None], seconds: float) -> None:
    """Solves that take at least so long together."""
    start = time.perf_counter()
    with torch.no_grad():
        while time.perf_counter() - start < seconds:
            solve()


@pytest.mark.parametrize("threads", [1, 4])
def test_the_first_calls_in_threads(julia: str, threads: int) -> None:
    """One starts Julia, and ends before the process does, which then ends as any other."""
    code = f"""
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import torch
from pyjlode import odeint
def solve(_):
    return float(odeint(lambda t, y: -y, torch.ones(1), [0.0, 1.0], engine="julia")[-1])
with ThreadPoolExecutor({threads}) as pool:
    found = list(pool.map(solve, range({threads})))
assert all(abs(x - 0.367879) < 1e-5 for x in found), found
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("options", [{}, {"batch": "independent"}, {"method": "Rodas5P"}])
def test_a_pool_of_threads(julia: str, options: dict[str, Any]) -> None:
    """Each gradient is that of the main thread, to the last bit."""
    net = Net()
    expected = gradient(net, **options)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: gradient(net, **options), range(20)))
    assert all(torch.equal(x, expected) for x in found)


def test_asyncio(julia: str) -> None:
    net = Net()

    async def together() -> list[Tensor]:
        return await asyncio.gather(*(asyncio.to_thread(gradient, net) for _ in range(8)))

    expected = gradient(net)
    assert all(torch.equal(x, expected) for x in asyncio.run(together()))


def test_backward_while_the_main_thread_waits(julia: str) -> None:
    """What autograd does with tensors of a GPU, and a collection of garbage there."""
    net = Net()
    y = odeint(net, torch.ones(8, 2, dtype=D), [0.0, 0.5, 1.0], engine="julia")
    main = start().main

    def work() -> None:
        y.sum().backward()
        with julia_lock():
            main.seval("GC.gc()")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    found = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    assert torch.equal(found, gradient(net))


def test_every_kind_of_equation_in_a_thread(julia: str) -> None:
    y0 = torch.ones(2, dtype=D)

    def solves() -> list[Tensor]:
        time_of_event, _ = odeint_event(
            lambda t, y: -y, y0, torch.tensor(0.0, dtype=D), event_fn=lambda t, y: y[0] - 0.5,
            engine=julia,
        )  # fmt: skip
        return [
            time_of_event,
            ddeint(lambda t, y, past: -past, y0, [0.0, 1.0], lags=[0.5], engine=julia),
            sdeint(Noisy(), y0[None], [0.0, 1.0], dt=0.1, seed=1, engine=julia),
            torch.as_tensor(solve_ivp(lambda t, y: -y, [0, 1], [1.0, 2.0], engine=julia).y),
        ]

    expected = solves()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(solves).result()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_solve_within_a_solve(julia: str) -> None:
    """A function that cannot be traced, and that solves itself, in another thread."""

    def inner(t: Tensor, y: Tensor) -> Tensor:
        rate = float(odeint(lambda s, z: -z, torch.ones(1, dtype=D), [0.0, 1.0], engine=julia)[-1])
        return -rate * y

    with ThreadPoolExecutor(1) as pool, pytest.warns(PyjlodeWarning, match="callback mode"):
        y = pool.submit(odeint, inner, torch.ones(1, dtype=D), [0.0, 1.0], engine=julia).result()
    rate = torch.exp(torch.tensor(-1.0, dtype=D))
    assert abs(y[-1] - torch.exp(-rate)) < 1e-6


@pytest.mark.parametrize("solve", [ode, event, delay, stochastic, jumps])
def test_python_runs_beside_a_solve(julia: str, solve: Callable[[], None]) -> None:
    """The interpreter's lock is released: another thread counts on, within a solve.

    On a busy machine it may not in one or another; with the lock held it would in none.
    """
    counted, done = 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not done.is_set():
            time.sleep(0.005)
            counted += 1

    def counted_within() -> int:
        before = counted
        solve()
        return counted - before

    thread = threading.Thread(target=count)
    thread.start()
    try:
        with torch.no_grad():
            solve()
            assert any(counted_within() >= 5 for _ in range(20))
    finally:
        done.set()
        thread.join()


def test_the_users_own_calls_beside(julia: str) -> None:
    double = start().main.seval("x -> sum(2 .* ones(1000)) * x")
    net, done, calls = Net(), threading.Event(), 0
    expected = gradient(net)

    def call() -> None:
        nonlocal calls
        while not done.is_set():
            with julia_lock():
                assert double(2.0) == 4000.0
            calls += 1

    thread = threading.Thread(target=call)
    thread.start()
    found = [gradient(net) for _ in range(20)]
    long(ode, 0.2)
    done.set()
    thread.join()
    assert calls > 0
    assert all(torch.equal(x, expected) for x in found)
