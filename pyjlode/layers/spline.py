"""``SplineLayer``: a curve of time, learnt as its values at equal distances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .solved import time_span

Interpolation = Literal["constant", "linear", "quadratic", "cubic"]


class SplineLayer(nn.Module):
    """A function of time that interpolates learnt values at multiples of a time step.

    Parameters
    ----------
    t : sequence of float
        Start and end of the time span.
    step : float
        Distance between the points.
    interpolation : {"constant", "linear", "quadratic", "cubic"}, optional
        As DataInterpolations.jl's ``ConstantInterpolation`` (the point before),
        ``LinearInterpolation``, ``QuadraticSpline`` (level at the start) and ``CubicSpline``
        (natural).
    points : torch.Tensor, optional
        Initial values, of shape ``(N, *channels)`` with ``N`` points from start to end; zeros by
        default.

    Raises
    ------
    ValueError
        If there are less than two points, or others than given, or the interpolation is unknown.

    References
    ----------
    DiffEqFlux.jl's ``SplineLayer``.

    Examples
    --------
    >>> import torch
    >>> layer = SplineLayer([0.0, 1.0], 0.5, points=torch.tensor([0.0, 1.0, 0.0]))
    >>> layer(torch.tensor([0.25, 0.5, 0.75])).detach()
    tensor([0.5000, 1.0000, 0.5000])
    """

    slopes: Tensor

    def __init__(
        self,
        t: Sequence[float],
        step: float,
        interpolation: Interpolation = "linear",
        points: Tensor | None = None,
    ) -> None:
        super().__init__()
        start, end = time_span(t).tolist()
        if interpolation not in get_args(Interpolation):
            raise ValueError(f"interpolation must be one of {', '.join(get_args(Interpolation))}.")
        if not 0 < step <= end - start:
            raise ValueError(f"step must be above zero and within the time span, not {step}.")
        number = int((end - start) / step * (1 + 1e-9)) + 1
        values = torch.zeros(number) if points is None else points
        if len(values) != number:
            raise ValueError(f"There are {number} points from start to end, not {len(values)}.")
        self.start = start
        self.step = step
        self.interpolation = interpolation
        self.points = nn.Parameter(values.detach().clone())
        if interpolation in _SLOPES:
            # From points to the curve's derivatives (quadratic) or second derivatives (cubic)
            # there, in units of the step.
            slopes = _SLOPES[interpolation](number).to(values.dtype)
            self.register_buffer("slopes", slopes, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Values at times ``t`` of any shape, ``(*t.shape, *channels)``.

        Outside of the time span the first and the last piece go on.
        """
        points = self.points.flatten(1) if self.points.dim() > 1 else self.points[:, None]
        place = (t.to(points.dtype) - self.start) / self.step
        return self._values(points, place).reshape((*t.shape, *self.points.shape[1:]))

    def _values(self, points: Tensor, place: Tensor) -> Tensor:
        """At places in units of the step, ``(*place.shape, channels)``."""
        before = place.detach().floor()
        if self.interpolation == "constant":
            return points[before.clamp(0, len(points) - 1).long()]
        piece = before.clamp(0, len(points) - 2).long()
        s = (place - piece)[..., None]
        left, right = points[piece], points[piece + 1]
        if self.interpolation == "linear":
            return left + s * (right - left)
        slopes = self.slopes @ points
        curve = _quadratic if self.interpolation == "quadratic" else _cubic
        return curve(s, left, right, slopes[piece], slopes[piece + 1])

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"start={self.start}, step={self.step}, interpolation={self.interpolation}"


def _quadratic(s: Tensor, a: Tensor, _: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """From ``a`` with derivatives ``p`` and ``q`` at both ends."""
    return a + s * p + s**2 / 2 * (q - p)


def _cubic(s: Tensor, a: Tensor, b: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """From ``a`` to ``b`` with second derivatives ``p`` and ``q`` at both ends."""
    r = 1 - s
    return r * a + s * b + ((r**3 - r) * p + (s**3 - s) * q) / 6


def _quadratic_slopes(number: int) -> Tensor:
    """Derivatives at the points: the first is 0, and the sum at a piece's ends twice its rise."""
    rows = [torch.zeros(number, dtype=torch.float64)]
    rise = torch.diff(torch.eye(number, dtype=torch.float64), dim=0)
    for i in range(number - 1):
        rows.append(2 * rise[i] - rows[-1])
    return torch.stack(rows)


def _cubic_slopes(number: int) -> Tensor:
    """Second derivatives at the points of the natural spline: 0 at the ends, continuous slopes."""
    identity = torch.eye(number, dtype=torch.float64)
    bends = torch.zeros_like(identity)
    if number > 2:
        system = 4 * identity[1:-1, 1:-1] + torch.diag(identity.new_ones(number - 3), 1)
        system = system + torch.diag(identity.new_ones(number - 3), -1)
        bends[1:-1] = torch.linalg.solve(system, 6 * torch.diff(identity, n=2, dim=0))
    return bends


_SLOPES: dict[str, Callable[[int], Tensor]] = {
    "quadratic": _quadratic_slopes,
    "cubic": _cubic_slopes,
}
