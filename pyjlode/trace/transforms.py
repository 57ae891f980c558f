"""Tensors within torch's transforms: ``torch.func``, ``vmap``, forward-mode dual numbers.

A trace needs ordinary tensors and a stack without transforms. What a function closes over is then
stood in for by leaves with the same numbers; the solve itself, a node that torch's transforms know,
gets the tensors as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad

from ..errors import UnsupportedError
from .cut import Substitution


def within_transform() -> bool:
    """Whether a transform of ``torch.func``, or a level of dual numbers, is under way."""
    return forward_ad._current_level >= 0 or _functorch.peek_interpreter_stack() is not None


def within_functorch() -> bool:
    """Whether it is one of ``torch.func``: those have gradients of their own."""
    return _functorch.peek_interpreter_stack() is not None


def is_transformed(x: Tensor) -> bool:
    """Whether a transform has put something into the tensor: a batch, a derivative."""
    if _functorch.is_functorch_wrapped_tensor(x):
        return True
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None


def plain(x: Tensor) -> Tensor:
    """The numbers of a tensor, of a batch of ``vmap``'s those of its first element.

    Examples
    --------
    >>> import torch
    >>> seen = []
    >>> f = torch.func.grad(lambda x: (seen.append(plain(x)), x * x)[1])
    >>> f(torch.tensor(3.0)), seen[0]
    (tensor(6.), tensor(3.))
    """
    batches = []
    while _functorch.is_functorch_wrapped_tensor(x):
        if _functorch.is_batchedtensor(x):
            batches.append(_functorch.maybe_get_bdim(x))
        x = _functorch.get_unwrapped(x)
    with outside_transforms():
        for dim in reversed(batches):  # the innermost wrapper is the lowest transform's
            x = x.select(dim, 0)
        if forward_ad._current_level >= 0:
            x = forward_ad.unpack_dual(x).primal
        return x.detach()


@contextmanager
def outside_transforms() -> Iterator[None]:
    """Without the transforms that are under way."""
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

    with temporarily_clear_interpreter_stack():
        yield


def refuse_transforms(what: str) -> None:
    """Raise within a transform, which ``what`` cannot be part of.

    Raises
    ------
    UnsupportedError
    """
    if within_transform():
        raise UnsupportedError(
            f"{what} cannot be part of torch.func's transforms, vmap or forward-mode derivatives; "
            "use backward() or torch.autograd.grad. Solves by odeint of a whole state can."
        )


class StandIns(Substitution):
    """Have a function see ordinary leaves in place of the transformed tensors that it closes over.

    Examples
    --------
    >>> import torch
    >>> def f(k):
    ...     stand_ins = StandIns()
    ...     with stand_ins.entered():
    ...         doubled = 2 * k
    ...     assert not is_transformed(doubled)
    ...     return k * k
    >>> torch.func.grad(f)(torch.tensor(3.0))
    tensor(6.)
    """

    def __init__(self) -> None:
        super().__init__({})
        self._originals: dict[int, Tensor] = {}

    def stand_in(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or id(x) in self._originals or not is_transformed(x):
            return x
        found = self.substitutes.get(id(x))
        if found is None:
            if not (x.is_floating_point() or x.is_complex()):
                raise UnsupportedError(
                    f"func uses a tensor of {x.dtype} that vmap has a batch of; the Julia engine "
                    "solves functions of batches of floating point tensors only. Use "
                    'engine="torch", or a loop.'
                )
            found = plain(x).clone().requires_grad_()
            self.substitutes[id(x)] = found
            self._originals[id(found)] = x
        return found

    def original(self, x: Any) -> Any:
        """The tensor that ``x`` stands in for; itself, if there is none."""
        return self._originals.get(id(x), x)

    def check(self, read: Iterable[Tensor]) -> None:
        """Refuse a function that reads a number from one of the tensors: it has many, or a rate.

        Raises
        ------
        UnsupportedError
        """
        if any(id(x) in self._originals for x in read):
            raise UnsupportedError(
                "func reads a number from a tensor that a transform of torch.func batches or "
                "differentiates (item(), float(), a branch); compute with the tensor instead."
            )

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run what is inside with the stand-ins and without transforms."""
        with outside_transforms(), self:
            yield
