"""Paths through data, as controls of :func:`pyjlode.cdeint`; names and formats are torchcde's.

Data are first made into coefficients, which are plain tensors that can be stored and batched, and
these into a path with a derivative.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .errors import ArgumentError, warn


def linear_interpolation_coeffs(
    x: Tensor, t: Tensor | None = None, rectilinear: int | None = None
) -> Tensor:
    """Coefficients for :class:`LinearInterpolation`: the data, with missing values filled in.

    Parameters
    ----------
    x : torch.Tensor
        Data of shape ``(..., length, channels)``; NaN is a missing value. Between two observations
        of a channel it is interpolated, before the first and after the last it is the nearest, and
        a channel without any is zero.
    t : torch.Tensor, optional
        The times, of shape ``(length,)`` and increasing. Default: 0, 1, 2, ...
    rectilinear : int, optional
        Which channel has the time. The path then goes from one observation to the next first in
        time and then in the other channels, so that it knows nothing of what comes later; it has
        ``2 * length - 1`` points, and ``t`` must be as long.

    Returns
    -------
    torch.Tensor
        Of shape ``(..., length, channels)``, or with ``rectilinear`` of ``2 * length - 1``.

    Raises
    ------
    ArgumentError
        If ``x`` or ``t`` is not as described.

    References
    ----------
    Kidger, Morrill, Foster and Lyons, Neural Controlled Differential Equations for Irregular Time
    Series, 2020; Morrill, Kidger, Yang and Lyons, Neural Controlled Differential Equations for
    Online Prediction Tasks, 2021 (rectilinear).

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [float("nan")], [4.0]])
    >>> linear_interpolation_coeffs(x, torch.tensor([0.0, 1.0, 4.0])).squeeze()
    tensor([0., 1., 4.])
    """
    if rectilinear is not None:
        x = _rectilinear(x, rectilinear)
    t = _check_path(x, t)
    missing = torch.isnan(x)
    return _fill(x, t, missing) if bool(missing.any()) else x


def natural_cubic_coeffs(x: Tensor, t: Tensor | None = None) -> Tensor:
    """Coefficients of the natural cubic spline through data, for :class:`CubicSpline`.

    Parameters
    ----------
    x : torch.Tensor
        Data of shape ``(..., length, channels)``; NaN is a missing value. The spline of a channel
        goes through what there is of it; before the first and after the last observation it goes
        through further points of the same value.
    t : torch.Tensor, optional
        The times, of shape ``(length,)`` and increasing. Default: 0, 1, 2, ...

    Returns
    -------
    torch.Tensor
        Of shape ``(..., length - 1, 4 * channels)``: of each piece the value at its start, and the
        derivatives b, 2c and 3d of ``a + b s + c s^2 + d s^3``.

    Raises
    ------
    ArgumentError
        If ``x`` or ``t`` is not as described.

    References
    ----------
    Kidger, Morrill, Foster and Lyons, Neural Controlled Differential Equations for Irregular Time
    Series, 2020.

    Examples
    --------
    >>> import torch
    >>> natural_cubic_coeffs(torch.rand(2, 7, 3)).shape
    torch.Size([2, 6, 12])
    """
    t = _check_path(x, t)
    paths = x.transpose(-1, -2)  # time last: each channel is a path of its own
    if not bool(torch.isnan(x).any()):
        pieces = _natural(paths, t)
    else:
        flat = [_natural_with_gaps(path, t) for path in paths.reshape(-1, paths.shape[-1])]
        shape = (*paths.shape[:-1], len(t) - 1)
        pieces = tuple(torch.stack(part).reshape(shape) for part in zip(*flat, strict=True))
    return torch.cat([part.transpose(-1, -2) for part in pieces], dim=-1)


def hermite_cubic_coefficients_with_backward_differences(
    x: Tensor, t: Tensor | None = None
) -> Tensor:
    """Coefficients of a cubic spline that looks one observation ahead, for :class:`CubicSpline`.

    Its derivative at each observation is the slope of the straight line from the one before, so
    that a piece rests on nothing later than its own end.

    Parameters
    ----------
    x : torch.Tensor
        Data of shape ``(..., length, channels)``; missing values are filled in as by
        :func:`linear_interpolation_coeffs`.
    t : torch.Tensor, optional
        The times, of shape ``(length,)`` and increasing. Default: 0, 1, 2, ...

    Returns
    -------
    torch.Tensor
        Of shape ``(..., length - 1, 4 * channels)``, as of :func:`natural_cubic_coeffs`.

    Raises
    ------
    ArgumentError
        If ``x`` or ``t`` is not as described.

    References
    ----------
    Morrill, Kidger, Yang and Lyons, Neural Controlled Differential Equations for Online Prediction
    Tasks, 2021.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0], [4.0]])
    >>> path = CubicSpline(hermite_cubic_coefficients_with_backward_differences(x))
    >>> path.derivative(torch.tensor(1.0)), path.derivative(torch.tensor(2.0))
    (tensor([1.]), tensor([3.]))
    """
    t = _check_path(x, t)
    x = linear_interpolation_coeffs(x, t)
    width = t.diff().unsqueeze(-1)
    slope = x.diff(dim=-2) / width
    before = torch.cat([slope[..., :1, :], slope[..., :-1, :]], dim=-2)
    # The piece's slope equals the derivative at its end, so that two of Hermite's terms cancel.
    gap = slope - before
    return torch.cat([x[..., :-1, :], before, 4 * gap / width, -3 * gap / width**2], dim=-1)


class _Path(nn.Module):
    """A path in pieces between the points of a grid."""

    _t: Tensor

    def __init__(self, t: Tensor, pieces: int) -> None:
        super().__init__()
        _check_times(t)
        if len(t) != pieces + 1:
            raise ArgumentError(f"t has {len(t)} times; these coefficients are of {pieces + 1}.")
        self.register_buffer("_t", t)

    @property
    def grid_points(self) -> Tensor:
        """The times of the data."""
        return self._t

    @property
    def interval(self) -> Tensor:
        """The first and the last of the times."""
        return torch.stack([self._t[0], self._t[-1]])

    def _place(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """The piece that ``t`` is in (at a point of the grid the one before), and how far."""
        t = torch.as_tensor(t, dtype=self._t.dtype)
        inner = self._t.detach()[1:-1]
        index = torch.bucketize(t.detach(), inner)
        return index, (t - self._t[index]).unsqueeze(-1)


class CubicSpline(_Path):
    """A cubic spline through data.

    Parameters
    ----------
    coeffs : torch.Tensor
        Of :func:`natural_cubic_coeffs` or
        :func:`hermite_cubic_coefficients_with_backward_differences`, which it is differentiable
        with respect to.
    t : torch.Tensor, optional
        The times that they were made with.

    Raises
    ------
    ArgumentError
        If ``coeffs`` or ``t`` is not as described.

    Examples
    --------
    >>> import torch
    >>> path = CubicSpline(natural_cubic_coeffs(torch.rand(2, 7, 3)))
    >>> path.evaluate(torch.tensor(0.4)).shape
    torch.Size([2, 3])
    """

    _a: Tensor
    _b: Tensor
    _two_c: Tensor
    _three_d: Tensor

    def __init__(self, coeffs: Tensor, t: Tensor | None = None) -> None:
        if coeffs.dim() < 2 or coeffs.shape[-1] % 4 or not coeffs.is_floating_point():
            raise ArgumentError("coeffs must be those of a cubic spline, (..., L - 1, 4 * C).")
        pieces = coeffs.shape[-2]
        super().__init__(torch.arange(pieces + 1, dtype=coeffs.dtype) if t is None else t, pieces)
        channels = coeffs.shape[-1] // 4
        for i, name in enumerate(("_a", "_b", "_two_c", "_three_d")):
            self.register_buffer(name, coeffs[..., i * channels : (i + 1) * channels])

    def evaluate(self, t: Tensor | float) -> Tensor:
        """The path at ``t``, of shape ``(..., channels)``; outside the data the end piece goes on.

        With times of shape ``(S,)``, of shape ``(..., S, channels)``.
        """
        index, s = self._place(t)
        a, b, two_c, three_d = (
            part[..., index, :] for part in (self._a, self._b, self._two_c, self._three_d)
        )
        return _cubic(a, b, two_c, three_d, s)

    def derivative(self, t: Tensor | float) -> Tensor:
        """Its derivative with respect to time, of the shape of :meth:`evaluate`'s result."""
        index, s = self._place(t)
        b, two_c, three_d = (part[..., index, :] for part in (self._b, self._two_c, self._three_d))
        return _slope(b, two_c, three_d, s)


class LinearInterpolation(_Path):
    """Straight lines through data.

    Parameters
    ----------
    coeffs : torch.Tensor
        Of :func:`linear_interpolation_coeffs`, which it is differentiable with respect to.
    t : torch.Tensor, optional
        The times that they were made with.

    Raises
    ------
    ArgumentError
        If ``coeffs`` or ``t`` is not as described.

    Notes
    -----
    The derivative jumps at the data; at such a time it is that of the piece before.

    Examples
    --------
    >>> import torch
    >>> path = LinearInterpolation(torch.tensor([[0.0], [1.0], [4.0]]))
    >>> path.evaluate(1.5), path.derivative(1.5)
    (tensor([2.5000]), tensor([3.]))
    """

    _coeffs: Tensor
    _derivs: Tensor

    def __init__(self, coeffs: Tensor, t: Tensor | None = None) -> None:
        if coeffs.dim() < 2 or not coeffs.is_floating_point():
            raise ArgumentError("coeffs must be those of a linear interpolation, (..., L, C).")
        length = coeffs.shape[-2]
        super().__init__(torch.arange(length, dtype=coeffs.dtype) if t is None else t, length - 1)
        self.register_buffer("_coeffs", coeffs)
        self.register_buffer("_derivs", coeffs.diff(dim=-2) / self._t.diff().unsqueeze(-1))

    def evaluate(self, t: Tensor | float) -> Tensor:
        """The path at ``t``, of shape ``(..., channels)``; outside the data the end line goes on.

        With times of shape ``(S,)``, of shape ``(..., S, channels)``.
        """
        index, s = self._place(t)
        return self._coeffs[..., index, :] + self._derivs[..., index, :] * s

    def derivative(self, t: Tensor | float) -> Tensor:
        """Its derivative with respect to time, of the shape of :meth:`evaluate`'s result."""
        index, _ = self._place(t)
        return self._derivs[..., index, :]


def _cubic(a: Tensor, b: Tensor, two_c: Tensor, three_d: Tensor, s: Tensor) -> Tensor:
    """A piece of a spline at a distance ``s`` from its start."""
    return a + (b + (two_c / 2 + three_d * s / 3) * s) * s


def _slope(b: Tensor, two_c: Tensor, three_d: Tensor, s: Tensor) -> Tensor:
    """Its derivative there."""
    return b + (two_c + three_d * s) * s


def _check_times(t: Tensor) -> None:
    if not isinstance(t, Tensor) or t.dim() != 1 or not t.is_floating_point() or len(t) < 2:
        raise ArgumentError("t must be a tensor of two or more real times, of one dimension.")
    if not bool((t.diff() > 0).all()):
        raise ArgumentError("t must be strictly increasing.")


def _check_path(x: Tensor, t: Tensor | None) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 2:
        raise ArgumentError("x must be a real tensor of shape (..., length, channels).")
    if t is None:
        t = torch.arange(x.shape[-2], dtype=x.dtype)
    _check_times(t)
    if len(t) != x.shape[-2]:
        raise ArgumentError(f"t has {len(t)} times, and x of shape {tuple(x.shape)} another count.")
    return t.to(x.dtype)


def _neighbours(missing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Places of the nearest observations before and after, and whether there is none.

    All have the shape of ``missing``, of which the second last dimension is time. At the ends both
    are the only one.
    """
    length = missing.shape[-2]
    place = torch.arange(length).unsqueeze(-1).expand(missing.shape)
    before = place.masked_fill(missing, -1).cummax(dim=-2).values
    after = place.masked_fill(missing, length).flip(-2).cummin(dim=-2).values.flip(-2)
    none = missing.all(dim=-2, keepdim=True).expand(missing.shape)
    first, last = before < 0, after >= length
    before, after = torch.where(first, after, before), torch.where(last, before, after)
    return before.masked_fill(none, 0), after.masked_fill(none, 0), none


def _fill(x: Tensor, t: Tensor, missing: Tensor) -> Tensor:
    before, after, none = _neighbours(missing)
    clean = torch.where(missing, 0.0, x)
    left, right = clean.gather(-2, before), clean.gather(-2, after)
    width = t[after] - t[before]
    part = (t.unsqueeze(-1) - t[before]) / torch.where(width > 0, width, 1.0)
    filled = torch.where(width > 0, left + part * (right - left), left)
    return torch.where(missing, torch.where(none, 0.0, filled), x)


def _rectilinear(x: Tensor, channel: int) -> Tensor:
    if not 0 <= channel < x.shape[-1]:
        raise ArgumentError(f"rectilinear must be a channel of x, below {x.shape[-1]}.")
    if bool(torch.isnan(x[..., channel]).any()):
        raise ArgumentError("rectilinear is the channel of time, which must have no gaps.")
    missing = torch.isnan(x)
    if bool(missing[..., 0, :].any()):
        warn(
            "x begins with missing values, which are filled in from later ones, so the path knows "
            "of what comes later; fill them in yourself, with the channel's mean for instance."
        )
    before, _, none = _neighbours(missing)
    held = torch.where(none, x, torch.where(missing, 0.0, x).gather(-2, before))
    twice = held.repeat_interleave(2, dim=-2)
    moved, rest = twice[..., 1:, channel : channel + 1], twice[..., :-1, :]
    return torch.cat([rest[..., :channel], moved, rest[..., channel + 1 :]], dim=-1)


def _natural(x: Tensor, t: Tensor) -> tuple[Tensor, ...]:
    """a, b, 2c and 3d of each piece; ``x`` has time last."""
    width = t.diff()
    slope = x.diff(dim=-1) / width
    if len(t) == 2:
        return x[..., :1], slope, torch.zeros_like(slope), torch.zeros_like(slope)
    inverse = 1 / width
    end = torch.zeros(1, dtype=x.dtype)
    # The second derivative is continuous inside and zero at both ends.
    diagonal = 2 * (torch.cat([inverse, end]) + torch.cat([end, inverse]))
    weighted, none = 3 * slope * inverse, torch.zeros_like(slope[..., :1])
    right = torch.cat([weighted, none], -1) + torch.cat([none, weighted], -1)
    d = _tridiagonal(diagonal, inverse, right)
    first, last = d[..., :-1], d[..., 1:]
    two_c = (6 * slope - 4 * first - 2 * last) * inverse
    three_d = 3 * (first + last - 2 * slope) * inverse**2
    return x[..., :-1], first, two_c, three_d


def _tridiagonal(diagonal: Tensor, beside: Tensor, right: Tensor) -> Tensor:
    """Solve with a symmetric, diagonally dominant matrix, by elimination without pivots."""
    pivots, sides = [diagonal[0]], [right[..., 0]]
    for i in range(1, len(diagonal)):
        factor = beside[i - 1] / pivots[-1]
        pivots.append(diagonal[i] - factor * beside[i - 1])
        sides.append(right[..., i] - factor * sides[-1])
    found = [sides[-1] / pivots[-1]]
    for i in range(len(diagonal) - 2, -1, -1):
        found.append((sides[i] - beside[i] * found[-1]) / pivots[i])
    return torch.stack(found[::-1], dim=-1)


def _natural_with_gaps(x: Tensor, t: Tensor) -> tuple[Tensor, ...]:
    """As :func:`_natural` of one path: the spline through its observations, cut at all times."""
    places = torch.isfinite(x).nonzero().squeeze(-1)
    if len(places) == 0:
        nothing = torch.zeros(len(t) - 1, dtype=x.dtype)
        return nothing, nothing, nothing, nothing
    first, last = int(places[0]), int(places[-1])
    x = torch.cat([x[first].repeat(first), x[first : last + 1], x[last].repeat(len(t) - 1 - last)])
    known = torch.isfinite(x).nonzero().squeeze(-1)
    piece = torch.searchsorted(known[1:-1], torch.arange(len(t) - 1), right=True)
    a, b, two_c, three_d = (part[piece] for part in _natural(x[known], t[known]))
    s = t[:-1] - t[known][piece]
    return (
        _cubic(a, b, two_c, three_d, s),
        _slope(b, two_c, three_d, s),
        two_c + 2 * three_d * s,
        three_d,
    )
