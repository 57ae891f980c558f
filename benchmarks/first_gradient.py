"""How long the first gradient takes: of the session, and of each model never seen before.

Prints seconds for the import (beyond torch's), Julia's start, the engine's warm-up, and for the
first forward and backward solve of an MLP; where diffrax is installed, its first call of the same
problem beside it, in this process. Then the same for one method of each family and for each
adjoint: a new model, and a further shape of the state of that model.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from typing import Any

import torch

FAMILIES = (
    *((method, None) for method in ("Tsit5", "DP5", "BS3", "Vern7", "Vern9", "rk4", "euler")),
    *(("Tsit5", sensealg) for sensealg in ("gauss", "interpolating", "quadrature", "backsolve")),
    *((method, None) for method in ("Rosenbrock23", "Rodas4", "Rodas5P")),
    *((method, None) for method in ("TRBDF2", "KenCarp4", "Kvaerno5", "FBDF", "QNDF")),
    *(("Rodas5P", sensealg) for sensealg in ("gauss", "interpolating", "quadrature")),
)


def seconds(since: float) -> float:
    return time.perf_counter() - since


def new_problem(width: int) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    net = torch.nn.Sequential(
        torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Linear(width, 2)
    ).double()
    y0 = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    return net, y0, torch.linspace(0, 1.5, 30, dtype=torch.float64)


def ours(net: torch.nn.Module, y0: torch.Tensor, t: torch.Tensor, **options: Any) -> float:
    from pyjlode import odeint

    began = time.perf_counter()
    odeint(lambda _, y: net(y**3), y0, t, engine="julia", **options).pow(2).sum().backward()
    return seconds(began)


def theirs(width: int) -> float:
    """Diffrax's first call of the same problem, compilation included."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    net, y0, t = new_problem(width)
    weights = [jnp.asarray(p.detach().numpy()) for p in net.parameters()]
    ts, start = jnp.asarray(t.numpy()), jnp.asarray(y0.numpy())

    def field(_: float, y: jnp.ndarray, w: list) -> jnp.ndarray:
        return jnp.tanh(y**3 @ w[0].T + w[1]) @ w[2].T + w[3]

    def loss(w: list) -> jnp.ndarray:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), ts[0], ts[-1], None, start, w,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=diffrax.PIDController(rtol=1e-7, atol=1e-7),
        )  # fmt: skip
        return (solution.ys**2).sum()

    began = time.perf_counter()
    jax.block_until_ready(jax.jit(jax.grad(loss))(weights))
    return seconds(began)


def families() -> None:
    """First gradients by method and adjoint, in seconds."""
    print(f"{'method':<14}{'sensealg':<15}{'first use':>10}{'new model':>10}{'new shape':>10}")
    width = 20
    for method, sensealg in FAMILIES:
        times = []
        for _ in range(2):  # the first may load the method's package
            width += 1
            net, y0, t = new_problem(width)
            for state in (y0, y0.expand(7, 2).contiguous()):
                options = {"method": method, "sensealg": sensealg, "rtol": 1e-5, "atol": 1e-5}
                times.append(ours(net, state, t, **options))
        print(f"{method:<14}{sensealg or 'default':<15}{times[0]:>10.3f}{times[2]:>10.3f}", end="")
        print(f"{times[3]:>10.3f}", flush=True)


def main() -> None:
    began = time.perf_counter()
    import pyjlode

    print(f"import pyjlode, beyond torch      {seconds(began):7.3f} s")
    from pyjlode import runtime
    from pyjlode.engine import choose_engine

    began = time.perf_counter()
    runtime.start()
    print(f"Julia and packages                {seconds(began):7.3f} s")
    began = time.perf_counter()
    choose_engine("julia")
    print(f"warm-up of tracer and bridge      {seconds(began):7.3f} s")
    print(f"solved by {pyjlode.engine_info('julia')}")
    has_diffrax = importlib.util.find_spec("diffrax") is not None
    rows = []
    for width in (50, 51, 52, 53, 54):
        rows.append((ours(*new_problem(width)), theirs(width) if has_diffrax else float("nan")))
        print(
            f"new model of width {width}: pyjlode {rows[-1][0]:.3f} s, diffrax {rows[-1][1]:.3f} s"
        )
    print(f"median: pyjlode {statistics.median(r[0] for r in rows):.3f} s", end="")
    if has_diffrax:
        ratio = statistics.median(r[1] / r[0] for r in rows)
        print(f", diffrax takes {ratio:.1f} times as long")
    else:
        print("; diffrax is not installed")
    families()


if __name__ == "__main__":
    main()
