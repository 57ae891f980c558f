"""Functions of the state alone, as DiffEqFlux's layers take them, as ones of time and state."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn


def of_time(func: Callable[..., Any]) -> Callable[..., Any]:
    """``func(t, y)`` as it is, and ``func(y)`` as a function of both.

    One required argument makes a function one of the state: ``nn.Sequential(...)``,
    ``lambda y: -y``.

    Examples
    --------
    >>> of_time(lambda y: -y)(0.0, 2.0), of_time(lambda t, y: t * y)(0.0, 2.0)
    (-2.0, 0.0)
    >>> import torch
    >>> of_time(torch.nn.Sequential(torch.nn.Identity()))(0.0, torch.ones(1))
    tensor([1.])
    """
    if _required(func) != 1:
        return func

    def alone(t: Any, y: Any) -> Any:
        return func(y)

    alone.__qualname__ = getattr(func, "__qualname__", type(func).__qualname__)  # for messages
    return alone


def _required(func: Any) -> int | None:
    """How many arguments must be given by place; None for any number, or where nobody says."""
    if isinstance(func, nn.Module):
        func = getattr(func, "_orig_mod", func)  # what torch.compile made runs this
        if isinstance(func, torch.jit.ScriptModule):
            return _of_schema(func)
        func = func.forward
    bound = isinstance(func, MethodType)
    function = func.__func__ if isinstance(func, MethodType) else func
    if isinstance(function, FunctionType) and not hasattr(function, "__wrapped__"):
        code = function.__code__
        if code.co_flags & inspect.CO_VARARGS:
            return None
        return code.co_argcount - len(function.__defaults__ or ()) - bound
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):  # a function of a compiled library
        return None
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in by_place and p.default is inspect.Parameter.empty for p in parameters)


def _of_schema(module: Any) -> int | None:
    arguments = module.forward.schema.arguments[1:]  # the first is the module
    return sum(not argument.has_default_value() for argument in arguments)
