"""Trace a torch function and its vector-Jacobian product into one ATen graph.

The function runs once on fake tensors, which have shapes and no values, so nothing of a
particular state or time can be baked in by accident: code that needs a value fails to trace.
Tensors that the function gets from outside (parameters, buffers, whatever it closes over) are
found by identity, and their current values are read at each solve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import DerivativeError, TraceError
from .copies import leave_out_copies, on_copies
from .cut import Cut
from .decompositions import decompositions
from .indexing import StaticIndexing
from .locate import line_that_raised
from .modes import traceable
from .reads import NEEDS_VALUE, SCALAR, Reads
from .sparse import is_place
from .updates import take_out_updates

Dynamics = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Traced:
    """A traced function.

    Attributes
    ----------
    graph : torch.fx.GraphModule
        Placeholders ``t_1, y_1, v_1``; outputs ``(value,)`` or, with derivatives, ``(value,
        v·df/dt, v·df/dy, v·df/dp..., df/dt)``, the last for implicit methods. With second
        derivatives placeholders ``k_1, s_1`` too, and further outputs: the gradient of
        ``v·(df/dy k + s df/dt)`` with respect to ``t, y, p...``.
    shape : torch.Size
        Of the state.
    dtype : torch.dtype
        Of the state, and of every floating point number in the graph.
    parameters : tuple of torch.Tensor
        Tensors from outside that require a gradient.
    constants : tuple of torch.Tensor
        The other tensors from outside.
    updated : tuple of torch.Tensor
        Tensors from outside that the function changes and no result rests on.
    has_derivatives : bool
    has_jacobian : bool
        Whether ``df/dt`` is among the outputs, for methods that need Jacobians.
    has_second : bool
        Whether second derivatives are.
    places : frozenset of int
        The ids of those constants that are indices and do not change.
    reads : tuple of torch.Tensor
        Tensors from outside that the function read as numbers: the graph holds for the values
        that they have now.
    made : frozenset of int
        The ids of those constants that the function makes itself, of numbers.
    """

    graph: fx.GraphModule
    shape: torch.Size
    dtype: torch.dtype
    parameters: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    updated: tuple[Tensor, ...]
    has_derivatives: bool
    has_jacobian: bool = False
    has_second: bool = False
    places: frozenset[int] = frozenset()
    reads: tuple[Tensor, ...] = ()
    made: frozenset[int] = frozenset()

    @property
    def uses_time(self) -> bool:
        """Whether the value rests on the time, if only by a switch, whose derivative is zero."""
        (output,) = (node for node in self.graph.graph.nodes if node.op == "output")
        value = output.args[0][0]
        seen, todo = set(), [value] if isinstance(value, fx.Node) else []
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo += node.all_input_nodes
        return any(node.op == "placeholder" and node.target == "t_1" for node in seen)


def _make_graph(function: Callable[..., Any], reads: Reads, *examples: Tensor) -> fx.GraphModule:
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        with traceable(), StaticIndexing(), reads:
            graph = make_fx(
                function,
                decomposition_table={**decompositions(), SCALAR: reads.rule()},
                tracing_mode="fake",
                _allow_non_fake_inputs=True,
            )(*examples)
    except DerivativeError:
        raise
    except TraceError as error:
        raise TraceError(str(error), line=line_that_raised(error)) from error
    except Exception as error:
        raise TraceError(_reason(error), line=line_that_raised(error)) from error
    leave_out_copies(graph)
    reads.resolve(graph)
    return graph


def _reason(error: Exception) -> str:
    name = type(error).__name__
    if name in ("GuardOnDataDependentSymNode", "DataDependentOutputException"):
        return NEEDS_VALUE
    if name == "TypeError" and "SymFloat" in str(error):  # a format
        return NEEDS_VALUE
    lines = str(error).strip().splitlines()
    return f"torch could not trace it ({name}: {lines[0] if lines else ''})"


def trace(
    func: Dynamics,
    example: Tensor,
    *,
    derivatives: bool,
    jacobian: bool = False,
    second: bool = False,
) -> Traced:
    """Trace ``func(t, y)`` for states like ``example``.

    Parameters
    ----------
    func : callable
        ``func(t, y) -> dy/dt``, with ``t`` a scalar tensor.
    example : torch.Tensor
        Its shape and dtype count; its values don't.
    derivatives : bool
        Whether to trace the vector-Jacobian product as well.
    jacobian : bool, optional
        With derivatives: whether to trace ``df/dt`` too.
    second : bool, optional
        With a Jacobian: whether to trace second derivatives too, where torch has them.

    Returns
    -------
    Traced

    Raises
    ------
    TraceError
        If torch cannot trace the function.

    Examples
    --------
    >>> import torch
    >>> k = torch.tensor(2.0, requires_grad=True)
    >>> traced = trace(lambda t, y: -k * y, torch.zeros(3), derivatives=True)
    >>> traced.parameters[0] is k
    True
    """
    y = torch.zeros_like(example.detach(), memory_format=torch.contiguous_format)
    t = torch.zeros((), dtype=y.dtype)
    func, reads = on_copies(func), Reads()

    def value(t: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            out = func(t, y)
        return (out.detach(),)

    graph = _make_graph(value, reads, t, y, torch.zeros_like(y))
    updated = take_out_updates(graph)
    outside = _outside_tensors(graph)
    parameters = tuple(x for x in outside if x.requires_grad)
    has_second = False
    if derivatives:
        graph, has_second = _trace_derivatives(func, reads, t, y, parameters, jacobian, second)
        updated = take_out_updates(graph)
        known = {id(x) for x in parameters}
        more = [x for x in _outside_tensors(graph) if x.requires_grad and id(x) not in known]
        if more:  # func looks whether its state requires a gradient, and uses them only then
            parameters = (*parameters, *more)
            graph, has_second = _trace_derivatives(func, reads, t, y, parameters, jacobian, second)
            updated = take_out_updates(graph)
    constants = tuple(x for x in _outside_tensors(graph) if not x.requires_grad)
    made = _made(graph) | reads.made.keys()
    read = tuple(x for x in reads.found.values() if id(x) not in made)
    for x in parameters:
        if x.dtype not in (y.dtype, y.dtype.to_complex()):
            raise TraceError(f"it uses a parameter of {x.dtype}, and the state is of {y.dtype}")
    for x in constants:
        real = x.real.dtype if x.is_complex() else x.dtype
        if torch.promote_types(real, y.dtype) != y.dtype:
            raise TraceError(f"it uses a tensor of {x.dtype}, and the state is of {y.dtype}")
    return Traced(
        graph, y.shape, y.dtype, parameters, constants, updated, derivatives, jacobian, has_second,
        frozenset(id(x) for x in constants if is_place(x)), read, frozenset(made),
    )  # fmt: skip


def _trace_derivatives(
    func: Dynamics,
    reads: Reads,
    t: Tensor,
    y: Tensor,
    parameters: tuple[Tensor, ...],
    jacobian: bool,
    second: bool,
) -> tuple[fx.GraphModule, bool]:
    """The joint graph, and whether it has second derivatives: not all operations have them."""
    cut = Cut(parameters)
    graph, has_second = _trace_joint(func, reads, t, y, cut, parameters, jacobian, second)
    cut.restore(graph)
    reads.found = {id(x): x for x in map(cut.original, reads.found.values())}
    return graph, has_second


def _trace_joint(
    func: Dynamics, reads: Reads, t: Tensor, y: Tensor, cut: Cut, parameters: tuple[Tensor, ...],
    jacobian: bool, second: bool,
) -> tuple[fx.GraphModule, bool]:  # fmt: skip
    # One example each: make_fx knows a tensor by its identity.
    v, k, s = torch.zeros_like(y), torch.zeros_like(y), torch.zeros_like(t)
    if jacobian and second:
        joint = _Joint(func, cut, parameters, twice=True, jacobian=True)
        try:
            graph = _make_graph(lambda t, y, v, k, s: joint(t, y, v, k, s), reads, t, y, v, k, s)
        except TraceError:
            pass
        else:
            # torch.cond's derivative is a constant to torch, and it does not say so.
            if not _has_branches(graph):
                return graph, True
    joint = _Joint(func, cut, parameters, twice=jacobian, jacobian=jacobian)
    try:
        return _make_graph(lambda t, y, v: joint(t, y, v), reads, t, y, v), False
    except TraceError:
        if not jacobian:
            raise
    joint = _Joint(func, cut, parameters, twice=False, jacobian=jacobian)
    return _make_graph(lambda t, y, v: joint(t, y, v), reads, t, y, v), False


@dataclass(frozen=True)
class _Joint:
    """A function with its derivatives, in the order of :class:`Traced`'s outputs.

    Without ``twice`` the derivatives are not differentiated again, and ``df/dt`` stays None.
    """

    func: Dynamics
    cut: Cut
    parameters: tuple[Tensor, ...]
    twice: bool
    jacobian: bool

    def __call__(
        self, t: Tensor, y: Tensor, v: Tensor, k: Tensor | None = None, s: Tensor | None = None
    ) -> tuple[Tensor | None, ...]:
        t, y, v = (x.detach().requires_grad_() for x in (t, y, v))
        inputs = [t, y, *(self.cut.stand_in(x) for x in self.parameters)]
        with torch.enable_grad(), self.cut:
            out = self.cut.stand_in(self.func(t, y))
        if not out.requires_grad:
            missing = self.jacobian + len(inputs) * (1 + (k is not None))
            return (out, *[None] * missing)
        gradients = torch.autograd.grad(out, inputs, v, allow_unused=True, create_graph=self.twice)
        found: list[Tensor | None] = [None if g is None else g.detach() for g in gradients]
        if self.jacobian:
            found.append(_time_gradient(gradients[0], v) if self.twice else None)
        if k is not None and s is not None:
            found += _second(gradients[:2], (s, k), inputs)
        return (out.detach(), *found)


def _second(
    products: Sequence[Tensor | None], directions: Sequence[Tensor], inputs: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """The gradient of the sum of ``products``, each times its direction."""
    with torch.enable_grad():
        terms = [(g * k).sum() for g, k in zip(products, directions, strict=True) if g is not None]
    if not terms:
        return [None] * len(inputs)
    # All are linear in v, so what does not rest on it is cut off from its origin.
    if not all(term.requires_grad for term in terms):
        raise TraceError("torch cannot differentiate it twice")
    return torch.autograd.grad(terms, inputs, allow_unused=True)


def _has_branches(graph: fx.GraphModule) -> bool:
    return any(isinstance(x, fx.GraphModule) for x in graph.children())


def _time_gradient(product: Tensor | None, v: Tensor) -> Tensor | None:
    """``df/dt`` from ``v·df/dt``, which is linear in ``v``; None where torch does not say."""
    if product is None or not product.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(product, [v], allow_unused=True, retain_graph=True)
    return gradient


def _made(graph: fx.GraphModule) -> set[int]:
    """The ids of tensors that the traced code made of numbers: torch uses copies of these."""
    found: set[int] = set()
    for node in graph.graph.nodes:
        if node.op != "get_attr":
            continue
        value = getattr(graph, str(node.target))
        if isinstance(value, fx.GraphModule):
            found |= _made(value)
        elif node.users and all(user.target in _FRESH for user in node.users):
            found.add(id(value))
    return found


_FRESH = {torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default}


def _outside_tensors(graph: fx.GraphModule) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            value = getattr(graph, str(node.target))
            if isinstance(value, fx.GraphModule):  # a branch of torch.cond
                found.update((id(x), x) for x in _outside_tensors(value))
            elif isinstance(value, Tensor) and value.layout is torch.strided:
                found[id(value)] = value
            elif isinstance(value, Tensor):
                raise TraceError("it uses a sparse tensor in another way than in a product")
            else:
                raise TraceError(f"it uses a {type(value).__name__} of its own")
    return list(found.values())
