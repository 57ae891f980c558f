"""Dynamics that use each traced operation: ``name -> (function, tensors that it closes over)``."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Func = Callable[[Tensor, Tensor], Tensor]

# Of a state y whose last dimension is 3 and a scalar time t; every one is smooth along the
# solutions that the tests compute, so that gradients are defined.
POINTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "neg": lambda t, y: -y,
    "abs": lambda t, y: -(y + 5).abs() / 5,
    "sign": lambda t, y: -y * (y + 5).sign(),
    "reciprocal": lambda t, y: -(y + 3).reciprocal(),
    "square": lambda t, y: -y.square() / 4,
    "sqrt": lambda t, y: -(y + 3).sqrt() * y,
    "rsqrt": lambda t, y: -(y + 3).rsqrt() * y,
    "exp": lambda t, y: torch.exp(-y) - 1,
    "exp2": lambda t, y: torch.exp2(-y) - 1,
    "expm1": lambda t, y: -torch.expm1(y / 2),
    "log": lambda t, y: -(y + 3).log(),
    "log1p": lambda t, y: -(y + 2).log1p(),
    "log2": lambda t, y: -(y + 3).log2(),
    "log10": lambda t, y: -(y + 3).log10(),
    "sin": lambda t, y: -y.sin(),
    "cos": lambda t, y: y.cos() - 1.2 * y,
    "tan": lambda t, y: -(y / 4).tan(),
    "asin": lambda t, y: -(y / 4).asin(),
    "acos": lambda t, y: (y / 4).acos() - 2,
    "atan": lambda t, y: -y.atan(),
    "atan2": lambda t, y: -torch.atan2(y, y + 3),
    "sinh": lambda t, y: -y.sinh() / 2,
    "cosh": lambda t, y: -y.cosh() / 4,
    "tanh": lambda t, y: -y.tanh(),
    "asinh": lambda t, y: -y.asinh(),
    "acosh": lambda t, y: -(y + 4).acosh(),
    "atanh": lambda t, y: -(y / 4).atanh(),
    "sigmoid": lambda t, y: -y.sigmoid(),
    "erf": lambda t, y: -y.erf(),
    "erfc": lambda t, y: -y.erfc() / 2,
    "floor": lambda t, y: -y + (y / 100).floor(),
    "ceil": lambda t, y: -y + ((y + 5) / 100).ceil(),
    "trunc": lambda t, y: -y + (y / 100).trunc(),
    "round": lambda t, y: -y + (y / 100).round(),
    "maximum": lambda t, y: -torch.maximum(y + 5, y * 0.1) / 5,
    "minimum": lambda t, y: torch.minimum(-y - 5, y * 0.1) / 5,
    "fmod": lambda t, y: -torch.fmod(y, 100.0),
    "remainder": lambda t, y: -torch.remainder(y + 3, 100.0) / 3,
    "hypot": lambda t, y: -torch.hypot(y, y + 3) / 2,
    "relu": lambda t, y: -F.relu(y + 5) / 5,
    "leaky_relu": lambda t, y: -F.leaky_relu(y + 5) + F.leaky_relu(y - 5),
    "elu": lambda t, y: -F.elu(y),
    "gelu": lambda t, y: -F.gelu(y) - y / 3,
    "gelu_tanh": lambda t, y: -F.gelu(y, approximate="tanh") - y / 3,
    "silu": lambda t, y: -F.silu(y) - y / 3,
    "softplus": lambda t, y: -F.softplus(y),
    "softplus_beta": lambda t, y: -F.softplus(y, beta=2.0, threshold=10.0),
    "logsigmoid": lambda t, y: F.logsigmoid(-y),
    "mish": lambda t, y: -F.mish(y) - y / 3,
    "selu": lambda t, y: -F.selu(y),
    "hardtanh": lambda t, y: -F.hardtanh(y, -9.0, 9.0),
    "add": lambda t, y: 1.0 + y * -1,
    "add_alpha": lambda t, y: torch.add(-y, y, alpha=-0.5),
    "sub": lambda t, y: 0.3 - y,
    "rsub": lambda t, y: torch.rsub(y, 0.2),
    "div": lambda t, y: -y / (y + 4),
    "div_floor": lambda t, y: -y + torch.div(y, 100.0, rounding_mode="floor"),
    "pow2": lambda t, y: -((y + 1) ** 2) / 3,
    "pow3": lambda t, y: -(y**3) / 3,
    "pow_half": lambda t, y: -((y + 3) ** 0.5),
    "pow_real": lambda t, y: -((y + 3) ** 1.7) / 5,
    "pow_scalar_base": lambda t, y: -(2.0**y),
    "pow_tensor": lambda t, y: -((y + 3) ** (y / 3)) / 3,
    "clamp": lambda t, y: -y.clamp(-8.0, 8.0),
    "where": lambda t, y: torch.where(y > -9.0, -y, y),
    "logic": lambda t, y: torch.where(((y > -9) & (y < 9)) | (y != y), -y, y),
    "logical_not": lambda t, y: torch.where(~(y > 9), -y, y),
    "masked_fill": lambda t, y: -y.masked_fill(y > 9, 0.0),
    "isfinite": lambda t, y: torch.where(torch.isfinite(y), -y, y),
    "time": lambda t, y: -y * (1 + t) + torch.sin(3 * t),
    "time_power": lambda t, y: -y + t**2 * torch.exp(-t),
    "time_stack": lambda t, y: y * torch.stack([-t, t / 2, -(t**2)]),
    "time_unused_state": lambda t, y: torch.cos(t) * torch.ones_like(y),
}

SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cat": lambda t, y: torch.cat([-y[..., 1:], y[..., :1] / 2], dim=-1),
    "stack": lambda t, y: torch.stack([-y[..., 1], y[..., 0], -y[..., 2]], dim=-1),
    "unbind": lambda t, y: torch.stack([-a for a in y.unbind(-1)][::-1], dim=-1),
    "split": lambda t, y: torch.cat([-a for a in torch.split(y, [2, 1], dim=-1)][::-1], -1),
    "chunk": lambda t, y: torch.cat([-a for a in torch.chunk(y, 3, dim=-1)][::-1], -1),
    "select": lambda t, y: -y * y.select(-1, 1).unsqueeze(-1),
    "slice_step": lambda t, y: torch.cat([-y[..., ::2], y[..., 1:2] / 2], -1),
    "negative_index": lambda t, y: -y + y[..., -1:] / 3,
    "reshape": lambda t, y: -(y.reshape(-1) * 0.5).reshape(y.shape),
    "flatten": lambda t, y: -y.flatten().view(y.shape),
    "expand": lambda t, y: -y[..., :1].expand_as(y) / 2 - y,
    "permute": lambda t, y: -(y.unsqueeze(-1).transpose(-1, -2).squeeze(-2) ** 1) / 2,
    "outer": lambda t, y: -(y.unsqueeze(-1) * y.unsqueeze(-2)).sum(-1) / 4,
    "squeeze": lambda t, y: -y.unsqueeze(0).squeeze(0),
    "flip_by_cat": lambda t, y: torch.cat([y[..., 2:], y[..., 1:2], y[..., :1]], -1) * -0.5,
    "flip": lambda t, y: y.flip(-1) * -0.5,
    "pad": lambda t, y: -y + F.pad(y[..., 1:], (1, 0)) / 2,
    "repeat": lambda t, y: -y[..., :1].repeat(*[1] * (y.dim() - 1), 3),
    "diagonal": lambda t, y: (
        -torch.diagonal(y.unsqueeze(-1) * y.unsqueeze(-2), dim1=-2, dim2=-1) / 3
    ),
    "diag_embed": lambda t, y: -torch.diag_embed(y).sum(-1),
    "sum": lambda t, y: -y - y.sum(dim=-1, keepdim=True) / 4,
    "sum_all": lambda t, y: -y - y.sum() / 10,
    "mean": lambda t, y: -y - y.mean(dim=-1, keepdim=True) / 2,
    "mean_all": lambda t, y: -y - y.mean(),
    "prod": lambda t, y: -y - (y + 2).prod(dim=-1, keepdim=True) / 20,
    "amin": lambda t, y: -y - (y * torch.tensor([9.0, 1, 1], dtype=y.dtype) + 3).amin(-1, True) / 9,
    "amax": lambda t, y: -y - (y * torch.tensor([9.0, 1, 1], dtype=y.dtype) + 3).amax(-1, True) / 9,
    "logsumexp": lambda t, y: -y - y.logsumexp(dim=-1, keepdim=True) / 3,
    "softmax": lambda t, y: -y + y.softmax(dim=-1),
    "log_softmax": lambda t, y: y.log_softmax(dim=-1) / 3,
    "var": lambda t, y: -y - y.var(dim=-1, keepdim=True) / 5,
    "std": lambda t, y: -y - (y * torch.tensor([2.0, 1, -1], dtype=y.dtype)).std(-1, keepdim=True),
    "var_all": lambda t, y: -y - y.var() / 5,
    "var_mean": lambda t, y: -y + sum(torch.var_mean(y, dim=-1, correction=0, keepdim=True)) / 5,
    "norm": lambda t, y: -y * (y + 3).norm(dim=-1, keepdim=True) / 5,
    "in_place": lambda t, y: _in_place(y),
    "index_put": lambda t, y: _fill(y),
    "zeros_like": lambda t, y: _zeros(y),
    "inner_gradient": lambda t, y: -_energy_gradient(y),
    "gather": lambda t, y: -y.gather(-1, torch.tensor([2, 0, 1]).expand(y.shape)) * y,
    "scatter_add": lambda t, y: -y.scatter_add(-1, torch.tensor([1, 1, 2]).expand(y.shape), y) / 3,
    "index": lambda t, y: -y[..., torch.tensor([2, 0, 2])] / 2,
    "cumsum": lambda t, y: -y.cumsum(-1) / 3,
    "control_path": lambda t, y: _control(t) - y,
    "cond": lambda t, y: torch.cond(
        y.sum() > -50.0, lambda y: -y.sin(), lambda y: torch.sqrt(0 * y), (y,)
    ),
}


def _control(t: Tensor) -> Tensor:
    """Linear between values that are a straight line, so that the solution stays smooth."""
    times = torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=t.dtype)
    values = 1 + 2 * times
    i = torch.searchsorted(times, t.detach()).clamp(1, 3)
    s = (t - times[i - 1]) / (times[i] - times[i - 1])
    return values[i - 1] * (1 - s) + values[i] * s


def _in_place(y: Tensor) -> Tensor:
    z = y.clone()
    z.mul_(-0.5)
    z[..., 0] = z[..., 1] * 0.5
    z += 0.1
    return z


def _fill(y: Tensor) -> Tensor:
    z = torch.empty_like(y)
    z[..., 0] = -y[..., 1]
    z[..., 1:] = y[..., :2] * 0.3
    return z


def _zeros(y: Tensor) -> Tensor:
    z = torch.zeros_like(y)
    z[..., 1] = -y[..., 1]
    return z + torch.ones_like(y) * 0.1


def _energy_gradient(y: Tensor) -> Tensor:
    with torch.enable_grad():
        x = y if y.requires_grad else y.detach().requires_grad_()
        energy = (x**4 / 4 + x**2).sum()
        return torch.autograd.grad(energy, x, create_graph=True)[0] / 4


def _linear() -> tuple[Func, list[Tensor]]:
    layer = nn.Linear(3, 3).double()
    return lambda t, y: torch.tanh(layer(y)), list(layer.parameters())


def _mlp() -> tuple[Func, list[Tensor]]:
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 8), nn.SiLU(), nn.Linear(8, 3))
    net.double()

    def func(t: Tensor, y: Tensor) -> Tensor:
        return net(torch.cat([y, t.expand(*y.shape[:-1], 1)], dim=-1))

    return func, list(net.parameters())


def _wide() -> tuple[Func, list[Tensor]]:
    """Large enough for the products that go through BLAS."""
    net = nn.Sequential(nn.Linear(3, 90), nn.Softplus(), nn.Linear(90, 90), nn.Tanh())
    net.append(nn.Linear(90, 3)).double()
    return lambda t, y: net(y), list(net.parameters())


def _matmul() -> tuple[Func, list[Tensor]]:
    a = (torch.randn(3, 3, dtype=torch.float64) / 2).requires_grad_()
    return lambda t, y: y @ a - y, [a]


def _transposed() -> tuple[Func, list[Tensor]]:
    a = (torch.randn(3, 3, dtype=torch.float64) / 2).requires_grad_()
    return lambda t, y: (a @ y.unsqueeze(-1)).squeeze(-1) - y @ a.T, [a]


def _bmm() -> tuple[Func, list[Tensor]]:
    a = (torch.randn(2, 3, 3, dtype=torch.float64) / 3).requires_grad_()

    def func(t: Tensor, y: Tensor) -> Tensor:
        z = y.reshape(1, -1, 3).expand(2, -1, 3)
        return torch.bmm(z, a).mean(0).reshape(y.shape) - y

    return func, [a]


def _einsum() -> tuple[Func, list[Tensor]]:
    a = (torch.randn(3, 3, dtype=torch.float64) / 2).requires_grad_()
    return lambda t, y: torch.einsum("...i,ij->...j", y, a) - y, [a]


def _layer_norm() -> tuple[Func, list[Tensor]]:
    norm = nn.LayerNorm(3).double()
    with torch.no_grad():
        norm.weight.add_(torch.tensor([0.3, -0.2, 0.1]))
        norm.bias.add_(torch.tensor([0.1, 0.2, -0.3]))
    scale = torch.tensor([3.0, 1.0, -2.0], dtype=torch.float64)
    return lambda t, y: -y + norm(y * scale + scale) / 3, list(norm.parameters())


def _buffers() -> tuple[Func, list[Tensor]]:
    """Parameters that need a gradient, one that does not, a buffer, and one used twice."""
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    frozen = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    mask = torch.tensor([True, False, True])
    return lambda t, y: -a * y + torch.where(mask, frozen, a * t), [a]


def _broadcast() -> tuple[Func, list[Tensor]]:
    a = torch.randn(3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(1, dtype=torch.float64, requires_grad=True)
    c = torch.randn((), dtype=torch.float64, requires_grad=True)
    return lambda t, y: -y * torch.sigmoid(a) + b * torch.sin(c * t), [a, b, c]


def _derived() -> tuple[Func, list[Tensor]]:
    """Closes over a tensor that is computed, outside, from one that needs a gradient."""
    raw = torch.tensor([0.1, -0.4, 0.3], dtype=torch.float64, requires_grad=True)
    rate = F.softplus(raw)
    return lambda t, y: -rate * y, [raw]


MODELS: dict[str, Callable[[], tuple[Func, list[Tensor]]]] = {
    "linear": _linear,
    "mlp_of_time": _mlp,
    "wide_mlp": _wide,
    "matmul": _matmul,
    "transposed": _transposed,
    "bmm": _bmm,
    "einsum": _einsum,
    "layer_norm": _layer_norm,
    "buffers": _buffers,
    "broadcast": _broadcast,
    "derived": _derived,
}


def make(name: str) -> tuple[Func, list[Tensor]]:
    return MODELS[name]()
