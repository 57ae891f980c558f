"""Latent ODE on bidirectional spirals, after section 5.1 of the paper, against an RNN.

The spirals are those of the authors' code: two of three turns and 1000 equally spaced times, one
clockwise. Each series is 100 successive times of one of them from a random place on, with noise,
and 30, 50 or 100 of them are observed. The models predict the next 100 times, at which nothing is
observed; the figure of merit is the RMSE there against the spirals without noise. It is given for
new series and for those of the training, as the paper's "beyond those used for training" may mean
either.

- The latent ODE: an RNN of 25 units reads backwards; 4 latent numbers, a field of two hidden layers
  of 20 and a decoder of one; the evidence's lower bound is maximized.
- The RNN: 25 units, which get an observation and the time to the next, and predict that one's mean;
  trained by its Gaussian likelihood, and run on its own predictions after the last observation.

What differs from the authors' code: batches of 100 series instead of all 1000, a rate that falls to
0, and gradients of bounded norm; 1000 times on a spiral, which its script names but its generator
has 500; noise of 0.1, the generator's default, in the data and in the likelihoods (the script has
0.3); the last tenth of the spirals is left out. The code has no RNN that predicts and no missing
observations; these follow the paper's text.

    python examples/latent_ode.py            # 3 times 2500 steps of each, minutes
    python examples/latent_ode.py --small    # 3 steps of 8 spirals
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from common import Run, figure, mlp, start, table, train
from torch import Tensor, nn

from pyjlode import LatentODE

# Of the data, and about the mean in the likelihoods.
NOISE = 0.1
# The largest norm of a gradient.
CLIP = 5.0
STEPS = 2500
OBSERVED = (30, 50, 100)
PAPER = {"latent ODE": (0.1642, 0.1502, 0.1346), "RNN": (0.3937, 0.3202, 0.1813)}
ANGLES = torch.linspace(0.0, 6 * math.pi, 1000)
TIMES = ANGLES[:200]


def spirals(n: int, last: int) -> tuple[Tensor, Tensor]:
    """``n`` windows ``(200, n, 2)`` of the two spirals, even ones clockwise, and where they begin.

    They begin at the 100th time, as the authors', or later, and at ``last`` at most.
    """
    back = 6 * math.pi + 1 - ANGLES
    clockwise, counter = polar(15 / back, back, -5.0), polar(0.3 * ANGLES, ANGLES, 5.0)
    first = torch.randint(100, last + 1, (n,))
    index = first + torch.arange(200)[:, None]
    even = torch.arange(n) % 2 == 0
    return torch.where(even[:, None], clockwise[index], counter[index]), first


def polar(radius: Tensor, angle: Tensor, right: float) -> Tensor:
    """Points ``(..., 2)`` around ``(right, 0)``."""
    return torch.stack([right + radius * angle.cos(), radius * angle.sin()], -1)


def some_of(n: int, observed: int) -> Tensor:
    """A mask ``(100, n)`` with so many observations of each."""
    return torch.rand(100, n).argsort(0).argsort(0) < observed


def seen(y: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Observations ``(N, B, 2)`` and their times ``(N, B)``, of which each series has as many."""
    index = mask.T.nonzero()[:, 1].reshape(len(mask.T), -1).T
    return y.gather(0, index[..., None].expand(-1, -1, y.shape[-1])), t[index]


class Recognition(nn.Module):
    """The paper's: a plain RNN that reads what was observed backwards, with the times between."""

    def __init__(self, hidden: int = 25, latent: int = 4) -> None:
        super().__init__()
        self.rnn = nn.RNN(3, hidden)
        self.out = nn.Linear(hidden, 2 * latent)

    def forward(self, y: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the state at ``t[0]``."""
        values, times = seen(y, t, mask)
        # To the one that is read next, and from the last to the time asked for.
        gaps = times - torch.cat([t[:1].expand(1, y.shape[1]), times[:-1]])
        _, hidden = self.rnn(torch.cat([values, gaps[..., None]], -1).flip(0))
        mean, logvar = self.out(hidden[0]).chunk(2, -1)
        return mean, logvar


class RNN(nn.Module):
    """Predicts the next observation from those before and the time to it."""

    def __init__(self, hidden: int = 25) -> None:
        super().__init__()
        self.rnn = nn.RNN(3, hidden)
        self.out = nn.Linear(hidden, 2)

    def forward(self, values: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions ``(N, B, 2)``, each after a gap from the value of its row; the last state."""
        states, hidden = self.rnn(torch.cat([values, gaps[..., None]], -1))
        return self.out(states), hidden

    def loss(self, y: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        """Mean negative log-likelihood of a series, less a constant."""
        values, times = seen(y, t, mask)
        found, _ = self(values[:-1], times.diff(dim=0))
        return 0.5 * ((found - values[1:]) / NOISE).square().sum((0, 2)).mean()

    def extend(self, y: Tensor, t: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """Predictions ``(T, B, 2)`` at times ``at`` after ``t``."""
        values, times = seen(y, t, mask)
        gaps = torch.cat([times, at[:1].expand(1, y.shape[1])]).diff(dim=0)
        found, hidden = self(values, gaps)
        predictions = [found[-1]]
        for gap in at.diff():
            step = torch.cat([predictions[-1], gap.expand(y.shape[1], 1)], 1)
            states, hidden = self.rnn(step[None], hidden)
            predictions.append(self.out(states[0]))
        return torch.stack(predictions)


class Autonomous(nn.Module):
    """A field that does not rest on time."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The field."""
        out: Tensor = self.net(y)
        return out


def latent_model(engine: str) -> LatentODE:
    """The sizes of the authors' code."""
    return LatentODE(
        Autonomous(mlp(4, 20, 20, 4, activation=nn.ELU)), mlp(4, 20, 2, activation=nn.ReLU),
        obs_dim=2, latent_dim=4, noise_std=NOISE, recognition=Recognition(), rtol=1e-4, atol=1e-4,
        engine=engine,
    )  # fmt: skip


def root_mean_square(x: Tensor) -> float:
    """Of all numbers."""
    return x.square().mean().sqrt().item()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both models for each number of observations, print, draw."""
    run = start(__doc__, arguments)
    n, batch, steps = (8, 8, 3) if run.small else (1000, 100, STEPS)
    # The last begin where 100 times are left to the 900th: there the radius of both is 5, and
    # after it that of the one that turns clockwise grows to 15.
    series, first = spirals(n, 800)
    noisy = series[:100] + NOISE * torch.randn_like(series[:100])
    new, _ = spirals(8 if run.small else 200, 700)
    new_noisy = new[:100] + NOISE * torch.randn_like(new[:100])
    # Of the training's own series, those of which 200 times are before the 900th.
    own = first <= 700
    errors: dict[str, list[float]] = {}
    drawn = []
    shown = OBSERVED[-1:] if run.small else OBSERVED
    for observed in shown:
        mask, new_mask = some_of(n, observed), some_of(new.shape[1], observed)
        latent, rnn = latent_model(run.engine), RNN()

        def elbo(latent: LatentODE = latent, mask: Tensor = mask) -> Tensor:
            chosen = torch.randperm(n)[:batch]
            return -latent.elbo(noisy[:, chosen], TIMES[:100], mask[:, chosen])

        def likelihood(rnn: RNN = rnn, mask: Tensor = mask) -> Tensor:
            chosen = torch.randperm(n)[:batch]
            return rnn.loss(noisy[:, chosen], TIMES[:100], mask[:, chosen])

        train(run, f"latent-{observed}", latent, steps, elbo, clip=CLIP)
        train(run, f"rnn-{observed}", rnn, steps, likelihood, clip=CLIP)
        ours, theirs = predict(latent, rnn, new_noisy, new_mask)
        drawn.append((observed, new, new_noisy, new_mask, ours, theirs))
        errors.setdefault("latent ODE", []).append(root_mean_square(ours[100:] - new[100:]))
        errors.setdefault("RNN", []).append(root_mean_square(theirs - new[100:]))
        ours, theirs = predict(latent, rnn, noisy[:, own], mask[:, own])
        expected = series[100:, own]
        errors.setdefault("latent ODE, trained on", []).append(
            root_mean_square(ours[100:] - expected)
        )
        errors.setdefault("RNN, trained on", []).append(root_mean_square(theirs - expected))
    table(
        ["predictive RMSE", *(f"{k} of 100" for k in shown), *(f"paper, {k}" for k in OBSERVED)],
        [[name, *found, *PAPER[name.split(",")[0]]] for name, found in errors.items()],
    )
    draw(run, drawn)


@torch.no_grad()
def predict(latent: LatentODE, rnn: RNN, noisy: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """By the latent ODE at all 200 times, by the RNN at the 100 after those observed."""
    past = TIMES[:100]
    return latent(noisy, past, TIMES, mask), rnn.extend(noisy, past, mask, TIMES[100:])


def draw(run: Run, drawn: list[tuple[int, Tensor, Tensor, Tensor, Tensor, Tensor]]) -> None:
    """A spiral of each direction with both models' predictions."""
    made = figure(3.2 * len(drawn), 6)
    axes = made.subplots(2, len(drawn), squeeze=False)
    for column, (observed, truth, noisy, mask, ours, theirs) in enumerate(drawn):
        for i in (0, 1):
            panel = axes[i, column]
            panel.plot(*truth[:, i].T, color="0.8", lw=4, label="truth")
            panel.plot(*noisy[mask[:, i], i].T, "k.", ms=3, label="observed")
            panel.plot(*ours[:, i].T, "C0", label="latent ODE")
            panel.plot(*theirs[:, i].T, "C1", lw=1, label="RNN")
            panel.set(xticks=[], yticks=[], title=f"{observed} observed")
            panel.set_aspect("equal")
    axes[0, 0].legend(frameon=False, fontsize=7)
    run.save(made, "latent_ode.png")


if __name__ == "__main__":
    main()
