"""Per-trajectory steps beside peers: 10,000 Lotka-Volterra systems, t in [0, 10], rtol 1e-6.

``batch="independent"`` does what diffrax does under ``vmap`` and torchode always: every system
takes its own steps. A gradient is with respect to the four parameters, by every library's default
way through its own steps. Julia's threads and the peers' are as many as the machine has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch

from pyjlode import odeint

from .timing import Case, Run

SYSTEMS = 10_000
SAVE_POINTS = (2, 20)
RTOL, ATOL = 1e-6, 1e-8
RATES = (1.1, 0.4, 0.1, 0.4)


def initial_states() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.5 + 9.5 * torch.rand(SYSTEMS, 2, dtype=torch.float64, generator=generator)


def derivative(rates: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    a, b, c, d = rates
    prey, predators = y[:, 0], y[:, 1]
    return torch.stack(
        (a * prey - b * prey * predators, c * prey * predators - d * predators), dim=1
    )


def pyjlode_gradient(times: torch.Tensor) -> Run:
    rates = torch.tensor(RATES, dtype=torch.float64, requires_grad=True)
    y0 = initial_states()

    def forward() -> torch.Tensor:
        return odeint(
            lambda t, y: derivative(rates, y), y0, times,
            rtol=RTOL, atol=ATOL, batch="independent", engine="julia",
        )  # fmt: skip

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(forward().square().sum(), rates)[0]

    return gradient


def diffrax_gradient(times: torch.Tensor) -> Run:
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    ts, y0 = jnp.asarray(times.numpy()), jnp.asarray(initial_states().numpy())
    rates = jnp.asarray(RATES)

    def field(_: float, y: jnp.ndarray, p: jnp.ndarray) -> jnp.ndarray:
        return jnp.stack((p[0] * y[0] - p[1] * y[0] * y[1], p[2] * y[0] * y[1] - p[3] * y[1]))

    def loss(p: jnp.ndarray) -> jnp.ndarray:
        def one(start: jnp.ndarray) -> jnp.ndarray:
            return diffrax.diffeqsolve(
                diffrax.ODETerm(field), diffrax.Tsit5(), ts[0], ts[-1], None, start, p,
                saveat=diffrax.SaveAt(ts=ts),
                stepsize_controller=diffrax.PIDController(rtol=RTOL, atol=ATOL),
            ).ys  # fmt: skip

        return (jax.vmap(one)(y0) ** 2).sum()

    gradient = jax.jit(jax.grad(loss))
    return lambda: jax.block_until_ready(gradient(rates))


def torchode_gradient(times: torch.Tensor) -> Run:
    import torchode

    rates = torch.tensor(RATES, dtype=torch.float64, requires_grad=True)
    y0 = initial_states()
    term = torchode.ODETerm(lambda t, y: derivative(rates, y))
    solver = torchode.AutoDiffAdjoint(
        torchode.Tsit5(term=term), torchode.IntegralController(atol=ATOL, rtol=RTOL, term=term)
    )
    problem = torchode.InitialValueProblem(y0=y0, t_eval=times.expand(SYSTEMS, -1))

    def forward() -> torch.Tensor:
        return solver.solve(problem).ys

    def gradient() -> torch.Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(os.cpu_count() or 1)
        found = torch.autograd.grad(forward().square().sum(), rates)[0]
        torch.set_num_threads(before)
        return found

    return gradient


def cases() -> Iterator[Case]:
    for points in SAVE_POINTS:
        times = torch.linspace(0, 10, points, dtype=torch.float64)
        yield Case(
            f"{SYSTEMS} Lotka-Volterra systems, each its own steps, float64, {points} save points",
            {
                "pyjlode": pyjlode_gradient(times),
                "diffrax": diffrax_gradient(times),
                "torchode": torchode_gradient(times),
            },
        )
