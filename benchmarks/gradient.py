"""A gradient's time beside peers: the MLP 2-50-2 on y³, t ∈ [0, 1.5], 30 save points.

float64, rtol = atol = 1e-7. Each row's solvers run in turn, in this process; the figures are
medians in milliseconds of forward and backward together.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable

import torch
import torchdiffeq

from pyjlode import engine_info, odeint

BATCHES = (1, 20, 256, 4096)
T = torch.linspace(0, 1.5, 30, dtype=torch.float64)


def make_net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(2, 50), torch.nn.Tanh(), torch.nn.Linear(50, 2)
    ).double()


def torch_gradient(net: torch.nn.Module, solve: Callable) -> Callable[[torch.Tensor], None]:
    class Field(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.net(y**3)

    field = Field()

    def run(y0: torch.Tensor) -> None:
        net.zero_grad()
        solve(field, y0).pow(2).sum().backward()

    return run


def diffrax_gradient(net: torch.nn.Module) -> Callable[[torch.Tensor], None]:
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    weights = [jnp.asarray(p.detach().numpy()) for p in net.parameters()]
    ts = jnp.asarray(T.numpy())

    def field(_: float, y: jnp.ndarray, w: list) -> jnp.ndarray:
        return jnp.tanh(y**3 @ w[0].T + w[1]) @ w[2].T + w[3]

    @jax.jit
    @jax.grad
    def gradient(w: list, start: jnp.ndarray) -> jnp.ndarray:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), ts[0], ts[-1], None, start, w,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=diffrax.PIDController(rtol=1e-7, atol=1e-7),
        )  # fmt: skip
        return (solution.ys**2).sum()

    return lambda y0: jax.block_until_ready(gradient(weights, jnp.asarray(y0.numpy())))


def main() -> None:
    # These tensors are small: more threads would only wait for each other.
    torch.set_num_threads(1)
    net = make_net()
    tolerances = {"rtol": 1e-7, "atol": 1e-7}
    solvers = {
        "pyjlode discrete": torch_gradient(
            net, lambda f, y: odeint(f, y, T, engine="julia", **tolerances)
        ),
        "pyjlode gauss": torch_gradient(
            net, lambda f, y: odeint(f, y, T, engine="julia", sensealg="gauss", **tolerances)
        ),
        "pyjlode backsolve": torch_gradient(
            net, lambda f, y: odeint(f, y, T, engine="julia", sensealg="backsolve", **tolerances)
        ),
        "torchdiffeq direct": torch_gradient(
            net, lambda f, y: torchdiffeq.odeint(f, y, T, **tolerances)
        ),
        "torchdiffeq adjoint": torch_gradient(
            net, lambda f, y: torchdiffeq.odeint_adjoint(f, y, T, **tolerances)
        ),
    }
    if importlib.util.find_spec("diffrax") is not None:
        solvers["diffrax jitted"] = diffrax_gradient(net)
    print(f"{engine_info('julia')}; torch threads: {torch.get_num_threads()}")
    print(f"{'batch':>6}" + "".join(f"{name:>21}" for name in solvers))
    for batch in BATCHES:
        y0 = torch.randn(batch, 2, dtype=torch.float64)
        times: dict[str, list[float]] = {name: [] for name in solvers}
        for round_ in range(6):
            for name, run in solvers.items():
                began = time.perf_counter()
                run(y0)
                if round_:  # the first compiles
                    times[name].append(1e3 * (time.perf_counter() - began))
        print(f"{batch:>6}" + "".join(f"{statistics.median(v):>21.2f}" for v in times.values()))


if __name__ == "__main__":
    main()
