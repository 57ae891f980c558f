"""Brownian motion for :func:`pyjlode.sdeint`: drawn from a seed, kept, or given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import ArgumentError, UnsupportedError
from .states import as_numbers


@dataclass(frozen=True)
class BrownianPath:
    """A path of Brownian motion at some times, such as those of a solve's steps.

    Attributes
    ----------
    t : torch.Tensor
        The times, float64, of shape ``(S,)``.
    W : torch.Tensor
        The motion, of shape ``(S, B, m)`` for a batch of ``B`` with ``m`` noises, zero at first.
    Z : torch.Tensor or None
        Another, independent motion. With it methods of order 1.5 say what the integral of ``W``
        over a step is, which does not follow from ``W`` at its ends.

    Notes
    -----
    It stands for torchsde's Brownian motion: ``path(ta, tb)`` is ``W(tb) - W(ta)``, at its own
    times. Solves with larger steps see the same path if their steps end at times of it.

    Examples
    --------
    >>> import torch
    >>> path = BrownianPath.sample(torch.linspace(0, 1, 5), (3, 2), seed=0)
    >>> path.W.shape, path(0.25, 1.0).shape
    (torch.Size([5, 3, 2]), torch.Size([3, 2]))
    """

    t: Tensor
    W: Tensor
    Z: Tensor | None = None

    def __post_init__(self) -> None:
        if self.t.dim() != 1 or len(self.t) < 2 or not bool((self.t.diff() > 0).all()):
            raise ArgumentError("A path's t must be two or more increasing times.")
        for W in (self.W, self.Z):
            if W is not None and (W.dim() != 3 or len(W) != len(self.t) or W.requires_grad):
                raise ArgumentError("A path's W and Z must have shape (S, B, m) and no gradient.")
        object.__setattr__(self, "t", self.t.detach().double())

    @classmethod
    def sample(
        cls,
        t: Tensor | Sequence[float],
        shape: tuple[int, int],
        *,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> BrownianPath:
        """A path drawn at random.

        Parameters
        ----------
        t : torch.Tensor or sequence of float
            The times, of shape ``(S,)``, increasing.
        shape : tuple of int
            ``(B, m)``, trajectories and noises of each.
        seed : int, optional
            The same seed gives the same path. Default: drawn from torch's generator.
        dtype : torch.dtype, optional
        """
        times = as_numbers("t", t).to(torch.float64)
        dW, dZ = draw(times, shape, seed=seed, dtype=dtype, second=True)
        assert dZ is not None
        return cls(times, _sums(dW), _sums(dZ))

    def __call__(self, ta: Tensor | float, tb: Tensor | float) -> Tensor:
        """``W(tb) - W(ta)``, of shape ``(B, m)``; both must be times of the path."""
        a, b = self._places(torch.tensor([float(ta), float(tb)], dtype=torch.float64)).tolist()
        return self.W[b] - self.W[a]

    def increments(self, t: Tensor, *, second: bool) -> tuple[Tensor, Tensor | None]:
        """Those of steps between the times ``t``, of shape ``(S - 1, B, m)``, of W and Z.

        Raises
        ------
        ArgumentError
            If a step does not end at a time of the path.
        UnsupportedError
            If Z is asked for and not there.
        """
        places = self._places(t)
        dW = self.W[places].diff(dim=0)
        if not second:
            return dW, None
        if self.Z is None:
            raise UnsupportedError(
                "This path has no Z, which the method needs; make it with BrownianPath.sample, or "
                "use EM, RKMil or EulerHeun."
            )
        # Over a step of length h, the integral of W from its start is h/2 (dW + dZ/√3). Those of
        # the path's own steps add up to those of longer ones.
        h = self.t.diff().to(self.W.dtype)[:, None, None]
        fine = h / 2 * (self.W.diff(dim=0) + self.Z.diff(dim=0) / math.sqrt(3))
        level = torch.cat([torch.zeros_like(fine[:1]), (fine + h * self.W[:-1]).cumsum(0)])
        H = t.double().diff().to(self.W.dtype)[:, None, None]
        over = level[places].diff(dim=0) - H * self.W[places[:-1]]
        return dW, math.sqrt(3) * (2 * over / H - dW)

    def _places(self, t: Tensor) -> Tensor:
        t = t.double()
        nearest = torch.searchsorted((self.t[1:] + self.t[:-1]) / 2, t)
        # A thousandth of a step: times may have been made in single precision.
        off = (self.t[nearest] - t).abs() > 1e-3 * float(self.t.diff().min())
        if bool(off.any()):
            raise ArgumentError(
                f"The Brownian path has no time {float(t[off][0]):.6g}, and between its times "
                "it is not known. Choose dt so that steps end at its times, or sample more of them."
            )
        return nearest


def draw(
    t: Tensor, shape: tuple[int, int], *, seed: int | None, dtype: torch.dtype, second: bool
) -> tuple[Tensor, Tensor | None]:
    """Random increments of W, and with ``second`` of Z, of shape ``(S - 1, *shape)``."""
    generator = torch.Generator().manual_seed(new_seed() if seed is None else check_seed(seed))
    scale = t.diff().sqrt().to(dtype)[:, None, None]
    size = (len(t) - 1, *shape)
    dW = torch.randn(size, generator=generator, dtype=dtype) * scale
    return dW, torch.randn(size, generator=generator, dtype=dtype) * scale if second else None


def new_seed() -> int:
    """A seed from torch's own generator, which ``torch.manual_seed`` rules."""
    return int(torch.randint(1, 2**62, ()).item())


def check_seed(seed: object) -> int:
    """The seed, if it is one."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**62:
        raise ArgumentError(f"seed must be a whole number, not below zero, not {seed!r}.")
    return seed


def called(
    bm: Callable[..., Tensor], t: Tensor, shape: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """The increments that another's Brownian motion, such as torchsde's, gives for each step."""
    values = [bm(a, b) for a, b in zip(t[:-1].to(dtype), t[1:].to(dtype), strict=True)]
    for x in values:
        if not isinstance(x, Tensor) or x.shape != shape or x.dtype != dtype:
            raise ArgumentError(f"bm(ta, tb) must give a tensor of {shape} and {dtype}.")
    return torch.stack(values).detach()


def path_of(t: Tensor, dW: Tensor, dZ: Tensor | None) -> BrownianPath:
    """The path of increments."""
    return BrownianPath(t, _sums(dW), None if dZ is None else _sums(dZ))


def _sums(increments: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(increments[:1]), increments.cumsum(0)])
