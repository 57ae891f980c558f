"""Mass matrices: singular ones against the ODE that they stand for, regular ones against M⁻¹ f."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import pytest
import torch
from reference import assert_close, gradients
from scipy.sparse import coo_array, csr_matrix, diags
from stiff_problems import PROBLEMS, rober
from torch import Tensor

from pyjlode import ArgumentError, SolverError, UnsupportedError, odeint, odeint_event
from pyjlode.mass_matrix import METHODS

D = torch.float64
ROBER = PROBLEMS["rober"]
SEMI_EXPLICIT = torch.diag(torch.tensor([1.0, 1, 0], dtype=D))
ALL = bool(os.environ.get("PYJLODE_ALL_METHODS"))
CHOSEN = METHODS if ALL else ("Rodas5P", "FBDF", "QNDF")
WEIGHTS = torch.tensor([1.0, 1e4, 2], dtype=D)


def conserving(k: Tensor, y: Tensor) -> Tensor:
    """Robertson's problem with the sum of its species as the third equation."""
    rates = rober(k, y)
    return torch.stack([rates[0], rates[1], y.sum() - 1])


def solve_rober(
    func: Callable[[Tensor, Tensor], Tensor], y0: Tensor, **options: object
) -> tuple[Tensor, Tensor, Tensor]:
    """States, and the gradients by the logarithms of the rates and by ``y0``."""
    logarithms, y0 = ROBER.rates.log().requires_grad_(), y0.clone().requires_grad_()
    y = odeint(
        lambda t, y: func(logarithms.exp(), y), y0, ROBER.t, rtol=1e-8, atol=1e-10,
        engine="julia", **options,
    )  # fmt: skip
    return y.detach(), *torch.autograd.grad((y @ WEIGHTS).sum(), (logarithms, y0))


@pytest.fixture(scope="module")
def ode_form() -> tuple[Tensor, Tensor, Tensor]:
    return solve_rober(rober, ROBER.y0, method="Rodas5P")


def check_rober(found: tuple[Tensor, Tensor, Tensor], ode: tuple[Tensor, Tensor, Tensor]) -> None:
    for i in range(3):
        assert_close(found[0][:, i], ode[0][:, i], 1e-5)
    assert_close(found[1], ode[1], 1e-5)
    # The third species is what the first two leave of one.
    assert_close(found[2], ode[2] - ode[2][2], 1e-5)


@pytest.mark.parametrize("method", CHOSEN)
def test_robertson(julia: str, method: str, ode_form: tuple[Tensor, Tensor, Tensor]) -> None:
    """From a third species that is wrong by 0.3 and has to be found."""
    y0 = torch.tensor([1, 0, 0.3], dtype=D)
    check_rober(solve_rober(conserving, y0, method=method, mass_matrix=SEMI_EXPLICIT), ode_form)


def test_no_row_is_zero(julia: str, ode_form: tuple[Tensor, Tensor, Tensor]) -> None:
    """The same equations, each a sum of several, in variables that are sums of several."""
    rows = torch.tensor([[1.0, 2, 1], [0, 1, 3], [2, 0, 1]], dtype=D)
    columns = torch.tensor([[1.0, 0, 1], [0, 1, 0], [-1, 0, 1]], dtype=D)
    back = torch.linalg.inv(columns)
    logarithms = ROBER.rates.log().requires_grad_()
    y0 = torch.tensor([1, 0, 0.3], dtype=D, requires_grad=True)
    z = odeint(
        lambda t, z: rows @ conserving(logarithms.exp(), back @ z), columns @ y0, ROBER.t,
        rtol=1e-8, atol=1e-10, mass_matrix=rows @ SEMI_EXPLICIT @ back, engine="julia",
    )  # fmt: skip
    y = z @ back.T
    found = torch.autograd.grad((y @ WEIGHTS).sum(), (logarithms, y0))
    check_rober((y.detach(), *found), ode_form)


@pytest.mark.parametrize("method", CHOSEN)
def test_driven_circuit(julia: str, method: str) -> None:
    """x' = -a x + z with 0 = z² - b² exp(2 t), in closed form: all gradients, times included."""
    a, b = (torch.tensor(v, dtype=D, requires_grad=True) for v in (1.5, 0.7))

    def func(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[1] - a * y[0], y[1] ** 2 - b**2 * torch.exp(2 * t)])

    def exact(y0: Tensor, t: Tensor) -> Tensor:
        s, x0 = t - t[0], y0[0]
        grown, start = b * torch.exp(t) / (1 + a), b * torch.exp(t[0]) / (1 + a)
        return torch.stack([(x0 - start) * torch.exp(-a * s) + grown, b * torch.exp(t)], dim=1)

    def solve(y0: Tensor, t: Tensor) -> Tensor:
        return odeint(
            func, y0, t, method=method, mass_matrix=torch.diag(torch.tensor([1.0, 0.0])),
            rtol=1e-8, atol=1e-10, engine="julia",
        )  # fmt: skip

    y0, t = torch.tensor([0.4, 2.0], dtype=D), torch.linspace(0.2, 1.4, 5, dtype=D)
    states, found = gradients(solve, y0, t, [a, b])
    expected, reference = gradients(exact, y0, t, [a, b])
    assert_close(states, expected, 1e-6)
    for g, e, what in zip(found, reference, ("y0", "t", "a", "b"), strict=True):
        # Times move along the interpolation, whose slope is of a lower order.
        assert_close(g, e, 3e-4 if what == "t" else 1e-5, what)


REGULAR = torch.tensor([[2.0, 1, 0], [0, 1, 0.5], [0.3, 0, 1]], dtype=D)


@pytest.mark.parametrize("method", ["Rodas5P", "QNDF"])
def test_regular(julia: str, method: str) -> None:
    """Against the equation solved for the derivative; the matrix once of a row, once of all."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).to(D)
    times = torch.linspace(1, 0, 4, dtype=D)  # and backwards in time
    y0 = torch.linspace(-1, 1, 6, dtype=D).view(2, 3)
    options = {"method": method, "rtol": 1e-9, "atol": 1e-11, "engine": "julia"}

    def func(t: Tensor, y: Tensor) -> Tensor:
        return torch.cos(t) * net(y)

    def by_mass(M: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda y0, t: odeint(func, y0, t, mass_matrix=M, **options)

    def solved(y0: Tensor, t: Tensor) -> Tensor:
        return odeint(lambda t, y: torch.linalg.solve(REGULAR, func(t, y).T).T, y0, t, **options)

    others = list(net.parameters())
    expected, reference = gradients(solved, y0, times, others)
    for M in (REGULAR, torch.block_diag(REGULAR, REGULAR)):
        states, found = gradients(by_mass(M), y0, times, others)
        assert_close(states, expected, 1e-6)
        for g, e in zip(found, reference, strict=True):
            assert_close(g, e, 1e-5)


def test_batch_is_sparse(julia: str) -> None:
    """Of 64 rows, the Jacobian and the mass matrix are sparse; each row as if it were alone."""
    rate = torch.linspace(0.5, 2, 64, dtype=D).requires_grad_()

    def func(rate: Tensor, y: Tensor) -> Tensor:
        x, z, w = y.unbind(-1)
        return torch.stack([-rate * z, w**3 - x, x + z - w], dim=-1)

    M = torch.tensor([[1.0, 0.5, 0], [0, 0, 0], [0, 0, 0]], dtype=D)
    y0 = torch.stack([torch.linspace(1, 2, 64, dtype=D)] * 3, dim=1)
    t = torch.linspace(0, 0.3, 3, dtype=D)
    whole, found = gradients(
        lambda y0, t: odeint(lambda t, y: func(rate, y), y0, t, mass_matrix=M, engine="julia"),
        y0, t, [rate],
    )  # fmt: skip
    for i in (0, 40):
        row = y0[i].clone().requires_grad_()
        one = odeint(lambda t, y, i=i: func(rate[i], y), row, t, mass_matrix=M, engine="julia")
        assert_close(whole[:, i], one.detach(), 1e-6)
        weights = torch.linspace(0.5, 1.5, whole.numel(), dtype=D).view_as(whole)[:, i]
        loss = (weights * one + 0.3 * one**2).sum()
        by_row, by_rate = torch.autograd.grad(loss, (row, rate))
        assert_close(found[0][i], by_row, 1e-5)
        assert_close(found[2][i], by_rate[i], 1e-5)


def test_tuple_interpolation_and_pieces(julia: str) -> None:
    """x' = z, z = 2 x, of tensors apart; then with 3 x from time 1/2 on."""

    def func(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, z = y
        return z, torch.where(t > 0.5, 3.0, 2.0) * x - z

    M = torch.diag(torch.tensor([1.0, 1, 0, 0]))
    y0 = (torch.tensor([1.0, 2], dtype=D), torch.zeros(2, dtype=D))
    options = {"mass_matrix": M, "engine": "julia", "rtol": 1e-6, "atol": 1e-6}
    solution = odeint(func, y0, [0.0, 0.4], return_solution=True, **options)
    x, z = solution(0.3)
    assert_close(x, y0[0] * torch.tensor(0.6, dtype=D).exp(), 1e-4)
    assert_close(z, 2 * x, 1e-4)
    x, z = odeint(func, y0, [0.0, 1.0], options={"jump_t": torch.tensor([0.5])}, **options)
    assert_close(z, torch.stack([2 * x[0], 3 * x[1]]), 1e-4)
    assert_close(x[1], y0[0] * torch.tensor(1 + 1.5, dtype=D).exp(), 1e-4)


@pytest.mark.parametrize("method", ["Rodas5P", "FBDF"])
def test_event_of_an_algebraic_variable(julia: str, method: str) -> None:
    """z = b exp(t) reaches c at log(c / b), where x is known in closed form; from a wrong z."""
    inputs = [torch.tensor(v, dtype=D, requires_grad=True) for v in (0.2, 0.4, 1.5, 0.7, 2.0)]
    t0, x0, a, b, c = inputs

    def func(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[1] - a * y[0], y[1] ** 2 - b**2 * torch.exp(2 * t)])

    time, states = odeint_event(
        func, torch.stack([x0, x0.detach() * 5]), t0, event_fn=lambda t, y: y[1] - c,
        mass_matrix=torch.diag(torch.tensor([1.0, 0.0])), method=method, rtol=1e-9, atol=1e-11,
        engine="julia",
    )  # fmt: skip
    when = torch.log(c / b)
    start = b * torch.exp(t0) / (1 + a)
    x = (x0 - start) * torch.exp(-a * (when - t0)) + c / (1 + a)
    expected = (when, x, c, b * torch.exp(t0))
    for found, e in zip((time, states[1, 0], states[1, 1], states[0, 1]), expected, strict=True):
        assert_close(found.detach(), e.detach(), 1e-7)
        have, want = (
            torch.autograd.grad(
                value, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for value in (found, e)
        )
        assert_close(torch.stack(have), torch.stack(want), 1e-5)


def test_event_by_differences(julia: str) -> None:
    """Towards the past, with no row of the matrix zero and an event of all variables."""
    rows = torch.tensor([[1.0, 2, 1], [0, 1, 3], [2, 0, 1]], dtype=D)

    def solve(y0: Tensor, t0: Tensor, rate: Tensor, level: Tensor) -> Tensor:
        def func(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            (x, v), z = y
            found = rows @ torch.stack([v, -rate * x * z, z + z**3 - x**2 - torch.sin(t)])
            return found[:2], found[2]

        time, (xv, z) = odeint_event(
            func, (y0[:2], y0[2]), t0, event_fn=lambda t, y: y[0][0] + 0.3 * y[1] * t - level,
            mass_matrix=rows @ SEMI_EXPLICIT, reverse_time=True, rtol=1e-10, atol=1e-12,
            engine="julia",
        )  # fmt: skip
        return 1.7 * time + xv[1].prod() + z[1] ** 2

    inputs = [torch.tensor(v, dtype=D) for v in ([0.3, 0.4, 0.1], 0.9, 1.2, -0.1)]
    leaves = [x.clone().requires_grad_() for x in inputs]
    found = torch.cat([g.reshape(-1) for g in torch.autograd.grad(solve(*leaves), leaves)])
    expected, step = [], 1e-5
    for i, x in enumerate(inputs):
        for k in range(x.numel()):
            ends = []
            for sign in (1, -1):
                moved = [z.clone() for z in inputs]
                moved[i].view(-1)[k] += sign * step
                with torch.no_grad():
                    ends.append(float(solve(*moved)))
            expected.append((ends[0] - ends[1]) / (2 * step))
    assert_close(found, torch.tensor(expected, dtype=D), 1e-6)


def test_check_init_says_which(julia: str) -> None:
    y0 = torch.tensor([1.0, 0, 0.25], dtype=D)
    with pytest.raises(SolverError, match=r"func has there 0\.25 at \[2\]") as caught:
        solve_rober(conserving, y0, mass_matrix=SEMI_EXPLICIT, initializealg="CheckInit")
    assert caught.value.retcode == "InitialFailure"


def test_check_init_takes_what_is_consistent(
    julia: str, ode_form: tuple[Tensor, Tensor, Tensor]
) -> None:
    found = solve_rober(conserving, ROBER.y0, mass_matrix=SEMI_EXPLICIT, initializealg="CheckInit")
    check_rober(found, ode_form)


@pytest.mark.parametrize(
    ("algebraic", "message"),
    [
        (lambda y: y[0] - 1, "index"),  # says nothing of the algebraic variable
        (lambda y: y[1] ** 2 + 1, "was not brought to one"),  # has no solution
        (lambda y: y[1].log(), "not finite"),
    ],
)
def test_no_consistent_start(
    julia: str, algebraic: Callable[[Tensor], Tensor], message: str
) -> None:
    y0 = torch.tensor([1.0, -0.7], dtype=D)
    M = torch.diag(torch.tensor([1.0, 0]))
    with pytest.raises(SolverError, match=message) as caught:
        odeint(
            lambda t, y: torch.stack([-y[0], algebraic(y)]), y0, [0.0, 1], mass_matrix=M,
            engine="julia",
        )  # fmt: skip
    assert caught.value.retcode == "InitialFailure"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mass_matrix": torch.eye(2)}, ArgumentError, r"must have shape \(3, 3\)"),
        ({"mass_matrix": torch.zeros(3, 3)}, ArgumentError, "is zero"),
        ({"mass_matrix": torch.eye(3) / 0}, ArgumentError, "not finite"),
        ({"mass_matrix": torch.eye(3).requires_grad_()}, ArgumentError, "cannot require"),
        ({"initializealg": "CheckInit"}, ArgumentError, "there is none"),
        ({"mass_matrix": torch.eye(3), "initializealg": "x"}, ArgumentError, "must be one of"),
        ({"mass_matrix": SEMI_EXPLICIT, "method": "Tsit5"}, UnsupportedError, "Rodas5P"),
        ({"mass_matrix": torch.eye(3), "method": "dopri5"}, UnsupportedError, "linalg.solve"),
        ({"mass_matrix": torch.eye(3), "engine": "torch"}, UnsupportedError, "linalg.solve"),
    ],
)
def test_what_is_refused(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        odeint(lambda t, y: -y, torch.ones(3), [0.0, 1.0], **options)


def test_what_julia_refuses(julia: str) -> None:
    M, y0, t = torch.eye(3), torch.ones(3, requires_grad=True), [0.0, 1.0]

    def solve(func: Callable[..., Tensor] = lambda t, y: -y, **options: object) -> object:
        return odeint(func, y0, t, mass_matrix=M, engine="julia", **options)

    with pytest.raises(UnsupportedError, match="DiscreteAdjoint"):
        solve(sensealg="gauss")
    with pytest.raises(UnsupportedError, match="Rodas5P"):
        solve(method="FBDF", sensealg="discrete")
    with pytest.raises(UnsupportedError, match="rows one by one"):
        odeint(
            lambda t, y: -y, torch.ones(2, 3), t, mass_matrix=M, batch="independent", engine="julia"
        )
    with pytest.raises(UnsupportedError, match="draw them before"):
        solve(lambda t, y: torch.nn.functional.dropout(-y, 0.5))
    with pytest.warns(match="callback mode"), pytest.raises(UnsupportedError, match="second deriv"):
        solve(lambda t, y: -y if y[0] > 0 else y)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_sparse_matrices(julia: str) -> None:
    """Torch's layouts and SciPy's: the same numbers as the dense matrix's."""
    k = torch.tensor(1.0, dtype=D, requires_grad=True)

    def react(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([-k * y[0], y[0] + y[1] - 1])

    dense = torch.diag(torch.tensor([1.0, 0.0], dtype=D))
    expected = None
    for matrix in (
        dense, dense.to_sparse(), dense.to_sparse_csr(), dense.to_sparse_csc(),
        csr_matrix(dense.numpy()), coo_array(dense.numpy()), dense.numpy(),
    ):  # fmt: skip
        y = odeint(react, [0.8, 0.0], [0.0, 1.0], mass_matrix=matrix, engine=julia)
        found = y.detach(), *torch.autograd.grad(y[-1] @ WEIGHTS[:2], k)
        expected = expected or found
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("pinned", [False, True])
def test_finite_elements(julia: str, pinned: bool) -> None:
    """The heat equation, whose mass matrix is tridiagonal; of large ones no SVD is made."""
    n = 300
    h = 1 / (n + 1)
    places = torch.linspace(h, 1 - h, n, dtype=D)
    weights = [np.full(n - 1, 1 / 6), np.full(n, 2 / 3), np.full(n - 1, 1 / 6)]
    matrix = diags(weights, [-1, 0, 1]).tolil()
    if pinned:  # an algebraic equation for the last
        matrix[n - 1, :] = 0
        matrix[:, n - 1] = 0

    def heat(t: Tensor, y: Tensor) -> Tensor:
        padded = torch.cat([y.new_zeros(1), y, y.new_zeros(1)])
        slope = (padded[2:] - 2 * padded[1:-1] + padded[:-2]) / h**2
        return torch.cat([slope[:-1], (2 * y[-1] - y[-2])[None]]) if pinned else slope

    y0 = torch.sin(torch.pi * places)
    y = odeint(heat, y0, [0.0, 0.1], mass_matrix=matrix.tocsr(), engine=julia)
    assert_close(y[-1], math.exp(-0.1 * math.pi**2) * y0, 1e-4)
    dense = odeint(heat, y0, [0.0, 0.1], mass_matrix=matrix.toarray(), engine=julia)
    assert_close(y, dense, 1e-12)
