"""Augmented neural ODEs on nested discs, which a flow in the plane cannot take apart.

A disc of radius 0.5 in a ring from 1 to 1.5, after Dupont, Doucet and Teh, Augmented Neural ODEs,
2019: a neural ODE on the two coordinates against ones with further, augmented dimensions. All end
in a linear layer for the class.

    python examples/nested_circles.py            # 1000 steps of 256 points, about 2 minutes
    python examples/nested_circles.py --small    # 3 steps of 36 points

Measured on the Julia engine: in 2, 3 and 5 dimensions the loss at the end was 4.6e-3, 1.3e-4 and
6.5e-5, with 99, 69 and 69 evaluations, from 27 at first; 99.95 %, 100 % and 100 % of new points
were right. That is Dupont et al.'s finding: the plain flow has to tear the ring open, at a price.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from common import Run, TimeMLP, figure, start, table, train
from torch import Tensor, nn

from pyjlode import AugmentedNDELayer, NeuralODE


class Classifier(nn.Module):
    """A flow in the plane and ``adim`` more dimensions, then one number: the disc or the ring."""

    def __init__(self, adim: int, engine: str) -> None:
        super().__init__()
        field = TimeMLP(2 + adim, 32, 32, 2 + adim)
        node = NeuralODE(field, [0.0, 1.0], rtol=1e-4, atol=1e-4, engine=engine)
        self.flow: NeuralODE | AugmentedNDELayer = AugmentedNDELayer(node, adim) if adim else node
        self.last = nn.Linear(2 + adim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape ``(B,)``."""
        out: Tensor = self.last(self.flow(x)[-1])
        return out.squeeze(1)


def nested(n: int) -> tuple[Tensor, Tensor]:
    """Points, and whether they are of the ring."""
    ring = torch.arange(n) % 2 == 1
    low, high = torch.where(ring, 1.0, 0.0), torch.where(ring, 1.5, 0.5)
    radius = torch.sqrt(low**2 + (high**2 - low**2) * torch.rand(n))
    angle = 2 * math.pi * torch.rand(n)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), ring.float()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print, draw."""
    run = start(__doc__, arguments)
    batch, steps = (36, 3) if run.small else (256, 1000)
    rows, drawn = [], []
    for adim in (0, 1, 3):
        model = Classifier(adim, run.engine)

        def loss(model: Classifier = model) -> Tensor:
            x, ring = nested(batch)
            return nn.functional.binary_cross_entropy_with_logits(model(x), ring)

        history = train(
            run,
            f"nested-{adim}",
            model,
            steps,
            loss,
            record=lambda model=model: {"nfe": model.flow.nfe},
        )
        x, ring = nested(36 if run.small else 2000)
        with torch.no_grad():
            right = ((model(x) > 0) == (ring > 0)).double().mean().item()
        last = history[-max(1, steps // 10) :]
        rows.append(
            [
                *(2 + adim, sum(h["loss"] for h in last) / len(last), right),
                *(history[0]["nfe"], history[-1]["nfe"]),
            ]
        )
        drawn.append((adim, history, model))
    table(["dimensions", "loss at the end", "right", "evaluations first", "and last"], rows)
    draw(run, drawn)


def draw(run: Run, drawn: list[tuple[int, list[dict[str, float]], Classifier]]) -> None:
    """Losses, evaluations, and what each model makes of the plane."""
    made = figure(3.1 * (2 + len(drawn)), 3)
    axes = made.subplots(1, 2 + len(drawn))
    pixels = 6 if run.small else 150
    axis = torch.linspace(-1.7, 1.7, pixels)
    grid = torch.cartesian_prod(axis, axis)
    x, ring = nested(300)
    for panel, (adim, history, model) in zip(axes[2:], drawn, strict=True):
        axes[0].semilogy([h["loss"] for h in history], lw=1, label=f"{2 + adim} dimensions")
        axes[1].plot([h["nfe"] for h in history], lw=1)
        with torch.no_grad():
            shown = model(grid).sigmoid().view(pixels, pixels).numpy()
        panel.imshow(shown.T, origin="lower", extent=[-1.7, 1.7] * 2, cmap="coolwarm", alpha=0.5)
        panel.scatter(*x.T.numpy(), c=ring.numpy(), s=3, cmap="coolwarm")
        panel.set(title=f"{2 + adim} dimensions", xticks=[], yticks=[])
    axes[0].set(xlabel="step", ylabel="loss")
    axes[0].legend(frameon=False, fontsize=7)
    axes[1].set(xlabel="step", ylabel="evaluations, forward")
    run.save(made, "nested_circles.png")


if __name__ == "__main__":
    main()
