"""The Julia source of a model: its right-hand side and the vector-Jacobian products.

The functions see flat vectors: the state ``u``, the parameters ``p``, the constants ``c`` and
scratch memory ``w``. Torch's row-major ``(B, D)`` and a flat vector are the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .emit import Output, emit_function
from .graph import GraphTranslator, check_exact, exact_integers
from .layout import View
from .program import Program

if TYPE_CHECKING:
    from ..trace.capture import Traced


@dataclass(frozen=True)
class ModelSource:
    """Generated Julia code and the layout of the vectors that it reads.

    Attributes
    ----------
    code : str
        Julia functions ``value(du, u, p, time, c, w)`` and, where the graph has derivatives,
        ``vjp(g, v, u, p, time, c, w)``, ``vjp_p(...)`` and ``dt(...)``.
    names : tuple of str
        The functions in ``code``.
    workspace : int
        The length of ``w``.
    parameters : tuple of torch.Tensor
        The tensors that ``p`` holds, one after the other.
    constants : tuple of torch.Tensor
        The tensors that ``c`` holds.
    depends_on_time : bool
        Whether the derivative with respect to time can differ from zero.
    operations : tuple of str
        The ATen operations of the graph, for reports.
    """

    code: str
    names: tuple[str, ...]
    workspace: int
    parameters: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    depends_on_time: bool
    operations: tuple[str, ...]


def translate(traced: Traced) -> ModelSource:
    """Generate the Julia source of a traced function.

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
    tensors: dict[int, View] = {}
    _place(program, "p", traced.parameters, tensors)
    end = _place(program, "c", traced.constants, tensors)
    translator = GraphTranslator(traced.graph, program, placeholders, tensors, traced.dtype)
    outputs = translator.run()
    constants = list(traced.constants)
    for tensor, view in translator.constants:
        assert view.buffer is not None
        view.buffer.offset = end
        end += tensor.numel()
        constants.append(tensor)

    functions = []
    for name, arguments, wanted in _functions(traced, outputs):
        functions.append((name, *emit_function(name, arguments, program, wanted)))
    return ModelSource(
        code="\n".join(source for _, source, _ in functions),
        names=tuple(name for name, _, _ in functions),
        workspace=max(size for _, _, size in functions),
        parameters=traced.parameters,
        constants=tuple(constants),
        depends_on_time=traced.has_derivatives and outputs[1] is not None,
        operations=tuple(
            sorted({str(n.target) for n in traced.graph.graph.nodes if n.op == "call_function"})
        ),
    )


def _place(program: Program, name: str, tensors: Sequence[Tensor], views: dict[int, View]) -> int:
    offset = 0
    for tensor in tensors:
        check_exact(tensor, program.exact)
        kind = "b" if tensor.dtype == torch.bool else "f"
        views[id(tensor)] = program.input(name, offset, tensor.shape, kind)
        offset += tensor.numel()
    return offset


def _functions(
    traced: Traced, outputs: Sequence[View | None]
) -> list[tuple[str, str, list[Output]]]:
    n = traced.shape.numel()
    value = [Output("du", 0, n, outputs[0])]
    functions = [("value", "du, u, p, time, c, w", value)]
    if not traced.has_derivatives:
        return functions
    arguments = "g, v, u, p, time, c, w"
    functions.append(("vjp", arguments, [Output("g", 0, n, outputs[2])]))
    gradients, offset = [], 0
    for tensor, view in zip(traced.parameters, outputs[3:], strict=True):
        gradients.append(Output("g", offset, tensor.numel(), view))
        offset += tensor.numel()
    functions.append(("vjp_p", arguments, gradients))
    functions.append(("vjp_t", arguments, [Output("g", 0, 1, outputs[1])]))
    return functions
