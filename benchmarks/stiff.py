"""Gradients of stiff problems: the discrete adjoint beside Gauss's and diffrax's Kvaerno5.

ROBER, HIRES and a one-dimensional Brusselator of 200 states, float64. A gradient is with respect to
the rates.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from pyjlode import odeint

from .timing import Case

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from stiff_problems import PROBLEMS, StiffProblem

GRID = 100
TITLES = {
    "rober": "ROBER",
    "hires": "HIRES",
    "brusselator": "Brusselator on a line, 200 states",
}


def brusselator(k: Any, y: Any, concatenate: Callable[[list[Any]], Any]) -> Any:
    """Reaction and diffusion on a line between fixed ends, u and v of each point in turn."""
    u, v = y[0::2], y[1::2]
    a, b, diffusion = k
    steps = diffusion * (GRID + 1) ** 2
    ends = 0 * u[:1]
    around_u = concatenate([a + ends, u[:-1]]) + concatenate([u[1:], a + ends])
    around_v = concatenate([b / a + ends, v[:-1]]) + concatenate([v[1:], b / a + ends])
    du = a + u * u * v - (b + 1) * u + steps * (around_u - 2 * u)
    dv = b * u - u * u * v + steps * (around_v - 2 * v)
    return du, dv


def brusselator_torch(k: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.stack(brusselator(k, y, torch.cat), dim=1).reshape(-1)


def _brusselator() -> StiffProblem:
    x = torch.arange(1, GRID + 1, dtype=torch.float64) / (GRID + 1)
    y0 = torch.stack([1 + torch.sin(2 * torch.pi * x), torch.full_like(x, 3.0)], dim=1)
    return StiffProblem(
        brusselator_torch, torch.tensor([1.0, 3.0, 0.02], dtype=torch.float64), y0.reshape(-1),
        torch.linspace(0, 10, 21, dtype=torch.float64), 1e-6, 1e-6,
    )  # fmt: skip


def diffrax_field(name: str) -> Callable[[Any, Any], Any]:
    """The right-hand sides in JAX."""
    import jax.numpy as jnp

    def rober(k: Any, y: Any) -> Any:
        a, b, c = k[0] * y[0], k[1] * y[1] ** 2, k[2] * y[1] * y[2]
        return jnp.stack([-a + c, a - b - c, b])

    def hires(k: Any, y: Any) -> Any:
        k1, k2, k3, k4, k5, k6, source = k
        y1, y2, y3, y4, y5, y6, y7, y8 = y
        bound = k6 * y6 * y8 - (k2 + 2 * k4) * y7
        return jnp.stack([
            -k1 * y1 + k2 * y2 + k3 * y3 + source,
            k1 * y1 - (k2 + k3) * y2,
            -(k1 + k3) * y3 + k2 * y4 + k5 * y5,
            k3 * y2 + k1 * y3 - (k2 + k4) * y4,
            -(k1 + k5) * y5 + k2 * (y6 + y7),
            -k6 * y6 * y8 + k4 * (y4 + y7) + k1 * y5 - k2 * y6,
            bound,
            -bound,
        ])  # fmt: skip

    def line(k: Any, y: Any) -> Any:
        return jnp.stack(brusselator(k, y, jnp.concatenate), axis=1).reshape(-1)

    return {"rober": rober, "hires": hires, "brusselator": line}[name]


def diffrax_gradient(name: str, problem: StiffProblem) -> Callable[[], torch.Tensor]:
    import diffrax
    import jax
    import jax.numpy as jnp
    import numpy as np

    jax.config.update("jax_enable_x64", True)
    field = diffrax_field(name)
    rates, y0, ts = (jnp.asarray(x.numpy()) for x in (problem.rates, problem.y0, problem.t))
    weights = jnp.linspace(1, 2, y0.size)

    @jax.jit
    @jax.grad
    def gradient(k: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: field(args, y)), diffrax.Kvaerno5(), ts[0],
            ts[-1], None, y0, k, saveat=diffrax.SaveAt(ts=ts), max_steps=4096,
            stepsize_controller=diffrax.PIDController(rtol=problem.rtol, atol=problem.atol),
        )  # fmt: skip
        return (solution.ys @ weights).sum()

    return lambda: torch.from_numpy(np.array(jax.block_until_ready(gradient(rates))))


def ours(problem: StiffProblem, **options: Any) -> Callable[[], torch.Tensor]:
    rates = problem.rates.clone().requires_grad_()
    weights = torch.linspace(1, 2, problem.y0.numel(), dtype=torch.float64)

    def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return problem.func(rates, y)

    def run() -> torch.Tensor:
        states = odeint(
            func, problem.y0, problem.t, rtol=problem.rtol, atol=problem.atol, engine="julia",
            **options,
        )  # fmt: skip
        return torch.autograd.grad((states @ weights).sum(), rates)[0]

    return run


def scipy_solve(problem: StiffProblem) -> Callable[[], None]:
    """SciPy's Radau, which has no gradient."""
    from scipy.integrate import solve_ivp

    rates, times = problem.rates, problem.t.numpy()

    def func(t: float, y: Any) -> Any:
        return problem.func(rates, torch.from_numpy(y)).numpy()

    def run() -> None:
        solve_ivp(
            func, (times[0], times[-1]), problem.y0.numpy(), "Radau", times, rtol=problem.rtol,
            atol=problem.atol,
        )  # fmt: skip

    return run


def cases() -> Iterator[Case]:
    problems = {name: PROBLEMS[name] for name in ("rober", "hires")}
    problems["brusselator"] = _brusselator()
    for name, problem in problems.items():
        yield Case(
            f"{TITLES[name]}, float64, {len(problem.t)} save points",
            {
                "pyjlode": ours(problem, method="Rodas5P"),
                "pyjlode gauss": ours(problem, method="Rodas5P", sensealg="gauss"),
                "pyjlode Kvaerno5": ours(problem, method="Kvaerno5", sensealg="discrete"),
                "diffrax": diffrax_gradient(name, problem),
                "SciPy Radau, no gradient": scipy_solve(problem),
            },
        )
