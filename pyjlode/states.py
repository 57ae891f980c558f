"""The caller's state, a tensor or a tuple of tensors, and the one real tensor that engines solve.

A tuple becomes one vector. A complex tensor becomes pairs of real numbers, in a last dimension of
its own, so that solvers and adjoints see real numbers only and gradients are those of torch's
convention (the derivative with respect to the real part plus i times that to the imaginary part).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import ArgumentError, DerivativeError
from .trace.transforms import outside_transforms, plain, within_transform

State = Tensor | tuple[Tensor, ...]

REAL = {
    torch.float64: torch.float64,
    torch.float32: torch.float32,
    torch.complex128: torch.float64,
    torch.complex64: torch.float32,
}


def as_state(y0: Any, func: object = None) -> Any:
    """Tensors of numbers, lists of them and arrays; what is a tensor stays as it is.

    Of the dtype of ``func``'s parameters if it is a module with some, else float64; arrays of
    floats keep theirs. A list or tuple that has a tensor or an array in it is a tuple of states.

    Examples
    --------
    >>> as_state([1, 2.5])
    tensor([1.0000, 2.5000], dtype=torch.float64)
    >>> as_state((np.ones(1), 2.0))
    (tensor([1.], dtype=torch.float64), tensor(2., dtype=torch.float64))
    """
    if isinstance(y0, Tensor):
        return y0
    if isinstance(y0, (tuple, list)) and (
        isinstance(y0, tuple) or any(isinstance(y, (Tensor, np.ndarray)) for y in y0)
    ):
        return tuple(as_state(y, func) for y in y0)
    if not isinstance(y0, (np.ndarray, list, int, float, complex, np.number)):
        return y0
    try:
        array = np.asarray(y0)
    except ValueError:  # lists of different lengths
        return y0
    if array.dtype.kind not in "biufc" or (isinstance(y0, list) and not y0):
        return y0
    state = torch.tensor(array)
    if isinstance(y0, np.ndarray) and state.dtype in REAL:
        return state
    dtype = _dtype_of(func)
    return state.to(dtype.to_complex() if state.is_complex() else dtype)


def as_numbers(name: str, value: Any) -> Tensor:
    """A tensor as it is, and a float64 one of numbers; ``name`` is the argument's.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(value, Tensor):
        return value
    try:
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} must be a tensor or a sequence of numbers, not {value!r}."
        ) from error


def _dtype_of(func: object) -> torch.dtype:
    parameters = func.parameters() if isinstance(func, torch.nn.Module) else iter(())
    return next((p.dtype for p in parameters if p.dtype in REAL), torch.float64)


@dataclass(frozen=True)
class Layout:
    """How the caller's state lies in the engines' tensor.

    Attributes
    ----------
    shapes : tuple of torch.Size
        Of the caller's tensors.
    complex : tuple of bool
    joined : bool
        Whether the caller's state is a tuple.
    leading : int
        How many dimensions of each tensor, 0 or 1, count rows that are solved apart; they are not
        part of ``shapes``.

    Examples
    --------
    >>> layout = Layout.of((torch.ones(2), torch.ones(3, dtype=torch.complex64)))
    >>> layout.join((torch.ones(2), torch.ones(3, dtype=torch.complex64))).shape
    torch.Size([8])
    >>> [y.shape for y in layout.split(torch.zeros(5, 8))]
    [torch.Size([5, 2]), torch.Size([5, 3])]
    """

    shapes: tuple[torch.Size, ...]
    complex: tuple[bool, ...]
    joined: bool
    leading: int = 0

    @classmethod
    def of(cls, y0: Any, leading: int = 0) -> Layout:
        """The layout of a state, which is checked.

        Raises
        ------
        TypeError
            If it is no tensor or tuple of tensors, or of another dtype than can be solved.
        ArgumentError
            If it is not on the CPU, or not finite.
        """
        if isinstance(y0, Tensor):
            _check(y0, "y0")
            return cls((y0.shape[leading:],), (y0.is_complex(),), False, leading)
        if not isinstance(y0, (tuple, list)) or not y0:
            raise TypeError(
                "y0 must be a tensor, a tuple of tensors or numbers, not "
                f"{'an empty ' * isinstance(y0, (tuple, list))}{type(y0).__name__}."
            )
        for i, y in enumerate(y0):
            _check(y, f"y0[{i}]")
        if len({REAL[y.dtype] for y in y0}) > 1:
            raise TypeError("The tensors of y0 must have one dtype; convert them first.")
        shapes = tuple(y.shape[leading:] for y in y0)
        return cls(shapes, tuple(y.is_complex() for y in y0), True, leading)

    @property
    def sizes(self) -> list[int]:
        """Real numbers in each tensor."""
        return [s.numel() * (1 + c) for s, c in zip(self.shapes, self.complex, strict=True)]

    def join(self, state: Any) -> Tensor:
        """The engines' tensor of a state of the caller's."""
        if not self.joined:
            return as_pairs(state)
        parts = [
            as_pairs(y).reshape(*y.shape[: self.leading], size)
            for y, size in zip(state, self.sizes, strict=True)
        ]
        return torch.cat(parts, dim=-1)

    def split(self, y: Tensor) -> Any:
        """The caller's state of an engine's tensor, which may have more dimensions in front."""
        if not self.joined:
            return from_pairs(y) if self.complex[0] else y
        parts: list[Tensor] = []
        start = 0
        for size, shape, is_complex in zip(self.sizes, self.shapes, self.complex, strict=True):
            # Torch lets nobody write into what torch.split gives.
            piece = y.narrow(-1, start, size)
            start += size
            front = y.shape[:-1]
            if is_complex:
                parts.append(from_pairs(piece.reshape((*front, *shape, 2))))
            else:
                parts.append(piece.reshape((*front, *shape)))
        return tuple(parts)

    def wrap(self, func: Callable[..., Any]) -> Callable[[Tensor, Tensor], Tensor]:
        """The right-hand side on the engines' tensor; it checks what ``func`` returns."""
        if not self.joined:
            return self._wrap_tensor(func)

        def joined(t: Tensor, y: Tensor) -> Tensor:
            state = self.split(y)
            result = func(t.clone(), self.split(y.clone()))  # func may write into them
            if not isinstance(result, (tuple, list)) or len(result) != len(self.shapes):
                raise DerivativeError(
                    f"func must return a tuple of {len(self.shapes)} tensors, like y0."
                )
            for derivative, part in zip(result, state, strict=True):
                _check_derivative(derivative, part)
            return self.join(result)

        return joined

    def _wrap_tensor(self, func: Callable[..., Any]) -> Callable[[Tensor, Tensor], Tensor]:
        def checked(t: Tensor, y: Tensor) -> Tensor:
            state = self.split(y)
            derivative = func(t.clone(), self.split(y.clone()))
            _check_derivative(derivative, state)
            return as_pairs(derivative)

        return checked


def numbers(x: Tensor) -> NDArray[Any]:
    """For looks at values: numpy's take a fraction of the time of torch's on small tensors."""
    if within_transform():
        with outside_transforms():
            return plain(x).numpy(force=True)
    x = x.detach().to(torch.float64) if x.dtype is torch.bfloat16 else x
    return x.numpy(force=True)  # detached, on the CPU, conjugate and negative views resolved


def are_finite(x: NDArray[Any]) -> bool:
    """Whether all are. A sum of squares that did not overflow says so in a quarter of the time.

    >>> [are_finite(np.array([1.0, x])) for x in (1e300, np.nan, complex(0, np.inf))]
    [True, False, False]
    """
    flat = x.ravel()
    if flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    return isfinite(flat.dot(flat)) or bool(np.isfinite(flat).all())


def as_pairs(y: Tensor) -> Tensor:
    """Real and imaginary part in a last dimension of its own; a real tensor as it is."""
    return torch.stack((y.real, y.imag), -1) if y.is_complex() else y


def from_pairs(y: Tensor) -> Tensor:
    """The complex tensor of pairs."""
    return torch.complex(y[..., 0], y[..., 1])


def _check(y: Any, name: str) -> None:
    if not isinstance(y, Tensor):
        raise TypeError(f"{name} must be a torch tensor, not {type(y).__name__}.")
    if y.dtype not in REAL:
        raise TypeError(
            f"{name} must be float32 or float64, or complex of them, not {y.dtype}; "
            "convert it first."
        )
    if y.device.type != "cpu":
        raise ArgumentError(f"{name} is on {y.device}; this version solves on the CPU.")
    if not are_finite(numbers(y)):
        raise ArgumentError(f"{name} has values that are not finite.")


def _check_derivative(derivative: object, y: Tensor) -> None:
    if not isinstance(derivative, Tensor):
        hint = "; solve_ivp takes functions of arrays" if isinstance(derivative, np.ndarray) else ""
        raise DerivativeError(f"func returned {type(derivative).__name__}, not a tensor{hint}.")
    if derivative.shape != y.shape or derivative.dtype != y.dtype:
        raise DerivativeError(
            f"func returned shape {tuple(derivative.shape)} and {derivative.dtype}; the state has "
            f"{tuple(y.shape)} and {y.dtype}."
        )
