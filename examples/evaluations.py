"""Figure 3 of the paper: what an ODE-Net's evaluations bring and cost.

A classifier of two spirals: a linear layer to 8 features, an ODE block, a linear layer to 2
classes. It is trained at rtol 1e-4, and then its block is solved at tolerances from 1e-1 to 1e-10:

- error of the end state against the evaluations, with a solution at 1e-12 as the truth;
- time of the solve against the evaluations;
- evaluations of the backward pass against those of the forward pass, for each adjoint;
- evaluations of the forward pass over the training.

Measured on the Julia engine: the error falls from 0.3 to 2e-10 as the evaluations grow from 33 to
819, in proportion to which the time grows; over the training they grow from 27 to 75. All of that
is as in the paper, but the backward pass is not: the paper's takes about half the evaluations of
the forward one. Here the discrete adjoint takes as many, for it goes back through the same steps,
and the continuous ones 1.1 to 1.7 times as many at equal tolerances.

    python examples/evaluations.py            # 1500 steps of 256 points, about 5 minutes
    python examples/evaluations.py --small    # 3 steps of 32 points
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from common import Run, TimeMLP, figure, start, table, train
from torch import Tensor, nn

from pyjlode import NeuralODE

ADJOINTS = {
    "julia": ["discrete", "gauss", "interpolating", "backsolve"],
    "torch": ["backsolve"],
}


class Classifier(nn.Module):
    """Two numbers to 8 features, an ODE block, two classes."""

    def __init__(self, engine: str, features: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(2, features)
        self.block = NeuralODE(
            TimeMLP(features, 32, 32, features), [0.0, 1.0], rtol=1e-4, atol=1e-4, engine=engine
        )
        self.last = nn.Linear(features, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out: Tensor = self.last(self.block(self.first(x))[-1])
        return out


def two_spirals(n: int) -> tuple[Tensor, Tensor]:
    """Points of two spirals in each other, with noise, and which they are of."""
    kind = torch.arange(n) % 2
    angle = 3 * torch.pi * torch.rand(n).sqrt()
    direction = torch.stack([angle.cos(), angle.sin()], 1) * (1 - 2 * kind[:, None])
    points = direction * angle[:, None] / (3 * torch.pi) * 2
    return points + 0.03 * torch.randn(n, 2), kind


def measure(run: Run, model: Classifier, x: Tensor) -> list[dict[str, float]]:
    """The block at several tolerances."""
    model = model.double()
    block, start = model.block, model.first(x.double()).detach()
    block.rtol = block.atol = 1e-8 if run.small else 1e-12
    with torch.no_grad():
        truth = block(start)[-1]
    rows = []
    for exponent in range(1, 3 if run.small else 11):
        block.rtol = block.atol = 10.0**-exponent
        row: dict[str, float] = {"tolerance": block.rtol}
        with torch.no_grad():
            block(start)
            times = []
            for _ in range(1 if run.small else 20):
                began = time.perf_counter()
                end = block(start)[-1]
                times.append(time.perf_counter() - began)
        row["evaluations"] = block.nfe
        row["error"] = (end - truth).abs().max().item()
        row["time"] = min(times)
        for adjoint in ADJOINTS[run.engine]:
            block.sensealg = adjoint
            block(start.requires_grad_())[-1].square().sum().backward()
            row[adjoint] = block.nfe_backward
        block.sensealg = None
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, print, draw."""
    run = start(__doc__, arguments)
    model = Classifier(run.engine)
    batch, steps = (32, 3) if run.small else (256, 1500)

    def loss() -> Tensor:
        x, kind = two_spirals(batch)
        return nn.functional.cross_entropy(model(x), kind)

    history = train(run, "evaluations", model, steps, loss, record=lambda: {"nfe": model.block.nfe})
    x, kind = two_spirals(batch)
    with torch.no_grad():
        print(f"right on new points: {(model(x).argmax(1) == kind).double().mean():.3f}")
    rows = measure(run, model, x)
    adjoints = ADJOINTS[run.engine]
    table(
        ["rtol", "evaluations", "error", "ms", *(f"backward, {a}" for a in adjoints)],
        [
            [r["tolerance"], r["evaluations"], r["error"], 1e3 * r["time"]]
            + [r[a] for a in adjoints]
            for r in rows
        ],
    )
    draw(run, rows, [h["nfe"] for h in history])


def draw(run: Run, rows: list[dict[str, float]], over_training: list[float]) -> None:
    """The four panels."""
    made = figure(13, 3.2)
    axes = made.subplots(1, 4)
    nfe = [r["evaluations"] for r in rows]
    axes[0].semilogy(nfe, [r["error"] for r in rows], "o-")
    axes[0].set(xlabel="evaluations, forward", ylabel="error of the end state")
    axes[1].plot(nfe, [1e3 * r["time"] for r in rows], "o-")
    axes[1].set(xlabel="evaluations, forward", ylabel="time, ms", ylim=(0, None))
    for adjoint in ADJOINTS[run.engine]:
        axes[2].plot(nfe, [r[adjoint] for r in rows], "o-", label=adjoint)
    axes[2].axline((0, 0), slope=1, color="0.7", lw=1)
    axes[2].set(xlabel="evaluations, forward", ylabel="evaluations, backward")
    axes[2].legend(frameon=False)
    axes[3].plot(over_training, lw=1)
    axes[3].set(xlabel="step of the training", ylabel="evaluations, forward")
    run.save(made, "evaluations.png")


if __name__ == "__main__":
    main()
