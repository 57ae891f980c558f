"""A latent ODE with a Poisson process likelihood, after section 5.2 of the paper.

When something happens tells of what makes it happen. Of each series nothing is seen but the times
of its events, which come at a rate that swings, ``2 + 8 sin²(t + phase)``, with a phase of its own.
A recognition RNN reads counts in 20 bins, a latent state evolves by a learnt field, and a net makes
the rate of it. One solve gives the states and the rate's integral, so that the likelihood

    log p(t_1, ..., t_N) = sum_i log rate(t_i) - integral of the rate

is exact to the solver's tolerance, whatever the times are; the evidence's lower bound is maximized.
The paper shows such a fit as a picture; here it is compared with the true rate, and with a rate
that does not swing.

    python examples/poisson.py            # 2000 steps of 20 series, 4 minutes
    python examples/poisson.py --small    # 2 steps of 4 series
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from common import Run, figure, mlp, start, table, train
from torch import Tensor, nn

from pyjlode import odeint
from pyjlode.layers import RecognitionRNN

END, BINS, LATENT = 2 * math.pi, 20, 4
LOW, SWING = 2.0, 8.0
EDGES = torch.linspace(0.0, END, BINS + 1)


def true_rate(t: Tensor, phase: Tensor) -> Tensor:
    """Events in a unit of time."""
    return LOW + SWING * torch.sin(t + phase).square()


def sample(n: int) -> tuple[Tensor, list[Tensor]]:
    """Phases ``(n,)`` and the times of each series, by thinning."""
    phases, series = math.pi * torch.rand(n), []
    for phase in phases:
        count = int(torch.poisson(torch.tensor((LOW + SWING) * END)))
        t = END * torch.rand(count)
        kept = t[torch.rand(count) * (LOW + SWING) < true_rate(t, phase)]
        series.append(kept.sort().values)
    return phases, series


class Process(nn.Module):
    """Events' times to a latent state, and a latent state to rates."""

    def __init__(self, engine: str) -> None:
        super().__init__()
        self.recognition = RecognitionRNN(1, LATENT, 25)
        self.field = mlp(LATENT, 20, LATENT)
        self.log_rate = mlp(LATENT, 20, 1)
        self.engine = engine
        # Of the training; a buffer, so that one that is resumed goes on.
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros(()))

    def derivative(self, t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Of the latent state ``(B, LATENT)`` and the rate's integral ``(B, 1)``."""
        return self.field(y[0]), self.log_rate(y[0]).exp()

    def encode(self, series: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the first states."""
        counts = torch.stack([torch.histc(t, BINS, 0.0, END) for t in series], 1)
        found: tuple[Tensor, Tensor] = self.recognition(counts[..., None], EDGES[:-1])
        return found

    def solve(self, z0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Log-rates and integrals ``(T, B)`` at times ``t``, which begin at 0."""
        states, integrals = odeint(
            self.derivative, (z0, z0.new_zeros(len(z0), 1)), t, rtol=1e-5, atol=1e-5,
            engine=self.engine,
        )  # fmt: skip
        return self.log_rate(states)[..., 0], integrals[..., 0]

    def log_likelihoods(self, z0: Tensor, series: list[Tensor]) -> Tensor:
        """Of each series, ``(B,)``, from its first state."""
        # All events' times are save points of the one solve; each series looks at its own.
        t = torch.cat([*series, EDGES[[0, -1]]]).unique()
        log_rates, integrals = self.solve(z0, t)
        own = [log_rates[torch.searchsorted(t, x), i].sum() for i, x in enumerate(series)]
        return torch.stack(own) - integrals[-1]

    def elbo(self, series: list[Tensor], weight: float = 1.0) -> Tensor:
        """The evidence's lower bound, mean of the series; ``weight`` is the divergence's."""
        mean, logvar = self.encode(series)
        z0 = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(-1)
        return (self.log_likelihoods(z0, series) - weight * divergence).mean()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print, draw."""
    run = start(__doc__, arguments)
    n, batch, steps = (4, 4, 2) if run.small else (500, 20, 2000)
    _, series = sample(n)
    phases, new = sample(4 if run.small else 100)
    model = Process(run.engine)

    def loss() -> Tensor:
        # At full weight from the start, the latent state says nothing before the field can use it.
        weight = min(1.0, 2 * model.steps.item() / steps)
        model.steps += 1
        return -model.elbo([series[i] for i in torch.randperm(n)[:batch]], weight)

    history = train(run, "poisson", model, steps, loss)
    t = torch.linspace(0.0, END, 100)
    with torch.no_grad():
        z0, _ = model.encode(new)
        found = model.log_likelihoods(z0, new)
        rates = model.solve(z0, t)[0].exp()
    exact = true_rate(t[:, None], phases)
    # Over whole swings the true rate's integral rests on no phase.
    mean = LOW + SWING / 2
    truth = torch.stack([true_rate(x, p).log().sum() for x, p in zip(new, phases, strict=True)])
    level = torch.tensor([len(x) * math.log(mean) for x in new])
    table(
        ["of new series", "log-likelihood", "RMS error of the rate"],
        [
            ["true rate", (truth - mean * END).mean().item(), 0.0],
            ["latent ODE", found.mean().item(), (rates - exact).square().mean().sqrt().item()],
            [
                "level rate", (level - mean * END).mean().item(),
                (mean - exact).square().mean().sqrt().item(),
            ],
        ],
    )  # fmt: skip
    draw(run, t, new, rates, exact, history)


def draw(
    run: Run, t: Tensor, series: list[Tensor], rates: Tensor, exact: Tensor,
    history: list[dict[str, float]],
) -> None:  # fmt: skip
    """Three new series with their rates, and the bound."""
    made = figure(13, 3)
    *panels, last = made.subplots(1, 4)
    for i, panel in enumerate(panels):
        panel.plot(t, exact[:, i], "0.7", lw=3, label="true rate")
        panel.plot(t, rates[:, i], "C0", label="inferred")
        panel.plot(series[i], torch.zeros_like(series[i]), "k|", ms=10, label="events")
        panel.set(xlabel="t")
    panels[0].legend(frameon=False, fontsize=8)
    last.plot([-h["loss"] for h in history])
    last.set(xlabel="step", ylabel="lower bound")
    run.save(made, "poisson.png")


if __name__ == "__main__":
    main()
