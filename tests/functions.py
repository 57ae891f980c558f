"""Right-hand sides that use one torch function or layer each: ``name -> (shape, make)``.

``make()`` gives ``func(t, y)``; every tensor that it closes over and that requires a gradient is
found by the trace.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Func = Callable[[Tensor, Tensor], Tensor]
Case = tuple[tuple[int, ...], Callable[[], Func]]

CASES: dict[str, Case] = {}


def _case(name: str, shape: tuple[int, ...], func: Func) -> None:
    CASES[name] = (shape, lambda: func)


def _layer(
    name: str,
    shape: tuple[int, ...],
    make: Callable[[], nn.Module],
    call: Callable[[nn.Module, Tensor], Tensor] = lambda layer, y: layer(y),
) -> None:
    def build() -> Func:
        layer = make().double()
        return lambda t, y: call(layer, y)

    CASES[name] = (shape, build)


def _random(*shape: int, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(*shape, dtype=torch.float64, generator=generator)
    return x.requires_grad_(grad)


# Convolutions and pooling; what changes the number of pixels is undone by another layer.

_IMAGE = (2, 4, 6, 6)
_layer("conv1d", (2, 3, 8), lambda: nn.Conv1d(3, 3, 3, padding=1))
_layer("conv1d_unbatched", (3, 8), lambda: nn.Conv1d(3, 3, 3, padding=1))
_layer("conv2d", _IMAGE, lambda: nn.Conv2d(4, 4, 3, padding=1))
_layer("conv2d_no_bias", _IMAGE, lambda: nn.Conv2d(4, 4, 3, padding=1, bias=False))
_layer("conv2d_pixels", _IMAGE, lambda: nn.Conv2d(4, 4, 1))
_layer("conv2d_same", _IMAGE, lambda: nn.Conv2d(4, 4, 4, padding="same"))
_layer("conv2d_groups", _IMAGE, lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2))
_layer("conv2d_depthwise", _IMAGE, lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4))
_layer("conv2d_dilated", _IMAGE, lambda: nn.Conv2d(4, 4, (3, 2), padding=(2, 1), dilation=2))
_layer("conv2d_circular", _IMAGE, lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"))
_layer(
    "conv1d_replicate", (2, 3, 8), lambda: nn.Conv1d(3, 3, 3, padding=1, padding_mode="replicate")
)
_layer("conv2d_replicate", _IMAGE, lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="replicate"))
_layer("conv2d_reflect", _IMAGE, lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"))
_layer("conv3d", (1, 2, 3, 4, 4), lambda: nn.Conv3d(2, 2, 3, padding=1))
_layer(
    "conv_transposed",
    _IMAGE,
    lambda: nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
    ),
)
_layer(
    "conv_transposed_1d",
    (2, 3, 8),
    lambda: nn.Sequential(nn.Conv1d(3, 2, 4, stride=4), nn.ConvTranspose1d(2, 3, 4, stride=4)),
)
_layer(
    "conv_in_time",
    _IMAGE,
    lambda: nn.Conv2d(5, 4, 3, padding=1),
    lambda conv, y: conv(torch.cat([torch.ones_like(y[:, :1]), y], 1)),
)


def _pool(pool: nn.Module, up: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 1), pool, up)


_up = partial(nn.Upsample, size=(6, 6))
_layer("avg_pool", _IMAGE, lambda: _pool(nn.AvgPool2d(2), nn.Upsample(scale_factor=2)))
_layer("avg_pool_padded", _IMAGE, lambda: _pool(nn.AvgPool2d(3, 2, 1), _up()))
_layer(
    "avg_pool_counts",
    _IMAGE,
    lambda: _pool(nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), _up()),
)
_layer("max_pool", _IMAGE, lambda: _pool(nn.MaxPool2d(2), _up()))
_layer("max_pool_padded", _IMAGE, lambda: _pool(nn.MaxPool2d(3, 2, 1, ceil_mode=True), _up()))
_layer("adaptive_pool", _IMAGE, lambda: _pool(nn.AdaptiveAvgPool2d((4, 5)), _up()))
_layer("global_pool", _IMAGE, lambda: _pool(nn.AdaptiveAvgPool2d(1), _up()))
_layer("bilinear_up", _IMAGE, lambda: _pool(nn.AvgPool2d(2), _up(mode="bilinear")))
_layer(
    "aligned_up", _IMAGE, lambda: _pool(nn.AvgPool2d(2), _up(mode="bilinear", align_corners=True))
)
_layer("bicubic_up", _IMAGE, lambda: _pool(nn.AvgPool2d(2), _up(mode="bicubic")))
_layer("pixel_shuffle", _IMAGE, lambda: nn.Sequential(nn.PixelShuffle(2), nn.PixelUnshuffle(2)))

# Normalisation.

_layer("batch_norm", _IMAGE, lambda: nn.BatchNorm2d(4))
_layer("batch_norm_eval", _IMAGE, lambda: nn.BatchNorm2d(4).eval())
_layer("batch_norm_1d", (5, 3), lambda: nn.BatchNorm1d(3))
_layer("group_norm", _IMAGE, lambda: nn.GroupNorm(2, 4))
_layer("instance_norm", _IMAGE, lambda: nn.InstanceNorm2d(4, affine=True))
_layer(
    "instance_norm_tracked", _IMAGE, lambda: nn.InstanceNorm2d(4, track_running_stats=True).train()
)
_layer("layer_norm", _IMAGE, lambda: nn.LayerNorm((6, 6)))
_layer("rms_norm", (4, 3), lambda: nn.RMSNorm(3))
_layer("local_response_norm", _IMAGE, lambda: nn.LocalResponseNorm(2))
_norms = nn.utils.parametrizations
_layer("weight_norm", (4, 3), lambda: _norms.weight_norm(nn.Linear(3, 3)))
_layer("weight_norm_of_columns", (4, 3), lambda: _norms.weight_norm(nn.Linear(3, 3), dim=1))
_layer("weight_norm_conv", _IMAGE, lambda: _norms.weight_norm(nn.Conv2d(4, 4, 3, padding=1)))
_layer("spectral_norm", (4, 3), lambda: _norms.spectral_norm(nn.Linear(3, 3)).eval())
_layer("orthogonal", (4, 3), lambda: _norms.orthogonal(nn.Linear(3, 3)))

# Attention and recurrent cells.

_TOKENS = (2, 4, 8)
_HEADS = (2, 2, 4, 8)
_MASK = torch.tensor([[True, False, True, True]] * 3 + [[True] * 4])
_BIAS = _random(4, 4)
_attend = F.scaled_dot_product_attention
_case("attention", _HEADS, lambda t, y: _attend(y, y * 2, y.flip(-2)))
_case("attention_causal", _HEADS, lambda t, y: _attend(y, y, y, is_causal=True))
_case("attention_mask", _HEADS, lambda t, y: _attend(y, y, y, attn_mask=_MASK))
_case("attention_bias", _HEADS, lambda t, y: _attend(y, y, y, attn_mask=_BIAS))
_layer(
    "multihead",
    _TOKENS,
    lambda: nn.MultiheadAttention(8, 2, batch_first=True),
    lambda layer, y: layer(y, y, y)[0],
)
_layer(
    "multihead_no_weights",
    _TOKENS,
    lambda: nn.MultiheadAttention(8, 2, batch_first=True),
    lambda layer, y: layer(y, y, y, need_weights=False)[0],
)
_encoder = partial(nn.TransformerEncoderLayer, 8, 2, 16, batch_first=True)
_layer("encoder", _TOKENS, lambda: _encoder(dropout=0.0))
_layer("encoder_eval", _TOKENS, lambda: _encoder().eval())
_layer("encoder_frozen", _TOKENS, lambda: _encoder().eval().requires_grad_(False))
_layer("encoder_gelu", _TOKENS, lambda: _encoder(dropout=0.0, activation="gelu", norm_first=True))
_layer(
    "decoder",
    _TOKENS,
    lambda: nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
    lambda layer, y: layer(y, y),
)
_INPUT, _SEQUENCE = _random(4, 2), _random(4, 5, 2)
_layer("gru_cell", (4, 3), lambda: nn.GRUCell(2, 3), lambda cell, y: cell(_INPUT, y))
_layer("rnn_cell", (4, 3), lambda: nn.RNNCell(2, 3), lambda cell, y: cell(_INPUT, y))
_layer(
    "lstm_cell",
    (2, 4, 3),
    lambda: nn.LSTMCell(2, 3),
    lambda cell, y: torch.stack(cell(_INPUT, (y[0], y[1]))),
)
_layer(
    "gru",
    (4, 3),
    lambda: nn.GRU(2, 3, batch_first=True),
    lambda gru, y: gru(_SEQUENCE, y.unsqueeze(0))[1][0],
)
_layer(
    "lstm",
    (2, 4, 3),
    lambda: nn.LSTM(2, 3, batch_first=True),
    lambda lstm, y: torch.cat(lstm(_SEQUENCE, (y[:1], y[1:]))[1]),
)

# Products.

_BATCH = _random(5, 3, 3, grad=True)
_layer("bilinear", (4, 3), lambda: nn.Bilinear(3, 3, 3), lambda layer, y: layer(y, y))
_case("matmul_4d", (2, 5, 3, 3), lambda t, y: y @ y)
_case("matmul_broadcast", (2, 5, 3, 3), lambda t, y: y @ _BATCH)
_case("matmul_outer_batch", (2, 1, 3, 3), lambda t, y: (y @ _BATCH).sum(1, keepdim=True))
_case("einsum_batch", (2, 5, 3, 3), lambda t, y: torch.einsum("abij,bjk->abik", y, _BATCH))
_case("einsum_trace", (3, 3), lambda t, y: y * torch.einsum("ii->", y))
_case("outer", (3,), lambda t, y: torch.outer(y, y).sum(0))
_case("kron", (2, 2), lambda t, y: torch.kron(y, y)[1:3, 1:3])
_case("baddbmm", (2, 3, 3), lambda t, y: torch.baddbmm(y, y, y, beta=0.5, alpha=2))
_case("cosine", (4, 3), lambda t, y: y * F.cosine_similarity(y, y.flip(0), -1).unsqueeze(-1))
_case("normalize", (4, 3), lambda t, y: F.normalize(y, dim=-1))
for _p in (1.0, 2.0, 3.0, float("inf")):
    _case(f"cdist_{_p}", (4, 3), lambda t, y, p=_p: torch.cdist(y, 2 * y + 1, p=p)[:, :3])

_SPARSE = torch.sparse_coo_tensor(
    torch.tensor([[0, 1, 2, 0], [1, 2, 0, 0]]), _random(4), (3, 3), check_invariants=True
)
_case("sparse_coo", (3, 2), lambda t, y: _SPARSE @ y)
_case("sparse_mm", (3, 2), lambda t, y: torch.sparse.mm(_SPARSE, y))
_case("sparse_mv", (3,), lambda t, y: _SPARSE.mv(y))
_case("sparse_right", (2, 3), lambda t, y: torch.tanh(y) @ _SPARSE)

# Linear algebra.

_WEIGHT = _random(3, 3, grad=True)
_eye = torch.eye(3, dtype=torch.float64)


def _definite(y: Tensor) -> Tensor:
    return y @ y.mT + _eye


_la = torch.linalg
_case("solve", (3,), lambda t, y: _la.solve(_WEIGHT, y))
_case("solve_batch", (4, 3), lambda t, y: _la.solve(4 * _eye + y[:, None] * y[..., None], y))
_case("solve_right", (2, 3, 3), lambda t, y: _la.solve(_WEIGHT, y, left=False))
_case("solve_transposed", (3, 3), lambda t, y: _la.solve(y.mT, y))
_case("inv", (2, 3, 3), lambda t, y: _la.inv(y + _WEIGHT))
_case("det", (2, 3, 3), lambda t, y: _la.det(y)[:, None, None] * y)
_case("det_transposed", (3, 3), lambda t, y: _la.det(y.mT @ _WEIGHT) * y)
_case("slogdet", (3, 3), lambda t, y: _la.slogdet(y)[1] * y)
_case("logdet", (3, 3), lambda t, y: torch.logdet(_definite(y)) * y)
_case("cholesky", (2, 3, 3), lambda t, y: _la.cholesky(_definite(y)))
_case("cholesky_solve", (3, 3), lambda t, y: torch.cholesky_solve(y, _la.cholesky(_definite(y))))
_case("triangular", (2, 3, 3), lambda t, y: _la.solve_triangular(y + 3 * _eye, y, upper=True))
_case("triangular_right", (3, 3), lambda t, y: _la.solve_triangular(y, y, upper=False, left=False))
_case("lu_solve", (3, 3), lambda t, y: _la.lu_solve(*_la.lu_factor(_WEIGHT), y))
_case("matrix_exp", (2, 3, 3), lambda t, y: torch.matrix_exp(y))
_case("matrix_power", (3, 3), lambda t, y: _la.matrix_power(y, 3))
_case("pinv", (3, 3), lambda t, y: _la.pinv(y))
_case("eigvalsh", (3, 3), lambda t, y: _la.eigvalsh(y + y.mT).diag_embed())
_case("svdvals", (3, 3), lambda t, y: _la.svdvals(y).diag_embed())
_case("qr", (3, 3), lambda t, y: _la.qr(y)[1])
_case("eigen_projection", (3, 3), lambda t, y: _la.eigh(y + y.mT)[1][:, :1] ** 2 * y)

# Complex numbers and Fourier transforms; the state is real.


def _complex(f: Callable[[Tensor], Tensor]) -> Func:
    return lambda t, y: torch.view_as_real(f(torch.view_as_complex(y)))


_z = _complex
_case("rotate", (4, 2), _z(lambda z: z * 1j + z.conj() / 2))
_case("rotate_in_time", (4, 2), lambda t, y: _z(lambda z: z * torch.exp(1j * t))(t, y))
_case("complex_divide", (4, 2), _z(lambda z: (1 + z) / (2 - z)))
_case("complex_exp_log", (4, 2), _z(lambda z: torch.exp(z) + torch.log(z)))
_case("complex_sqrt", (4, 2), _z(lambda z: torch.sqrt(z)))
_case("complex_pow", (4, 2), _z(lambda z: z**3 + z**-2 + z**0.7))
_case("complex_sin", (4, 2), _z(lambda z: torch.sin(z) + torch.cos(z) + torch.tanh(z)))
_case("complex_matmul", (3, 3, 2), _z(lambda z: z @ z.mH + z @ _WEIGHT.to(torch.complex128)))
_case("schroedinger", (4, 2), _z(lambda z: -1j * (z.abs() ** 2 * z - z.real.sum() * z)))
_case("phase", (4, 2), lambda t, y: y * torch.view_as_complex(y).angle().unsqueeze(-1))
_case("polar", (4,), lambda t, y: torch.polar(y.exp(), y).imag)
_case("modulus_written", (4, 2), _z(lambda z: torch.where(z.real > 0, z, 2 * z)))


def _derivative(t: Tensor, y: Tensor) -> Tensor:
    n = y.shape[-1]
    k = torch.fft.rfftfreq(n, 1 / n, dtype=y.dtype)
    u_x = torch.fft.irfft(1j * k * torch.fft.rfft(y), n=n)
    u_xx = torch.fft.irfft(-(k**2) * torch.fft.rfft(y), n=n)
    return -y * u_x + 0.1 * u_xx


for _n in (6, 7, 96, 97, 130):
    _case(f"rfft_{_n}", (2, _n), _derivative)
_case("fft", (12,), lambda t, y: torch.fft.ifft(torch.fft.fft(y) * (1 + 0.5j)).real)
_case("fft_long", (90,), lambda t, y: torch.fft.ifft(torch.fft.fft(y) ** 2, norm="ortho").real)
_case("fft2", (5, 4), lambda t, y: torch.fft.ifft2(torch.fft.fft2(y) ** 2).real)
_case("rfftn", (3, 4, 6), lambda t, y: torch.fft.irfftn(torch.fft.rfftn(y) ** 2, s=y.shape))
_case("fft_ortho", (8,), lambda t, y: torch.fft.fft(y, norm="ortho").imag)

# Derivatives inside the dynamics.


def _with_net(f: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[], Func]:
    def build() -> Func:
        net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4)).double()
        return lambda t, y: f(net, y)

    return build


def _inner_autograd(net: nn.Module, y: Tensor) -> Tensor:
    with torch.enable_grad():
        x = y if y.requires_grad else y.detach().requires_grad_()
        return torch.autograd.grad(net(x).square().sum(), x, create_graph=True)[0]


def _lagrangian(net: nn.Module, y: Tensor) -> Tensor:
    q, v = y[:2], y[2:]

    def energy(q: Tensor, v: Tensor) -> Tensor:
        return net(torch.cat([q, v])).sum() + (v * v).sum()

    mass = torch.func.hessian(energy, 1)(q, v)
    mixed = torch.func.jacrev(torch.func.grad(energy, 1), 0)(q, v)
    force = torch.func.grad(energy)(q, v) - mixed @ v
    return torch.cat([v, torch.linalg.solve(mass, force)])


def _exact_trace(net: nn.Module, y: Tensor) -> Tensor:
    jacobian = torch.func.vmap(torch.func.jacrev(net))(y)
    return net(y) + jacobian.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)


CASES["inner_autograd"] = ((3, 4), _with_net(_inner_autograd))
CASES["func_grad"] = ((3, 4), _with_net(lambda net, y: torch.func.grad(lambda x: net(x).sum())(y)))
CASES["jacrev"] = ((4,), _with_net(lambda net, y: torch.func.jacrev(net)(y) @ y))
CASES["jacfwd"] = ((4,), _with_net(lambda net, y: torch.func.jacfwd(net)(y) @ y))
CASES["jvp"] = ((3, 4), _with_net(lambda net, y: torch.func.jvp(net, (y,), (y,))[1]))
CASES["vjp"] = ((3, 4), _with_net(lambda net, y: torch.func.vjp(net, y)[1](y)[0]))
CASES["hessian"] = (
    (4,),
    _with_net(lambda net, y: torch.func.hessian(lambda x: net(x).sum())(y) @ y),
)
CASES["lagrangian"] = ((4,), _with_net(_lagrangian))
CASES["exact_trace"] = ((3, 4), _with_net(_exact_trace))
CASES["jacobian"] = (
    (4,),
    _with_net(lambda net, y: torch.autograd.functional.jacobian(net, y, create_graph=True) @ y),
)
_conv = nn.Conv1d(2, 2, 3, padding=1).double()
_case(
    "conv_energy",
    (1, 2, 5),
    lambda t, y: torch.func.grad(lambda x: torch.tanh(_conv(x)).square().sum())(y),
)

# Compiled modules.

_layer("scripted", (4, 3), lambda: torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.Tanh())))
_layer(
    "jit_traced",
    (4, 3),
    lambda: torch.jit.trace(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.zeros(4, 3)),
)


# Random numbers: one draw, which both sides make from the same seed.

_layer("dropout", (4, 3), lambda: nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)))
_layer("dropout_eval", (4, 3), lambda: nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).eval())
_layer("dropout_2d", _IMAGE, lambda: nn.Dropout2d(0.5))
_layer("alpha_dropout", (4, 3), lambda: nn.AlphaDropout(0.5))
_layer("attention_dropout", _TOKENS, lambda: _encoder(dropout=0.3))
_case("rand", (3,), lambda t, y: y * torch.rand(3, dtype=torch.float64))
_case("randn_like", (3,), lambda t, y: y * torch.randn_like(y) + torch.randn_like(y))
_case("rademacher", (3,), lambda t, y: y * (2 * torch.randint(0, 2, (3,)).to(y) - 1))
_case("bernoulli", (3,), lambda t, y: y * torch.bernoulli(torch.full((3,), 0.5, dtype=y.dtype)))
_case("transposed_mask", (3, 3), lambda t, y: F.dropout(y.mT, 0.5))
_case("normal_", (3,), lambda t, y: y * torch.empty_like(y).normal_())
