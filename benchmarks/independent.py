"""Per-trajectory steps beside peers: 10,000 Lotka-Volterra systems, t in [0, 10], rtol 1e-6.

``batch="independent"`` does what diffrax does under ``vmap`` and torchode always: every system
takes its own steps. A gradient is with respect to the four parameters, by every library's default
way through its own steps. float64; medians in milliseconds, and how many times as long the peers
take; Julia's threads and the peers' are as many as the machine has.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import time
from collections.abc import Callable

import torch

from pyjlode import engine_info, odeint
from pyjlode.problem import Statistics

SYSTEMS = 10_000
SAVE_POINTS = (2, 20)
RTOL, ATOL = 1e-6, 1e-8
RATES = (1.1, 0.4, 0.1, 0.4)

Run = Callable[[], torch.Tensor]


def initial_states() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.5 + 9.5 * torch.rand(SYSTEMS, 2, dtype=torch.float64, generator=generator)


def derivative(rates: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    a, b, c, d = rates
    prey, predators = y[:, 0], y[:, 1]
    return torch.stack(
        (a * prey - b * prey * predators, c * prey * predators - d * predators), dim=1
    )


def pyjlode_runs(times: torch.Tensor) -> tuple[Run, Run]:
    rates = torch.tensor(RATES, dtype=torch.float64, requires_grad=True)
    y0 = initial_states()

    def forward() -> torch.Tensor:
        return odeint(
            lambda t, y: derivative(rates, y), y0, times,
            rtol=RTOL, atol=ATOL, batch="independent", engine="julia",
        )  # fmt: skip

    def without_gradient() -> torch.Tensor:
        with torch.no_grad():
            return forward().square().sum()

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(forward().square().sum(), rates)[0]

    return without_gradient, gradient


def diffrax_runs(times: torch.Tensor) -> tuple[Run, Run]:
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

    value, gradient = jax.jit(loss), jax.jit(jax.grad(loss))

    def run(function: Callable) -> Run:
        return lambda: torch.tensor(
            jax.block_until_ready(function(rates)).tolist(), dtype=torch.float64
        )

    return run(value), run(gradient)


def torchode_runs(times: torch.Tensor) -> tuple[Run, Run]:
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

    def without_gradient() -> torch.Tensor:
        with torch.no_grad():
            return forward().square().sum()

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(forward().square().sum(), rates)[0]

    return without_gradient, gradient


def median(run: Run, repeats: int = 5) -> float:
    run()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(1e3 * (time.perf_counter() - start))
    return statistics.median(found)


def main() -> None:
    os.environ.setdefault("JULIA_NUM_THREADS", str(os.cpu_count()))
    print(f"{SYSTEMS} Lotka-Volterra systems, {engine_info('julia')}")
    libraries = {"pyjlode": pyjlode_runs}
    if importlib.util.find_spec("diffrax"):
        libraries["diffrax"] = diffrax_runs
    if importlib.util.find_spec("torchode"):
        libraries["torchode"] = torchode_runs
    for points in SAVE_POINTS:
        times = torch.linspace(0, 10, points, dtype=torch.float64)
        ours: dict[str, float] = {}
        for name, make in libraries.items():
            for what, run in zip(("forward", "gradient"), make(times), strict=True):
                spent, result = median(run), run()
                ratio = spent / ours.setdefault(what, spent)
                print(
                    f"{points:2} points, {what:8} {name:8} {spent:8.1f} ms {ratio:6.2f} times "
                    f"ours; sum {float(result.sum()):.6g}"
                )
    stats = Statistics()
    odeint(
        lambda t, y: derivative(torch.tensor(RATES, dtype=torch.float64), y), initial_states(),
        times, rtol=RTOL, atol=ATOL, batch="independent", engine="julia", stats=stats,
    )  # fmt: skip
    steps = stats.rows["naccept"]
    print(
        f"pyjlode's steps: {float(steps.double().mean()):.1f} a system, from {int(steps.min())} to "
        f"{int(steps.max())}; {stats.nreject} rejected in all"
    )


if __name__ == "__main__":
    main()
