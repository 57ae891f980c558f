"""Callback mode: the user's function stays in Python, and Julia's solver calls it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..problem import Problem


def callback_model(module: Any, problem: Problem, parameters: tuple[Tensor, ...], kind: str) -> Any:
    """Julia's model of two Python functions.

    Parameters
    ----------
    module : Any
        The Julia module.
    problem : Problem
        Whose ``func`` is called.
    parameters : tuple of torch.Tensor
        What gets a gradient beside the state. Their values are the tensors' own, not the copies
        that the solver carries.
    kind : {"float32", "float64"}

    Returns
    -------
    Any
        A ``Model``.
    """
    func, shape, dtype = problem.func, problem.y0.shape, problem.y0.dtype

    def value(du: Any, u: Any, p: Any, t: float) -> None:
        with torch.no_grad():
            result = func(torch.tensor(t, dtype=dtype), _tensor(u).view(shape).clone())
        _tensor(du).copy_(result.reshape(-1))

    def pull(which: int, out: Any, v: Any, u: Any, p: Any, t: float) -> None:
        y = _tensor(u).view(shape).clone().requires_grad_()
        time = torch.tensor(t, dtype=dtype).requires_grad_()
        inputs: tuple[Tensor, ...] = ((y,), parameters, (time,))[which]
        target = _tensor(out)
        target.zero_()
        if not inputs:
            return
        with torch.enable_grad():
            result = func(time, y)
        if not result.requires_grad:
            return
        gradients = torch.autograd.grad(
            result, inputs, _tensor(v).view(shape), allow_unused=True, retain_graph=True
        )
        start = 0
        for x, g in zip(inputs, gradients, strict=True):
            if g is not None:
                target[start : start + x.numel()] = g.reshape(-1)
            start += x.numel()

    size = sum(p.numel() for p in parameters)
    return module.callback_model(kind, value, pull, problem.y0.numel(), size)


def _tensor(x: Any) -> Tensor:
    """A Julia vector's memory as a tensor."""
    return torch.from_numpy(np.asarray(x))
