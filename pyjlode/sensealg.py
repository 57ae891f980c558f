"""How gradients of a solve are computed, under SciML's names.

References
----------
Chen et al., Neural Ordinary Differential Equations, 2018 (the continuous adjoint, backsolve).
SciMLSensitivity.jl, "Choosing a Sensitivity Algorithm".
"""

from __future__ import annotations

from dataclasses import dataclass

from .names import unknown


@dataclass(frozen=True)
class SensitivityAlgorithm:
    """Base class of the algorithms; ``name`` is the short name on the command line."""

    @property
    def name(self) -> str:
        """Its short name."""
        return _short(type(self).__name__)


@dataclass(frozen=True)
class GaussAdjoint(SensitivityAlgorithm):
    """The adjoint solved backwards, parameter gradients by quadrature over its steps.

    It reads the interpolated forward solution. The quadrature refines each step until it is within
    the solve's tolerances: Gauss's rule alone, SciMLSensitivity's, misses inputs that change within
    the adjoint's steps. The Julia engine's default for implicit methods but Rodas4 and Rodas5P, and
    for these where :class:`DiscreteAdjoint` lacks second derivatives. With any implicit method the
    forward solution that it reads and the adjoint are Rodas5P's, at the same tolerances: its
    interpolation holds for stiff problems.

    Parameters
    ----------
    checkpointing : bool
        Recompute the forward solution between save points instead of keeping every step.

    Examples
    --------
    >>> GaussAdjoint().name
    'gauss'
    """

    checkpointing: bool = False


@dataclass(frozen=True)
class InterpolatingAdjoint(SensitivityAlgorithm):
    """As :class:`GaussAdjoint`, with the parameter gradients as further states of the adjoint."""

    checkpointing: bool = False


@dataclass(frozen=True)
class QuadratureAdjoint(SensitivityAlgorithm):
    """The adjoint with dense output, then adaptive quadrature for the parameter gradients.

    Parameters
    ----------
    rtol, atol : float, optional
        The quadrature's tolerances; by default the solve's.
    """

    rtol: float | None = None
    atol: float | None = None


@dataclass(frozen=True)
class BacksolveAdjoint(SensitivityAlgorithm):
    """The state solved backwards together with the adjoint: memory does not grow with the steps.

    Fast, and unreliable on problems that are unstable backwards in time. On the torch engine this
    is torchdiffeq's ``odeint_adjoint``.

    Parameters
    ----------
    checkpointing : bool
        Start the backward state again from the stored one at each save point (Julia engine).
    """

    checkpointing: bool = True


@dataclass(frozen=True)
class DiscreteAdjoint(SensitivityAlgorithm):
    """Reverse mode through the steps that the solver took: the gradient of the computed numbers.

    It is exact to rounding, at any tolerance, where the continuous adjoints are as near as theirs
    allow; and it does not start anew at save points. Both engines' default for explicit
    methods, and the Julia engine's for Rodas4 and Rodas5P; that engine has it for every one-step
    method, Rosenbrock's and SDIRK's included. The lengths of adaptive steps count as constants,
    those of fixed steps move with the times ``t``.

    Implicit methods' stages are solved transposed, with the exact Jacobian. A Rosenbrock method's
    step contains the Jacobian itself, so ``func`` is differentiated twice; where that is not
    possible (``torch.cond``, callback mode), the default is :class:`GaussAdjoint`. With SDIRK
    methods the gradient is that of their stages' equations, solved further than the solver did.
    Their numbers can be near the solution where the numbers' gradient is not: on van der Pol's
    equation with ``mu = 1000``, at ``rtol=1e-9``, KenCarp4's gradient is off by 7% and Kvaerno5's
    by 2% (Rosenbrock23: 3e-4, Rodas5P: 2e-7), so there the default is :class:`GaussAdjoint`.

    The numbers' gradient is not the solution's: with dynamics that have kinks, such as relu's, the
    difference is of the order of the steps' length (2e-4 at ``rtol=1e-9`` for a convolutional
    block, where :class:`GaussAdjoint` was off by 2e-6). Tighten ``rtol`` or take that one there.

    Parameters
    ----------
    checkpoints : int, optional
        Keep at most ``n`` states of the solve (Julia engine), and compute the steps between them
        again. What lies between two is cut into ``n`` parts in its turn, until a part has no
        more than ``n`` steps or its stages take no more than 16 MiB: memory grows with the
        logarithm of the number of steps, and so does time, by one forward solve each time that
        steps are cut (10,000 steps and 8 checkpoints: four). By default every step's stages are
        kept, or where they would take more than 1 GiB (with Rosenbrock methods always), every
        step's state.

    References
    ----------
    Hager, Runge-Kutta methods in optimal control and the transformed adjoint system, 2000.
    Griewank, Achieving logarithmic growth of temporal and spatial complexity in reverse automatic
    differentiation, 1992.
    Hairer and Wanner, Solving Ordinary Differential Equations II, IV.6 and IV.7.

    Examples
    --------
    >>> import torch
    >>> from pyjlode import odeint
    >>> y0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
    >>> y = odeint(lambda t, y: -y, y0, [0.0, 0.5], method="euler", sensealg=DiscreteAdjoint())
    >>> y[-1].backward()
    >>> float(y0.grad)  # of one Euler step, not of the exponential function
    0.5
    """

    checkpoints: int | None = None

    def __post_init__(self) -> None:
        if self.checkpoints is not None and self.checkpoints < 1:
            raise ValueError(f"checkpoints must be at least 1, not {self.checkpoints}.")


@dataclass(frozen=True)
class ForwardSensitivity(SensitivityAlgorithm):
    """The derivatives of the state with respect to all inputs, solved along with it.

    For a few states and parameters: the solve has ``n (1 + n + m)`` numbers, and each evaluation
    takes ``n`` vector-Jacobian products, for ``n`` states (a batch's all counted) and ``m``
    parameters. Nothing is solved backwards, and the tolerances hold for the derivatives too, so it
    is what to check the others with. It is solved in the backward pass, from the start anew.

    References
    ----------
    Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, I.14.

    Examples
    --------
    >>> import torch
    >>> from pyjlode import engine_info, odeint
    >>> if engine_info().name == "julia":
    ...     k = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    ...     y0 = torch.ones(1, dtype=torch.float64)
    ...     y = odeint(lambda t, y: -k * y, y0, [0.0, 2.0], sensealg=ForwardSensitivity())
    ...     y[-1].backward()
    ...     assert abs(float(k.grad) + 2 * torch.exp(torch.tensor(-1.0))) < 1e-6
    """


ALGORITHMS: dict[str, type[SensitivityAlgorithm]] = {
    "gauss": GaussAdjoint,
    "interpolating": InterpolatingAdjoint,
    "quadrature": QuadratureAdjoint,
    "backsolve": BacksolveAdjoint,
    "discrete": DiscreteAdjoint,
    "forward": ForwardSensitivity,
}


def find_sensealg(name: str) -> SensitivityAlgorithm:
    """A sensitivity algorithm by its short name or its class's.

    Raises
    ------
    ValueError
        If there is none of that name; the message has the nearest.

    Examples
    --------
    >>> find_sensealg("gauss")
    GaussAdjoint(checkpointing=False)
    """
    key = _short(name)
    if key in ALGORITHMS:
        return ALGORITHMS[key]()
    raise ValueError(unknown("sensealg", name, ALGORITHMS))


def check_sensealg(sensealg: object) -> SensitivityAlgorithm | None:
    """The algorithm that an argument ``sensealg`` asks for.

    Raises
    ------
    TypeError
        If it is neither an algorithm nor the name of one.
    """
    if isinstance(sensealg, str):
        return find_sensealg(sensealg)
    if sensealg is None or isinstance(sensealg, SensitivityAlgorithm):
        return sensealg
    if isinstance(sensealg, type) and issubclass(sensealg, SensitivityAlgorithm):
        raise TypeError(f"sensealg is the class {sensealg.__name__}; give {sensealg.__name__}().")
    raise TypeError(
        f"sensealg must be such as GaussAdjoint() or 'gauss', not {type(sensealg).__name__}."
    )


def _short(name: str) -> str:
    return name.removesuffix("Adjoint").removesuffix("Sensitivity").lower()
