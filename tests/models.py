"""Models that people write as dynamics; ``python tests/models.py`` prints how each one does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Func = Callable[[Tensor, Tensor], Tensor]
MODELS: dict[str, tuple[tuple[int, ...], Callable[[], Func]]] = {}


def _model(shape: tuple[int, ...]) -> Callable[[Callable[[], Func]], Callable[[], Func]]:
    def enter(make: Callable[[], Func]) -> Callable[[], Func]:
        MODELS[make.__name__.strip("_")] = (shape, make)
        return make

    return enter


def _parameter(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def _mlp(*sizes: int, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1]).double()


def _with_time(t: Tensor, y: Tensor) -> Tensor:
    return torch.cat([y, t.expand(*y.shape[:-1], 1)], -1)


@_model((4, 1, 2))
def _spiral_ode_demo() -> Func:
    net = _mlp(2, 50, 2)
    return lambda t, y: net(y**3)


@_model((2, 4, 7, 7))
def _ode_net_block() -> Func:
    norms = nn.ModuleList(nn.GroupNorm(2, 4) for _ in range(3)).double()
    convs = nn.ModuleList(nn.Conv2d(5, 4, 3, padding=1) for _ in range(2)).double()

    def func(t: Tensor, x: Tensor) -> Tensor:
        for norm, conv in zip(norms[:2], convs, strict=True):
            x = F.relu(norm(x))
            x = conv(torch.cat([torch.ones_like(x[:, :1]) * t, x], 1))
        return norms[2](x)

    return func


@_model((5, 3))
def _cnf_with_hypernetwork() -> Func:
    width, hyper = 4, _mlp(1, 16, 4 * 7)

    def func(t: Tensor, state: Tensor) -> Tensor:
        z = state[:, :2]
        parts = hyper(t.reshape(1, 1)).reshape(-1)
        w, u = parts[:8].view(width, 2, 1), parts[8:16].view(width, 1, 2)
        u = u * torch.sigmoid(parts[16:24].view(width, 1, 2))
        bias = parts[24:28].view(width, 1, 1)
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            h = torch.tanh(torch.matmul(z.unsqueeze(0).expand(width, -1, 2), w) + bias)
            dz = torch.matmul(h, u).mean(0)
            rows = [
                torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(2)
            ]
        return torch.cat([dz, -sum(rows).unsqueeze(-1)], -1)

    return func


@_model((5, 4))
def _latent_ode() -> Func:
    net = _mlp(4, 20, 20, 4, activation=nn.ELU)
    return lambda t, y: net(y)


@_model((2,))
def _bouncing_ball() -> Func:
    gravity = _parameter(9.8)
    return lambda t, y: torch.cat([y[1:], -gravity])


@_model((4, 2))
def _galerkin() -> Func:
    coefficients = (torch.randn(5, 3, 2, dtype=torch.float64) / 3).requires_grad_()

    def func(t: Tensor, y: Tensor) -> Tensor:
        k = torch.arange(1, 3).to(y)
        basis = torch.cat([torch.ones_like(t).view(1), torch.sin(k * t), torch.cos(k * t)])
        weight = torch.einsum("k,kij->ij", basis, coefficients)
        return torch.tanh(y @ weight[:2] + weight[2])

    return func


@_model((4, 2))
def _data_controlled() -> Func:
    net = _mlp(4, 16, 2)
    x0 = torch.rand(4, 2, dtype=torch.float64)
    return lambda t, y: net(torch.cat([y, x0], -1))


@_model((4, 2))
def _depth_variant() -> Func:
    net = _mlp(3, 16, 2)
    return lambda t, y: net(_with_time(t, y))


@_model((4, 4))
def _hamiltonian() -> Func:
    net = _mlp(4, 16, 1)

    def func(t: Tensor, y: Tensor) -> Tensor:
        g = torch.func.grad(lambda x: net(x).sum())(y)
        return torch.cat([g[:, 2:], -g[:, :2]], -1)

    return func


@_model((4,))
def _lagrangian() -> Func:
    net = _mlp(4, 16, 1)

    def energy(q: Tensor, v: Tensor) -> Tensor:
        return net(torch.cat([q, v])).sum() + (v * v).sum()

    def func(t: Tensor, y: Tensor) -> Tensor:
        q, v = y[:2], y[2:]
        mass = torch.func.hessian(energy, 1)(q, v)
        mixed = torch.func.jacrev(torch.func.grad(energy, 1), 0)(q, v)
        return torch.cat([v, torch.linalg.solve(mass, torch.func.grad(energy)(q, v) - mixed @ v)])

    return func


@_model((4, 3))
def _stable() -> Func:
    net = _mlp(3, 16, 1)
    return lambda t, y: -torch.func.grad(lambda x: net(x).sum())(y)


@_model((5, 3))
def _graph_ode() -> Func:
    adjacency = torch.eye(5, dtype=torch.float64).roll(1, 0) + torch.eye(5, dtype=torch.float64)
    first, second = nn.Linear(3, 8).double(), nn.Linear(8, 3).double()
    return lambda t, y: adjacency @ second(torch.tanh(adjacency @ first(y))) / 4


@_model((4, 3))
def _neural_cde() -> Func:
    net = _mlp(3, 16, 3 * 2)
    a, b = torch.rand(2, 4, 2, dtype=torch.float64)

    def func(t: Tensor, y: Tensor) -> Tensor:
        slope = a + 2 * b * t
        return torch.einsum("bij,bj->bi", net(y).tanh().view(4, 3, 2), slope)

    return func


@_model((2,))
def _symbolic() -> Func:
    c = _parameter(0.2, -0.5, 0.3, 0.1, -0.2, 0.4)

    def func(t: Tensor, y: Tensor) -> Tensor:
        a, b = y
        library = torch.stack([torch.ones_like(a), a, b, a * b, a.square(), torch.sin(b)])
        return torch.stack([(c * library).sum(), (c.flip(0) * library).sum()])

    return func


@_model((3,))
def _robertson() -> Func:
    k = _parameter(0.04, 3e2, 1e2)

    def func(t: Tensor, y: Tensor) -> Tensor:
        a = -k[0] * y[0] + k[2] * y[1] * y[2]
        c = k[1] * y[1] ** 2
        return torch.stack([a, -a - c, c])

    return func


@_model((4, 3))
def _flow_with_exact_trace() -> Func:
    net = _mlp(3, 16, 2)

    def func(t: Tensor, y: Tensor) -> Tensor:
        def field(x: Tensor) -> Tensor:
            return net(_with_time(t, x))

        jacobian = torch.func.vmap(torch.func.jacrev(field))(y[:, :2])
        trace = jacobian.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
        return torch.cat([field(y[:, :2]), -trace], -1)

    return func


@_model((1, 2, 8, 8))
def _unet() -> Func:
    down, middle = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    up = nn.Conv2d(6, 2, 3, padding=1)
    nn.ModuleList([down, middle, up]).double()

    def func(t: Tensor, x: Tensor) -> Tensor:
        h = F.avg_pool2d(F.silu(down(x)), 2)
        h = F.interpolate(F.silu(middle(h)), scale_factor=2)
        return up(torch.cat([x, h], 1))

    return func


@_model((2, 4, 8))
def _transformer_block() -> Func:
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
    return lambda t, y: block(y) - y


@_model((4, 3))
def _gru_ode() -> Func:
    cell = nn.GRUCell(1, 3).double()
    return lambda t, y: cell(t.expand(4, 1), y) - y


@_model((4, 2))
def _siren() -> Func:
    first, second = nn.Linear(3, 16).double(), nn.Linear(16, 2).double()
    return lambda t, y: second(torch.sin(3 * first(_with_time(t, y))))


@_model((2, 3, 16))
def _fourier_operator() -> Func:
    weight = torch.randn(3, 3, 4, dtype=torch.complex128).div(4).requires_grad_()
    skip = nn.Conv1d(3, 3, 1).double()

    def func(t: Tensor, y: Tensor) -> Tensor:
        low = torch.einsum("bix,iox->box", torch.fft.rfft(y)[..., :4], weight)
        return F.gelu(torch.fft.irfft(F.pad(low, (0, 5)), n=16) + skip(y)) - y

    return func


@_model((3,))
def _lorenz() -> Func:
    s, r, b = _parameter(10.0), _parameter(28.0), _parameter(8 / 3)

    def func(t: Tensor, y: Tensor) -> Tensor:
        a, b_, c = y.unbind(-1)
        return torch.stack([s[0] * (b_ - a), a * (r[0] - c) - b_, a * b_ - b[0] * c])

    return func


@_model((2,))
def _van_der_pol() -> Func:
    mu = _parameter(1.5)
    return lambda t, y: torch.cat([y[1:], mu * (1 - y[:1] ** 2) * y[1:] - y[:1]])


@_model((2,))
def _pendulum() -> Func:
    g, friction = _parameter(9.81), _parameter(0.1)
    return lambda t, y: torch.cat([y[1:], -g * torch.sin(y[:1]) - friction * y[1:]])


@_model((2, 4, 3))
def _n_body() -> Func:
    mass = _parameter(1.0, 2.0, 0.5, 1.5)

    def func(t: Tensor, y: Tensor) -> Tensor:
        x, v = y
        gap = x.unsqueeze(0) - x.unsqueeze(1)
        cube = ((gap**2).sum(-1) + 0.05) ** 1.5
        return torch.stack([v, (mass.view(1, 4, 1) * gap / cube.unsqueeze(-1)).sum(1)])

    return func


@_model((2, 6, 6))
def _brusselator() -> Func:
    a, b, d = _parameter(1.0), _parameter(3.0), _parameter(0.1)
    stencil = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64)

    def func(t: Tensor, y: Tensor) -> Tensor:
        padded = F.pad(y.unsqueeze(1), (1, 1, 1, 1), mode="circular")
        laplacian = F.conv2d(padded, stencil.view(1, 1, 3, 3)).squeeze(1)
        u, v = y
        reaction = torch.stack([a + u * u * v - (b + 1) * u, b * u - u * u * v])
        return reaction + d * laplacian

    return func


@_model((5,))
def _kuramoto() -> Func:
    rate, coupling = _parameter(1.0, 1.1, 0.9, 1.2, 0.8), _parameter(0.7)
    return lambda t, y: rate + coupling * torch.sin(y.unsqueeze(0) - y.unsqueeze(1)).mean(1)


def main() -> None:
    from direct import compare

    print(f"{'model':24}{'runs':10}{'value':>10}{'gradients':>12}")
    for name, (shape, make) in MODELS.items():
        torch.manual_seed(0)
        func = make()
        try:
            errors = compare(func, 0.2 + torch.rand(shape, dtype=torch.float64))
            print(f"{name:24}{'traced':10}{errors.value:10.1e}{errors.gradients:12.1e}")
        except Exception as error:
            print(f"{name:24}{'callback':10}{error}")


if __name__ == "__main__":
    main()
