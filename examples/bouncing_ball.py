"""A bouncing ball whose floor and bounce are learnt from the times at which it is heard.

A ball is thrown from known heights at known speeds; the times of its first four bounces are given,
with noise. Gravity, the height of the floor, which is where the event is, and the part of the speed
that a bounce keeps are learnt through the solver's events, whose times are differentiable.

    python examples/bouncing_ball.py            # 300 steps, half a minute
    python examples/bouncing_ball.py --small    # 1 step of 1 throw

After Chen, Amos and Nickel, Learning Neural Event Functions for Ordinary Differential Equations,
2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import Run, figure, start, table, train
from torch import Tensor, nn

from pyjlode import odeint, odeint_event

THROWS = torch.tensor([[3.0, 0.0], [2.0, 4.0], [5.0, 1.0]], dtype=torch.float64)
TRUE = (9.81, 0.5, 0.8)


class Ball(nn.Module):
    """Height and speed under gravity, a floor, and what a bounce keeps of the speed."""

    def __init__(self, gravity: float, floor: float, kept: float) -> None:
        super().__init__()
        # Logarithms of what is a scale: one rate then suits all three. With the numbers themselves
        # 300 steps end in a valley, with the floor at 0.82.
        logs = torch.tensor([gravity, kept], dtype=torch.float64).log()
        self.logs = nn.Parameter(logs)
        self.floor = nn.Parameter(torch.tensor(floor, dtype=torch.float64))

    def found(self) -> list[float]:
        """Gravity, floor, and what is kept."""
        gravity, kept = self.logs.exp().tolist()
        return [gravity, self.floor.item(), kept]

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The field between bounces."""
        return torch.stack([y[1], -self.logs[0].exp()])

    def above(self, t: Tensor, y: Tensor) -> Tensor:
        """The event: zero where the ball meets the floor."""
        return y[0] - self.floor

    def bounces(self, throw: Tensor, number: int, engine: str) -> tuple[Tensor, list[Tensor]]:
        """Times of the bounces, and the states from which each flight starts."""
        time, state = torch.zeros((), dtype=torch.float64), throw
        times, starts = [], [throw]
        for _ in range(number):
            time, states = odeint_event(self, state, time, event_fn=self.above, engine=engine)
            state = torch.stack([states[-1, 0], -self.logs[1].exp() * states[-1, 1]])
            times.append(time)
            starts.append(state)
        return torch.stack(times), starts


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn, print, draw."""
    run = start(__doc__, arguments)
    throws, number = (THROWS[:1], 2) if run.small else (THROWS, 4)
    with torch.no_grad():
        heard = torch.stack([Ball(*TRUE).bounces(throw, number, run.engine)[0] for throw in throws])
    heard = heard + 0.005 * torch.randn_like(heard)
    ball = Ball(6.0, 0.0, 0.6)
    first = ball.found()

    def loss() -> Tensor:
        found = torch.stack([ball.bounces(throw, number, run.engine)[0] for throw in throws])
        return (found - heard).square().mean()

    history = train(run, "bouncing_ball", ball, 1 if run.small else 300, loss, rate=0.05)
    names = ("gravity", "floor", "speed kept")
    table(
        ["", "true", "at first", "learnt"],
        [[n, *x] for n, *x in zip(names, TRUE, first, ball.found(), strict=True)],
    )
    print(f"times of bounces off by {history[-1]['loss'] ** 0.5:.4f} s; their noise is 0.005 s")
    with torch.no_grad():
        draw(run, ball, heard)


def draw(run: Run, ball: Ball, heard: Tensor) -> None:
    """Each throw: true and learnt heights, and the times that were heard."""
    made = figure(11, 3)
    panels = made.subplots(1, len(heard), squeeze=False)
    for panel, throw, times in zip(panels.flat, THROWS, heard, strict=False):
        for model, style in ((Ball(*TRUE), {"color": "0.8", "lw": 4}), (ball, {"color": "C0"})):
            ends, starts = model.bounces(throw, len(times), run.engine)
            begins = [0.0, *ends.tolist()]
            for begin, end, state in zip(begins[:-1], begins[1:], starts[:-1], strict=True):
                t = torch.linspace(begin, end, 30, dtype=torch.float64)
                panel.plot(t, odeint(model, state, t, engine=run.engine)[:, 0], **style)
        panel.plot(times, torch.full_like(times, TRUE[1]), "k^", ms=5)
        panel.set(xlabel="t", ylabel="height")
    run.save(made, "bouncing_ball.png")


if __name__ == "__main__":
    main()
