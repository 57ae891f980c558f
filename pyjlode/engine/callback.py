"""Callback mode: the user's function stays in Python, and Julia's solver calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..trace.snapshot import Snapshot
from ..translate.operations.complex import as_real


class Noted:
    """Python functions that Julia calls, and what they raised."""

    def __init__(self) -> None:
        self.raised: BaseException | None = None
        self.called = False

    def noted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose exceptions are kept here: Julia hands them on as a text."""

        def called(*arguments: Any) -> Any:
            with self._noted():
                return function(*arguments)

        self.called = True
        return called

    def errors(self) -> AbstractContextManager[None]:
        """Around a call of Julia: what the functions raised in it leaves as it was raised."""
        return self._errors() if self.called else nullcontext()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        self.raised = None
        try:
            yield
        except Exception:
            if self.raised is None:
                raise
        raised, self.raised = self.raised, None
        if raised is not None:
            raise raised

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.raised = self.raised or error
            raise


class PythonFunction(Noted):
    """A right-hand side that Julia calls.

    A subclass has ``_value``, and ``_pull`` where its derivatives are needed.
    """

    def __init__(self, states: int, parameters: int) -> None:
        super().__init__()
        self.called = True
        self.sizes = (states, parameters)

    def model(self, module: Any, kind: str) -> Any:
        """Julia's model of the function; ``kind`` is ``"float32"`` or ``"float64"``."""
        return module.callback_model(kind, self._value, self._pull, *self.sizes)

    def _value(self, du: Any, u: Any, p: Any, t: float) -> None:
        raise NotImplementedError

    def _pull(self, which: int, out: Any, v: Any, u: Any, p: Any, t: float) -> None:
        raise NotImplementedError


class Callback(PythonFunction):
    """A torch function that Julia calls.

    Parameters
    ----------
    func : callable
        ``func(t, y)`` on a state of the shape of ``y0``.
    y0 : torch.Tensor
    parameters : tuple of torch.Tensor
        What gets a gradient beside the state. Their values are the tensors' own, not the copies
        that the solver carries.
    owner : object
        The caller's function. In every call of Julia, such as the backward pass, it reads what it
        read when this object was made.
    """

    def __init__(
        self,
        func: Callable[[Tensor, Tensor], Tensor],
        y0: Tensor,
        parameters: tuple[Tensor, ...],
        owner: object,
    ) -> None:
        super().__init__(y0.numel(), sum(as_real(p).numel() for p in parameters))
        self.func = func
        self.snapshot = Snapshot(owner, parameters)
        self.shape = y0.shape
        self.dtype = y0.dtype
        self.parameters = parameters

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with super()._errors(), self.snapshot.restored():
            yield
            self.snapshot.end()

    def _value(self, du: Any, u: Any, p: Any, t: float) -> None:
        with self._noted(), torch.no_grad():
            y = _tensor(u).view(self.shape).clone()
            result = self.func(torch.tensor(t, dtype=self.dtype), y)
            _tensor(du).copy_(result.reshape(-1))

    def _pull(self, which: int, out: Any, v: Any, u: Any, p: Any, t: float) -> None:
        with self._noted():
            y = _tensor(u).view(self.shape).clone().requires_grad_()
            time = torch.tensor(t, dtype=self.dtype).requires_grad_()
            inputs: tuple[Tensor, ...] = ((y,), self.parameters, (time,))[which]
            target = _tensor(out)
            target.zero_()
            if not inputs:
                return
            with torch.enable_grad():
                # Copies: a leaf of autograd's may not be written into.
                result = self.func(time.clone(), y.clone())
            if not result.requires_grad:
                return
            seed = _tensor(v).view(self.shape)
            # What func closes over may have a history, which the next call goes through too.
            gradients = torch.autograd.grad(
                result, inputs, seed, allow_unused=True, retain_graph=True
            )
            start = 0
            for x, g in zip(inputs, gradients, strict=True):
                size = as_real(x).numel()
                if g is not None:
                    target[start : start + size] = as_real(g).reshape(-1)
                start += size


def _tensor(x: Any) -> Tensor:
    """A Julia vector's memory as a tensor."""
    return torch.from_numpy(np.asarray(x))
