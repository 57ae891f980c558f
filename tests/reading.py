"""Functions ``f(t, y) = -k y`` that read ``k`` in many ways: ``name -> make``.

``make()`` gives the function and a change after which ``k`` is 3, where it was 1.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import math
import os
import types
from collections.abc import Callable
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

D = torch.float64
Func = Callable[[Tensor, Tensor], Tensor]
Case = Callable[[], tuple[Func, Callable[[], object]]]

NUMBERS: dict[str, Case] = {}
"""Those that make a number of a tensor."""

STATE: dict[str, Case] = {}
"""Those that read what is no tensor."""


def _number(read: Callable[[Tensor], Any]) -> Case:
    def make() -> tuple[Func, Callable[[], object]]:
        k = torch.tensor(1.0, dtype=D)
        return lambda t, y: -read(k) * y, lambda: k.fill_(3.0)

    return make


_ONE = torch.ones((), dtype=D)
_TABLE = [0.0, 1.0, 2.0, 3.0]
NUMBERS |= {
    "item": _number(lambda k: k.item()),
    "float": _number(float),
    "int": _number(int),
    "complex": _number(lambda k: complex(k).real),
    "tolist": _number(lambda k: k.tolist()),
    "sqrt": _number(lambda k: math.sqrt(k * k) if isinstance(k, float) else math.sqrt(k) ** 2),
    "round": _number(lambda k: round(k.item())),
    "table": _number(lambda k: _TABLE[int(k)]),
    "range": _number(lambda k: sum(1.0 for _ in range(int(k)))),
    "tensor": _number(lambda k: torch.tensor([k, 1.0], dtype=D)[0]),
    "new_tensor": _number(lambda k: k.new_tensor([k, 1.0])[0]),
    "numpy": _number(lambda k: float(k.numpy())),
    "asarray": _number(lambda k: float(np.asarray(k))),
    "detach": _number(lambda k: k.detach().item()),
    "computed": _number(lambda k: (2 * k).item() / 2),
    "full": _number(lambda k: torch.full((1,), k.item(), dtype=D)),
    "full_of_it": _number(lambda k: torch.full((1,), k, dtype=D)),
    "arange": _number(lambda k: float(len(torch.arange(int(k))))),
    "alpha": _number(lambda k: torch.add(torch.zeros(1, dtype=D), torch.ones(1).to(D), alpha=k)),
    "text": _number(lambda k: float(f"{k}")),
    "equal": _number(lambda k: 1.0 if torch.equal(k, _ONE) else 3.0),
    "bool": _number(lambda k: 1.0 if k.item() < 2 else 3.0),
}


def _element() -> tuple[Func, Callable[[], object]]:
    table, n = torch.tensor([1.0, 3.0], dtype=D), torch.tensor(0)
    return lambda t, y: -table[int(n)].item() * y, lambda: n.fill_(1)


def _index() -> tuple[Func, Callable[[], object]]:
    n = torch.tensor(1)
    return lambda t, y: -_TABLE[n] * y, lambda: n.fill_(3)


def _with_gradient() -> tuple[Func, Callable[[], object]]:
    k = torch.tensor(1.0, dtype=D, requires_grad=True)
    return lambda t, y: -k.item() * y, lambda: k.data.fill_(3.0)


def _buffer() -> tuple[Func, Callable[[], object]]:
    class Decay(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("k", torch.tensor(1.0, dtype=D))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return -self.k.item() * y

    decay = Decay()
    return decay, lambda: decay.k.fill_(3.0)


NUMBERS |= {
    "element": _element, "index": _index, "with_gradient": _with_gradient, "buffer": _buffer,
}  # fmt: skip


def _state(make: Case) -> Case:
    STATE[make.__name__.strip("_")] = make
    return make


def _held(first: Any, second: Any, read: Callable[[Any], float]) -> Case:
    def make() -> tuple[Func, Callable[[], object]]:
        model = types.SimpleNamespace(k=first)

        def change() -> None:
            model.k = second

        return lambda t, y: -read(model.k) * y, change

    return make


STATE |= {
    "numpy_number": _held(np.float64(1.0), np.float64(3.0), float),
    "numpy_integer": _held(np.int32(1), np.int32(3), float),
    "fraction": _held(Fraction(1), Fraction(3), float),
    "namedtuple": _held(
        collections.namedtuple("P", "k")(1.0), collections.namedtuple("P", "k")(3.0), lambda p: p.k
    ),
}


@dataclasses.dataclass(slots=True)
class Slotted:
    k: float = 1.0


class _Plain:
    __slots__ = ("k",)


@_state
def _slots_of_a_dataclass() -> tuple[Func, Callable[[], object]]:
    model = Slotted()
    return lambda t, y: -model.k * y, lambda: setattr(model, "k", 3.0)


@_state
def _slots() -> tuple[Func, Callable[[], object]]:
    model = _Plain()
    model.k = 1.0
    return lambda t, y: -model.k * y, lambda: setattr(model, "k", 3.0)


@_state
def _container_of_a_class() -> tuple[Func, Callable[[], object]]:
    class Decay:
        params: ClassVar[dict[str, float]] = {"k": 1.0}

        def __call__(self, t: Tensor, y: Tensor) -> Tensor:
            return -self.params["k"] * y

    return Decay(), lambda: Decay.params.update(k=3.0)


@_state
def _attribute_of_a_function() -> tuple[Func, Callable[[], object]]:
    def decay(t: Tensor, y: Tensor) -> Tensor:
        return -decay.k * y  # type: ignore[attr-defined]

    decay.k = 1.0  # type: ignore[attr-defined]
    return decay, lambda: setattr(decay, "k", 3.0)


_package = types.ModuleType("package_for_tests")
_package.settings = types.ModuleType("package_for_tests.settings")  # type: ignore[attr-defined]
_package.settings.K = 1.0


@_state
def _module_in_a_package() -> tuple[Func, Callable[[], object]]:
    _package.settings.K = 1.0
    return (
        lambda t, y: -_package.settings.K * y,
        lambda: setattr(_package.settings, "K", 3.0),
    )


@_state
def _array() -> tuple[Func, Callable[[], object]]:
    k = array.array("d", [1.0])
    return lambda t, y: -k[0] * y, lambda: k.__setitem__(0, 3.0)


@_state
def _numpy_array() -> tuple[Func, Callable[[], object]]:
    k = np.array([1.0])
    return lambda t, y: -float(k[0]) * y, lambda: k.__setitem__(0, 3.0)


_of_getitem = 1.0


class _Table:
    def __getitem__(self, name: str) -> float:
        return _of_getitem


@_state
def _global_of_getitem() -> tuple[Func, Callable[[], object]]:
    globals()["_of_getitem"] = 1.0
    table = _Table()
    return lambda t, y: -table["k"] * y, lambda: globals().update(_of_getitem=3.0)


@_state
def _environment() -> tuple[Func, Callable[[], object]]:
    os.environ["PYJLODE_TESTS_K"] = "1"
    return (
        lambda t, y: -float(os.environ["PYJLODE_TESTS_K"]) * y,
        lambda: os.environ.update(PYJLODE_TESTS_K="3"),
    )


_K = 1.0


@_state
def _globals() -> tuple[Func, Callable[[], object]]:
    globals()["_K"] = 1.0
    return lambda t, y: -globals()["_K"] * y, lambda: globals().update(_K=3.0)


@_state
def _inherited() -> tuple[Func, Callable[[], object]]:
    class Base:
        k = 1.0

        @property
        def rate(self) -> float:
            return self.k

    class Decay(Base):
        def __call__(self, t: Tensor, y: Tensor) -> Tensor:
            return -self.rate * y

    return Decay(), lambda: setattr(Base, "k", 3.0)


@_state
def _by_name() -> tuple[Func, Callable[[], object]]:
    model = types.SimpleNamespace(k1=1.0)
    names = ["k" + "1"]
    return lambda t, y: -getattr(model, names[0]) * y, lambda: setattr(model, "k1", 3.0)


@_state
def _in_a_list_of_modules() -> tuple[Func, Callable[[], object]]:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = 1.0

        def forward(self, y: Tensor) -> Tensor:
            return -self.k * y

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([Scale()])

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            for part in self.parts:
                y = part(y)
            return y

    chain = Chain()
    return chain, lambda: setattr(chain.parts[0], "k", 3.0)
