"""Solves in a program that torch compiles, exports or records: they run in Python, as written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from .errors import UnsupportedError
from .trace.modes import is_in_place

P = ParamSpec("P")
R = TypeVar("R")

_REASON = (
    "a solve runs outside the graphs of torch.compile, which torch.export and fullgraph=True do "
    "not allow"
)


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """Have ``torch.compile`` leave a function that solves, and all that it calls, to Python.

    A graph of ``torch.compile`` ends before the call and another one begins after it (a graph
    break), as with ``torch.compiler.disable``, which would load torch's compiler for everybody.
    Under ``torch.inference_mode()`` the function runs as under ``torch.no_grad()``: what it makes
    and keeps, such as a model, must serve training too.

    Its calls raise :class:`UnsupportedError` while ``torch.export`` or ``torch.jit.trace`` record:
    they keep one solve's numbers, and have no operation that solves.

    Examples
    --------
    >>> @eager
    ... def double(x):
    ...     return 2 * x
    >>> double(2)
    4
    """

    @wraps(function)
    def entry(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_exporting():
            raise UnsupportedError(_cannot(function.__qualname__, "torch.export"))
        if torch._C._get_tracing_state() is not None:
            raise UnsupportedError(_cannot(function.__qualname__, "torch.jit.trace"))
        if torch.is_inference_mode_enabled():
            with outside_inference():
                return function(*args, **kwargs)
        return function(*args, **kwargs)

    _leave_alone(entry)
    return entry


@contextmanager
def outside_inference() -> Iterator[None]:
    """No gradients; but tensors made in here may be used later where there are some."""
    with torch.inference_mode(False), torch.no_grad(), _Ordinary():
        yield


# What says something of a tensor itself, not of its values.
_OF_ITSELF = {"__get__", "data_ptr"}


class _Ordinary(TorchFunctionMode):
    """Copies of tensors of inference mode where something is differentiated, as for a Jacobian."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # What is written into must be the tensor itself; torch then says that it cannot be.
        if torch.is_grad_enabled() and not is_in_place(func) and func.__name__ not in _OF_ITSELF:
            args, kwargs = tree_map(_ordinary, (args, kwargs))
        return func(*args, **kwargs)


def _ordinary(x: Any) -> Any:
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x


def _cannot(name: str, what: str) -> str:
    return (
        f"{what} cannot record {name}: a solve has no graph, and takes other steps for other "
        "values. Use torch.compile, which leaves the solve to Python, or record the modules "
        "before and after it."
    )


def _leave_alone(entry: Any) -> None:
    """What ``torch.compiler.disable`` does, without loading torch's compiler."""
    entry._torchdynamo_disable = True
    entry._torchdynamo_disable_msg = _REASON
    # Called after a graph break, a function would be compiled itself, and what it calls.
    with contextlib.suppress(ImportError):
        from torch._C._dynamo import eval_frame

        skip = eval_frame._FrameAction.SKIP
        eval_frame.set_code_exec_strategy(entry.__code__, eval_frame._FrameExecStrategy(skip, skip))
