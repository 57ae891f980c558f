"""Methods of the catalogue: solved against a closed form, and their gradients.

In the plain suite one of each package that no other test solves with; all with
``PYJLODE_ALL_METHODS=1`` (``make methods``).
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from reference import assert_close
from torch import Tensor

from pyjlode import (
    DiscreteAdjoint,
    UnsupportedError,
    find_method,
    methods,
    odeint,
    odeint_adjoint,
    solve_ivp,
)
from pyjlode.catalogue import CATALOGUE, ELSEWHERE, Method

D = torch.float64
T = torch.tensor([0.0, 0.6, 1.5], dtype=D)
STEP = 0.02
SWITCHING = [
    "AutoTsit5(Rosenbrock23)",
    "AutoVern7(Rodas5P)",
    "AutoDP5(TRBDF2)",
    "AutoVern9(KenCarp4)",
]
REPRESENTATIVES = [
    "Feagin10", "QPRK98", "KuttaPRK2p5", "SSPRK43", "SSPRK33", "RDPK3SpFSAL35", "ROCK2", "AB3",
    "ImplicitMidpoint", "KenCarp3", "RadauIIA5", "PDIRK44", "fehlberg2",
    "ExtrapolationMidpointDeuflhard",
]  # fmt: skip


def chosen() -> list[str]:
    if os.environ.get("PYJLODE_ALL_METHODS"):
        return [m.name for m in methods() if m.julia and not m.problem] + SWITCHING
    return REPRESENTATIVES


def solution(k: Tensor, y0: Tensor, t: Tensor) -> Tensor:
    """Of ``dy/dt = k y (1 - y) cos t``."""
    growth = torch.exp(-k * (torch.sin(t) - torch.sin(t[0])))
    return 1 / (1 + (1 / y0 - 1) * growth[:, None])


def tolerances(method: Method) -> tuple[dict[str, Any], float, float]:
    """How to solve with it; how far states and gradients may be off."""
    if not method.adaptive:
        error = max(STEP**method.order, 1e-9)
        return {"options": {"step_size": STEP}, "rtol": 1e-9, "atol": 1e-9}, error, 10 * error
    order = 2 if method.family == "stabilized Runge-Kutta" else method.order
    rtol = {1: 1e-4, 2: 1e-5, 3: 1e-6}.get(order, 1e-7)
    options = {"rtol": rtol, "atol": rtol, "options": {"max_num_steps": 1000}}
    return options, 100 * rtol, 300 * rtol


@pytest.mark.parametrize("name", chosen())
def test_method(julia: str, name: str) -> None:
    method = find_method(name)
    options, error, gradient_error = tolerances(method)
    k = torch.tensor(0.8, dtype=D, requires_grad=True)
    y0 = torch.tensor([0.2, 0.6], dtype=D, requires_grad=True)
    t = T.clone().requires_grad_()
    y = odeint(
        lambda t, y: k * y * (1 - y) * torch.cos(t), y0, t, method=name, engine="julia", **options
    )
    expected = solution(k, y0, t)
    assert_close(y.detach(), expected.detach(), error, name)
    weights = torch.tensor([[0.3, -1.0], [1.5, 0.7], [-0.4, 2.0]], dtype=D)
    found = torch.autograd.grad((weights * y).sum(), [k, y0, t])
    wanted = torch.autograd.grad((weights * expected).sum(), [k, y0, t])
    for what, g, e in zip(("k", "y0"), found, wanted, strict=False):
        assert_close(g, e, gradient_error, f"{name}: gradient of {what}")
    # Within a step a time moves along the interpolation, whose slope is of a lower order.
    assert_close(found[2], wanted[2], max(100 * gradient_error, 1e-4), f"{name}: gradient of t")


def test_catalogue() -> None:
    names = [m.name for m in CATALOGUE]
    assert len(set(names)) == len(names)
    assert not set(names) & set(ELSEWHERE)
    for m in CATALOGUE:
        assert find_method(m.name) == m
        assert m.order >= 1 and m.reference and m.family and m.engines
        assert m.adjoint == "gauss" or not m.implicit or m.name in ("Rodas4", "Rodas5P")
    assert {m.package for m in CATALOGUE if m.julia and not m.problem} >= {
        find_method(n).package for n in REPRESENTATIVES
    }


def test_every_package_is_tested_by_one() -> None:
    tested = {find_method(n).package for n in REPRESENTATIVES}
    # In test_discrete.py, test_torchdiffeq_dropin.py (dopri8) and test_stiff.py (FBDF).
    elsewhere = {
        f"OrdinaryDiffEq{name}"
        for name in ("Tsit5", "Verner", "LowOrderRK", "HighOrderRK", "Rosenbrock", "BDF")
    }
    # Those for partitioned problems: test_partitioned.py.
    assert tested | elsewhere == {m.package for m in CATALOGUE if m.julia and not m.problem}


def test_names() -> None:
    assert find_method("auto").name == "AutoVern7(Rodas5P)"
    assert find_method("autotsit5(rosenbrock23())").name == "AutoTsit5(Rosenbrock23)"
    assert (find_method("RK4").name, find_method("rk4").name) == ("RK4", "rk4")
    assert find_method("fixed_adams").name == "implicit_adams"
    for name, error, message in [
        ("GeneralizedAlpha", UnsupportedError, "second-order problem"),
        ("KenCarp5(Tsit5)", ValueError, "nearest"),
        ("AutoTsit5(Tsit5)", UnsupportedError, "implicit"),
        ("AutoTsit5(ImplicitMidpoint)", UnsupportedError, "implicit"),
        ("AutoTsit5(__import__('os'))", ValueError, "nearest"),
        ("RKV76IIa", UnsupportedError, "6e-4"),
        ("Rosenbrock32", UnsupportedError, "order 1, not 3.*use Rosenbrock23"),
        ("Rodas5Q", ValueError, "nearest is 'Rodas5'|'Rodas5P'"),
    ]:
        with pytest.raises(error, match=message):
            find_method(name)


# What torchdiffeq's README and code name in its development version, and SciML's of the same
# letters.
IMPLICIT_FIXED_GRID = {
    "trapezoid": "Trapezoid", "trbdf2": "TRBDF2", "sdirk2": "SDIRK2", "radauIIA3": "RadauIIA3",
    "radauIIA5": "RadauIIA5", "implicit_euler": "ImplicitEuler",
    "implicit_midpoint": "ImplicitMidpoint", "gl4": "GaussLegendre", "gl6": "RadauIIA5",
}  # fmt: skip


@pytest.mark.parametrize("name", IMPLICIT_FIXED_GRID)
def test_fixed_grid_methods_of_torchdiffeq_are_not_adaptive_ones(engine: str, name: str) -> None:
    """Where they come from they step from one time of ``t`` to the next."""
    sciml = IMPLICIT_FIXED_GRID[name]
    y0 = torch.ones(1, dtype=D)
    for options in (None, {"step_size": 0.1}):
        with pytest.raises(UnsupportedError, match=f"torchdiffeq's {name}.*{sciml}.*step_size"):
            odeint(lambda t, y: -y, y0, T, method=name, options=options, engine=engine)
    with pytest.raises(UnsupportedError, match=sciml):
        odeint_adjoint(lambda t, y: -y, y0, T, adjoint_method=name, adjoint_params=())
    with pytest.raises(UnsupportedError, match=sciml):
        solve_ivp(lambda t, y: -y, (0.0, 1.0), [1.0], method=name, engine=engine)
    assert find_method(sciml).name == sciml


def test_two_names_that_differ_in_case_only() -> None:
    """Whoever writes neither is asked which it is; of one meaning, case does not count."""
    for name, first, second in [
        ("MIDPOINT", "Midpoint", "midpoint"),
        ("Rk4", "RK4", "rk4"),
        ("TrapeZoid", "Trapezoid", "trapezoid"),
        ("Trbdf2", "TRBDF2", "trbdf2"),
        ("radauiia5", "RadauIIA5", "radauIIA5"),
    ]:
        with pytest.raises(ValueError, match=f"'{first}'.*'{second}'"):
            find_method(name)
    lower: dict[str, set[str]] = {}
    for m in CATALOGUE:
        for spelling in {m.name, m.torch_name} - {None}:
            lower.setdefault(spelling.lower(), set()).add(spelling)
    assert {k for k, spellings in lower.items() if len(spellings) > 1} == {
        "rk4", "euler", "midpoint"
    }  # fmt: skip
    assert find_method("tsit5").name == "Tsit5"  # adaptive in torchdiffeq too
    assert find_method("RODAS5P").name == "Rodas5P"


def test_a_method_without_adaptive_steps_needs_a_step_size(engine: str) -> None:
    for name in ("Euler", "SSPRK33", "AB4", "ImplicitMidpoint"):
        with pytest.raises(ValueError, match="step_size"):
            odeint(lambda t, y: -y, torch.ones(1, dtype=D), T, method=name, engine=engine)


def test_a_step_size_fixes_the_steps_of_any_method(julia: str) -> None:
    """As `adaptive=false` does in SciML: errors fall with the order of the method."""
    errors = []
    for step in (0.3, 0.15):
        y = odeint(
            lambda t, y: -y, torch.ones(1, dtype=D), [0.0, 1.5], method="Tsit5",
            options={"step_size": step}, engine="julia",
        )  # fmt: skip
        errors.append(float((y[-1] - torch.exp(-torch.tensor(1.5, dtype=D))).abs()))
    assert 20 < errors[0] / errors[1] < 60


# The times of their stages are not the package's own (julia/src/implicit_tableaus.jl).
CORRECTED = ["Kvaerno5", "Kvaerno3", "Kvaerno4", "SSPSDIRK2", "ESDIRK547L2SA2"]


@pytest.mark.parametrize(
    "name", CORRECTED if os.environ.get("PYJLODE_ALL_METHODS") else CORRECTED[:1]
)
def test_order_of_an_equation_that_depends_on_time(julia: str, name: str) -> None:
    """With the package's times Kvaerno5 has order 3 and the others 1."""
    k, y0 = torch.tensor(0.8, dtype=D), torch.tensor([0.2, 0.6], dtype=D)
    errors = []
    for step in (0.1, 0.05):
        y = odeint(
            lambda t, y: k * y * (1 - y) * torch.cos(t), y0, T, method=name, rtol=1e-12,
            atol=1e-12, options={"step_size": step}, engine="julia",
        )  # fmt: skip
        errors.append(float((y - solution(k, y0, T))[-1].abs().max()))
    assert errors[0] / errors[1] > 0.7 * 2 ** find_method(name).order


def test_discrete_adjoint_of_an_equation_that_depends_on_time(julia: str) -> None:
    """Kvaerno5's, whose tableau has the corrected times too, on the solver's own steps."""
    k = torch.tensor(0.8, dtype=D, requires_grad=True)
    y0 = torch.tensor([0.2, 0.6], dtype=D)

    def end(k: Tensor) -> Tensor:
        y = odeint(
            lambda t, y: k * y * (1 - y) * torch.cos(t), y0, T, method="Kvaerno5", rtol=1e-13,
            atol=1e-13, options={"step_size": 0.3}, sensealg="discrete", engine="julia",
        )  # fmt: skip
        return (y[-1] * torch.tensor([1.0, -2.0], dtype=D)).sum()

    (found,) = torch.autograd.grad(end(k), k)
    with torch.no_grad():
        difference = (end(k + 1e-5) - end(k - 1e-5)) / 2e-5
    assert_close(found, difference, 1e-7)


def test_steps_of_adams_methods_are_even(julia: str) -> None:
    """With save points between steps, their formulas stay of their order."""
    t = torch.tensor([0.0, 0.333, 0.777, 1.234], dtype=D)
    y = odeint(
        lambda t, y: -y, torch.ones(1, dtype=D), t, method="AB5", options={"step_size": 0.01},
        engine="julia",
    )  # fmt: skip
    assert_close(y[:, 0], torch.exp(-t), 1e-8)


def test_the_discrete_adjoint_is_refused_where_there_is_no_tableau(julia: str) -> None:
    for name in ("VCABM", "ROCK4", "FBDF", "auto"):
        with pytest.raises(UnsupportedError, match="GaussAdjoint"):
            odeint(
                lambda t, y: -y, torch.ones(1, dtype=D), T, method=name,
                sensealg=DiscreteAdjoint(), engine="julia",
            )  # fmt: skip


def test_auto_on_a_stiff_problem(julia: str) -> None:
    """Robertson's, which Vern7 alone does not solve."""
    k = torch.tensor([0.04, 3e7, 1e4], dtype=D)

    def rober(t: Tensor, y: Tensor) -> Tensor:
        a, b, c = k[0] * y[0], k[1] * y[1] ** 2, k[2] * y[1] * y[2]
        return torch.stack([-a + c, a - b - c, b])

    y0, t = torch.tensor([1.0, 0, 0], dtype=D), [0.0, 40.0, 1e4]
    found, expected = (
        odeint(rober, y0, t, method=m, rtol=1e-8, atol=1e-10, engine="julia")
        for m in ("auto", "Rodas5P")
    )
    assert_close(found, expected, 1e-6)


def test_start_loads_no_package_of_a_rare_method(julia: str) -> None:
    import subprocess
    import sys

    code = (
        "from pyjlode.engine import choose_engine; e = choose_engine('julia');"
        "names = e.runtime.main.seval('[k.name for k in keys(Base.loaded_modules)]');"
        "print([n for n in ('FIRK', 'SSPRK', 'LowStorageRK', 'Feagin', 'Extrapolation')"
        " if f'OrdinaryDiffEq{n}' in list(map(str, names))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
