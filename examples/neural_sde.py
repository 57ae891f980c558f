"""A neural SDE: drift and diffusion of a noisy spiral, learnt from observed paths.

The data are 200 paths of ``dy = A y³ dt + 0.2 y dW``, the system of DiffEqFlux's tutorial, seen at
30 times. A net is the drift and another the diffusion. From states of the data, their paths are
forecasts of the next observation, and the energy score of the forecasts is minimized: its mean is
least where the forecasts' distribution is the data's, so that it finds the noise as well as the
way. The tutorial fits means and variances of all paths; those leave the diffusion open, as paths
that have come apart along their ring say little of what moved them.

The gradients are exact for the noise drawn, through each step of Euler and Maruyama. The torch
engine has no solver of such equations, so this needs Julia.

    python examples/neural_sde.py            # 2000 steps, a quarter of a minute
    python examples/neural_sde.py --small    # 2 steps

Gneiting and Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation, 2007.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import Run, figure, mlp, start, table, train
from torch import Tensor, nn

from pyjlode import NeuralDSDE, UnsupportedError

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


def energy_score(forecasts: Tensor, seen: Tensor) -> Tensor:
    """The mean score of ``M`` forecasts ``(M, B, 2)`` of each state ``(B, 2)``, without bias."""
    m = len(forecasts)
    missed = (forecasts - seen).norm(dim=-1).mean()
    first, second = torch.triu_indices(m, m, offset=1)
    apart = (forecasts[first] - forecasts[second]).norm(dim=-1).mean()
    return missed - 0.5 * apart


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn, print, draw."""
    run = start(__doc__, arguments)
    if run.engine != "julia":
        raise UnsupportedError("Stochastic solvers are Julia's; get it with `pyjlode setup`.")
    t = torch.linspace(0.0, 1.0, 30)
    many, steps = (50, 2) if run.small else (200, 2000)
    batch, forecasts = 64, 16
    with torch.no_grad():
        # Of a higher order than what is trained: its own error is none of the data.
        truth = NeuralDSDE(true_drift, true_diffusion, t, method="SOSRI", dt=5e-4, engine="julia")
        paths = truth(torch.tensor([[2.0, 0.0]]).expand(2 * many, 2), seed=0)
    seen, new = paths.split(many, 1)
    before, after = seen[:-1].reshape(-1, 2), seen[1:].reshape(-1, 2)
    model = NeuralDSDE(Cubic(), Linear(), t[:2], dt=float(t[1]) / 10, engine="julia")

    def loss() -> Tensor:
        chosen = torch.randint(len(before), (batch,))
        ends = model(before[chosen].repeat(forecasts, 1))[-1]
        return energy_score(ends.reshape(forecasts, batch, 2), after[chosen])

    history = train(run, "neural_sde", model, steps, loss)
    with torch.no_grad():
        learnt = model(new[0], t, seed=1)
        report(new, learnt, model)
        draw(run, t, new, learnt, history)
    step = sum(h["time"] for h in history) / len(history)
    print(f"{1e3 * step:.1f} ms a step of the training")


def report(paths: Tensor, learnt: Tensor, model: NeuralDSDE) -> None:
    """How far the moments of whole paths, and the coefficients on them, are from new paths'."""
    (means, variances), (found, spread) = moments(paths), moments(learnt)
    states, t = paths.reshape(-1, 2), torch.zeros(())
    drift, diffusion = model.drift(t, states), model.diffusion(t, states)
    rows = [
        ["means", relative(found, means)],
        ["variances", relative(spread, variances)],
        ["drift", relative(drift, true_drift(t, states))],
        # Its sign is free: a path with -W is as likely.
        ["|diffusion|", relative(diffusion.abs(), true_diffusion(t, states).abs())],
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
    losses = torch.tensor([h["loss"] for h in history])
    right.semilogy(losses.unfold(0, min(25, len(losses)), 1).mean(1))
    right.set(xlabel="step", ylabel="energy score, mean of 25 steps")
    run.save(made, "neural_sde.png")


if __name__ == "__main__":
    main()
