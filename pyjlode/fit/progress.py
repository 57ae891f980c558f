"""Progress of a training: a bar in a terminal, else a line now and then."""

from __future__ import annotations

import sys

from tqdm import tqdm

from .train import Progress

_LINES = 10


class Reporter:
    """Shows epoch, loss, held-out loss and evaluations.

    Parameters
    ----------
    epochs : int
    done : int
        Epochs that an earlier run did.
    """

    def __init__(self, epochs: int, done: int) -> None:
        self.epochs = epochs
        self.every = max(1, epochs // _LINES)
        self.bar = (
            tqdm(total=epochs, initial=done, unit="epoch", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def __call__(self, progress: Progress, train_loss: float, held_out_loss: float) -> None:
        evaluations = progress.nfe + progress.nfe_backward
        if self.bar is not None:
            self.bar.set_postfix(
                loss=f"{train_loss:.4g}",
                held_out=f"{held_out_loss:.4g}",
                evaluations=evaluations,
                refresh=False,
            )
            self.bar.update(1)
        elif progress.epoch % self.every == 0 or progress.epoch == self.epochs:
            print(
                f"epoch {progress.epoch}/{self.epochs}  loss {train_loss:.4g}  "
                f"held-out {held_out_loss:.4g}  evaluations {evaluations}  "
                f"{progress.wall_time:.1f} s",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
