"""Functions of numpy arrays that Julia calls, as SciPy's users write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .callback import PythonFunction

_ROOT = float(np.finfo(np.float64).eps ** 0.5)


@dataclass(frozen=True)
class Coordinates:
    """Between the caller's states and times and the solver's: real and forward.

    Attributes
    ----------
    size : int
        Of the caller's state.
    is_complex : bool
        The solver has real and imaginary parts beside each other.
    direction : int
        -1 where the caller's time runs backwards.
    """

    size: int
    is_complex: bool = False
    direction: int = 1

    @property
    def width(self) -> int:
        """The size of the solver's state."""
        return self.size * (1 + self.is_complex)

    def inward(self, y: Any) -> np.ndarray:
        """The solver's state, of shape ``(..., width)``."""
        y = np.asarray(y, dtype=np.complex128 if self.is_complex else np.float64)
        return np.ascontiguousarray(y).view(np.float64)

    def outward(self, u: np.ndarray) -> np.ndarray:
        """The caller's state, of shape ``(..., size)``; never the same memory."""
        y = np.array(u, dtype=np.float64, order="C")
        return y.view(np.complex128) if self.is_complex else y

    def jacobian(self, jacobian: Any) -> np.ndarray:
        """The solver's Jacobian from the caller's."""
        matrix = np.asarray(jacobian.toarray() if hasattr(jacobian, "toarray") else jacobian)
        if matrix.shape != (self.size, self.size):
            raise ValueError(
                f"`jac` is expected to have shape {(self.size, self.size)}, but has {matrix.shape}."
            )
        matrix = self.direction * matrix
        if not self.is_complex:
            return matrix.astype(np.float64)
        real = np.empty((self.size, 2, self.size, 2))
        real[:, 0, :, 0] = real[:, 1, :, 1] = matrix.real
        real[:, 0, :, 1], real[:, 1, :, 0] = -matrix.imag, matrix.imag
        return real.reshape(self.width, self.width)


class NumpyFunction(PythonFunction):
    """A right-hand side ``fun(t, y)`` of numpy arrays, with its Jacobian or differences for it.

    Parameters
    ----------
    fun, jac : callable
        As SciPy has them; ``jac`` may be a matrix or None.
    coordinates : Coordinates
    span : float
        The length of the solver's time.
    end : float
        The solver's last time, beyond which ``fun`` is not evaluated.
    vectorized : bool
        Whether ``fun`` takes states as the columns of a matrix.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        coordinates: Coordinates,
        *,
        jac: Any = None,
        span: float,
        end: float,
        vectorized: bool = False,
    ) -> None:
        super().__init__(coordinates.width, 0)
        self.fun = fun
        self.jac = jac
        self.coordinates = coordinates
        self.span = span
        self.end = end
        self.vectorized = vectorized
        self._derivatives: tuple[float, np.ndarray, np.ndarray, np.ndarray] | None = None

    def evaluate(self, t: float, u: np.ndarray) -> np.ndarray:
        """In the solver's coordinates."""
        c = self.coordinates
        y = c.outward(u)
        value = np.asarray(self.fun(c.direction * t, y[:, None] if self.vectorized else y))
        if value.size != c.size:
            raise ValueError(f"fun returned shape {value.shape}; y has {(c.size,)}.")
        return c.direction * c.inward(value.reshape(-1))

    def on_tensors(self, t: Tensor, u: Tensor) -> Tensor:
        """The same for tensors."""
        return torch.from_numpy(self.evaluate(float(t), u.detach().numpy()))

    def _value(self, du: Any, u: Any, p: Any, t: float) -> None:
        with self._noted():
            np.asarray(du)[:] = self.evaluate(t, np.asarray(u))

    def _pull(self, which: int, out: Any, v: Any, u: Any, p: Any, t: float) -> None:
        with self._noted():
            target = np.asarray(out)
            if which == 1:
                target[:] = 0
                return
            jacobian, rate = self.derive(t, np.asarray(u))
            target[:] = np.asarray(v) @ (jacobian if which == 0 else rate)

    def derive(self, t: float, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``∂f/∂u`` and ``∂f/∂t`` at a point; Julia asks for each of their rows in turn."""
        if self._derivatives is not None:
            at, state, jacobian, rate = self._derivatives
            if at == t and np.array_equal(state, u):
                return jacobian, rate
        here = self.evaluate(t, u)
        jacobian, rate = self._jacobian(t, u, here), self._rate(t, u, here)
        self._derivatives = (t, u.copy(), jacobian, rate)
        return jacobian, rate

    def _jacobian(self, t: float, u: np.ndarray, here: np.ndarray) -> np.ndarray:
        c = self.coordinates
        if self.jac is not None:
            given = self.jac
            if callable(given):
                given = given(c.direction * t, c.outward(u))
            return c.jacobian(given)
        steps = _ROOT * np.maximum(np.abs(u), max(1e-3 * float(np.abs(u).max()), 1e-6))
        steps = (u + steps) - u
        moved = u + np.diag(steps)
        if self.vectorized:
            values = np.asarray(self.fun(c.direction * t, np.ascontiguousarray(c.outward(moved).T)))
            rows = c.direction * c.inward(values.T)
        else:
            rows = np.stack([self.evaluate(t, x) for x in moved])
        return np.ascontiguousarray(((rows - here) / steps[:, None]).T)

    def _rate(self, t: float, u: np.ndarray, here: np.ndarray) -> np.ndarray:
        step = 1e-6 * self.span + 1e4 * np.finfo(np.float64).eps * abs(t)
        step = -step if t + step > self.end else step
        return (self.evaluate(t + step, u) - here)[:, None] / step


class NumpyEvents(PythonFunction):
    """Events ``event(t, y)`` of numpy arrays, as one function of all values."""

    def __init__(self, events: Sequence[Callable[..., Any]], coordinates: Coordinates) -> None:
        super().__init__(coordinates.width, 0)
        self.events = events
        self.coordinates = coordinates

    def _value(self, out: Any, u: Any, p: Any, t: float) -> None:
        with self._noted():
            c, target = self.coordinates, np.asarray(out)
            y = c.outward(np.asarray(u))
            for i, event in enumerate(self.events):
                value = np.asarray(event(c.direction * t, y)).item()
                # Of a Boolean either change is a change of sign.
                target[i] = 2 * value - 1 if isinstance(value, bool) else value
