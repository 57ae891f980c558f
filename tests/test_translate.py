"""The table of operations against torch, one call at a time: value and vector-Jacobian products."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import pytest
import torch
from cases import MODELS, POINTWISE, SHAPES, make
from torch import Tensor
from translated import compare, in_julia, run
from translated_cases import INDEXING, ORDERING

from pyjlode.errors import TraceError
from pyjlode.trace.capture import trace

FUNCTIONS = {
    **POINTWISE,
    **SHAPES,
    **{f"indexing_{k}": f for k, f in INDEXING.items()},
    **{f"ordering_{k}": f for k, f in ORDERING.items()},
}


def _state(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return 0.2 + torch.rand(shape, dtype=dtype)


def _together(names: Iterable[str], count: int) -> list[list[str]]:
    """Some at a time: what a model costs beside its operations is more than most of these take."""
    given = list(names)
    return [given[i : i + count] for i in range(0, len(given), count)]


def _each(names: list[str], t: Tensor, y: Tensor) -> Tensor:
    """Each function on a part of its own."""
    return torch.stack([FUNCTIONS[name](t, x) for name, x in zip(names, y, strict=True)])


@pytest.mark.parametrize("names", _together(FUNCTIONS, 4), ids="+".join)
def test_batch(julia: str, names: list[str]) -> None:
    """Also the Jacobian, as implicit methods get it, with the derivative by time."""
    compare(partial(_each, names), 0.3, _state((len(names), 2, 3)), jacobian=True)


@pytest.mark.parametrize("names", _together(FUNCTIONS, 6), ids="+".join)
def test_strides(julia: str, names: list[str]) -> None:
    """A state that is every second element of another, in three dimensions, in single precision."""

    def func(t: Tensor, y: Tensor) -> Tensor:
        y = torch.stack([y, -y], -1).transpose(1, 2)[..., 0].transpose(1, 2)
        return _each(names, t, y)

    compare(func, 0.3, _state((len(names), 2, 2, 3), torch.float32))


@pytest.mark.parametrize(
    "names", _together([n for n in POINTWISE if n != "time_stack"], 9), ids="+".join
)
def test_zero_dimensions(julia: str, names: list[str]) -> None:
    compare(partial(_each, names), 0.3, _state((len(names),)))
    compare(POINTWISE[names[0]], 0.3, _state(()))


# The gradient of "derived" passes through torch, outside the function.
@pytest.mark.parametrize("name", [n for n in MODELS if n != "derived"])
def test_parameters(julia: str, name: str) -> None:
    func, tensors = make(name)
    compare(func, 0.3, _state((4, 3)), tensors)


EMPTY = {
    "index": lambda t, y: y * y[:, torch.tensor([2, 0, 0])],
    "index_none": lambda t, y: y + y[torch.zeros(0, dtype=torch.long)],
    "gather": lambda t, y: y.gather(1, (y * 3).long()),
    "scatter": lambda t, y: y.scatter_add(1, (y * 3).long(), y),
    "index_put": lambda t, y: y.index_put((torch.zeros(0, dtype=torch.long),), y, accumulate=True),
    "sort": lambda t, y: y.sort(-1)[0] + y.cumsum(0) + y.cumprod(0),
    "sort_empty": lambda t, y: y.sort(0)[0] + y.cummax(0)[0] + y.logcumsumexp(0),
    "max": lambda t, y: y - y.max(-1, keepdim=True)[0],
    "searchsorted": lambda t, y: y * torch.searchsorted(torch.arange(3).to(y), y),
    "sum": lambda t, y: y.sin() + y.sum() + y.softmax(-1),
}


@pytest.mark.parametrize("name", EMPTY)
def test_no_elements(julia: str, name: str) -> None:
    compare(EMPTY[name], 0.3, _state((0, 3)))


SCALARS = {
    "index_select": lambda t, y: y.index_select(0, torch.tensor([0])).sum(),
    "gather": lambda t, y: y.gather(0, torch.tensor(0)) * 2,
    "scatter_add": lambda t, y: y.scatter_add(0, torch.tensor(0), y.sin()),
    "sort": lambda t, y: y.sort()[0] * y.argmax() + y.cumsum(0) + y.cumprod(0),
    "max": lambda t, y: y * y.max(0)[0] + y.max() + y.topk(1)[0].sum() + y.median(),
    "searchsorted": lambda t, y: y * torch.searchsorted(torch.arange(3).to(y), y),
    "embedding": lambda t, y: torch.stack([y, t])[(y > 0.5).long()],
}


@pytest.mark.parametrize("name", SCALARS)
def test_scalars(julia: str, name: str) -> None:
    compare(SCALARS[name], 0.3, _state(()))


def test_embedding_of_parameters(julia: str) -> None:
    table = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([4, 0, 4, 1])

    def func(t: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.embedding(index, table, padding_idx=0) * y

    compare(func, 0.3, _state((4, 3)), [table])


def test_path_of_parameters(julia: str) -> None:
    """A control path, linear between knots: gradients of its values, its knots and the time."""
    times = torch.linspace(0, 1, 7, dtype=torch.float64, requires_grad=True)
    path = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)

    def func(t: Tensor, y: Tensor) -> Tensor:
        i = torch.searchsorted(times.detach(), t.detach()).clamp(1, 6)
        s = (t - times[i - 1]) / (times[i] - times[i - 1])
        return path[i - 1] * (1 - s) + path[i] * s - y

    for t in (0.0, 0.3, 0.5, 1.0):
        compare(func, t, _state((4, 3)), [times, path])


# What the dynamics compute may point outside a tensor: never into other memory.


@pytest.mark.parametrize("bad", [-1.0, 3.0, 1e300, float("nan"), float("inf")])
def test_reads_out_of_bounds_are_nan(julia: str, bad: float) -> None:
    def func(t: Tensor, y: Tensor) -> Tensor:
        return y.gather(0, (y * 0 + t).long()) + y.index_select(0, (y * 0 + t).long())

    y = _state((3,))
    value, _ = in_julia(func, bad, y, y)
    assert bool(value.isnan().all())
    value, _ = in_julia(lambda t, y: y[(y * 0 + t).long() - 3], bad - 1, y, y)
    assert bool(value.isnan().all()) == (bad != 3.0)  # -1 here: the last


@pytest.mark.parametrize("bad", [-4.0, 3.0, 1e300, float("nan")])
def test_writes_out_of_bounds_make_everything_nan(julia: str, bad: float) -> None:
    y = _state((3,))

    def scattered(t: Tensor, y: Tensor) -> Tensor:
        return y.scatter_add(0, (y[:1] * 0 + t).long(), y[:1])

    def put(t: Tensor, y: Tensor) -> Tensor:
        return y.index_put(((y[:1] * 0 + t).long(),), y[:1])

    for func in (scattered, put):
        value, _ = in_julia(func, bad, y, y)
        assert bool(value.isnan().all())


def test_a_mask_that_changes_its_count_is_nan(julia: str) -> None:
    mask = torch.tensor([True, False, True])

    def func(t: Tensor, y: Tensor) -> Tensor:
        return y + y[mask].sum()

    y = _state((3,))
    traced = trace(func, y, derivatives=False)
    assert torch.equal(run(traced, 0.3, y), func(torch.tensor(0.3), y))
    mask[1] = True
    assert bool(run(traced, 0.3, y).isnan().all())


# Integers that floating point numbers don't have are refused.


def test_large_integers_are_refused(julia: str) -> None:
    y = _state((3,), torch.float32)
    with pytest.raises(TraceError, match="16777217"):
        in_julia(lambda t, y: y * (torch.tensor([1, 2, 2**24 + 1]) % 3), 0.3, y, y)
    with pytest.raises(Exception, match="beyond the exact range"):
        in_julia(lambda t, y: y * (((y * 0).long() + 2**20) * 2**20 % 3), 0.3, y, y)
    y = y.double()
    compare(lambda t, y: y * (((y * 0).long() + 2**20) * 2**20 % 3), 0.3, y)


def test_special_functions_beside_scipy(julia: str) -> None:
    """Torch's own digamma and polygamma are right to eight digits only."""
    special = pytest.importorskip("scipy.special")
    y = torch.linspace(-3.3, 12.0, 40, dtype=torch.float64)
    for n in range(4):
        value, _ = in_julia(lambda t, y, n=n: torch.polygamma(n, y).detach() + 0 * y, 0.3, y, y)
        expected = special.psi(y.numpy()) if n == 0 else special.polygamma(n, y.numpy())
        positive = y > 0 if n > 1 else y > -10  # scipy has higher ones of positive numbers only
        torch.testing.assert_close(
            value[positive], torch.from_numpy(expected)[positive], rtol=1e-12, atol=1e-13
        )
