"""A universal differential equation: predator and prey whose encounters are not known.

Hares grow and lynxes die at known rates, a x and -d y; what happens when they meet is left to a
network in the same right-hand side, which is to find -b x y and c x y from noisy counts. Three ways
of training follow each other, each a better start for the next: the right-hand side is fitted to
smoothed derivatives (``collocate_data``), then over short spans (``multiple_shoot``), then over the
whole time.

    python examples/universal.py            # 1000, 500 and 500 steps, about 1 minute
    python examples/universal.py --small    # 3 steps each

Measured on the Julia engine, after each way: RMSE of the states 0.069, 0.064 and 0.022 (the data's
noise is about 0.06), of the unknown terms 2.1, 2.0 and 1.1 % of their size.

After Rackauckas et al., Universal Differential Equations for Scientific Machine Learning, 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import Run, figure, mlp, start, table, train
from torch import Tensor, nn

from pyjlode import NeuralODE, collocate_data, multiple_shoot, odeint

GROWTH, DEATH, EATEN, BORN = 1.3, 1.8, 0.9, 0.8


class Known(nn.Module):
    """The known part, and a network for the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(2, 16, 16, 2)
        self.register_buffer("rates", torch.tensor([GROWTH, -DEATH]))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The field."""
        out: Tensor = self.rates * y + self.net(y)
        return out


def truth(t: Tensor, y: Tensor) -> Tensor:
    """Lotka's and Volterra's equations."""
    return torch.tensor([GROWTH, -DEATH]) * y + encounters(y)


def encounters(y: Tensor) -> Tensor:
    """What the network is to find."""
    return y.prod(-1, keepdim=True) * torch.tensor([-EATEN, BORN])


def main(arguments: Sequence[str] | None = None) -> None:
    """Train in three ways, print, draw."""
    run = start(__doc__, arguments)
    steps = (3, 3, 3) if run.small else (1000, 500, 500)
    rates = (5e-3, 1e-3, 3e-4)  # the better the start, the smaller the steps that keep it
    solver = {"rtol": 1e-5, "atol": 1e-6, "engine": run.engine}
    t = torch.linspace(0.0, 8.0, 81)
    exact = odeint(truth, torch.tensor([[2.0, 1.0]]), t, **solver)
    data = exact * (1 + 0.03 * torch.randn_like(exact))
    field = Known()
    layer = NeuralODE(field, t, **solver)
    slopes, smooth = collocate_data(data, t, "epanechnikov", 0.08)
    stages = {
        "collocation": lambda: (field(t, smooth) - slopes).square().mean(),
        "multiple shooting": lambda: multiple_shoot(layer, smooth, t, 11, continuity_term=1.0)[0],
        "whole time": lambda: (layer(smooth[0]) - data).square().mean(),
    }
    rows = []
    for (name, loss), number, rate in zip(stages.items(), steps, rates, strict=True):
        history = train(run, f"universal-{name.replace(' ', '-')}", field, number, loss, rate=rate)
        with torch.no_grad():
            found = field.net(exact)
            path = layer(smooth[0])
        off = (found - encounters(exact)).square().mean().sqrt()
        size = encounters(exact).square().mean().sqrt()
        error = (path - exact).square().mean().sqrt().item()
        rows.append([name, sum(h["time"] for h in history), error, (off / size).item()])
    table(["after", "s", "RMSE of the states", "relative RMSE of the unknown terms"], rows)
    draw(run, t, data, path, exact, field)


def draw(run: Run, t: Tensor, data: Tensor, path: Tensor, exact: Tensor, field: Known) -> None:
    """States, and the unknown terms along the true path."""
    made = figure(10, 3.4)
    left, right = made.subplots(1, 2)
    with torch.no_grad():
        found = field.net(exact)
    for i, name in enumerate(("hares", "lynxes")):
        left.plot(t, data[:, 0, i], ".", color=f"C{i}", ms=4)
        left.plot(t, path[:, 0, i], color=f"C{i}", label=name)
        right.plot(t, encounters(exact)[:, 0, i], color="0.8", lw=4)
        right.plot(t, found[:, 0, i], color=f"C{i}", label=f"learnt, of the {name}")
    left.set(xlabel="t", ylabel="number")
    right.set(xlabel="t", ylabel="change by encounters")
    left.legend(frameon=False)
    right.legend(frameon=False)
    run.save(made, "universal.png")


if __name__ == "__main__":
    main()
