"""Robertson's stiff reactions, learnt through a stiff solver: three rates from concentrations.

The rates lie nine powers of ten apart, and time runs from 1e-3 to 1e4. From rates that are wrong by
factors of 3 to 10 the logarithms are learnt, with Rodas5P and its exact discrete adjoint. An
explicit method would need a million steps for each solve; the torch engine has no stiff one, so
this needs Julia.

Measured, with 1 % of noise in the data: the rates were off by 1.2, 0.6 and 1.4 % at the end. A step
of the training took 2 ms at best and 22 ms on average, on a busy machine.

    python examples/robertson.py            # 1500 steps, about 1 minute
    python examples/robertson.py --small    # 3 steps
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import Run, figure, start, table, train
from torch import Tensor, nn

from pyjlode import NeuralODE, UnsupportedError

RATES = torch.tensor([0.04, 3e7, 1e4], dtype=torch.float64)
# Of the concentrations' sizes, so that each counts.
SCALE = torch.tensor([1.0, 3e-5, 1.0], dtype=torch.float64)


class Reactions(nn.Module):
    """A -> B, 2 B -> B + C, B + C -> A + C, with rates by their logarithms."""

    def __init__(self, rates: Tensor) -> None:
        super().__init__()
        self.log_rates = nn.Parameter(rates.log())

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The field, of scaled concentrations ``(3,)``."""
        k1, k2, k3 = self.log_rates.exp().unbind()
        a, b, c = (y * SCALE).unbind()
        first, second, third = k1 * a, k2 * b * b, k3 * b * c
        return torch.stack([third - first, first - second - third, second]) / SCALE


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn, print, draw."""
    run = start(__doc__, arguments)
    if run.engine != "julia":
        raise UnsupportedError("Stiff solvers are Julia's; get it with `pyjlode setup`.")
    t = torch.cat([torch.zeros(1), torch.logspace(-3, 4, 40)]).double()
    y0 = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    solver = {"method": "Rodas5P", "rtol": 1e-6, "atol": 1e-8, "engine": "julia"}
    with torch.no_grad():
        exact = NeuralODE(Reactions(RATES), t, **solver)(y0)
    data = exact * (1 + 0.01 * torch.randn_like(exact))
    model = NeuralODE(Reactions(RATES * torch.tensor([5.0, 0.1, 3.0]).double()), t, **solver)
    began = model.func.log_rates.detach().exp()
    history = train(
        run,
        "robertson",
        model,
        3 if run.small else 1500,
        lambda: (model(y0) - data).square().mean(),
        rate=0.1,
    )
    found = model.func.log_rates.detach().exp()
    table(
        ["rate", "true", "at first", "learnt", "relative error"],
        [
            [f"k{i + 1}", *(x[i].item() for x in (RATES, began, found, (found / RATES - 1).abs()))]
            for i in range(3)
        ],
    )
    step = sum(h["time"] for h in history) / len(history)
    print(f"{1e3 * step:.1f} ms a step; {model.nfe} evaluations in {model.stats.naccept} steps")
    with torch.no_grad():
        draw(run, t, data, model(y0), history)


def draw(run: Run, t: Tensor, data: Tensor, path: Tensor, history: list[dict[str, float]]) -> None:
    """Concentrations and the loss."""
    made = figure(10, 3.4)
    left, right = made.subplots(1, 2)
    for i, name in enumerate("ABC"):
        left.semilogx(t[1:], data[1:, i], ".", color=f"C{i}")
        left.semilogx(t[1:], path[1:, i], color=f"C{i}", label=name)
    left.set(xlabel="t", ylabel="concentration, scaled")
    left.legend(frameon=False)
    right.semilogy([h["loss"] for h in history])
    right.set(xlabel="step", ylabel="loss")
    run.save(made, "robertson.png")


if __name__ == "__main__":
    main()
