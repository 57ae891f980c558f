"""The program a traced graph becomes: buffers, views of them, and the operations between.

Operations are appended in the graph's order and each writes a buffer of its own, except the
in-place ones. Fusing, memory and Julia text come later, in :mod:`pyjlode.translate.emit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .draws import Constant
from .known import Known, of_tensor
from .layout import Buffer, View, expand, whole

# The template of an index that is looked at: NaN where it lies outside.
BOUNDED = "bounded({0}, {1})"


@dataclass(eq=False)
class Pointwise:
    """``out[i] = template(args[i])`` for every element; arguments have the shape of ``out``."""

    out: View
    template: str
    args: list[View]
    in_place: bool = False

    @property
    def reads(self) -> list[View]:
        return self.args


@dataclass(eq=False)
class Reduce:
    """Fold the dimensions ``dims`` of ``arg`` with a binary operation, starting from ``start``."""

    out: View
    arg: View
    dims: tuple[int, ...]
    template: str
    start: str
    in_place: bool = False

    @property
    def reads(self) -> list[View]:
        return [self.arg]


@dataclass(eq=False)
class Call:
    """A call of a compiled routine: ``function(out, arg, ..., *integers)``."""

    out: View
    function: str
    args: list[View]
    integers: tuple[int, ...]
    in_place: bool = False

    @property
    def reads(self) -> list[View]:
        return self.args


Operation = Pointwise | Reduce | Call


@dataclass
class Program:
    """Operations under construction, with the inputs that they may read.

    Attributes
    ----------
    exact : int
        Integers up to this one are numbers of the model's type, without gaps.
    mutates : bool
        Whether the graph writes into tensors that it made, so that constants need memory.
    operations : list of Operation
        In the order of the graph.
    inputs : dict of Buffer to str
        Buffers that the caller owns, and the Julia argument that holds each.
    origins : dict of Operation to str
        The ATen operation that each comes from.
    constants : list of (torch.Tensor or Draw, View)
        What translation made, for the end of the vector of constants.
    known : dict of Buffer to Known
        Values that are known now (see :mod:`pyjlode.translate.known`).
    """

    exact: int = 2**53
    mutates: bool = False
    operations: list[Operation] = field(default_factory=list)
    inputs: dict[Buffer, str] = field(default_factory=dict)
    origins: dict[Operation, str] = field(default_factory=dict)
    constants: list[tuple[Constant, View]] = field(default_factory=list)
    known: dict[Buffer, Known] = field(default_factory=dict)

    def input(self, name: str, offset: int, shape: Sequence[int], kind: str = "f") -> View:
        """A tensor of the caller's: part of the argument ``name``, from ``offset``."""
        size = 1
        for n in shape:
            size *= n
        buffer = Buffer(size, kind, name, offset, scalar=name == "t")
        self.inputs[buffer] = name
        return whole(buffer, shape)

    def constant(self, constant: Constant) -> View:
        """A tensor whose values are known before a solve; its place is given at the end."""
        kind = "b" if constant.dtype == torch.bool else "f"
        view = self.input("c", 0, constant.shape, kind)
        self.constants.append((constant, view))
        if isinstance(constant, Tensor):
            self.learn(view, of_tensor(constant))
        return view

    def learn(self, view: View, known: Known | None) -> None:
        """Note a tensor's values, if they are known and it has memory of its own."""
        if known is not None and view.buffer is not None and view.is_whole:
            self.known[view.buffer] = known

    def pointwise(
        self, template: str, args: Sequence[View], shape: Sequence[int], kind: str = "f"
    ) -> View:
        out = self.new(shape, kind)
        self.operations.append(Pointwise(out, template, [expand(a, shape) for a in args]))
        return out

    def reduce(self, arg: View, dims: Sequence[int], template: str, start: str) -> View:
        """Fold ``dims``, which stay as dimensions of length one."""
        shape = [1 if d in dims else n for d, n in enumerate(arg.shape)]
        out = self.new(shape, "f", scalar=False)
        self.operations.append(Reduce(out, arg, tuple(dims), template, start))
        return out

    def call(
        self, function: str, args: Sequence[View], integers: Sequence[int], shape: Sequence[int]
    ) -> View:
        out = self.new(shape, "f", scalar=False)
        self.operations.append(Call(out, function, list(args), tuple(integers)))
        return out

    def update(
        self, function: str, out: View, args: Sequence[View], integers: Sequence[int]
    ) -> None:
        """Call a routine that changes some elements of ``out``, which is all of a buffer."""
        self.operations.append(Call(out, function, list(args), tuple(integers), in_place=True))

    def write(self, target: View, source: View, template: str = "{0}") -> None:
        """Store into memory that already has a meaning: ``copy_``, ``cat``, slices of a result."""
        if target.buffer is not None:
            target.buffer.scalar = False
        self.operations.append(
            Pointwise(target, template, [expand(source, target.shape)], in_place=True)
        )

    def new(self, shape: Sequence[int], kind: str, scalar: bool | None = None) -> View:
        size = 1
        for n in shape:
            size *= n
        return whole(Buffer(size, kind, scalar=not shape if scalar is None else scalar), shape)
