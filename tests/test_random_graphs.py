"""Random compositions of the table's operations against torch: value and vector-Jacobian products.

Twenty graphs share one generated function, each on a slice of the state of its own, since what
costs time is the compilation of a function. ``make fuzz`` runs 2,000 of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from patterns import dense, nonzeros, pattern_of
from torch import Tensor
from translated import compare

from pyjlode.errors import TraceError
from pyjlode.trace.capture import trace
from pyjlode.translate import source, translate

_TOGETHER = 20
_COUNT = int(os.environ.get("PYJLODE_RANDOM_GRAPHS", "30"))
_PICK = torch.tensor([2, 0, 1])
_ROWS = torch.tensor([3, 0, 0, 1])
_EDGES = torch.tensor([-0.5, 0.0, 0.2, 0.7], dtype=torch.float64)


def _whole(x: Tensor, n: int) -> Tensor:
    """Indices from 0 to n - 1 that the values decide."""
    return (x * 7).long() % n


def _written(x: Tensor, z: Tensor) -> Tensor:
    out = x.clone()
    out[:, 1] = z[:, 0] * 0.5
    out[2] += z[1]
    out[out > 0.8] = 0.3
    return out.mul_(0.9)


# Of two tensors of 4 by 3 and the time, bounded where the arguments are.
OPERATIONS: list[Callable[[Tensor, Tensor, Tensor], Tensor]] = [
    lambda x, z, t: x + z * t,
    lambda x, z, t: x * z.tanh(),
    lambda x, z, t: x - 0.5 * z.sin(),
    lambda x, z, t: x / (1 + z * z),
    lambda x, z, t: torch.exp(-x * x) + t,
    lambda x, z, t: torch.where(x > z, x, -z),
    lambda x, z, t: torch.maximum(x, z).sigmoid(),
    lambda x, z, t: x.clamp(-0.7, 0.9) + z.abs().sqrt().detach(),
    lambda x, z, t: F.softplus(x) - F.gelu(z),
    lambda x, z, t: F.silu(x) + z.atan(),
    lambda x, z, t: x.t().reshape(4, 3).flip(0),
    lambda x, z, t: torch.cat([x[:, 1:], z[:, :1]], 1),
    lambda x, z, t: torch.stack([x, z], 1).reshape(4, 2, 3)[:, 1].roll(1, 0),
    lambda x, z, t: x @ (z.t() @ x) / 9,
    lambda x, z, t: x.sum(1, keepdim=True).tanh() * z,
    lambda x, z, t: x - z.mean(0),
    lambda x, z, t: x.softmax(1) + z.log_softmax(0) / 4,
    lambda x, z, t: x.logsumexp(0, keepdim=True).tanh() + z.tanh(),
    lambda x, z, t: x.amax(1, keepdim=True) - z.amin(0),
    lambda x, z, t: x.max(0)[0] * z.tanh() + x.min(),
    lambda x, z, t: z * x.argmax(1, keepdim=True) / 3,
    lambda x, z, t: x.cumsum(0) / 4 + z.tanh().cumprod(1),
    lambda x, z, t: x.cummax(1)[0] - z.cummin(0)[0],
    lambda x, z, t: x.sort(0)[0] + z.sort(1, descending=True)[0],
    lambda x, z, t: x.median(1, keepdim=True)[0] + z.kthvalue(2, 0)[0],
    lambda x, z, t: x[_ROWS] + z[:, _PICK],
    lambda x, z, t: x[_whole(z[:, 0], 4), _whole(z[:, 1], 3)].unsqueeze(1) + z,
    lambda x, z, t: x.gather(1, _whole(z, 3)),
    lambda x, z, t: x.scatter(0, _whole(z[:1], 4), z[:1]),
    lambda x, z, t: (x.scatter_add(1, _whole(z, 3), z)).tanh(),
    lambda x, z, t: x.index_add(0, _ROWS, z).tanh(),
    lambda x, z, t: x.index_put((_whole(z[:, 0], 4),), z, accumulate=True).tanh(),
    lambda x, z, t: x.masked_scatter(z > 0.2, z * t),
    lambda x, z, t: x.masked_fill((z > 0).logical_and(x < 0.5), 0.4),
    lambda x, z, t: z * torch.searchsorted(_EDGES, x) / 4,
    lambda x, z, t: z * _EDGES[torch.searchsorted(_EDGES, t.detach()).clamp(0, 3)],
    lambda x, z, t: x * ((z * 5).long() // 2 % 3) + (z > 0),
    lambda x, z, t: x.tril() + z.triu(1),
    lambda x, z, t: x.std(1, keepdim=True).detach() + z.var(0),
    lambda x, z, t: x.unfold(0, 2, 1).sum((0, 2)).tanh() + z,
    lambda x, z, t: x.tanh().prod(1, keepdim=True) + z[:1].expand(4, 3),
    lambda x, z, t: torch.logaddexp(x, z) / 2,
    lambda x, z, t: torch.linalg.vector_norm(x, 1, dim=1, keepdim=True).tanh() + z / 2,
    lambda x, z, t: _written(x, z),
    lambda x, z, t: F.pad(x[:, 1:], (1, 0)) + z.repeat_interleave(2, 1)[:, :3],
    lambda x, z, t: torch.cond(
        x.sum() > z.sum(), lambda x, z: x.sin(), lambda x, z: (z * x).tanh(), (x, z)
    ),
]

_STEP = st.tuples(st.integers(0, len(OPERATIONS) - 1), st.integers(0, 5), st.integers(0, 5))
Graph = list[tuple[int, int, int]]


def _apply(graph: Graph, t: Tensor, y: Tensor) -> Tensor:
    values = [y, y.sin() * t]
    for operation, first, second in graph:
        x, z = (values[-1 - i % len(values)] for i in (first, second))
        values.append(OPERATIONS[operation](x, z, t))
    return values[-1] + values[len(values) // 2].tanh()


def _on_graphs(examples: int, steps: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test on so many lists of graphs, of so many steps at most; the same ones every time."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        graph = st.lists(_STEP, min_size=2, max_size=steps)
        drawn = given(
            graphs=st.lists(graph, min_size=_TOGETHER, max_size=_TOGETHER),
            seed=st.integers(0, 10**6),
        )
        fixed = settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        return fixed(drawn(test))

    return decorate


@pytest.mark.parametrize("number", range(len(OPERATIONS)))
def test_pattern(number: int) -> None:
    """Of a Jacobian, of the operation's first argument and of its second; not on the diagonal."""
    y = torch.randn(4, 3, dtype=torch.float64)
    for func in (
        lambda t, y: OPERATIONS[number](y.roll(1, 0), y.sin() * t, t),
        lambda t, y: OPERATIONS[number](y * t, y.roll(1, 1), t),
    ):
        assert not (nonzeros(func, y) & ~dense(pattern_of(func, y))).any()


@_on_graphs(examples=_COUNT // _TOGETHER, steps=8)
def test_random_graphs(julia: str, graphs: list[Graph], seed: int) -> None:
    def func(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([_apply(g, t, x) for g, x in zip(graphs, y.unbind(0), strict=True)])

    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(_TOGETHER, 4, 3, dtype=torch.float64, generator=generator)
    compare(func, 0.37, y, tolerance=1e-11)


def _keeps_rows_apart(func: Callable[[Tensor, Tensor], Tensor], y: Tensor) -> bool:
    try:
        return translate(trace(func, y, derivatives=True)).rows is not None
    except TraceError:
        return False


@_on_graphs(examples=max(1, _COUNT // 50), steps=5)
def test_random_rows(julia: str, graphs: list[Graph], seed: int) -> None:
    """As above, of those graphs that are computed for some rows of the state at a time."""
    fewest, source._FEWEST_ROWS = source._FEWEST_ROWS, 2
    try:
        generator = torch.Generator().manual_seed(seed)
        y = torch.randn(4, 3, dtype=torch.float64, generator=generator)
        chosen = [g for g in graphs if _keeps_rows_apart(partial(_apply, g), y)]
        assume(chosen)

        def func(t: Tensor, y: Tensor) -> Tensor:
            parts = y.unbind(1)
            return torch.stack([_apply(g, t, x) for g, x in zip(chosen, parts, strict=True)], 1)

        y = torch.randn(4, len(chosen), 3, dtype=torch.float64, generator=generator)
        assert _keeps_rows_apart(func, y)
        compare(func, 0.37, y, tolerance=1e-11)
    finally:
        source._FEWEST_ROWS = fewest
