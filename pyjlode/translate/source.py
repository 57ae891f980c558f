"""The Julia source of a model: its right-hand side and the vector-Jacobian products.

The functions see flat vectors: the state ``u``, the parameters ``p``, the constants ``c`` and
scratch memory ``w``. Torch's row-major ``(B, D)`` and a flat vector are the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .draws import Constant, place
from .emit import Emitted, Output, emit_function
from .emit_rows import emit_row_function
from .graph import GraphTranslator
from .known import Known, of_tensor
from .layout import View
from .numbers import check_exact, exact_integers
from .operations.complex import as_real
from .program import Program
from .rows import RowsMixedError
from .sparsity import Pattern, jacobian_pattern

if TYPE_CHECKING:
    from ..trace.capture import Traced


# Fewer rows than this do not fill the processor's vectors.
_FEWEST_ROWS = 8
_LANES = {torch.float64: 8, torch.float32: 16}
# Blocks of so many rows, or less where a row has so many numbers that they would leave the cache.
_BLOCK = 64
_CACHED = 1 << 16


@dataclass(frozen=True)
class RowSplit:
    """Functions that can be computed for some rows of the state at a time.

    Attributes
    ----------
    batch : int
        Number of rows.
    block : int
        How many are computed at a time; any part of the rows should be a multiple of it.
    work : int
        About how many operations a row takes in the right-hand side.
    """

    batch: int
    block: int
    work: int


@dataclass(frozen=True)
class ModelSource:
    """Generated Julia code and the layout of the vectors that it reads.

    Attributes
    ----------
    code : str
        Julia functions ``value(du, u, p, time, c, w)`` and, where the graph has derivatives,
        ``vjp(g, v, u, p, time, c, w)``, ``vjp_p(...)``, ``vjp_both(g, gp, v, ...)`` with the
        results of these two, and ``vjp_t(...)``; for implicit methods
        ``tgrad(du, u, p, time, c, w)`` too, and where the graph has second derivatives
        ``vjp_jvp(g, gp, v, k, u, p, time, c, w)``: the gradient of ``v·(df/dy k + s df/dt)``, where
        ``k`` ends with ``s`` and ``g`` with the derivative with respect to time. With ``rows`` all
        end in ``offset, first, rows``.
    names : tuple of str
        The functions in ``code``.
    workspace : int
        The length of ``w``.
    parameters : tuple of torch.Tensor
        The tensors that ``p`` holds, one after the other.
    constants : tuple of torch.Tensor or Draw
        What ``c`` holds: tensors, and random numbers to be drawn for each solve.
    depends_on_time : bool
        Whether the derivative with respect to time can differ from zero.
    pattern : Pattern or None
        Of the Jacobian, for implicit methods.
    steps : dict of str to tuple of str
        For each function, its loops and calls in words, with the ATen operations in each.
    rows : RowSplit or None
        None where a row's results can rest on another row's.
    """

    code: str
    names: tuple[str, ...]
    workspace: int
    parameters: tuple[Tensor, ...]
    constants: tuple[Constant, ...]
    depends_on_time: bool
    pattern: Pattern | None
    steps: Mapping[str, tuple[str, ...]]
    rows: RowSplit | None = None


def translate(traced: Traced, *, fixed: bool = True) -> ModelSource:
    """Generate the Julia source of a traced function.

    Parameters
    ----------
    traced : Traced
    fixed : bool, optional
        Whether the Jacobian's pattern may follow from the values of constants: then the code holds
        for these only (see ``pattern.origins``).

    Raises
    ------
    TraceError
        If an operation of the graph has no Julia code; the message names it.
    """
    program = Program(exact=exact_integers(traced.dtype))
    shape = traced.shape
    placeholders = {
        "t_1": program.input("t", 0, ()),
        "y_1": program.input("u", 0, shape),
        "v_1": program.input("v", 0, shape),
    }
    if traced.has_second:
        placeholders["k_1"] = program.input("k", 0, shape)
        placeholders["s_1"] = program.input("k", shape.numel(), ())
    tensors: dict[int, View] = {}
    _place(program, "p", traced.parameters, tensors)
    end = _place(program, "c", traced.constants, tensors)
    known = _known(traced, fixed) if traced.has_jacobian else {}
    for key, values in known.items():
        program.learn(tensors[key], values)
    translator = GraphTranslator(traced.graph, program, placeholders, tensors, traced.dtype, known)
    outputs = translator.run()
    constants = (*traced.constants, *place(program.constants, end))
    pattern = None
    if traced.has_jacobian and outputs[0] is not None:
        pattern = jacobian_pattern(program, outputs[0], shape.numel())

    wanted = _functions(traced, outputs)
    rows, functions = _emit_rows(traced, program, wanted)
    if rows is None:
        functions = {
            name: emit_function(name, arguments, program, results)
            for name, arguments, results in wanted
        }
    return ModelSource(
        code="\n".join(f.source for f in functions.values()),
        names=tuple(functions),
        workspace=max(f.workspace for f in functions.values()),
        parameters=traced.parameters,
        constants=constants,
        depends_on_time=traced.has_derivatives and outputs[1] is not None,
        pattern=pattern,
        steps={name: f.steps for name, f in functions.items()},
        rows=rows,
    )


def _emit_rows(
    traced: Traced, program: Program, wanted: Sequence[tuple[str, str, list[Output]]]
) -> tuple[RowSplit | None, dict[str, Emitted]]:
    """All functions by rows, or none."""
    batch = traced.shape[0] if traced.shape else 1
    by_rows = wanted[0][2][0].rows and not traced.has_jacobian
    if not by_rows or batch < _FEWEST_ROWS or traced.shape.numel() == 0:
        return None, {}
    largest, lanes = _BLOCK, _LANES[traced.dtype]
    while True:
        blocks = -(-batch // largest)
        block = -(-batch // (blocks * lanes)) * lanes
        try:
            found = {
                name: emit_row_function(name, arguments, program, results, batch, block)
                for name, arguments, results in wanted
            }
        except RowsMixedError:
            return None, {}
        functions = {name: f.function for name, f in found.items()}
        if largest == 16 or max(f.workspace for f in functions.values()) <= _CACHED:
            return RowSplit(batch, block, found["value"].work), functions
        largest //= 2


def _place(program: Program, name: str, tensors: Sequence[Tensor], views: dict[int, View]) -> int:
    offset = 0
    for tensor in tensors:
        check_exact(tensor, program.exact)
        kind = "b" if tensor.dtype == torch.bool else "f"
        numbers = as_real(tensor)
        views[id(tensor)] = program.input(name, offset, numbers.shape, kind)
        offset += numbers.numel()
    return offset


def _known(traced: Traced, fixed: bool) -> dict[int, Known]:
    """By id, constants whose values may be used: those that never change, or all."""
    found = {}
    for x in traced.constants:
        own = id(x) in traced.places or id(x) in traced.made
        known = of_tensor(x, fixed=own) if own or fixed else None
        if known is not None:
            found[id(x)] = known
    return found


def _functions(
    traced: Traced, outputs: Sequence[View | None]
) -> list[tuple[str, str, list[Output]]]:
    n = traced.shape.numel()
    # A right-hand side gives as many numbers as the state has, the values of events others.
    size = n if outputs[0] is None else prod(outputs[0].shape)
    value = [Output("du", 0, size, outputs[0], rows=size == n)]
    functions = [("value", "du, u, p, time, c, w", value)]
    if not traced.has_derivatives:
        return functions
    arguments = "g, v, u, p, time, c, w"
    functions.append(("vjp", arguments, [Output("g", 0, n, outputs[2], rows=True)]))
    end = 3 + len(traced.parameters)
    gradients = _gradients(traced, outputs[3:end])
    functions.append(("vjp_p", arguments, gradients))
    # Both at once: what they have in common is computed once.
    joint = [Output("g", 0, n, outputs[2], rows=True)]
    joint += [replace(output, name="gp") for output in gradients]
    functions.append(("vjp_both", f"g, gp, {arguments[3:]}", joint))
    functions.append(("vjp_t", arguments, [Output("g", 0, 1, outputs[1])]))
    # Where df/dt has no graph of its own though time counts, Julia makes it of vjp_t.
    if traced.has_jacobian and (outputs[end] is not None or outputs[1] is None):
        functions.append(("tgrad", "du, u, p, time, c, w", [Output("du", 0, n, outputs[end])]))
    if traced.has_second:
        by_t, by_y, *by_p = outputs[end + 1 :]
        second = [Output("g", 0, n, by_y), Output("g", n, 1, by_t)]
        second += [replace(output, name="gp") for output in _gradients(traced, by_p)]
        functions.append(("vjp_jvp", "g, gp, v, k, u, p, time, c, w", second))
    return functions


def _gradients(traced: Traced, views: Sequence[View | None]) -> list[Output]:
    """What there is for each parameter, one after the other."""
    outputs, offset = [], 0
    for tensor, view in zip(traced.parameters, views, strict=True):
        size = as_real(tensor).numel()
        outputs.append(Output("g", offset, size, view))
        offset += size
    return outputs
