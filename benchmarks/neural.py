"""Neural cases: MLPs, a convolutional ODE-Net block, and a continuous normalizing flow.

Each is built once as a torch module and once in JAX from the same weights. A solver's run is one
solve and its gradient with respect to the weights.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

from pyjlode import odeint

from .timing import Case, Problem, Run

RTOL = ATOL = 1e-7
SINGLE = 1e-5  # float32 resolves no more


def cases(batches: tuple[int, ...] = (1, 20, 256, 4096)) -> Iterator[Case]:
    for dtype in (torch.float64, torch.float32):
        for saves in (2, 30, 300):
            for batch in batches:
                yield mlp((50,), batch, dtype, saves, "MLP 2-50-2 on y³")
    for batch in batches:
        yield mlp((64, 64, 64), batch, torch.float64, 30, "MLP 2-64-64-64-2 on y³")
    for batch in (16, 128):
        yield convolution(batch)
    yield flow(batch=256)
    yield training(batch=20)


def mlp(hidden: tuple[int, ...], batch: int, dtype: torch.dtype, saves: int, title: str) -> Case:
    """The spiral problem of torchdiffeq's example, t in [0, 1.5]."""
    torch.manual_seed(0)
    widths = (2, *hidden, 2)
    layers: list[nn.Module] = []
    for m, n in itertools.pairwise(widths):
        layers += [nn.Linear(m, n), nn.Tanh()]
    net = nn.Sequential(*layers[:-1]).to(dtype)
    y0 = torch.randn(batch, 2, dtype=dtype)
    t = torch.linspace(0, 1.5, saves, dtype=dtype)
    tolerance = RTOL if dtype == torch.float64 else SINGLE

    def jax_field(_: Any, y: Any, weights: list[Any]) -> Any:
        import jax.numpy as jnp

        y = y**3
        for i in range(0, len(weights), 2):
            y = y @ weights[i].T + weights[i + 1]
            y = jnp.tanh(y) if i < len(weights) - 2 else y
        return y

    field = Field(net, lambda net, t, y: net(y**3))
    name = f"{title}, {_short(dtype)}, {saves} save points, batch {batch}"
    return Case(
        name,
        {
            **torch_solvers(field, y0, t, tolerance, rows=True),
            "diffrax": diffrax_gradient(net, jax_field, y0, t, tolerance),
        },
        Problem(field, y0, t, tolerance),
    )


def convolution(batch: int) -> Case:
    """An ODE-Net block (Chen et al., section 3): two 3 x 3 convolutions on 16 channels, tanh."""
    torch.manual_seed(0)
    net = nn.ModuleList([nn.Conv2d(17, 16, 3, padding=1), nn.Conv2d(17, 16, 3, padding=1)])
    y0, t = torch.randn(batch, 16, 7, 7), torch.tensor([0.0, 1.0])

    def torch_field(net: nn.Module, t: Tensor, y: Tensor) -> Tensor:
        for layer in net:  # type: ignore[attr-defined]
            y = torch.tanh(layer(torch.cat([y, t.to(y) * torch.ones_like(y[:, :1])], 1)))
        return y

    def jax_field(t: Any, y: Any, weights: list[Any]) -> Any:
        import jax
        import jax.numpy as jnp

        for i in (0, 2):
            y = jnp.concatenate([y, t.astype(y.dtype) * jnp.ones_like(y[:, :1])], 1)
            y = jax.lax.conv(y, weights[i], (1, 1), "SAME") + weights[i + 1][:, None, None]
            y = jnp.tanh(y)
        return y

    field = Field(net, torch_field)
    return Case(
        f"ODE-Net block, 16 channels of 7 x 7, float32, 2 save points, batch {batch}",
        {
            **torch_solvers(field, y0, t, 1e-3),
            "diffrax": diffrax_gradient(net, jax_field, y0, t, 1e-3),
        },
        Problem(field, y0, t, 1e-3),
    )


def flow(batch: int) -> Case:
    """A continuous normalizing flow in two dimensions with the exact trace (section 4)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 2)).double()
    y0 = torch.cat([torch.randn(batch, 2), torch.zeros(batch, 1)], 1).double()
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def torch_field(net: nn.Module, t: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            z = y[:, :2].detach() if not y.requires_grad else y[:, :2]
            z = z.requires_grad_() if not z.requires_grad else z
            dz = net(z)
            trace = sum(
                torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i] for i in (0, 1)
            )
        return torch.cat([dz, -trace[:, None]], 1)

    def jax_field(_: Any, y: Any, weights: list[Any]) -> Any:
        import jax
        import jax.numpy as jnp

        def velocity(z: Any) -> Any:
            return jnp.tanh(z @ weights[0].T + weights[1]) @ weights[2].T + weights[3]

        def one(z: Any) -> Any:
            return jnp.append(velocity(z), -jnp.trace(jax.jacfwd(velocity)(z)))

        return jax.vmap(one)(y[:, :2])

    field = Field(net, torch_field)
    return Case(
        f"CNF in 2-d, exact trace, float64, 2 save points, batch {batch}",
        {
            **torch_solvers(field, y0, t, 1e-5),
            "diffrax": diffrax_gradient(net, jax_field, y0, t, 1e-5),
        },
        Problem(field, y0, t, 1e-5),
    )


def training(batch: int) -> Case:
    """Fifty steps of Adam from the same weights, as ``tests/test_training_curves.py`` compares."""
    torch.manual_seed(0)
    untrained = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2)).double()
    y0, t = torch.randn(batch, 2).double(), torch.linspace(0, 1.5, 10, dtype=torch.float64)
    target = torch.stack([torch.cos(t), torch.sin(t)], 1)[:, None]

    def train(solve: Callable[..., Tensor], **options: Any) -> Run:
        def run() -> None:
            field = Field(copy.deepcopy(untrained), lambda net, t, y: net(y**3))
            optimizer = torch.optim.Adam(field.parameters(), lr=0.01)
            for _ in range(50):
                optimizer.zero_grad()
                y = solve(field, y0, t, rtol=RTOL, atol=ATOL, **options)
                (y - target).square().mean().backward()
                optimizer.step()

        return run

    return Case(
        f"50 steps of training an MLP 2-50-2, float64, 10 save points, batch {batch}",
        {
            "pyjlode": train(odeint, engine="julia"),
            "torchdiffeq": train(torchdiffeq.odeint),
            "torchdiffeq adjoint": train(torchdiffeq.odeint_adjoint),
        },
    )


class Field(nn.Module):
    """Dynamics as torchdiffeq's adjoint wants them: a module that owns the weights."""

    def __init__(self, net: nn.Module, field: Callable[[nn.Module, Tensor, Tensor], Tensor]):
        super().__init__()
        self.net = net
        self.field = field

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Of the state's shape."""
        return self.field(self.net, t, y)


def torch_solvers(
    field: Field, y0: Tensor, t: Tensor, tolerance: float, rows: bool = False
) -> dict[str, Run]:
    """The solvers that work on torch modules: this package's and the peers'."""
    settings = {"rtol": tolerance, "atol": tolerance}

    def gradient(solve: Callable[[], Tensor], threads: int | None = None) -> Run:
        def run() -> None:
            before = torch.get_num_threads()
            if threads is not None:
                torch.set_num_threads(threads)
            field.zero_grad()
            solve().pow(2).sum().backward()
            torch.set_num_threads(before)

        return run

    solvers = {
        "pyjlode": gradient(lambda: odeint(field, y0, t, engine="julia", **settings)),
        "pyjlode gauss": gradient(
            lambda: odeint(field, y0, t, engine="julia", sensealg="gauss", **settings)
        ),
    }
    for threads in (1, 2):
        direct = functools.partial(torchdiffeq.odeint, field, y0, t, **settings)
        adjoint = functools.partial(torchdiffeq.odeint_adjoint, field, y0, t, **settings)
        solvers[f"torchdiffeq, {threads} thread{'s'[: threads - 1]}"] = gradient(direct, threads)
        solvers[f"torchdiffeq adjoint, {threads} thread{'s'[: threads - 1]}"] = gradient(
            adjoint, threads
        )
    if rows and y0.shape[0] >= 20:
        solvers["torchode"] = gradient(torchode_solve(field, y0, t, tolerance))
    return solvers


def torchode_solve(field: Field, y0: Tensor, t: Tensor, tolerance: float) -> Callable[[], Tensor]:
    """Torchode, which gives each row steps of its own."""

    def solve() -> Tensor:
        import torchode

        term = torchode.ODETerm(lambda t, y: field(t, y))
        controller = torchode.IntegralController(atol=tolerance, rtol=tolerance, term=term)
        solver = torchode.AutoDiffAdjoint(torchode.Tsit5(term=term), controller)
        times = t.expand(y0.shape[0], -1).contiguous()
        return solver.solve(torchode.InitialValueProblem(y0=y0, t_eval=times)).ys

    return solve


def diffrax_gradient(
    net: nn.Module,
    field: Callable[[Any, Any, list[Any]], Any],
    y0: Tensor,
    t: Tensor,
    tolerance: float,
) -> Run:
    """Diffrax's Tsit5 and its default adjoint, jitted, from the same weights."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    weights = [jnp.asarray(p.detach().numpy()) for p in net.parameters()]
    ts, start = jnp.asarray(t.numpy()), jnp.asarray(y0.numpy())

    @jax.jit
    @jax.grad
    def gradient(w: list[Any]) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), ts[0], ts[-1], None, start, w,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        )  # fmt: skip
        return (solution.ys**2).sum()

    return lambda: jax.block_until_ready(gradient(weights))


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
