"""``explain``: what becomes of a function in Julia, and why where nothing does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .check import State, make_problem
from .eager import eager
from .errors import TraceError
from .trace.capture import trace
from .trace.kept import nothing_kept
from .trace.locate import reason
from .translate import translate
from .translate.draws import Draw


@dataclass(frozen=True, repr=False)
class Explanation:
    """What :func:`explain` found; ``str`` of it is the report.

    Attributes
    ----------
    traced : bool
        Whether the function runs in Julia; else it runs in Python, called from Julia.
    reason : str
        What forced callback mode; empty for a traced function.
    state : tuple of int
        The shape of the state, a tuple of tensors joined into one.
    dtype : torch.dtype
    parameters, constants : tuple of tuple of int
        Shapes of the tensors that get a gradient, and of the others that the function reads.
    steps : mapping of str to tuple of str
        For the right-hand side (``value``) and its vector-Jacobian products with respect to state,
        parameters and time (``vjp``, ``vjp_p``, both at once, ``vjp_t``): the loops and calls, each
        with the ATen operations that run fused in it.
    code : str
        The Julia source.
    """

    traced: bool
    reason: str
    state: tuple[int, ...]
    dtype: torch.dtype
    parameters: tuple[tuple[int, ...], ...] = ()
    constants: tuple[tuple[int, ...], ...] = ()
    steps: Mapping[str, tuple[str, ...]] | None = None
    code: str = ""

    def __repr__(self) -> str:
        return f"<Explanation: {'traced' if self.traced else 'callback mode'}>"

    def __str__(self) -> str:
        head = f"state {self.state}, {self.dtype}"
        if not self.traced:
            return f"callback mode: {self.reason}\n{head}\n"
        lines = [
            "traced: runs in Julia, no Python inside the solve",
            head,
            f"parameters {', '.join(map(str, self.parameters)) or 'none'}",
            f"constants {', '.join(map(str, self.constants)) or 'none'}",
        ]
        for name, steps in (self.steps or {}).items():
            lines += ["", f"{name}:", *(f"  {step}" for step in steps)]
        return "\n".join([*lines, "", self.code])


@eager
def explain(
    func: Callable[..., Any], y0: State, t: float = 0.0, *, quiet: bool = False
) -> Explanation:
    """Print what pyjlode makes of ``func``: operations, what runs fused, shapes, Julia source.

    Needs no Julia.

    Parameters
    ----------
    func : callable
        ``func(t, y)``, as for :func:`pyjlode.odeint`.
    y0 : torch.Tensor or tuple of torch.Tensor
        A state.
    t : float, optional
        A time at which ``func`` may be called.
    quiet : bool, optional
        Return the explanation without printing it.

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError, TypeError
        If the arguments are not as :func:`pyjlode.odeint` takes them.

    Examples
    --------
    >>> import torch
    >>> k = torch.tensor(2.0, requires_grad=True)
    >>> found = explain(lambda t, y: torch.tanh(-(k * y)), torch.ones(4, 3), quiet=True)
    >>> found.traced
    True
    >>> found.steps["value"]
    ('loop       (4, 3): mul, neg, tanh',)
    >>> explain(lambda t, y: -y if y.sum() > 0 else y, torch.ones(2), quiet=True).reason
    'it needs the value of a tensor (a branch, float(), item() or numpy()) (...)'
    """
    problem, _ = make_problem(func, y0, [t], None, None, None, None, None)
    try:
        with nothing_kept(func):
            traced = trace(problem.func, problem.y0, derivatives=True)
        source = translate(traced)
    except TraceError as error:
        # What is wrong with the function itself is not a matter of tracing.
        with torch.no_grad():
            problem.func(problem.t[0].to(problem.y0.dtype), problem.y0.detach())
        cause = reason(error, problem.func, problem.t[0], problem.y0)
        found = Explanation(False, cause, tuple(problem.y0.shape), problem.y0.dtype)
    else:
        found = Explanation(
            True, "", tuple(problem.y0.shape), problem.y0.dtype,
            _shapes(source.parameters), _shapes(source.constants), source.steps, source.code,
        )  # fmt: skip
    if not quiet:
        print(found)
    return found


def _shapes(tensors: Sequence[Tensor | Draw]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(x.shape) for x in tensors)
