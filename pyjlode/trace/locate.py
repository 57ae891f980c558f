"""The line of the user's code that something in a trace comes from."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import TraceError
from ..translate.operations import plain_name

_OURS = Path(__file__).resolve().parents[1]
_TORCH = Path(torch.__file__).resolve().parent


def reason(
    error: TraceError, func: Callable[[Tensor, Tensor], Tensor], t: Tensor, y: Tensor
) -> str:
    """Why a function is not traced, with the line of its code that forced it where one is known."""
    line = error.line
    if line is None and error.operation is not None:
        line = line_that_calls(func, t.detach().to(y.dtype), y.detach(), error.operation)
    return f"{error} ({line})" if line else str(error)


def line_that_raised(error: BaseException) -> str | None:
    """The innermost line of the user's in an exception's traceback, as ``file:line: code``."""
    found, step = None, error.__traceback__
    while isinstance(step, TracebackType):
        if _is_users(step.tb_frame.f_code):
            found = _text(step.tb_frame.f_code.co_filename, step.tb_lineno)
        step = step.tb_next
    return found


def line_that_calls(
    func: Callable[[Tensor, Tensor], Tensor], t: Tensor, y: Tensor, operation: str
) -> str | None:
    """The line of the user's that first makes torch run an ATen operation.

    Examples
    --------
    >>> import torch
    >>> line_that_calls(lambda t, y: -y, torch.tensor(0.0), torch.ones(2), "aten.sin") is None
    True
    """
    locator = _Locator(operation)
    with torch.no_grad(), locator:
        func(t, y)
    return locator.line


class _Locator(TorchDispatchMode):
    def __init__(self, operation: str) -> None:
        super().__init__()
        self.operation = operation
        self.line: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.line is None and plain_name(func) == self.operation:
            frame: FrameType | None = sys._getframe(1)
            while frame is not None and not _is_users(frame.f_code):
                frame = frame.f_back
            if frame is not None:
                self.line = _text(frame.f_code.co_filename, frame.f_lineno)
        return func(*args, **(kwargs or {}))


def _is_users(code: CodeType) -> bool:
    path = Path(code.co_filename)
    return not (path.is_relative_to(_OURS) or path.is_relative_to(_TORCH))


def _text(filename: str, line: int) -> str:
    return f"{Path(filename).name}:{line}: {linecache.getline(filename, line).strip()}"
