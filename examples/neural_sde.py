"""A neural SDE: drift and diffusion of a noisy spiral, learnt from means and variances.

The data are means and variances, at 30 times, of 10,000 paths of ``dy = A y³ dt + 0.2 y dW``. A
net is the drift and another the diffusion, as in DiffEqFlux's tutorial; their paths' moments are to
be the data's. The gradients are exact for the noise drawn, through each step of Euler and Maruyama.
The torch engine has no solver of such equations, so this needs Julia.

The paths go round a ring and come apart along it, so that late moments tell little of the
diffusion. It is trained on the first third of the time first, and errors are measured by the data's
variances; still it is not found as well as the moments: docs/examples.md has what was, and why.

    python examples/neural_sde.py            # 1400 steps, minutes
    python examples/neural_sde.py --small    # 2 steps
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import Run, figure, mlp, start, table, train
from torch import Tensor, nn

from pyjlode import NeuralDSDE, NeuralODE, UnsupportedError

SPIRAL = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
NOISE = 0.2


class Cubic(nn.Module):
    """A drift by a net of the state's cubes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(2, 50, 2)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The drift at states ``(B, 2)``."""
        out: Tensor = self.net(y**3)
        return out


class Linear(nn.Module):
    """A diffusion by a linear map, as the data's is."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 2, bias=False)
        # A start with little noise.
        with torch.no_grad():
            for p in self.parameters():
                p *= 0.2

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The diffusion at states ``(B, 2)``."""
        out: Tensor = self.net(y)
        return out


def true_drift(t: Tensor, y: Tensor) -> Tensor:
    """The data's, at states ``(B, 2)``."""
    return y**3 @ SPIRAL.T


def true_diffusion(t: Tensor, y: Tensor) -> Tensor:
    """The data's, at states ``(B, 2)``."""
    return NOISE * y


def moments(paths: Tensor) -> tuple[Tensor, Tensor]:
    """Means and variances ``(T, 2)`` over paths ``(T, B, 2)``."""
    return paths.mean(1), paths.var(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn, print, draw."""
    run = start(__doc__, arguments)
    if run.engine != "julia":
        raise UnsupportedError("Stochastic solvers are Julia's; get it with `pyjlode setup`.")
    t = torch.linspace(0.0, 1.0, 30)
    many, few, dt = (100, 20, 0.02) if run.small else (10_000, 100, 1e-3)
    first = torch.tensor([[2.0, 0.0]])
    with torch.no_grad():
        # Of a higher order than what is trained: its own error is none of the data.
        truth = NeuralDSDE(true_drift, true_diffusion, t, method="SOSRI", dt=dt / 2, engine="julia")
        paths = truth(first.expand(many, 2), seed=0)
        means, variances = moments(paths)
        # The errors are measured by the variances. The early ones are small, and tell the most of
        # the diffusion: later ones tell how far the paths have gone apart along their ring.
        scale = variances + 0.02 * variances.mean()
    drift = Cubic()
    # First an ODE through the early means. Later ones are of paths that have gone apart, which no
    # path follows; a drift that does leaves no room for the right noise.
    path = NeuralODE(drift, t[:8], rtol=1e-4, atol=1e-4, engine="julia")
    train(
        run, "neural_sde-drift", path, 2 if run.small else 400,
        lambda: (path(first)[:, 0] - means[:8]).square().sum(), rate=0.02,
    )  # fmt: skip
    model = NeuralDSDE(drift, Linear(), t, dt=dt, engine="julia")

    def loss(until: int) -> Tensor:
        # The product of two independent estimates' errors: its mean is the square of what is
        # wrong. In a square's mean the estimate's own variance counts too, and more noise costs.
        halves = model(first.expand(2 * few, 2), t[:until]).split(few, 1)
        errors = [
            torch.cat([(m - means[:until]) / scale[:until].sqrt(), v / scale[:until] - target])
            for (m, v), target in ((moments(h), variances[:until] / scale[:until]) for h in halves)
        ]
        return (errors[0] * errors[1]).sum()

    # The whole time from the start has more to go wrong, and takes longer.
    early = train(
        run, "neural_sde-early", model, 2 if run.small else 1000, lambda: loss(10), rate=0.02
    )
    history = train(run, "neural_sde", model, 2 if run.small else 400, lambda: loss(30), rate=0.01)
    with torch.no_grad():
        learnt = model(first.expand(many, 2), seed=1)
        report(paths, learnt, model)
        draw(run, t, paths, learnt, early + history)
    step = sum(h["time"] for h in history) / len(history)
    print(f"{1e3 * step:.0f} ms a step of the training, {model.stats.naccept} steps of Euler each")


def report(paths: Tensor, learnt: Tensor, model: NeuralDSDE) -> None:
    """How far the moments, and the coefficients on the data's paths, are from the data's."""
    (means, variances), (found, spread) = moments(paths), moments(learnt)
    states, t = paths[:, :100].reshape(-1, 2), torch.zeros(())
    drift, diffusion = model.drift(t, states), model.diffusion(t, states)
    rows = [
        ["means", relative(found, means)],
        ["variances", relative(spread, variances)],
        ["drift", relative(drift, true_drift(t, states))],
        # Its sign is free: a path with -W is as likely.
        [
            "|diffusion|",
            relative(diffusion.abs(), true_diffusion(t, states).abs()),
        ],
    ]
    table(["of the data's", "relative error"], rows)


def relative(found: Tensor, expected: Tensor) -> float:
    """The error's norm over the expected norm."""
    return ((found - expected).norm() / expected.norm()).item()


def draw(
    run: Run, t: Tensor, paths: Tensor, learnt: Tensor, history: list[dict[str, float]]
) -> None:
    """Means with a standard deviation, some paths, and the loss."""
    made = figure(13, 3.6)
    left, middle, right = made.subplots(1, 3)
    for i, name in enumerate(("y1", "y2")):
        (mean, variance), (found, spread) = moments(paths[..., i]), moments(learnt[..., i])
        left.errorbar(t, mean, variance.sqrt(), fmt=".", color=f"C{i}", label=f"{name}, data")
        left.plot(t, found, color=f"C{i}", label=f"{name}, learnt")
        low, high = found - spread.sqrt(), found + spread.sqrt()
        left.fill_between(t, low, high, color=f"C{i}", alpha=0.2)
    left.set(xlabel="t", ylabel="mean and standard deviation")
    left.legend(frameon=False, fontsize=8)
    for k in range(10):
        middle.plot(*paths[:, k].T, color="C7", alpha=0.6, label="data" if k == 0 else None)
        middle.plot(*learnt[:, k].T, color="C3", alpha=0.6, label="learnt" if k == 0 else None)
    middle.set(xlabel="y1", ylabel="y2")
    middle.legend(frameon=False, fontsize=8)
    # A step's estimate may be below 0.
    losses = torch.tensor([h["loss"] for h in history])
    right.semilogy(losses.unfold(0, min(25, len(losses)), 1).mean(1).abs())
    right.set(xlabel="step", ylabel="loss, mean of 25 steps")
    run.save(made, "neural_sde.png")


if __name__ == "__main__":
    main()
