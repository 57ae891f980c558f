"""Densities of two circles and two moons, by a continuous normalizing flow and a planar flow.

After section 4 of the paper: a CNF with an MLP 3-64-64-2 as its field and the exact trace, against
a planar flow of 64 layers; both are trained by maximum likelihood, with as many steps of Adam on as
many points. The data are known distributions, noise about a curve, so that the likelihoods have an
upper bound to be held against: the data's own.

    python examples/flows.py            # 1500 steps of 256 points, about 7 minutes
    python examples/flows.py --small    # 2 steps of 64 points

Measured on the Julia engine, mean log-density of new data: two circles CNF -2.485, planar flow
-2.941, the data's own -2.452; two moons -1.713, -1.941 and -1.663. The paper has no numbers for
these sets; its pictures say the same.

The figure shows data, the flow's samples on their way from the normal distribution, and both
densities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from common import Run, TimeMLP, figure, parameters, start, table, train
from torch import Tensor, nn

from pyjlode import CNF, odeint


@dataclass(frozen=True)
class Curve:
    """Normal noise about a curve, ``curve(s)`` for ``s`` uniform in [0, 1]."""

    curve: Callable[[Tensor], Tensor]
    noise: float

    def sample(self, n: int) -> Tensor:
        """Points of shape ``(n, 2)``."""
        return self.curve(torch.rand(n)) + self.noise * torch.randn(n, 2)

    def log_prob(self, x: Tensor) -> Tensor:
        """The true log-density, as a mixture of 2000 normal distributions."""
        centres = self.curve((torch.arange(2000) + 0.5) / 2000)
        squares = (x[:, None] - centres).square().sum(-1) / self.noise**2
        norm = math.log(2000 * 2 * math.pi * self.noise**2)
        return torch.logsumexp(-0.5 * squares, 1) - norm


def circles(s: Tensor) -> Tensor:
    """Of radius 1 and 2.2, with as many points on each."""
    radius = torch.where(s < 0.5, 1.0, 2.2)
    return radius[:, None] * torch.stack([(4 * math.pi * s).cos(), (4 * math.pi * s).sin()], 1)


def moons(s: Tensor) -> Tensor:
    """Two half circles in each other."""
    upper = s < 0.5
    angle = 2 * math.pi * s
    x = torch.where(upper, angle.cos() - 0.5, 0.5 + angle.cos())
    y = torch.where(upper, angle.sin() - 0.25, 0.25 + angle.sin())
    return 1.6 * torch.stack([x, y], 1)


DATA = {"two circles": Curve(circles, 0.15), "two moons": Curve(moons, 0.12)}


class PlanarFlow(nn.Module):
    """Layers ``z + u tanh(w·z + b)`` from samples to a normal distribution.

    References
    ----------
    Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, with their condition
    on ``u·w`` that keeps the layers invertible.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.u = nn.Parameter(0.1 * torch.randn(layers, 2))
        self.w = nn.Parameter(torch.randn(layers, 2))
        self.b = nn.Parameter(torch.zeros(layers))

    def log_prob(self, z: Tensor) -> Tensor:
        """Of samples of shape ``(B, 2)``."""
        log_det = z.new_zeros(len(z))
        for u, w, b in zip(self.u, self.w, self.b, strict=True):
            product = (u * w).sum()
            u = u + (nn.functional.softplus(product) - 1 - product) * w / w.square().sum()
            h = torch.tanh(z @ w + b)
            log_det = log_det + torch.log((1 + (1 - h**2) * (u * w).sum()).abs())
            z = z + h[:, None] * u
        return -0.5 * z.square().sum(1) - math.log(2 * math.pi) + log_det


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both flows on both data, print, draw."""
    run = start(__doc__, arguments)
    batch, steps = (64, 2) if run.small else (256, 1500)
    rows, drawn = [], []
    for name, data in DATA.items():
        cnf = CNF(TimeMLP(2, 64, 64, 2), 2, rtol=1e-4, atol=1e-4, engine=run.engine)
        planar = PlanarFlow(4 if run.small else 64)
        test = data.sample(64 if run.small else 5000)
        row = [name, data.log_prob(test).mean().item()]
        for kind, flow in (("cnf", cnf), ("planar", planar)):
            history = train(
                run,
                f"flows-{kind}-{name.split()[1]}",
                flow,
                steps,
                lambda flow=flow, data=data: -flow.log_prob(data.sample(batch)).mean(),
                rate=5e-3,
            )
            with torch.no_grad():
                found = flow.log_prob(test).mean().item()
            row += [found, parameters(flow), sum(h["time"] for h in history)]
        rows.append([*row, cnf.nfe])
        drawn.append((name, data, cnf, planar))
    table(
        [
            *("data", "log-density, true", "CNF", "parameters", "s"),
            *("planar", "parameters", "s", "CNF's evaluations"),
        ],
        rows,
    )
    draw(run, drawn)


def draw(run: Run, drawn: list[tuple[str, Curve, CNF, PlanarFlow]]) -> None:
    """For each data set: data, samples at five times, the densities."""
    made = figure(18, 2.4 * len(drawn))
    axes = made.subplots(len(drawn), 8)
    reach, pixels = 3.2, 8 if run.small else 160
    axis = torch.linspace(-reach, reach, pixels)
    grid = torch.cartesian_prod(axis, axis)
    for line, (name, data, cnf, planar) in zip(axes, drawn, strict=True):
        n = 64 if run.small else 3000
        line[0].plot(*data.sample(n).T, ".", ms=1, color="0.3")
        line[0].set_title(name)
        times = torch.linspace(1.0, 0.0, 5)
        with torch.no_grad():
            path = odeint(
                cnf.func, torch.randn(n, 2), times, rtol=1e-4, atol=1e-4, engine=run.engine
            )
            densities = [
                flow.log_prob(grid).exp().view(pixels, pixels).numpy() for flow in (cnf, planar)
            ]
        for panel, t, points in zip(line[1:6], times, path, strict=True):
            panel.plot(*points.T, ".", ms=1, color="C0")
            panel.set_title(f"samples, t = {t:g}")
        for panel, density, title in zip(line[6:], densities, ("CNF", "planar flow"), strict=True):
            top = np.quantile(density, 0.99)
            panel.imshow(density.T, origin="lower", extent=[-reach, reach] * 2, vmax=top)
            panel.set_title(f"density, {title}")
        for panel in line:
            panel.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[])
            panel.set_aspect("equal")
    run.save(made, "flows.png")


if __name__ == "__main__":
    main()
