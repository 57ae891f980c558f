"""ODE-Net, RK-Net and ResNet on handwritten digits, after section 3 of the paper.

The same stem and head around six residual blocks (ResNet), or around one ODE block whose field is
such a block with the time as a channel. Its gradients come from the adjoint, solved backwards in
time (ODE-Net), or by reverse mode through the solver's steps (RK-Net). The digits are
scikit-learn's 1797 of 8 x 8 pixels, a fifth of them held out; ``--data`` takes a folder with the
four files of MNIST.

    pip install "pyjlode[examples]"
    python examples/digits.py                  # 400 steps of 32 digits
    python examples/digits.py --data ~/mnist   # the paper's data
    python examples/digits.py --small          # 2 steps of 8 digits

Not measured in full yet. The paper's figures on MNIST: ResNet 0.41 % with 0.60 M parameters, RK-Net
0.47 % and ODE-Net 0.42 % with 0.22 M; in memory ResNet grows with the blocks, RK-Net with the
steps, ODE-Net with neither.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import Run, figure, parameters, start, table, train
from torch import Tensor, nn

from pyjlode import NeuralODE

CHANNELS = 16


class Residual(nn.Module):
    """Two convolutions, each after a norm and a ReLU, beside the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.field = Field(time=False)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        out: Tensor = x + self.field(torch.zeros(()), x)
        return out


class Field(nn.Module):
    """What a residual block adds, and with ``time`` as one more channel an ODE's field."""

    def __init__(self, time: bool = True) -> None:
        super().__init__()
        self.time = time
        self.norms = nn.ModuleList(nn.GroupNorm(4, CHANNELS) for _ in range(2))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(CHANNELS + time, CHANNELS, 3, padding=1) for _ in range(2)
        )

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = torch.relu(norm(x))
            if self.time:
                channel = t.to(x.dtype).expand(len(x), 1, *x.shape[2:])
                x = torch.cat([x, channel], 1)
            x = convolution(x)
        return x


class Network(nn.Module):
    """A stem that halves the pixels, what is in the middle, and ten classes."""

    def __init__(self, middle: nn.Module, pixels: int) -> None:
        super().__init__()
        halvings = 1 if pixels < 16 else 2
        stem: list[nn.Module] = [nn.Conv2d(1, CHANNELS, 3, padding=1)]
        for _ in range(halvings):
            stem += [
                nn.GroupNorm(4, CHANNELS),
                nn.ReLU(),
                nn.Conv2d(CHANNELS, CHANNELS, 4, stride=2, padding=1),
            ]
        self.stem = nn.Sequential(*stem)
        self.middle = middle
        self.head = nn.Sequential(
            nn.GroupNorm(4, CHANNELS),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(CHANNELS, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.middle(self.stem(x))
        if isinstance(self.middle, NeuralODE):
            x = x[-1]
        out: Tensor = self.head(x)
        return out


def ode_block(engine: str, sensealg: str) -> NeuralODE:
    """From time 0 to 1."""
    return NeuralODE(Field(), [0.0, 1.0], rtol=1e-3, atol=1e-3, sensealg=sensealg, engine=engine)


def load(folder: Path | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images in [0, 1] and classes, for training and test."""
    if folder is not None:
        files = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
        parts = [idx(folder, f"{name}-ubyte") for name in files]
        images = [p[:, None].float() / 255 for p in parts[::2]]
        return images[0], parts[1].long(), images[1], parts[3].long()
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(digits.target)))
    images = (torch.from_numpy(digits.images).float()[order] / 16)[:, None]
    classes = torch.from_numpy(digits.target).long()[order]
    test = len(order) // 5
    return images[test:], classes[test:], images[:test], classes[:test]


def idx(folder: Path, name: str) -> Tensor:
    """An array in MNIST's format, compressed or not."""
    path = folder / name
    content = (
        path.read_bytes()
        if path.exists()
        else gzip.decompress(path.with_name(f"{name}.gz").read_bytes())
    )
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    return torch.from_numpy(values.reshape(shape).copy())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the three nets, print, draw."""
    run = start(__doc__, arguments, data="the four files of MNIST")
    images, classes, test, truth = load(run.data)
    batch, steps = (8, 2) if run.small else (32, 400)
    if run.small:
        test, truth = test[:16], truth[:16]
    middles: dict[str, nn.Module] = {
        "ResNet": nn.Sequential(*(Residual() for _ in range(6))),
        "RK-Net": ode_block(run.engine, "discrete"),
        "ODE-Net": ode_block(run.engine, "backsolve"),
    }
    rows, histories = [], {}
    for name, middle in middles.items():
        net = Network(middle, images.shape[-1])

        def loss(net: Network = net) -> Tensor:
            chosen = torch.randint(len(images), (batch,))
            return nn.functional.cross_entropy(net(images[chosen]), classes[chosen])

        def counts(middle: nn.Module = middle) -> dict[str, float]:
            if not isinstance(middle, NeuralODE):
                return {"nfe": 6, "nfe_backward": 6}
            return {"nfe": middle.nfe, "nfe_backward": middle.nfe_backward}

        history = histories[name] = train(
            run, f"digits-{name}", net, steps, loss, rate=5e-3, record=counts
        )
        with torch.no_grad():
            found = torch.cat([net(part).argmax(1) for part in test.split(batch)])
        last = history[-1]
        seconds = sum(h["time"] for h in history)
        rows.append(
            [
                *(name, 100 * (found != truth).double().mean().item(), parameters(net)),
                *(last["nfe"], last["nfe_backward"], seconds),
            ]
        )
    table(["net", "test error, %", "parameters", "evaluations", "backward", "s of training"], rows)
    draw(run, histories)


def draw(run: Run, histories: dict[str, list[dict[str, float]]]) -> None:
    """Losses and evaluations over the training."""
    made = figure(9, 3.2)
    left, right = made.subplots(1, 2)
    for name, history in histories.items():
        left.semilogy([h["loss"] for h in history], lw=0.8, label=name)
        right.plot([h["nfe"] for h in history], lw=0.8)
    left.set(xlabel="step", ylabel="loss")
    right.set(xlabel="step", ylabel="evaluations, forward")
    left.legend(frameon=False)
    run.save(made, "digits.png")


if __name__ == "__main__":
    main()
