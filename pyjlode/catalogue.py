"""The table of solvers, family by family; :mod:`pyjlode.methods` looks names up in it.

Left out are OrdinaryDiffEq's methods for problems that ``odeint`` does not state (split, linear,
implicit in the derivative), listed in :data:`ELSEWHERE`, and those that did not solve a linear
equation when they were tried (:data:`BROKEN`).
"""

from __future__ import annotations

from dataclasses import dataclass

# What methods are for that are not for every ODE.
HAMILTONIAN = "a Hamiltonian problem"
SECOND_ORDER = "a second-order problem"

_DOCS = "https://docs.sciml.ai/OrdinaryDiffEq/stable/"


# With an interpolation of their own. For the others OrdinaryDiffEq has Hermite's, of third order,
# which was off by 1e-4 at rtol=1e-7 with the long steps of Stepanov5; they step onto save points.
_INTERPOLATING = (
    "Tsit5 DP5 BS3 Vern6 Vern7 Vern8 Vern9 Euler Midpoint Heun RK4 fehlberg2 OwrenZen3 OwrenZen4 "
    "OwrenZen5 BS5 DP8 Rosenbrock23 FBDF QNDF QBDF RadauIIA5 RadauIIA9"
)


@dataclass(frozen=True)
class Method:
    """A solver.

    Attributes
    ----------
    name : str
        SciML's name where SciML has it, else torchdiffeq's.
    order : int
        The order of its steps; of methods of variable order, the highest.
    stiff : bool
        Whether it is meant for stiff problems.
    torch_name : str or None
        torchdiffeq's name for it, where the torch engine has it.
    julia : bool
        Whether the Julia engine has it.
    fixed : bool
        Whether steps are fixed when asked for by torchdiffeq's name.
    reference : str
        A paper, or SciML's page of its family.
    family : str
    package : str
        The Julia package that it comes from.
    adaptive : bool
        Whether it can choose its steps; else it needs a ``step_size``.
    implicit : bool
        Whether it solves equations with the Jacobian.
    adjoint : {"discrete", "gauss"}
        The Julia engine's default sensitivity algorithm for it: of implicit methods the discrete
        one where it is at least as near as Gauss's. On van der Pol's equation the gradients of the
        numbers of Rosenbrock23 are off by 3e-4 at ``rtol=1e-9``, those of the SDIRK methods by
        some percent, though the numbers are near enough.
    algorithm : str
        The name in Julia.
    problem : str
        What it is for, if that is not every ODE: ``"a Hamiltonian problem"`` or
        ``"a second-order problem"``.
    """

    name: str
    order: int
    stiff: bool = False
    torch_name: str | None = None
    julia: bool = True
    fixed: bool = False
    reference: str = ""
    family: str = "explicit Runge-Kutta"
    package: str = "OrdinaryDiffEqLowOrderRK"
    adaptive: bool = True
    implicit: bool = False
    adjoint: str = "discrete"
    algorithm: str = ""
    problem: str = ""

    def __post_init__(self) -> None:
        if not self.algorithm:
            object.__setattr__(self, "algorithm", self.name)

    @property
    def has_discrete(self) -> bool:
        """Whether :class:`pyjlode.DiscreteAdjoint` can be asked for in Julia."""
        return self.adjoint == "discrete" or self.name in _DISCRETE

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that have the method."""
        return ("julia",) * self.julia + ("torch",) * (self.torch_name is not None)

    @property
    def interpolates(self) -> bool:
        """Whether its states within a step are as good as those at its end."""
        return self.algorithm in _INTERPOLATING.split() or self.algorithm.startswith("Rodas")

    @property
    def backward(self) -> str:
        """The method, in Julia, of the solves that the continuous adjoints make for it."""
        if self.adjoint == "discrete" and self.interpolates and not self.implicit:
            return self.algorithm
        # The stabilized methods are for stiff problems too; a step size of their own is theirs.
        return "Rodas5P" if self.implicit or self.stiff else "Tsit5"


# The implicit ones whose tableaus the discrete adjoint has.
_DISCRETE = {"Rosenbrock23", "Rodas4", "Rodas5P", "TRBDF2", "KenCarp4", "Kvaerno5"}


@dataclass(frozen=True)
class Family:
    """Methods of one package and kind; ``table`` has ``name:order``, with ``!`` for fixed steps."""

    name: str
    package: str
    page: str
    table: str
    stiff: bool = False
    implicit: bool = False
    adjoint: str = "discrete"
    problem: str = ""

    def methods(self) -> list[Method]:
        """Its methods."""
        found = []
        for entry in self.table.split():
            name, order = entry.removesuffix("!").split(":")
            found.append(
                Method(
                    name, int(order), self.stiff, reference=_DOCS + self.page, family=self.name,
                    package=f"OrdinaryDiffEq{self.package}", adaptive=not entry.endswith("!"),
                    implicit=self.implicit,
                    adjoint="discrete" if name in ("Rodas4", "Rodas5P") else self.adjoint,
                    problem=SECOND_ORDER if name == "VelocityVerlet" else self.problem,
                )
            )  # fmt: skip
        return found


# With names of torchdiffeq's, or a paper that everyone knows them by.
_KNOWN = (
    Method("Tsit5", 5, reference="Tsitouras 2011", package="OrdinaryDiffEqTsit5"),
    Method("DP5", 5, torch_name="dopri5", reference="Dormand & Prince 1980"),
    Method("BS3", 3, torch_name="bosh3", reference="Bogacki & Shampine 1989"),
    Method("Vern6", 6, reference="Verner 2010", package="OrdinaryDiffEqVerner"),
    Method("Vern7", 7, reference="Verner 2010", package="OrdinaryDiffEqVerner"),
    Method("Vern8", 8, reference="Verner 2010", package="OrdinaryDiffEqVerner"),
    Method("Vern9", 9, reference="Verner 2010", package="OrdinaryDiffEqVerner"),
    Method("Euler", 1, torch_name="euler", fixed=True, adaptive=False, reference="Euler 1768"),
    Method("Midpoint", 2, torch_name="midpoint", fixed=True, reference="Runge 1895"),
    Method("Heun", 2, torch_name="heun2", fixed=True, reference="Heun 1900"),
    Method("RK4", 4, reference="Kutta 1901"),
)

# Under torchdiffeq's names; in Julia the same tableau, or the nearest thing that there is.
_TORCHDIFFEQ = (
    Method(
        "rk4", 4, torch_name="rk4", fixed=True, adaptive=False, reference="Kutta 1901, 3/8 rule",
        package="OrdinaryDiffEqExplicitRK",
    ),
    Method(
        "heun3", 3, torch_name="heun3", fixed=True, adaptive=False, reference="Heun 1900",
        package="OrdinaryDiffEqExplicitRK",
    ),
    Method(
        "fehlberg2", 2, torch_name="fehlberg2", reference="Fehlberg 1969",
        package="OrdinaryDiffEqExplicitRK",
    ),
    Method(
        "adaptive_heun", 2, torch_name="adaptive_heun", reference="Heun 1900", algorithm="Heun"
    ),
    Method(
        "dopri8", 8, torch_name="dopri8", reference="Prince & Dormand 1981; in Julia DP8",
        package="OrdinaryDiffEqHighOrderRK", algorithm="DP8",
    ),
    Method(
        "explicit_adams", 4, torch_name="explicit_adams", julia=False, fixed=True, adaptive=False,
        reference="Hairer et al. 1993", family="Adams", package="",
    ),
    Method(
        "implicit_adams", 4, torch_name="implicit_adams", julia=False, fixed=True, adaptive=False,
        reference="Hairer et al. 1993", family="Adams", package="",
    ),
    Method(
        "scipy_solver", 5, torch_name="scipy_solver", julia=False,
        reference="SciPy's solve_ivp", family="SciPy", package="",
    ),
)  # fmt: skip

_FAMILIES = (
    Family(
        "explicit Runge-Kutta", "LowOrderRK", "explicit/LowOrderRK/",
        "Ralston:2 Ralston4:4! OwrenZen3:3 OwrenZen4:4 OwrenZen5:5 BS5:5 RKO65:5! FRK65:6! "
        "RKM:3! MSRK5:5! MSRK6:6! PSRK4p7q6:4! PSRK3p5q4:3! PSRK3p6q5:3! Stepanov5:5 SIR54:5! "
        "Alshina2:2! Alshina3:3! Alshina6:6!",
    ),
    Family(
        "explicit Runge-Kutta of high order", "HighOrderRK", "explicit/HighOrderRK/",
        "TanYam7:7 DP8:8 TsitPap8:8 PFRK87:8!",
    ),
    Family(
        "explicit Runge-Kutta of high order", "Feagin", "explicit/Feagin/",
        "Feagin10:10 Feagin12:12 Feagin14:14",
    ),
    Family(
        "explicit Runge-Kutta of high order", "QPRK", "explicit/QPRK/", "QPRK98:9"
    ),
    Family("parallel Runge-Kutta", "PRK", "explicit/PRK/", "KuttaPRK2p5:5!"),
    Family(
        "strong-stability preserving Runge-Kutta", "SSPRK", "explicit/SSPRK/",
        "SSPRK22:2! SSPRK33:3! SSPRK53:3! SSPRK53_2N1:3! SSPRK53_2N2:3! SSPRK53_H:3! SSPRK63:3! "
        "SSPRK73:3! SSPRK83:3! SSPRK43:3 SSPRK432:3 SSPRK932:3! SSPRK54:4! SSPRK104:4! "
        "KYKSSPRK42:2! KYK2014DGSSPRK_3S2:2!",
    ),
    Family(
        "low-storage Runge-Kutta", "LowStorageRK", "explicit/LowStorageRK/",
        "ORK256:2! CarpenterKennedy2N54:4! "
        "DGLDDRK73_C:3! DGLDDRK84_C:4! DGLDDRK84_F:4! NDBLSRK124:4! NDBLSRK134:4! NDBLSRK144:4! "
        "CFRLDDRK64:4! TSLDDRK74:4! RK46NL:4! CKLLSRK43_2:3! CKLLSRK95_4S:5 "
        "CKLLSRK95_4M:5 CKLLSRK54_3C_3R:4 CKLLSRK54_3M_3R:4 CKLLSRK54_3N_3R:4 "
        "CKLLSRK85_4C_3R:5 CKLLSRK85_4M_3R:5 CKLLSRK85_4P_3R:5 CKLLSRK54_3N_4R:4 "
        "CKLLSRK54_3M_4R:4 CKLLSRK65_4M_4R:5 CKLLSRK75_4M_5R:5 "
        "ParsaniKetchesonDeconinck3S32:2! ParsaniKetchesonDeconinck3S82:2! "
        "ParsaniKetchesonDeconinck3S53:3! ParsaniKetchesonDeconinck3S173:3! "
        "ParsaniKetchesonDeconinck3S94:4! ParsaniKetchesonDeconinck3S184:4! "
        "ParsaniKetchesonDeconinck3S105:5! ParsaniKetchesonDeconinck3S205:5! RDPK3Sp35:3 "
        "RDPK3SpFSAL35:3 RDPK3Sp49:4 RDPK3SpFSAL49:4 RDPK3Sp510:5 RDPK3SpFSAL510:5",
    ),
    Family(
        "stabilized Runge-Kutta", "StabilizedRK", "explicit/StabilizedRK/",
        "ROCK2:2 ROCK4:4 RKC:2 RKMC2:2 SERK2:2 ESERK4:4 ESERK5:5 TSRKC2:2 TSRKC3:3 "
        "",
        stiff=True, adjoint="gauss",
    ),
    Family(
        "Adams", "AdamsBashforthMoulton", "explicit/AdamsBashforthMoulton/",
        "AB3:3! AB4:4! AB5:5! ABM32:3! ABM43:4! ABM54:5! VCAB3:3 VCAB4:4 VCAB5:5 VCABM3:3! "
        "VCABM4:4! VCABM5:5! VCABM:12",
        adjoint="gauss",
    ),
    Family(
        "extrapolation", "Extrapolation", "explicit/Extrapolation/",
        "AitkenNeville:10 ExtrapolationMidpointDeuflhard:10 ExtrapolationMidpointHairerWanner:10",
        adjoint="gauss",
    ),
    Family(
        "Rosenbrock", "Rosenbrock", "implicit/Rosenbrock/",
        "Rosenbrock23:2 Rodas23W:3 ROS2:2 ROS2PR:2 ROS2S:2 ROS3:3 ROS3P:3! ROS3PR:3! "
        "ROS3PRL:3 ROS3PRL2:3 Rodas3:3 Rodas3P:3 Scholz4_7:3 ROS34PW1a:3! ROS34PW1b:3! ROS34PW2:3 "
        "ROS34PW3:4 ROS34PRw:3 ROK4a:4 RosShamp4:4 Veldd4:4 Velds4:4 GRK4T:4 GRK4A:4 Ros4LStab:4 "
        "RosenbrockW6S4OS:4! Rodas4:4 Rodas42:4 Rodas4P:4 Rodas4P2:4 Rodas4PW:4 Rodas5:5 "
        "Rodas5P:5 Rodas5Pe:5 Rodas5Pr:5 Rodas6P:6",
        stiff=True, implicit=True, adjoint="gauss",
    ),
    Family(
        "SDIRK", "SDIRK", "implicit/SDIRK/",
        "ImplicitEuler:1 ImplicitMidpoint:2! Trapezoid:2 TRBDF2:2 SDIRK2:2 SDIRK22:2 SSPSDIRK2:2! "
        "Kvaerno3:3 Kvaerno4:4 Kvaerno5:5 KenCarp3:3 KenCarp4:4 KenCarp47:4 KenCarp5:5 KenCarp58:5 "
        "Cash4:4 Hairer4:4 Hairer42:4 CFNLIRK3:3! ESDIRK54I8L2SA:5 ESDIRK436L2SA2:4 "
        "ESDIRK437L2SA:4 ESDIRK547L2SA2:5 ESDIRK659L2SA:6",
        stiff=True, implicit=True, adjoint="gauss",
    ),
    Family(
        "BDF", "BDF", "implicit/BDF/",
        "FBDF:5 QNDF:5 QNDF1:1 QNDF2:2 QBDF:5 QBDF1:1 QBDF2:2 ABDF2:2 MEBDF2:2!",
        stiff=True, implicit=True, adjoint="gauss",
    ),
    Family(
        "fully implicit Runge-Kutta", "FIRK", "implicit/FIRK/",
        "RadauIIA3:3 RadauIIA5:5 RadauIIA9:9! GaussLegendre:4!",
        stiff=True, implicit=True, adjoint="gauss",
    ),
    Family(
        "symplectic", "SymplecticRK", "dynamicalodeexplicit/SymplecticRK/",
        "SymplecticEuler:1! VelocityVerlet:2! VerletLeapfrog:2! LeapfrogDriftKickDrift:2! "
        "PseudoVerletLeapfrog:2! McAte2:2! Ruth3:3! McAte3:3! CandyRoz4:4! McAte4:4! "
        "McAte5:5! CalvoSanz4:4! Yoshida6:6! KahanLi6:6! McAte8:8! KahanLi8:8! SofSpa10:10!",
        problem=HAMILTONIAN,
    ),
    Family(
        "Nyström", "RKN", "dynamicalodeexplicit/RKN/",
        "Nystrom4:4! FineRKN4:4 FineRKN5:5 Nystrom4VelocityIndependent:4! "
        "Nystrom5VelocityIndependent:5! RKN4:4! DPRKN4:4 DPRKN5:5 DPRKN6:6 DPRKN6FM:6 DPRKN8:8 "
        "DPRKN12:12 ERKN4:4 ERKN5:5 ERKN7:7",
        problem=SECOND_ORDER,
    ),
    Family(
        "parallel implicit Runge-Kutta", "PDIRK", "implicit/PDIRK/", "PDIRK44:4!",
        stiff=True, implicit=True, adjoint="gauss",
    ),
)  # fmt: skip

CATALOGUE: tuple[Method, ...] = (
    *_KNOWN,
    *(method for family in _FAMILIES for method in family.methods()),
    *_TORCHDIFFEQ,
)

#: Explicit methods that can hand over to a stiff one, as ``AutoTsit5(Rosenbrock23)``.
SWITCHING = ("AutoTsit5", "AutoDP5", "AutoVern6", "AutoVern7", "AutoVern8", "AutoVern9")

_SPLIT = "a problem split into a stiff and a nonstiff part (for which odeint has KenCarp4)"
_LINEAR = "an equation linear in the state, given as an operator"
_DAE = "a differential-algebraic equation (for daeint, or odeint with mass_matrix, with FBDF, say)"

#: What other kind of problem the rest of OrdinaryDiffEq's methods are for.
ELSEWHERE: dict[str, str] = {
    name: problem
    for problem, names in {
        _SPLIT: "SplitEuler IMEXEuler IMEXEulerARK SBDF SBDF2 SBDF3 SBDF4 CNAB2 CNLF2 IRKC ARS343 "
        "ARS222 ARS232 ARS443 IMEXSSP222 IMEXSSP2322 IMEXSSP3332 IMEXSSP3433 BHR553 LawsonEuler "
        "NorsettEuler ETD1 ETD2 ETDRK2 ETDRK3 ETDRK4 HochOst4 Exp4 EPIRK4s3A EPIRK4s3B EPIRK5s3 "
        "EXPRB53s3 EPIRK5P1 EPIRK5P2 Exprb32 Exprb43",
        f"{SECOND_ORDER} (for which odeint has DPRKN6)": "IRKN3 IRKN4 NewmarkBeta GeneralizedAlpha",
        _LINEAR: "MagnusMidpoint LinearExponential MagnusLeapfrog LieEuler CayleyEuler MagnusNC6 "
        "MagnusGauss4 MagnusGL6 MagnusGL8 MagnusNC8 MagnusGL4 MagnusAdapt4 RKMK2 RKMK4 LieRK4 CG2 "
        "CG3 CG4a",
        _DAE: "DFBDF DABDF2 DImplicitEuler HybridExplicitImplicitRK Tsit5DA",
        "a map from one state to the next": "FunctionMap",
    }.items()
    for name in names.split()
}

# These are adaptive by OrdinaryDiffEq's account, but not as near as tolerances ask. Here steps
# are fixed, with which they have their orders:
# - FRK65, SIR54, Alshina2, Alshina3, PFRK87 and SSPRK932 take thousands of steps on a smooth
#   equation.
# - The estimates of ROS3P, ROS3PR, ROS34PW1a and ROS34PW1b vanish on linear equations: an
#   oscillator gets 5 steps and an error of 0.4 at rtol=1e-9.
# - Those of RadauIIA9 and GaussLegendre are too small: 735 and 319 tolerances in 18 and 67 steps.
# - VCABM3, VCABM4 and VCABM5 are off by two tolerances a step; VCABM is not.
# - CKLLSRK43_2 is off by 2e5 tolerances where a step must end at a given time.

_FIXED_TOO = "SciML's {} chooses its steps, and takes equal ones with options={{'step_size': ...}}"

#: Implicit methods of torchdiffeq's development version, some of which differ from SciML's in case
#: only: they take a step from each time of ``t`` to the next. What there is instead.
FIXED_GRID: dict[str, str] = {
    "implicit_euler": _FIXED_TOO.format("ImplicitEuler"),
    "implicit_midpoint": "SciML's ImplicitMidpoint takes steps of options={'step_size': ...}",
    "trapezoid": _FIXED_TOO.format("Trapezoid"),
    "trbdf2": _FIXED_TOO.format("TRBDF2"),
    "sdirk2": _FIXED_TOO.format("SDIRK22") + ", as SDIRK2, another formula, does",
    "radauIIA3": _FIXED_TOO.format("RadauIIA3"),
    "radauIIA5": _FIXED_TOO.format("RadauIIA5"),
    "gl4": "SciML's GaussLegendre takes steps of options={'step_size': ...}",
    "gl6": _FIXED_TOO.format("RadauIIA5"),
}

#: Methods that OrdinaryDiffEq exports and that failed when tried, and how.
BROKEN: dict[str, str] = {
    "RKV76IIa": "with adaptive steps it is off by 6e-4 on a linear equation at rtol=1e-6",
    "CKLLSRK54_3C": "of an equation that depends on time its error is 2e-4 with steps of 0.02",
    "CKLLSRK95_4C": "of an equation that depends on time its error is 2e-2 at rtol=1e-7",
    "CKLLSRK85_4FM_4R": "of an equation that depends on time its error is 1e-2 at rtol=1e-7",
    **dict.fromkeys(
        ("RKL1", "RKL2", "RKG1", "RKG2"), "its error was 5e-3 at rtol=1e-5 on a smooth equation"
    ),
    **dict.fromkeys(
        (
            "ImplicitEulerExtrapolation",
            "ImplicitDeuflhardExtrapolation",
            "ImplicitHairerWannerExtrapolation",
            "ImplicitEulerBarycentricExtrapolation",
        ),
        "OrdinaryDiffEqExtrapolation 2.2.1 does not start it with a Jacobian that is supplied",
    ),
    "Anas5": "it is fitted to oscillations of one frequency, and else of order 2, not 5",
    **dict.fromkeys(
        ("SHLDDRK52", "SHLDDRK64", "SHLDDRK_2N"),
        "its coefficients are rounded: errors of 1e-8 to 4e-6 stay, however short the steps",
    ),
    **dict.fromkeys(
        ("SFSDIRK4", "SFSDIRK5", "SFSDIRK6", "SFSDIRK7", "SFSDIRK8"),
        "it blows up on a stiff linear equation (rates of 1 and 1000, steps of 0.1)",
    ),
    "AdaptiveRadau": "it gives up on an oscillator at rtol=1e-9; use RadauIIA5",
    "McAte42": "its error falls with the first power of the step, not the fourth",
    "Rosenbrock32": "its third stage has dt ∂f/∂t for γ dt ∂f/∂t, so that of an equation that "
    "depends on time it has order 1, not 3 (errors of 1.9e-3, 9.7e-4 and 4.9e-4 with steps of 0.1, "
    "0.05 and 0.025); use Rosenbrock23",
}
