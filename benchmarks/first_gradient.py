"""How long the first gradient takes: of the session, and of each model never seen before.

Prints seconds for the import (beyond torch's), Julia's start, the engine's warm-up, and for the
first forward and backward solve of an MLP; where diffrax is installed, its first call of the same
problem beside it, in this process. Then the same for methods of each family and for each adjoint, a
process for each: its first use, a new model, and a further shape of the state of that model. All of
it goes into ``docs/latency.md`` too.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

DOCUMENT = Path(__file__).parents[1] / "docs" / "latency.md"

FAMILIES = (
    *((method, None) for method in ("Tsit5", "Vern7", "dopri8", "rk4", "bosh3", "VCABM")),
    *(("Tsit5", sensealg) for sensealg in ("gauss", "interpolating", "quadrature", "backsolve")),
    *((method, None) for method in ("Rodas5P", "Rodas4", "Rosenbrock23")),
    *((method, None) for method in ("KenCarp4", "TRBDF2", "FBDF", "QNDF", "RadauIIA5")),
    *(("Rodas5P", sensealg) for sensealg in ("gauss", "interpolating", "quadrature")),
    *((method, None) for method in ("SSPRK43", "RDPK3Sp49", "ROCK4", "Feagin12")),
)

HEAD = """\
# Latency

Written by `make bench`: what a session waits for, once.

{listed}

Then a gradient of an MLP 2-n-2, in seconds, in a session that has a model already: the first use of
a method and its gradient, which loads their packages and compiles what is not compiled with pyjlode
when it is set up; a new model after that; and a further shape of its state. All adjoints but the
discrete one are SciMLSensitivity's, and to load that takes most of the time of their first use.

|  |  | float64 |  |  | float32 |  |  |
|---|---|---|---|---|---|---|---|
| method | sensealg | first use | new model | new shape | first use | new model | new shape |
{table}
"""


def seconds(since: float) -> float:
    return time.perf_counter() - since


def new_problem(
    width: int, dtype: torch.dtype = torch.float64
) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    net = torch.nn.Sequential(
        torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Linear(width, 2)
    ).to(dtype)
    y0 = torch.tensor([[2.0, 0.0]], dtype=dtype)
    return net, y0, torch.linspace(0, 1.5, 30, dtype=dtype)


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


def family(method: str, sensealg: str | None, dtype: torch.dtype) -> None:
    """Print three times in seconds, of a session that has a model already."""
    ours(*new_problem(20, dtype), rtol=1e-5, atol=1e-5)
    times = []
    for width in (21, 22):
        net, y0, t = new_problem(width, dtype)
        for state in (y0, y0.expand(7, 2).contiguous()):
            options = {"method": method, "sensealg": sensealg, "rtol": 1e-4, "atol": 1e-4}
            times.append(ours(net, state, t, **options))
    print(json.dumps([times[0], times[2], times[3]]))


def families() -> list[str]:
    """First gradients by method and adjoint, as rows of a table."""
    from pyjlode.methods import find_method

    rows = []
    for method, sensealg in FAMILIES:
        cells = [method, sensealg or f"{find_method(method).adjoint} (default)"]
        for dtype in ("float64", "float32"):
            done = subprocess.run(
                [sys.executable, __file__, method, sensealg or "", dtype],
                check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            cells += [f"{x:.2f}" for x in json.loads(done.stdout.splitlines()[-1])]
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def session() -> list[str]:
    """The session's start and new models, as lines of a list."""
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(f"- {line}")
        print(line, flush=True)

    began = time.perf_counter()
    import pyjlode

    say(f"`import pyjlode`, beyond torch: {seconds(began):.2f} s")
    from pyjlode import runtime
    from pyjlode.engine import choose_engine

    began = time.perf_counter()
    runtime.start()
    say(f"Julia and packages: {seconds(began):.2f} s")
    began = time.perf_counter()
    choose_engine("julia")
    say(f"warm-up of tracer and bridge: {seconds(began):.2f} s")
    peer = importlib.util.find_spec("diffrax") is not None
    times = [
        (ours(*new_problem(width)), theirs(width) if peer else float("nan"))
        for width in (50, 51, 52, 53, 54)
    ]
    say(f"first gradient of a new model: {statistics.median(x for x, _ in times):.2f} s")
    if peer:
        ratio = statistics.median(y / x for x, y in times)
        say(f"diffrax {version('diffrax')}, jitted: {ratio:.1f} times as long")
    say(f"{pyjlode.engine_info('julia')}; torch {torch.__version__}")
    return lines


def main() -> None:
    listed = "\n".join(session())
    table = "\n".join(families())
    DOCUMENT.write_text(HEAD.format(listed=listed, table=table), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        family(sys.argv[1], sys.argv[2] or None, getattr(torch, sys.argv[3]))
    else:
        main()
