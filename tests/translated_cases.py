"""Functions of a time and a state whose last dimension is 3, for single calls, not for solves."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Func = Callable[[Tensor, Tensor], Tensor]

_PICK = torch.tensor([2, 0, 1, 2])
_PICK32 = torch.tensor([[1, 2], [-1, 0]], dtype=torch.int32)
_ORDER = torch.tensor([2, 0, 1])
_MASK = torch.tensor([True, False, True])
_LAST = torch.tensor(-1)
_EDGES = torch.tensor([-0.5, 0.3, 0.5, 0.5, 0.9], dtype=torch.float32)
_RAGGED = torch.tensor([1, 0, 3])


def _edges(y: Tensor) -> Tensor:
    return _EDGES.to(y.dtype)


def _picked(y: Tensor) -> Tensor:
    """Indices of the last dimension, in the state's shape, that the state decides."""
    return (y * 10).long() % 3


INDEXING: dict[str, Func] = {
    "index": lambda t, y: y[..., _PICK].cumsum(-1)[..., :3],
    "index_two": lambda t, y: (y.unsqueeze(-1) * y.unsqueeze(-2))[..., _PICK32, _PICK32].flatten(
        -2
    )[..., :3],
    "index_apart": lambda t, y: (
        (y.reshape(-1, 1, 3) * y.reshape(-1, 3, 1))
        .unsqueeze(0)[_LAST.reshape(1), :, :, _ORDER[:1]]
        .sum()
        * y
    ),
    "index_broadcast": lambda t, y: (
        torch.outer(torch.arange(3.0).to(y), torch.ones(3).to(y))[_ORDER[:, None], _ORDER]
        @ y.unsqueeze(-1).squeeze(-1).reshape(-1, 3).T.reshape(3, -1).sum(1)
        + y
    ),
    "index_computed": lambda t, y: y.flatten()[_picked(y)] + y,
    "index_negative": lambda t, y: y[..., torch.tensor([-1, -3, 1])],
    "index_number": lambda t, y: y * y[..., _LAST, None],
    "index_new_axis": lambda t, y: y[..., None, _ORDER].squeeze(-2),
    "index_empty": lambda t, y: torch.cat([y[..., torch.tensor([], dtype=torch.long)], y], -1),
    "mask": lambda t, y: torch.cat([y[..., _MASK], y[..., 1:2]], -1),
    "masked_select": lambda t, y: y * y.flatten()[:3].masked_select(_MASK).sum(),
    "nonzero": lambda t, y: y + y[..., _MASK.nonzero()[:, 0]].sum(),
    "index_select": lambda t, y: y.index_select(-1, _PICK)[..., 1:],
    "embedding": lambda t, y: (
        F.embedding(_picked(y), y.flatten()[:3].reshape(3, 1)).squeeze(-1) * y
    ),
    "embedding_padding": lambda t, y: (
        y + F.embedding(_PICK[:3], y.flatten()[:3].unsqueeze(-1), padding_idx=2).squeeze(-1)
    ),
    "gather": lambda t, y: y.gather(-1, _picked(y)),
    "gather_part": lambda t, y: y + y.gather(-1, _picked(y)[..., :1]),
    "take": lambda t, y: y.take(torch.tensor([[2, 0, -1]])).squeeze(0) * y,
    "take_along_dim": lambda t, y: y.take_along_dim(y.argsort(-1, descending=True), -1),
    "scatter": lambda t, y: torch.zeros_like(y).scatter(-1, _ORDER.expand(y.shape), y * t),
    "scatter_value": lambda t, y: y.scatter(-1, _ORDER[:1].expand(*y.shape[:-1], 1), 0.7),
    "scatter_add": lambda t, y: y.scatter_add(-1, _picked(y), y * y),
    "scatter_add_part": lambda t, y: y.scatter_add(-1, _picked(y)[..., :2], (y * y)[..., 1:]),
    "scatter_sum": lambda t, y: y.scatter_reduce(-1, _picked(y), y + 1, "sum"),
    "scatter_mean": lambda t, y: y.scatter_reduce(-1, _picked(y), y + 1, "mean"),
    "scatter_amax": lambda t, y: y.scatter_reduce(-1, _picked(y), y + 0.2, "amax"),
    "scatter_amin_alone": lambda t, y: y.scatter_reduce(
        -1, _picked(y), y + 0.2, "amin", include_self=False
    ),
    "scatter_prod": lambda t, y: y.scatter_reduce(-1, _picked(y), y + 1, "prod"),
    "scatter_mean_alone": lambda t, y: y.scatter_reduce(
        -1, _picked(y), y + 1, "mean", include_self=False
    ),
    "index_put": lambda t, y: (y * t).index_put(_front(y), y[..., :1].sum()),
    "index_put_add": lambda t, y: (
        torch.zeros_like(y)
        .flatten()
        .index_put((_picked(y).flatten(),), y.flatten(), accumulate=True)
        .reshape(y.shape)
    ),
    "index_add": lambda t, y: y.index_add(-1, _PICK[:3], y * 2, alpha=0.5),
    "index_copy": lambda t, y: y.index_copy(-1, _ORDER, y * t),
    "index_fill": lambda t, y: y.index_fill(-1, _PICK[:1], 0.5),
    "put": lambda t, y: (y * 2).put(_PICK[:2], y.flatten()[:2]),
    "put_number": lambda t, y: _put_number(t, y),
    "put_mask": lambda t, y: _put_mask(t, y),
    "masked_fill": lambda t, y: y.masked_fill(y > 0.5, 0.1),
    "masked_scatter": lambda t, y: y.masked_scatter(y > 0.5, y * 3),
    "one_hot": lambda t, y: y * F.one_hot(_picked(y), 3).sum(-2),
    "roll": lambda t, y: y.roll(1, -1) + y.roll(2),
    "tile": lambda t, y: y[..., :1].tile(3),
    "repeat_interleave": lambda t, y: y[..., :1].repeat_interleave(3, -1),
    "repeat_interleave_by": lambda t, y: y.repeat_interleave(_RAGGED, -1, output_size=4)[..., 1:],
    "tril": lambda t, y: (y.unsqueeze(-1) * y.unsqueeze(-2)).tril().sum(-1),
    "triu": lambda t, y: (y.unsqueeze(-1) * y.unsqueeze(-2)).triu(1).sum(-1),
    "arange": lambda t, y: y * torch.arange(3) + torch.arange(3, dtype=torch.int32) // 2,
    "unfold": lambda t, y: y + y.unfold(-1, 2, 1).sum((-1, -2)).unsqueeze(-1),
    "searchsorted": lambda t, y: y * torch.searchsorted(_edges(y), y.contiguous()),
    "searchsorted_right": lambda t, y: (
        y * torch.searchsorted(_edges(y), y.contiguous(), side="right")
    ),
    "searchsorted_rows": lambda t, y: (
        y * torch.searchsorted(y.sort(-1)[0].detach(), y.detach(), right=True)
    ),
    "searchsorted_nan": lambda t, y: y * torch.searchsorted(_edges(y), y * torch.nan),
    "bucketize": lambda t, y: y * torch.bucketize(y, _edges(y), out_int32=True),
    "linear_path": lambda t, y: y * _linear(t, y),
    "hermite_path": lambda t, y: y * _hermite(t, y),
    "floor_division": lambda t, y: y * (((y * 20).long() - 8) // 3 + ((y * 20).int() - 8) % 3),
    "integers": lambda t, y: (
        y * ((y * 9).long() & 5 | 2) + ((y * 9).long() ^ 3) - (~_picked(y) << 1)
    ),
    "integer_division": lambda t, y: (
        y
        * (torch.div((y * 20).long() - 8, 3, rounding_mode="trunc") + torch.gcd(_picked(y), _ORDER))
    ),
    "truncation": lambda t, y: y * (y * 9 - 4).long() + (y * 9 - 4).int().to(y.dtype),
    "integer_power": lambda t, y: y * _picked(y) ** 2 - _picked(y).abs().neg(),
    "any_all": lambda t, y: y * (y > 0.5).any(-1, keepdim=True) + (y > 0.1).all() * y + y.any(),
    "count_nonzero": lambda t, y: y * ((y > 0.5) * y).count_nonzero(),
    "logic_of_numbers": lambda t, y: y * torch.logical_xor(_picked(y), y > 0.4) * ~(y > 0.6),
    "mixed_precision": lambda t, y: y * _EDGES[:3] + torch.linspace(0, 1, 3).to(y.dtype),
    "cond": lambda t, y: torch.cond(
        y.sum() > t, lambda y, t: (y * t).sin(), lambda y, t: torch.sqrt(y * 0) * t, (y, t)
    ),
}


def _front(y: Tensor) -> tuple[Tensor, ...]:
    """An index of the last dimension, by tensors for those before it."""
    shape = y.shape[:-1]
    rows = [torch.arange(n).reshape(-1, *[1] * (len(shape) - d)) for d, n in enumerate(shape)]
    return (*rows, _PICK[:2])


def _put_number(t: Tensor, y: Tensor) -> Tensor:
    z = y.clone()
    z[..., y.flatten()[:3].argmax()] = t
    z[..., _LAST] *= 2
    return z


def _put_mask(t: Tensor, y: Tensor) -> Tensor:
    z = y.clone()
    z[z > 0.6] = t
    z[..., _MASK] = y[..., :2] * 3
    return z


def _bracket(t: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    times = torch.tensor([0.0, 0.2, 0.5, 1.0]).to(y.dtype)
    values = torch.stack([y.flatten()[:3].sin(), y.flatten()[:3].cos()]).repeat(2, 1)
    i = torch.searchsorted(times, t.detach()).clamp(1, 3)
    step = times[i] - times[i - 1]
    return (t - times[i - 1]) / step, step, values, i


def _linear(t: Tensor, y: Tensor) -> Tensor:
    s, _, values, i = _bracket(t, y)
    return values[i - 1] * (1 - s) + values[i] * s


def _hermite(t: Tensor, y: Tensor) -> Tensor:
    s, step, values, i = _bracket(t, y)
    slopes = values.roll(1, 0)
    return (
        values[i - 1] * (2 * s**3 - 3 * s**2 + 1)
        + values[i] * (3 * s**2 - 2 * s**3)
        + step * (slopes[i - 1] * (s**3 - 2 * s**2 + s) + slopes[i] * (s**3 - s**2))
    )


ORDERING: dict[str, Func] = {
    "max": lambda t, y: y * y.max(-1, keepdim=True)[0] + y.max(),
    "max_index": lambda t, y: y * y.max(-1, keepdim=True)[1],
    "min": lambda t, y: y * y.min(-1)[0].unsqueeze(-1) + y.min(),
    "max_of_two": lambda t, y: torch.max(y, 1 - y) + torch.fmax(y, 1 - y) - torch.fmin(y, t),
    "amax_tied": lambda t, y: y * torch.cat([y, y], -1).amax(-1, keepdim=True),
    "max_tied": lambda t, y: (
        y * torch.cat([y, y], -1).max() + torch.cat([y, y], -1).max(-1)[0][..., None]
    ),
    "aminmax": lambda t, y: y * torch.aminmax(y, dim=-1, keepdim=True)[0] + y.aminmax()[1],
    "argmax": lambda t, y: y * y.argmax(-1, keepdim=True) + y.argmax() * y,
    "argmin": lambda t, y: y * y.argmin(-1).unsqueeze(-1) + y.argmin() * y,
    "argmax_first_axis": lambda t, y: y * y.reshape(-1, 3).argmax(0) * y.argmax(0).sum(),
    "softmax_first": lambda t, y: y.softmax(0) + y.log_softmax(0),
    "logsumexp": lambda t, y: y - y.logsumexp(-1, keepdim=True) - y.flatten().logsumexp(0),
    "norm_1": lambda t, y: y / torch.linalg.vector_norm(y, 1, dim=-1, keepdim=True),
    "norm_3": lambda t, y: y / y.norm(3, dim=-1, keepdim=True),
    "norm_inf": lambda t, y: y / torch.linalg.vector_norm(y, torch.inf, dim=-1, keepdim=True),
    "norm_minus_inf": lambda t, y: y * torch.linalg.vector_norm(y, -torch.inf),
    "norm_0": lambda t, y: y * torch.linalg.vector_norm(y, 0),
    "normalize": lambda t, y: F.normalize(y, dim=-1),
    "cosine_similarity": lambda t, y: y * F.cosine_similarity(y, 2 * y + 1, dim=-1).unsqueeze(-1),
    "cumsum": lambda t, y: y.cumsum(-1) + y.cumsum(0),
    "cumprod": lambda t, y: y.cumprod(-1) + y.cumprod(0),
    "cumprod_of_zero": lambda t, y: (y * torch.tensor([1.0, 0.0, 1.0]).to(y)).cumprod(-1),
    "logcumsumexp": lambda t, y: y.logcumsumexp(-1),
    "cummax": lambda t, y: y.cummax(-1)[0] + y.cummin(0)[0],
    "sort": lambda t, y: y.sort(-1)[0] * t + y.sort(0, descending=True)[0],
    "sort_stable": lambda t, y: y * torch.sort((y * 2).floor(), dim=-1, stable=True)[1],
    "sort_stable_down": lambda t, y: (
        y * torch.sort((y * 2).floor(), dim=-1, stable=True, descending=True)[1]
    ),
    "argsort": lambda t, y: y * y.argsort(-1),
    "topk": lambda t, y: (
        y * y.topk(2, -1)[0].sum(-1, keepdim=True)
        + y.topk(2, -1, largest=False)[1].sum(-1, keepdim=True)
    ),
    "kthvalue": lambda t, y: y * y.kthvalue(2, -1, keepdim=True)[0],
    "median": lambda t, y: y * y.median(-1, keepdim=True)[0] + y.median(),
    "quantile": lambda t, y: y * y.quantile(0.3, dim=-1, keepdim=True),
    "std": lambda t, y: y.std(-1, keepdim=True) * y + y.var(),
    "std_mean": lambda t, y: y + sum(torch.std_mean(y, dim=-1, keepdim=True)),
    "prod": lambda t, y: y * y.prod(-1, keepdim=True) + y.prod(),
    "prod_of_zero": lambda t, y: y + (y * torch.tensor([1.0, 0.0, 1.0]).to(y)).prod(-1, True),
    "clamp_tensors": lambda t, y: y.clamp(0.5 - y / 2, 0.6 + y / 3) + y.clamp(min=t.detach()),
    "nan_to_num": lambda t, y: torch.nan_to_num(y / (y > 0.5), 2.0, 3.0, -1.0) + y,
    "lerp": lambda t, y: torch.lerp(y, y * 2, 0.3) + torch.lerp(y, y.sin(), y),
    "addcmul": lambda t, y: torch.addcmul(y, y, y.sin(), value=0.5),
    "addcdiv": lambda t, y: torch.addcdiv(y, y, y + 3, value=0.5),
    "frac": lambda t, y: (y * 7).frac(),
    "sinc": lambda t, y: y.sinc() + (y * 0).sinc(),
    "xlogy": lambda t, y: torch.xlogy(y, y + 3) + torch.special.xlog1py(y, y),
    "entr": lambda t, y: torch.special.entr(y),
    "logaddexp": lambda t, y: torch.logaddexp(y, 2 * y) + torch.logaddexp2(y, t),
    "heaviside": lambda t, y: y * torch.heaviside((y - 0.5).detach(), y.detach()),
    "copysign": lambda t, y: torch.copysign(y, 0.5 - y),
    "signbit": lambda t, y: y * torch.signbit(y - 0.5),
    "sign": lambda t, y: y * torch.sign(y - 0.5) + torch.sgn(y - 0.5),
    "erfinv": lambda t, y: torch.erfinv(y - 0.5) + torch.erfinv(y / 1.25),
    "lgamma": lambda t, y: torch.lgamma(y * 5) + torch.lgamma(y - 1.7),
    "digamma": lambda t, y: y * torch.digamma(y * 5).detach() + torch.digamma(y - 1.3).detach(),
    "ndtr": lambda t, y: torch.special.ndtr(y * 3) + torch.special.expit(y),
    "logit": lambda t, y: torch.logit(y / 2) + torch.logit(y, eps=0.3),
    "floor_divide": lambda t, y: y * torch.div(y - 0.6, 0.1, rounding_mode="floor").detach(),
    "remainder": lambda t, y: (y - 0.6) % 0.1 + torch.fmod(y - 0.6, 0.1) + y % -0.3,
    "trapezoid": lambda t, y: y * torch.trapezoid(y, dim=-1).unsqueeze(-1),
    "diff": lambda t, y: F.pad(y.diff(dim=-1), (0, 1)),
    "cross": lambda t, y: torch.linalg.cross(y, y.roll(1, -1) * 2),
    "cross_entropy": lambda t, y: y * F.cross_entropy(y.reshape(-1, 3)[:1], _PICK[:1]),
    "huber": lambda t, y: y * F.huber_loss(y, 2 * y, delta=0.6),
    "glu": lambda t, y: F.glu(torch.cat([y, 2 * y], -1), -1),
    "hardshrink": lambda t, y: F.hardshrink(y, 0.6) + F.softshrink(y, 0.4),
    "hardswish": lambda t, y: F.hardswish(y) + F.softsign(y) + F.tanhshrink(y) + F.relu6(y * 9),
    "threshold": lambda t, y: F.threshold(y, 0.6, 0.2) + F.celu(y - 0.7),
    "nansum": lambda t, y: y * y.nansum() + y.nanmean(),
}
