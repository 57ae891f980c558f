"""Mass matrices: ``M dy/dt = func(t, y)``, with algebraic equations where ``M`` is singular."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .errors import ArgumentError, UnsupportedError
from .methods import Method, find_method
from .states import Layout

if TYPE_CHECKING:
    from .problem import Problem

METHODS = (
    "Rodas4", "Rodas42", "Rodas4P", "Rodas4P2", "Rodas5", "Rodas5P", "Rodas5Pe", "Rodas5Pr",
    "FBDF", "QNDF", "QBDF", "RadauIIA5",
)  # fmt: skip
"""Those whose numbers were right when they were tried with a singular matrix."""

DEFAULT = "Rodas5P"

INITIALIZATIONS = ("BrownFullBasicInit", "CheckInit")
"""SciML's names of what is done about an initial state; the first is the default."""


@dataclass(frozen=True)
class MassMatrix:
    """A checked mass matrix.

    Attributes
    ----------
    matrix : torch.Tensor
        Float64, dense or in coordinates (COO), of the whole state, or of each of its parts of that
        length.
    correct : bool
        Whether an initial state that does not satisfy the algebraic equations is brought to one
        that does; else it is an error.
    """

    matrix: Tensor
    correct: bool

    #: What the caller asked for, and what messages call the equations that have no derivative, the
    #: variables that they determine, and the caller's initial state.
    name: ClassVar[str] = "a mass_matrix"
    equations: ClassVar[str] = "the algebraic equations"
    unknowns: ClassVar[str] = "the algebraic variables"
    initial: ClassVar[str] = "a y0"

    @property
    def singular(self) -> str:
        """What an initial state does where there is no telling the unknowns."""
        return (
            f"does not determine {self.unknowns}: {self.equations} have a singular derivative by "
            "them. The index of the equation may be above one: differentiate the constraints by "
            "time first"
        )

    def check(self, problem: Problem) -> None:
        """Refuse a ``func`` that would be solved wrongly without a word; once for each trace."""

    def measured(self, parts: list[int]) -> list[int]:
        """First and last index of each part of the state whose error counts; none is all as one."""
        return parts

    def residual(self, values: Tensor) -> Tensor:
        """The algebraic equations' values as the caller's ``func`` has them."""
        return values


def check_mass_matrix(
    mass_matrix: Any,
    initializealg: str | None,
    layout: Layout,
    y0: Tensor,
    t: Tensor,
    method: Method | None,
    batch: str | None,
) -> MassMatrix | None:
    """The mass matrix of a solve, or None where there is none.

    Raises
    ------
    ArgumentError
        If it does not fit the state, or is no constant.
    UnsupportedError
        If the method has no mass matrices, or the state is complex.
    """
    correct = corrects(initializealg)
    if mass_matrix is None:
        if initializealg is not None:
            raise ArgumentError("initializealg is for a mass_matrix, and there is none.")
        return None
    if isinstance(mass_matrix, Tensor) and mass_matrix.requires_grad:
        raise ArgumentError(
            "mass_matrix is a constant: it cannot require a gradient. Where it has an inverse, "
            "solve in func by it: torch.linalg.solve(mass_matrix, f)."
        )
    matrix = as_matrix(mass_matrix)
    if any(layout.complex):
        raise UnsupportedError(
            "A mass_matrix needs a real state; solve for the real and imaginary parts as a tuple."
        )
    _check_shape(matrix, layout, y0)
    if t.numel() == 1:
        raise ArgumentError("With a mass_matrix t must have two times or more.")
    if batch == "independent":
        raise UnsupportedError(
            'batch="independent" has no mass_matrix; leave batch out, or solve the rows one by one.'
        )
    _check_method(method or find_method(DEFAULT), matrix)
    return MassMatrix(matrix, correct)


def as_matrix(mass_matrix: Any) -> Tensor:
    """Float64, dense or in coordinates, of what the caller gave: torch's, numpy's or SciPy's.

    Examples
    --------
    >>> as_matrix([[1, 0], [0, 0]])
    tensor([[1., 0.],
            [0., 0.]], dtype=torch.float64)
    >>> as_matrix(torch.eye(2).to_sparse_csr()).layout
    torch.sparse_coo
    """
    if hasattr(mass_matrix, "tocoo"):  # SciPy's
        found = mass_matrix.tocoo()
        places = torch.as_tensor(np.stack([found.row, found.col]), dtype=torch.int64)
        values = torch.as_tensor(found.data)
        matrix = torch.sparse_coo_tensor(places, values, found.shape, check_invariants=True)
    else:
        try:
            matrix = torch.as_tensor(mass_matrix)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                "mass_matrix must be a matrix, a tensor or an array, dense or sparse, not "
                f"{type(mass_matrix).__name__}."
            ) from error
    if matrix.is_complex():
        raise ArgumentError("mass_matrix must be real.")
    matrix = matrix.to(device="cpu", dtype=torch.float64)
    if matrix.layout is torch.strided:
        return matrix.contiguous()
    return matrix.to_sparse_coo().coalesce()


def _values(matrix: Tensor) -> Tensor:
    return matrix.values() if matrix.is_sparse else matrix


def corrects(initializealg: str | None) -> bool:
    """Whether an inconsistent initial state is corrected, rather than an error."""
    if initializealg not in (None, *INITIALIZATIONS):
        raise ArgumentError(
            f"initializealg must be one of {', '.join(INITIALIZATIONS)}, not {initializealg!r}."
        )
    return initializealg != "CheckInit"


def _check_shape(matrix: Tensor, layout: Layout, y0: Tensor) -> None:
    n = y0.numel()
    sizes = {n} if layout.joined or not y0.dim() else {n, y0.shape[-1]}
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) not in sizes:
        wanted = " or ".join(f"({size}, {size})" for size in sorted(sizes))
        raise ArgumentError(f"mass_matrix must have shape {wanted}, not {tuple(matrix.shape)}.")
    if not np.isfinite(_values(matrix).numpy()).all():
        raise ArgumentError("mass_matrix has values that are not finite.")
    if n and not bool(_values(matrix).any()):
        raise ArgumentError("mass_matrix is zero: there is no derivative in the equation.")


def _check_method(method: Method, matrix: Tensor) -> None:
    if method.name in METHODS:
        return
    n = len(matrix)
    regular = n == 0 or int(torch.linalg.matrix_rank(matrix.to_dense())) == n
    other = (
        ", or solve in func by the matrix: torch.linalg.solve(mass_matrix, f)" if regular else ""
    )
    raise UnsupportedError(
        f"{method.name} has no mass_matrix here; use one of {', '.join(METHODS)}{other}."
    )


def slope_of(func: Callable[..., Any], mass_matrix: Tensor) -> Callable[..., Any]:
    """``dy/dt`` along a solution as a function of ``t`` and ``y``, algebraic variables included.

    Those follow from the algebraic equations' derivative by time: with ``vᵀ M = 0`` it is
    ``vᵀ (∂func/∂y dy/dt + ∂func/∂t) = 0``. It has no gradient.
    """
    left, sizes, right = torch.linalg.svd(mass_matrix.to_dense())
    singular = sizes <= len(sizes) * torch.finfo(sizes.dtype).eps * sizes.max()
    # uᵀ M of the other left singular vectors u, and u and v.
    regular = (sizes[:, None] * right)[~singular]
    chosen, null = left.T[~singular], left.T[singular]

    def slope(t: Tensor, y: Any) -> Any:
        layout = Layout.of(y)
        flat = layout.join(y)
        blocks = torch.eye(flat.numel() // len(sizes), dtype=torch.float64)
        inputs = [x.detach().requires_grad_() for x in (t, flat)]
        with torch.enable_grad():
            value = layout.wrap(func)(*inputs).reshape(-1).to(torch.float64)
            algebraic = (torch.kron(blocks, null) @ value).unbind()
        rows, rests = [torch.kron(blocks, regular)], [torch.kron(blocks, chosen) @ value.detach()]
        for one in algebraic:
            by_t, by_y = torch.autograd.grad(
                one, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            rows.append(by_y.reshape(1, -1).to(torch.float64))
            rests.append(-by_t.reshape(1).to(torch.float64))
        found = torch.linalg.solve(torch.cat(rows), torch.cat(rests))
        return layout.split(found.to(flat.dtype).view_as(flat))

    return slope


def unsupported_in_torch() -> UnsupportedError:
    """What the torch engine says of a mass matrix."""
    return UnsupportedError(
        "The torch engine has no mass_matrix; get Julia with `pyjlode setup`, or where the matrix "
        "has an inverse, solve in func by it: torch.linalg.solve(mass_matrix, f)."
    )
