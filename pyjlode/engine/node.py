"""A solve as a node of autograd's graph, under all of torch's transforms and of every order.

The values and the first gradient are Julia's. Every further derivative (of the gradient, by forward
mode, under ``vmap``) is a node again, whose value comes from the solve's steps made anew in torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad

from ..errors import UnsupportedError
from ..trace.transforms import within_functorch
from .arrays import in_memory
from .replay import Replay

if TYPE_CHECKING:
    from .solve import Solve

_Backward = Callable[..., tuple[Tensor | None, ...]]


@dataclass
class Call:
    """One call of a solve.

    Attributes
    ----------
    solve : Solve
    solved : Any
        Julia's handle, after the forward pass.
    elements : dict of int to list of Call
        Of a ``vmap``, by its depth among the transforms under way: the calls for its elements.
    """

    solve: Solve
    solved: Any = None
    elements: dict[int, list[Call]] = field(default_factory=dict)

    @contextmanager
    def replay(self) -> Iterator[Replay]:
        """The steps to be made again, while the function is as it was in the solve."""
        with self.solve.as_it_was():
            yield self.solve.replay(self.solved)


class States:
    """The solution at the save points, of the initial state, the times and the parameters."""

    def compute(self, call: Call, *inputs: Tensor) -> tuple[Tensor, ...]:
        """By Julia."""
        y0, t, *parameters = inputs
        out, call.solved = call.solve.forward(y0, t, tuple(parameters), keep=call.solve.keep)
        return (out,)

    def in_torch(self, replay: Replay, *inputs: Tensor) -> tuple[Tensor, ...]:
        """By torch, differentiable."""
        y0, t, *parameters = inputs
        return (replay.states(y0, t, parameters),)


class _Derivative:
    """Of the map ``of``; what it is taken of comes first among its inputs."""

    def __init__(self, of: States | _Derivative, count: int) -> None:
        self.of = of
        self.count = count

    def compute(self, call: Call, *inputs: Tensor) -> tuple[Tensor, ...]:
        """From the steps made again."""
        with torch.enable_grad(), call.replay() as replay:
            leaves = [x.detach().requires_grad_() for x in inputs]
            found = self.in_torch(replay, *leaves)
        return tuple(x.detach() for x in found)

    def in_torch(self, replay: Replay, *inputs: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def _evaluate(
        self, replay: Replay, inputs: Sequence[Tensor]
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        # Other tensors of the same numbers, lest the derivative go beyond them.
        points = [x.view_as(x) for x in inputs[: self.count]]
        return points, self.of.in_torch(replay, *points)


class Vjp(_Derivative):
    """The gradients by those inputs that are ``wanted``, of the cotangents."""

    def __init__(self, of: States | _Derivative, count: int, wanted: Sequence[bool]) -> None:
        super().__init__(of, count)
        self.wanted = tuple(wanted)

    def compute(self, call: Call, *inputs: Tensor) -> tuple[Tensor, ...]:
        if not isinstance(self.of, States):
            return super().compute(call, *inputs)
        _, t, *parameters = inputs[: self.count]
        shapes = (t.dtype, [p.shape for p in parameters])
        return self.by_julia(call, inputs[self.count], shapes)

    def by_julia(self, call: Call, cotangent: Tensor, shapes: Any) -> tuple[Tensor, ...]:
        t_dtype, shapes = shapes
        u, t, parameters = call.solve.backward(
            call.solved, in_memory(cotangent), self.wanted[1], shapes
        )
        found = (u, t.to(t_dtype), *parameters)
        return tuple(g for g, wanted in zip(found, self.wanted, strict=True) if wanted)

    def in_torch(self, replay: Replay, *inputs: Tensor) -> tuple[Tensor, ...]:
        points, values = self._evaluate(replay, inputs)
        wanted = [x for x, w in zip(points, self.wanted, strict=True) if w]
        return _gradients(values, wanted, inputs[self.count :])


class Jvp(_Derivative):
    """The derivatives along the tangents, by the gradient's dependence on its cotangent."""

    def in_torch(self, replay: Replay, *inputs: Tensor) -> tuple[Tensor, ...]:
        points, values = self._evaluate(replay, inputs)
        cotangents = [torch.zeros_like(x).requires_grad_() for x in values]
        gradients = _gradients(values, points, cotangents)
        return _gradients(gradients, cotangents, inputs[self.count :])


def _gradients(
    values: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    some = [(v, c) for v, c in zip(values, cotangents, strict=True) if v.requires_grad]
    if not some:
        return tuple(torch.zeros_like(x) for x in inputs)
    outputs, weights = zip(*some, strict=True)
    return torch.autograd.grad(outputs, inputs, weights, create_graph=True, materialize_grads=True)


class Node(torch.autograd.Function):
    """A map of tensors that belongs to a call of a solve."""

    @staticmethod
    def forward(call: Call, of: States | _Derivative, *inputs: Tensor) -> tuple[Tensor, ...]:
        return of.compute(call, *inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.call, ctx.of, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        _, t, *parameters = tensors
        ctx.shapes = (t.dtype, [p.shape for p in parameters])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:]
        found = iter(_pull(ctx, wanted, cotangents))
        return None, None, *(next(found) if w else None for w in wanted)

    @staticmethod
    def jvp(ctx: Any, _call: Any, _of: Any, *tangents: Tensor) -> Any:
        derivative = Jvp(ctx.of, len(tangents))
        if within_functorch():
            return Node.apply(ctx.call, derivative, *ctx.saved_tensors, *tangents)
        with forward_ad._set_fwd_grad_enabled(False):
            points = [x.detach() for x in ctx.saved_tensors]

            def along(*directions: Tensor) -> tuple[Tensor, ...]:
                return derivative.compute(ctx.call, *points, *(x.detach() for x in directions))

            return _each(along, tangents) if _is_batched(tangents) else along(*tangents)

    @staticmethod
    def vmap(info: Any, in_dims: Any, call: Call, of: Any, *inputs: Tensor) -> Any:
        depth = _functorch.get_dynamic_layer_stack_depth()
        if isinstance(of, States):
            call.elements[depth] = [Call(call.solve) for _ in range(info.batch_size)]
        calls = call.elements.get(depth, [call] * info.batch_size)
        results = []
        for i, one in enumerate(calls):
            element = [
                x if dim is None else x.select(dim, i)
                for x, dim in zip(inputs, in_dims[2:], strict=True)
            ]
            results.append(Node.apply(one, of, *element))
        stacked = tuple(torch.stack(x) for x in zip(*results, strict=True))
        return stacked, (0,) * len(stacked)


def _pull(ctx: Any, wanted: Sequence[bool], cotangents: Sequence[Tensor]) -> Sequence[Tensor]:
    """The gradients by the wanted inputs of a node."""
    derivative = Vjp(ctx.of, len(wanted), wanted)
    if _is_batched(cotangents):
        return _each(lambda *one: _pull(ctx, wanted, one), cotangents)
    if torch.is_grad_enabled() or within_functorch():
        return Node.apply(ctx.call, derivative, *ctx.saved_tensors, *cotangents)
    if isinstance(ctx.of, States):  # what training does: nothing but Julia's gradient
        return derivative.by_julia(ctx.call, cotangents[0], ctx.shapes)
    return derivative.compute(ctx.call, *ctx.saved_tensors, *cotangents)


def _is_batched(tensors: Sequence[Tensor]) -> bool:
    """Whether by ``is_grads_batched`` or ``vectorize=True``, whose batches are no ``vmap``'s."""
    return any(_functorch.is_legacy_batchedtensor(x) for x in tensors)


def _each(function: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor]) -> Any:
    """The function of each element of such a batch."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    batched = [_functorch.is_legacy_batchedtensor(x) for x in tensors]
    whole = [
        torch._remove_batch_dim(x, level, 0, 0) if b else x
        for x, b in zip(tensors, batched, strict=True)
    ]
    count = len(whole[batched.index(True)])
    results = [
        function(*(x[i] if b else x for x, b in zip(whole, batched, strict=True)))
        for i in range(count)
    ]
    return tuple(torch._add_batch_dim(torch.stack(x), 0, level) for x in zip(*results, strict=True))


class _Refused(torch.autograd.Function):
    """Gradients that have no derivative here: to ask for one is an error."""

    @staticmethod
    def forward(ctx: Any, message: str, count: int, *tensors: Tensor) -> Any:
        ctx.message = message
        return tuple(x.clone() for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise UnsupportedError(ctx.message)


class _FirstOrder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, message: str, x: Tensor) -> Tensor:
        ctx.message = message
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[None, Tensor]:
        if torch.is_grad_enabled():
            raise UnsupportedError(ctx.message)
        return None, cotangent


def first_order(x: Tensor, message: str) -> Tensor:
    """``x``, with a gradient that cannot be asked for with ``create_graph=True``.

    For a node of another library that gives its gradient without a graph.
    """
    found: Tensor = _FirstOrder.apply(message, x)
    return found


def once(what: str) -> Callable[[_Backward], _Backward]:
    """Make a backward pass raise where a derivative of its gradients is asked for.

    Torch takes gradients without a graph for constants, silently, and its ``once_differentiable``
    sees only what reaches the cotangent. The node must have saved its inputs for backward.

    Parameters
    ----------
    what : str
        What the gradients are of, as the beginning of a sentence.
    """
    message = (
        f"{what} has no second derivatives. Explicit Runge-Kutta and Rosenbrock methods of odeint "
        "have them, with sensealg=DiscreteAdjoint() and without a mass matrix."
    )

    def decorate(backward: _Backward) -> _Backward:
        @wraps(backward)
        def wrapped(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
            with torch.no_grad():
                found = backward(ctx, cotangent)
            some = [g for g in found if g is not None]
            if not torch.is_grad_enabled() or not some:
                return found
            origins = (cotangent, *ctx.saved_tensors)
            rest = iter(_Refused.apply(message, len(some), *some, *origins))
            return tuple(None if g is None else next(rest) for g in found)

        return wrapped

    return decorate
