"""``batch="independent"``: every row as if it were solved alone, and one gradient for all."""

from __future__ import annotations

import pytest
import torch
from reference import assert_close, gradients, rk4
from torch import nn

from pyjlode import DiscreteAdjoint, NeuralODE, SolverError, odeint
from pyjlode.engine import choose_engine
from pyjlode.problem import Statistics

D = torch.float64
T = torch.tensor([0.0, 0.3, 1.1, 1.5], dtype=D)


class Field(nn.Module):
    """A small network in which time counts."""

    def __init__(self, dtype: torch.dtype = D) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)
        self.scale = nn.Parameter(torch.tensor(0.7, dtype=dtype))

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        time = torch.sin(t) * torch.ones_like(y[:, :1])
        return self.scale * self.net(torch.cat((y, time), dim=1))


def starts(rows: int = 7, dtype: torch.dtype = D) -> torch.Tensor:
    return torch.linspace(-1.0, 2.0, 2 * rows, dtype=dtype).view(rows, 2)


def row_by_row(func, y0, t, **options) -> torch.Tensor:
    """The same by one solve for each row."""
    return torch.cat([odeint(func, y0[i : i + 1], t, **options) for i in range(len(y0))], dim=1)


def check_rows_alone(engine: str, options: dict, times: torch.Tensor) -> None:
    field = Field()
    needed = list(field.parameters())
    options = {"engine": engine, "rtol": 1e-6, "atol": 1e-8, **options}
    together, found = gradients(
        lambda y, t: odeint(field, y, t, batch="independent", **options), starts(), times, needed
    )
    alone, expected = gradients(
        lambda y, t: row_by_row(field, y, t, **options), starts(), times, needed
    )
    assert_close(together, alone, 1e-13)
    for g, e in zip(found, expected, strict=True):
        assert_close(g, e, 1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "dopri5", "options": {"first_step": 0.01}},
        {"method": "rk4", "options": {"step_size": 0.1}},
        {"sensealg": "backsolve"},
    ],
    ids=str,
)
@pytest.mark.parametrize("times", [T, T.flip(0)], ids=["forward", "reversed"])
def test_as_each_row_alone(engine: str, options: dict, times: torch.Tensor) -> None:
    check_rows_alone(engine, options, times)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "Vern7", "rtol": 1e-4},
        {"sensealg": DiscreteAdjoint(checkpoints=2)},
        {"sensealg": "gauss"},
        {"method": "Rodas5P"},
    ],
    ids=str,
)
def test_as_each_row_alone_in_julia(julia: str, options: dict) -> None:
    check_rows_alone(julia, options, T)


def test_gradients_are_right(engine: str) -> None:
    field = Field()
    needed = list(field.parameters())
    states, found = gradients(
        lambda y, t: odeint(
            field, y, t, batch="independent", rtol=1e-10, atol=1e-11, engine=engine
        ),
        starts(3), T, needed,
    )  # fmt: skip
    expected_states, expected = gradients(lambda y, t: rk4(field, y, t), starts(3), T, needed)
    assert_close(states, expected_states, 1e-8)
    for g, e in zip(found, expected, strict=True):
        assert_close(g, e, 1e-6)


def test_closed_form_and_finite_differences(engine: str) -> None:
    rate = torch.tensor(0.8, dtype=D, requires_grad=True)
    y0 = starts(5).requires_grad_()
    t = torch.tensor([0.0, 1.0], dtype=D, requires_grad=True)

    def solve(k: torch.Tensor) -> torch.Tensor:
        return odeint(
            lambda s, y: -k * y, y0, t, batch="independent", rtol=1e-10, atol=1e-11, engine=engine
        )

    y = solve(rate)
    decay = torch.exp(-rate.detach())
    assert_close(y[-1], decay * y0, 1e-9)
    by_y, by_rate, by_t = torch.autograd.grad(y[-1].sum(), (y0, rate, t))
    total = float(y0.detach().sum())
    assert_close(by_y, decay * torch.ones(5, 2, dtype=D), 1e-8)
    assert_close(by_rate, -decay * total, 1e-8)
    assert_close(by_t, rate.detach() * decay * total * torch.tensor([1.0, -1.0], dtype=D), 1e-8)
    step = 1e-5
    difference = (solve(rate + step)[-1].sum() - solve(rate - step)[-1].sum()) / (2 * step)
    assert_close(by_rate, difference.detach(), 1e-6)


def test_float32(engine: str) -> None:
    field = Field(torch.float32)
    options = {"engine": engine, "rtol": 1e-4, "atol": 1e-5}
    y0 = starts(6, torch.float32)
    needed = list(field.parameters())
    together, found = gradients(
        lambda y, t: odeint(field, y, t, batch="independent", **options), y0, T, needed
    )
    alone, expected = gradients(lambda y, t: row_by_row(field, y, t, **options), y0, T, needed)
    assert together.dtype == torch.float32
    assert_close(together, alone, 1e-5)
    for g, e in zip(found, expected, strict=True):
        assert_close(g, e, 1e-4)


def test_tuples(engine: str) -> None:
    """An angle, a velocity of two parts, and a context that does not move."""
    angle = torch.linspace(0, 1, 4, dtype=D).requires_grad_()
    velocity = starts(4).requires_grad_()
    context = torch.linspace(1, 2, 8, dtype=D).view(4, 1, 2).requires_grad_()

    def func(t: torch.Tensor, state: tuple) -> tuple:
        a, v, c = state
        return v.sum(1).cos(), -a[:, None] * v * c[:, 0], torch.zeros_like(c)

    options = {"rtol": 1e-7, "atol": 1e-9, "engine": engine}
    inputs = (angle, velocity, context)
    together = odeint(func, inputs, T, batch="independent", **options)
    rows = [odeint(func, tuple(x[i : i + 1] for x in inputs), T, **options) for i in range(4)]
    alone = tuple(torch.cat(parts, dim=1) for parts in zip(*rows, strict=True))
    assert [x.shape for x in together] == [(4, 4), (4, 4, 2), (4, 4, 1, 2)]
    found, expected = (
        torch.autograd.grad(sum((x**2).sum() for x in states), inputs)
        for states in (together, alone)
    )
    for x, y in zip((*together, *found), (*alone, *expected), strict=True):
        assert_close(x, y, 1e-12)


def lotka_volterra(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The third number of a row is its time scale."""
    prey, predators, speed = y.unbind(1)
    return torch.stack(
        (
            speed * (1.1 * prey - 0.4 * prey * predators),
            speed * (0.1 * prey * predators - 0.4 * predators),
            torch.zeros_like(speed),
        ),
        dim=1,
    )


def test_each_row_takes_its_own_steps(engine: str) -> None:
    speeds = torch.tensor([50.0] + 9 * [1.0], dtype=D)
    y0 = torch.stack((torch.full((10,), 10.0, dtype=D), torch.full((10,), 5.0, dtype=D), speeds), 1)
    counts = {}
    for batch in ("joint", "independent"):
        stats = Statistics()
        y = odeint(
            lotka_volterra, y0, [0.0, 5.0], batch=batch, rtol=1e-6, atol=1e-6, engine=engine,
            stats=stats,
        )  # fmt: skip
        counts[batch] = stats
    joint, own = counts["joint"], counts["independent"]
    assert 10 * joint.nfe > 5 * own.nfe
    assert own.rows["nfe"].shape == (10,) and int(own.rows["nfe"].sum()) == own.nfe
    assert own.rows["nfe"][0] > 20 * own.rows["nfe"][1]
    assert not joint.rows
    if engine == "julia":
        assert int(own.rows["naccept"].sum()) == own.naccept
        assert own.rows["naccept"][0] > 20 * own.rows["naccept"][9] > 0
    # H = 0.1 x - 0.4 log x + 0.4 y - 1.1 log y is kept.
    energy = 0.1 * y[..., 0] - 0.4 * y[..., 0].log() + 0.4 * y[..., 1] - 1.1 * y[..., 1].log()
    assert_close(energy[1], energy[0], 1e-2)


def test_results_repeat_to_the_last_bit(julia: str) -> None:
    field = Field()

    def gradient() -> list[torch.Tensor]:
        y = odeint(field, starts(100), T, batch="independent", engine=julia)
        return list(torch.autograd.grad(y.square().sum(), field.parameters()))

    for a, b in zip(gradient(), gradient(), strict=True):
        assert torch.equal(a, b)


def test_one_trace_for_every_number_of_rows(julia: str) -> None:
    field = Field()
    models = choose_engine(julia).models
    odeint(field, starts(5), T, batch="independent", engine=julia)
    before = len(models)
    y = odeint(field, starts(9), T, batch="independent", engine=julia)
    assert len(models) == before
    assert_close(y, row_by_row(field, starts(9), T, engine=julia), 1e-13)


def test_layer(engine: str) -> None:
    field = Field()
    layer = NeuralODE(field, T, batch="independent", engine=engine)
    y0 = starts(4)
    assert_close(layer(y0), row_by_row(field, y0, T, engine=engine), 1e-13)
    assert len(layer.stats.rows["nfe"]) == 4
    assert "independent" in repr(layer)


def test_no_gradient_and_few_rows(engine: str) -> None:
    field = Field()
    with torch.no_grad():
        for rows in (1, 2):
            y = odeint(field, starts(rows), T, batch="independent", engine=engine)
            assert_close(y, row_by_row(field, starts(rows), T, engine=engine), 1e-12)
    assert odeint(field, torch.ones(0, 2), T, batch="independent", engine=engine).shape == (4, 0, 2)
    assert odeint(field, starts(3), T[:1], batch="independent", engine=engine).shape == (1, 3, 2)


def test_a_row_that_fails_is_named(engine: str) -> None:
    """1 / (1/y0 - t) blows up, in row 2 first; row 4 would too."""
    y0 = torch.tensor([[0.1], [0.2], [2.0], [0.1], [4.0], [0.3]], dtype=D)
    for needed, sign in ((False, 1), (True, 1), (False, -1)):
        with pytest.raises(SolverError, match=r"[Rr]ow 2") as caught:
            odeint(
                lambda t, y, sign=sign: sign * y**2, y0.clone().requires_grad_(needed),
                [0.0, 1.0 * sign], batch="independent", engine=engine,
            )  # fmt: skip
        assert caught.value.row == 2
        assert caught.value.retcode != "Success"
        assert abs(caught.value.t - 0.5 * sign) < 0.1


def test_a_row_that_fails_backward_is_named(julia: str) -> None:
    """The derivative of the root is infinite at zero."""
    y0 = torch.tensor([[1.0], [1.0], [0.0], [1.0]], dtype=D, requires_grad=True)
    y = odeint(lambda t, y: 0 * y.sqrt(), y0, [0.0, 1.0], batch="independent", engine=julia)
    with pytest.raises(SolverError, match="row 2") as caught:
        y.sum().backward()
    assert caught.value.row == 2


@pytest.mark.filterwarnings("ignore:.*callback mode")
@pytest.mark.parametrize("method", [None, "Rodas5P"])
def test_callback_mode(julia: str, method: str | None) -> None:
    rate = torch.tensor(0.5, dtype=D, requires_grad=True)

    def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -rate * y if float(t.detach()) < 0.5 else -rate * y * 1.0

    options = {"engine": julia, "rtol": 1e-6, "atol": 1e-8, "method": method}
    together, found = gradients(
        lambda y, t: odeint(func, y, t, batch="independent", **options), starts(3), T, [rate]
    )
    alone, expected = gradients(
        lambda y, t: row_by_row(func, y, t, **options), starts(3), T, [rate]
    )
    assert_close(together, alone, 1e-13)
    for g, e in zip(found, expected, strict=True):
        assert_close(g, e, 1e-12)


_context = starts(4)
_norm = nn.BatchNorm1d(2, dtype=D)


@pytest.mark.parametrize(
    ("func", "says"),
    [
        (lambda t, y: y - y.mean(0), "mixes rows"),
        (lambda t, y: y.flip(0), "mixes rows"),
        (lambda t, y: torch.cumsum(y, 0).detach(), "mixes rows"),
        (lambda t, y: y * _context, "fails on one .*further tensor with derivative zero"),
        (lambda t, y: _norm(y), r"Batch norm belongs into eval\(\)"),
        (lambda t, y: nn.functional.dropout(y), "random numbers"),
    ],
    ids=["mean", "flip", "cumsum", "context", "batch norm", "dropout"],
)
@pytest.mark.parametrize("alike", [False, True])
def test_functions_that_mix_rows(engine: str, func, says: str, alike: bool) -> None:
    y0 = torch.ones(4, 2, dtype=D) if alike else starts(4)
    for _ in range(2):  # nothing is remembered of a function that was refused
        with pytest.raises(ValueError, match=says):
            odeint(func, y0, [0.0, 1.0], batch="independent", engine=engine)


def test_the_check_changes_nothing(engine: str) -> None:
    norm = nn.BatchNorm1d(2, dtype=D)
    random = torch.get_rng_state()
    with pytest.raises(ValueError, match="rows"):
        odeint(lambda t, y: norm(y), starts(4), T, batch="independent", engine=engine)
    assert torch.equal(norm.running_mean, torch.zeros(2, dtype=D))
    assert int(norm.num_batches_tracked) == 0
    assert torch.equal(random, torch.get_rng_state())
    norm.eval()
    y = odeint(lambda t, y: norm(y), starts(4), T, batch="independent", engine=engine)
    assert_close(y[-1], starts(4) * torch.exp(T[-1] / (1 + norm.eps) ** 0.5), 1e-6)


def test_a_slope_that_is_infinite_is_no_mixing(engine: str) -> None:
    y0 = torch.tensor([[1.0], [0.0], [4.0], [0.0]], dtype=D)
    y = odeint(lambda t, y: -y.sqrt(), y0, [0.0, 0.5], batch="independent", engine=engine)
    assert_close(y[-1], torch.tensor([[0.75**2], [0.0], [1.75**2], [0.0]], dtype=D), 1e-6)


def test_bad_arguments(engine: str) -> None:
    func, y0 = Field(), starts(3)
    with pytest.raises(ValueError, match="'joint' and 'independent'"):
        odeint(func, y0, T, batch="rows", engine=engine)
    with pytest.raises(ValueError, match=r"\(3, 2\), \(2, 2\)"):
        odeint(func, (y0, y0[:2]), T, batch="independent", engine=engine)
    with pytest.raises(ValueError, match="leading dimension"):
        odeint(func, torch.tensor(1.0), T, batch="independent", engine=engine)
