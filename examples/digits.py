"""ODE-Net, RK-Net and ResNet on handwritten digits, after section 3 of the paper.

The same stem and head around six residual blocks (ResNet), or around one ODE block whose field is
such a block with the time as a channel. Its gradients come from the adjoint, solved backwards in
time (ODE-Net), or by reverse mode through the solver's steps (RK-Net). The digits are
scikit-learn's 1797 of 8 x 8 pixels, a fifth of them held out; ``--data`` takes a folder with the
four files of MNIST.

The memory of a gradient is measured with 4 to 256 residual blocks, or as many steps of Euler's
method through one, on 64 images of 16 channels and 14 x 14 pixels.

    pip install "pyjlode[examples]"
    python examples/digits.py                  # 500 steps of 32 digits
    python examples/digits.py --data ~/mnist   # the paper's data
    python examples/digits.py --small          # 2 steps of 8 digits

The paper's figures on MNIST: MLP 1.60 % with 0.24 M parameters, ResNet 0.41 % with 0.60 M, RK-Net
0.47 % and ODE-Net 0.42 % with 0.22 M; in memory ResNet grows with the blocks, RK-Net with the
steps, ODE-Net with neither.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from common import Run, figure, mlp, parameters, start, table, train
from torch import Tensor, nn

from pyjlode import BacksolveAdjoint, DiscreteAdjoint, NeuralODE, SensitivityAlgorithm

CHANNELS = 16
DEPTHS = (4, 16, 64, 256)
PAPER = {"MLP": 1.60, "ResNet": 0.41, "RK-Net": 0.47, "ODE-Net": 0.42}
BACKWARD: dict[str, SensitivityAlgorithm] = {
    "RK-Net": DiscreteAdjoint(),
    "RK-Net, 4 checkpoints": DiscreteAdjoint(checkpoints=4),
    "ODE-Net": BacksolveAdjoint(),
}


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


def networks(pixels: int, engine: str) -> dict[str, nn.Module]:
    """Those of the paper's table."""
    nets: dict[str, nn.Module] = {
        "MLP": nn.Sequential(nn.Flatten(), mlp(pixels**2, 300, 10, activation=nn.ReLU)),
        "ResNet": Network(nn.Sequential(*(Residual() for _ in range(6))), pixels),
    }
    for name in ("RK-Net", "ODE-Net"):
        block = NeuralODE(
            Field(), [0.0, 1.0], rtol=1e-3, atol=1e-3, sensealg=BACKWARD[name], engine=engine
        )
        nets[name] = Network(block, pixels)
    return nets


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


def peak() -> float:
    """The largest resident size of this process so far, in MB (2^20 bytes)."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage's, which on Linux begins with the peak of the process that started this.
        (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))
        return int(kilobytes) / 1024
    if sys.platform == "win32":
        return float("nan")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def memory(name: str, engine: str, depths: Sequence[int]) -> list[float]:
    """Peak memory in MB of gradients through so many blocks or steps, beyond one of two.

    A process's peak never falls: the depths increase, and each name has a process of its own.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    field, x = Field(), torch.randn(64, CHANNELS, 14, 14, requires_grad=True)
    found: list[float] = []
    for depth in (2, *depths):
        if name == "ResNet":
            nn.Sequential(*(Residual() for _ in range(depth)))(x).sum().backward()
        else:
            block = NeuralODE(
                field, [0.0, 1.0], method="euler", options={"step_size": 1 / depth},
                sensealg=BACKWARD[name], engine=engine,
            )  # fmt: skip
            block(x)[-1].sum().backward()
        found.append(peak())
    return [mb - found[0] for mb in found[1:]]


def memories(run: Run, depths: Sequence[int]) -> dict[str, list[float]]:
    """Of each net at each depth."""
    found = {}
    for name in ("ResNet", *BACKWARD):
        if run.engine == "torch" and "checkpoints" in name:
            continue  # Julia's only
        if run.small:
            found[name] = memory(name, run.engine, depths)
            continue
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found[name] = pool.submit(memory, name, run.engine, depths).result()
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the nets, measure memory, print, draw."""
    run = start(__doc__, arguments, data="the four files of MNIST")
    images, classes, test, truth = load(run.data)
    batch, steps = (8, 2) if run.small else (32, 500)
    if run.small:
        test, truth = test[:16], truth[:16]
    rows, histories = [], {}
    for name, net in networks(images.shape[-1], run.engine).items():
        middle = getattr(net, "middle", None)

        def loss(net: nn.Module = net) -> Tensor:
            chosen = torch.randint(len(images), (batch,))
            return nn.functional.cross_entropy(net(images[chosen]), classes[chosen])

        def counts(middle: nn.Module | None = middle) -> dict[str, float]:
            if isinstance(middle, NeuralODE):
                return {"nfe": middle.nfe, "nfe_backward": middle.nfe_backward}
            return {} if middle is None else {"nfe": 6, "nfe_backward": 6}

        history = train(run, f"digits-{name}", net, steps, loss, rate=5e-3, record=counts)
        histories[name] = history
        with torch.no_grad():
            found = torch.cat([net(part).argmax(1) for part in test.split(batch)])
        wrong = 100 * (found != truth).double().mean().item()
        last, seconds = history[-1], sum(h["time"] for h in history)
        evaluations = [last.get(key, "") for key in ("nfe", "nfe_backward")]
        rows.append([name, wrong, PAPER[name], parameters(net), *evaluations, seconds])
    table(
        [
            "net", "test error, %", "paper's, %", "parameters", "evaluations", "backward",
            "s of training",
        ],
        rows,
    )  # fmt: skip
    depths = DEPTHS[:2] if run.small else DEPTHS
    measured = memories(run, depths)
    table(
        ["MB of a gradient, blocks or steps", *map(str, depths)],
        [[name, *mb] for name, mb in measured.items()],
    )
    draw(run, histories, depths, measured)


def draw(
    run: Run,
    histories: dict[str, list[dict[str, float]]],
    depths: Sequence[int],
    measured: dict[str, list[float]],
) -> None:
    """Losses and evaluations over the training, and memory."""
    made = figure(13, 3.4)
    left, middle, right = made.subplots(1, 3)
    for i, (name, history) in enumerate(histories.items()):
        left.semilogy([h["loss"] for h in history], lw=0.6, color=f"C{i}", label=name)
        if "nfe" in history[0]:
            middle.plot([h["nfe"] for h in history], lw=0.8, color=f"C{i}", label=name)
    colors = {name: f"C{i}" for i, name in enumerate([*histories, "RK-Net, 4 checkpoints"])}
    for name, mb in measured.items():
        right.plot(depths, mb, "o-", color=colors[name], label=name)
    left.set(xlabel="step", ylabel="loss")
    middle.set(xlabel="step", ylabel="evaluations, forward", ylim=(0, None))
    right.set(xlabel="blocks, or steps", ylabel="MB of a gradient", xscale="log")
    for panel in (left, right):
        panel.legend(frameon=False, fontsize=8)
    run.save(made, "digits.png")


if __name__ == "__main__":
    main()
