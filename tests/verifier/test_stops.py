"""Rows that end at maxima: exact splits, counted rounding, tightness beside the usual relaxation, and certificates."""

from __future__ import annotations

import copy
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("flint", reason="python-flint is not installed")

from benchmarks.pooling import PROBLEMS, known_bounds, usual
from tests.check.certificates import inline
from tests.verifier.exact import evaluate, exactly
from tests.verifier.graphs import constraint, spec
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import initial_slopes
from zonocuda.bounds.dual.stops import Maxima, Stop
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rows import Rows
from zonocuda.checker import CertificateError, check_proof
from zonocuda.checker.proof import Sources
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph
from zonocuda.importers import from_module
from zonocuda.importers.builder import GraphBuilder
from zonocuda.importers.lowering import add, relu, select
from zonocuda.importers.lowering_piecewise import reduce_extreme
from zonocuda.specs import Box, LinearConstraint, Region
from zonocuda.tighten.ascent import Ascent
from zonocuda.tighten.refine import refine
from zonocuda.verifier import Verdict, optimize_bounds, verify

WORSE = (0, 1)
"""Seeds of random windows that have rows which are worse where none end."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_row_that_ends_says_less_than_it_did_up_to_half_an_ulp_of_the_product(sign: int, dtype: torch.dtype) -> None:
    """v y >= what goes on times y + the product, for y between the bounds and next to them, in rationals."""
    generator = torch.Generator().manual_seed(sign)
    scales = 10.0 ** torch.randint(-30, 4, (1, 3, 64), generator=generator)
    v = (torch.randn(1, 3, 64, generator=generator) * scales).to(dtype)
    ends = torch.rand(1, 64, generator=generator).round().to(dtype)
    bound = torch.randn(1, 64, generator=generator).to(dtype)
    rest, products = Stop(sign, bound, ends).split(v)
    seen = 0
    for row in range(3):
        for i in range(64):
            old, left, product, at = (
                Fraction(t.item()) for t in (v[0, row, i], rest[0, row, i], products[0, row, i], bound[0, i])
            )
            ended = old - left
            if not ends[0, i] or old * sign >= 0:
                assert ended == product == 0
                continue
            seen += 1
            assert left == 0
            half = Fraction(torch.finfo(dtype).eps) / 2 * abs(ended * at) + Fraction(torch.finfo(dtype).tiny)
            assert abs(product - ended * at) <= half
            for far in (0, Fraction(1, 2**60), 1, 1000):
                assert old * (at - sign * far) >= left * (at - sign * far) + product - half
    assert seen > 20


def smallest_at_the_ends(seed: int, sign: int) -> tuple[Graph, Tensor, Tensor, Rows]:
    """Maxima of pairs of inputs, and a row whose least value, at the upper ends, is a sum that cancels."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(1, 16, generator=generator)
    second = -first * (1 + torch.rand(1, 16, generator=generator) * 2.0**-12)
    upper = torch.cat([first, second], 1).repeat_interleave(2, 1)
    lower = upper - upper.abs() - 1
    builder = GraphBuilder("x", (32, 2), torch.float64, batched=True)
    graph = builder.finish(reduce_extreme(builder, "m", builder.input, (1,), sign, False))
    row = LinearConstraint({i: Fraction(-sign * weight(i)) for i in range(32)}, {}, Fraction(0))
    box = (lower, upper) if sign == 1 else (-upper, -lower)
    box = box[0].reshape(1, 32, 2), box[1].reshape(1, 32, 2)
    rows = Rows.of(Region(Box.from_tensors(*box), ((row,),)), 64, 32, box[0])
    return graph, *box, rows


def weight(i: int) -> int:
    """Of a maximum, and of the one that cancels it."""
    return 2 * (i % 16) + 1001


def ended(graph: Graph, box: tuple[Tensor, Tensor], rows: Rows, counted: bool) -> Tensor:
    """Bounds of rows that end, in float32."""
    small = graph.to(torch.float32)
    rounding = Rounding.of(graph, small, torch.float32) if counted else None
    inputs = sweep(small, Zonotope.from_box(*box), rounding=rounding).intermediate
    maxima = Maxima(small, inputs, box, rounding)
    start = maxima.usual({name: one.flat() for name, one in initial_slopes(small, inputs, "adaptive").items()})
    ledger = None if rounding is None else Ledger(rounding, box, inputs)
    problem = RowProblem(output_rows(small, rows, 1, ledger), box, inputs, stops=maxima.stops)
    return problem.bound(lambda node: start[node.name], ends=True)[0]


@torch.no_grad()
@pytest.mark.parametrize("sign", [1, -1])
def test_what_sums_of_ends_round_is_counted(sign: int) -> None:
    """The exact least value is attained, so that a bound which counts nothing exceeds it half of the time."""
    exceeded = 0
    for seed in range(12):
        graph, lower, upper, rows = smallest_at_the_ends(seed, sign)
        point = exactly(upper if sign == 1 else lower)
        outputs = evaluate(graph, point)
        exact = sum((-sign * weight(i) * y for i, y in enumerate(outputs)), Fraction(0))
        size = sum((weight(i) * abs(y) for i, y in enumerate(outputs)), Fraction(0))
        proven, computed = (Fraction(ended(graph, (lower, upper), rows, counted).item()) for counted in (True, False))
        unit = rows.undo_unit(0, 1.0)
        assert proven * Fraction(unit) <= exact
        assert proven * Fraction(unit) >= exact - size * Fraction(1, 2**12)
        exceeded += computed * Fraction(unit) > exact
    assert exceeded >= 2


def test_bounds_behind_pooling_are_never_worse_than_the_usual_relaxation() -> None:
    """On random windows; without rows that end, rows of each of these seeds are."""
    for seed in WORSE:
        graph, box, lower = usual_bounds(seed)
        with pytest.MonkeyPatch.context() as patch:
            assert all(mine > theirs - 1e-6 for mine, theirs in zip(optimised(graph, box), lower, strict=True))
            patch.setattr(Maxima, "stops", property(lambda self: {}, lambda self, value: None), raising=False)
            assert any(mine < theirs - 1e-3 for mine, theirs in zip(optimised(graph, box), lower, strict=True))


PROBLEM = PROBLEMS["random"]


@torch.no_grad()
def usual_bounds(seed: int) -> tuple[Graph, tuple[Tensor, Tensor], list[float]]:
    """A network of random windows, its box, and what the usual relaxation says of each output."""
    model, box = PROBLEM(seed)
    known = known_bounds(model, box)
    lower = [float(usual(model, unit, known, box)) for unit in torch.eye(16, dtype=torch.float64)]
    return from_module(model, tuple(box[0].shape)), box, lower


def confirmed(certificate: dict[str, Any], graph: Graph, property_: Any, exact: bool = False) -> bool:
    try:
        return check_proof(certificate, graph, property_, sources=Sources(exact=exact)).confirmed
    except CertificateError:
        return False


@torch.no_grad()
def test_the_certificate_of_a_row_that_ends_is_confirmed() -> None:
    """In float64 and in balls; not without its ends, and no ends prove what is false."""
    graph, box, lower = usual_bounds(0)
    worst = 4
    t = lower[worst] - 1e-3
    property_ = spec(box[0], box[1], [[constraint({worst: 1.0}, -t)]], 16)
    result = verify(graph, property_, effort="fast", split="none", certificate=True)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is not None
    certificate = inline(result.certificate)
    (row,) = certificate["regions"][0]["rows"]
    assert row["ends"][0]["side"] == "negative"
    assert confirmed(certificate, graph, property_)
    assert confirmed(certificate, graph, property_, exact=True)
    for edit in ({"ends": []}, {"ends": [{**row["ends"][0], "side": "positive"}]}):
        edited = copy.deepcopy(certificate)
        edited["regions"][0]["rows"][0].update(edit)
        assert not confirmed(edited, graph, property_)
        assert not confirmed(edited, graph, property_, exact=True)
    least = float(
        graph(box[0] + (box[1] - box[0]) * torch.rand(2000, *box[0].shape, dtype=torch.float64))[:, worst].min()
    )
    false = spec(box[0], box[1], [[constraint({worst: 1.0}, -least - 1e-9)]], 16)
    assert not confirmed(certificate, graph, false)
    for end in ({"name": "nothing"}, {"side": "both"}, {"neurons": None}):
        edited = copy.deepcopy(certificate)
        edited["regions"][0]["rows"][0]["ends"][0].update(end)
        assert not confirmed(edited, graph, property_)


@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_a_row_that_ends_beside_one_that_was_optimised(semantics: str) -> None:
    """A conjunction of two disjuncts: each needs its own way, and the certificate has both."""
    _, box, lower = usual_bounds(0)
    small = from_module(PROBLEM(0)[0].float(), tuple(box[0].shape))
    best = optimised(small, box)
    other = max(range(16), key=lambda i: best[i] - lower[i] if i != 4 else -1.0)
    parts = [(4, lower[4] - 1e-3), (other, lower[other] + 0.7 * (best[other] - lower[other]))]
    property_ = spec(box[0], box[1], [[constraint({i: 1.0}, -t)] for i, t in parts], 16)
    result = verify(small, property_, effort="max", split="none", certificate=True, semantics=semantics)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is not None
    certificate = inline(result.certificate)
    rows = certificate["regions"][0]["rows"]
    assert [bool(row["ends"]) for row in rows] == [True, False]
    assert check_proof(certificate, small, property_, semantics=semantics).confirmed


def two_pools(seed: int) -> tuple[nn.Sequential, tuple[Tensor, Tensor]]:
    """Two poolings in a row, and ReLUs behind them."""
    torch.manual_seed(seed)
    front = [nn.Linear(16, 64), nn.Unflatten(1, (1, 8, 8)), nn.MaxPool2d(2), nn.MaxPool2d(2), nn.Flatten()]
    model = nn.Sequential(*front, nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4)).double()
    x = torch.randn(16, dtype=torch.float64)
    return model, (x - 0.5, x + 0.5)


@torch.no_grad()
def test_intermediate_bounds_behind_pooling_are_never_worse_than_the_usual_relaxation() -> None:
    """Of neurons that are open; without rows that end, some are."""
    lost = 0
    for seed in range(3):
        model, box = two_pools(seed)
        low, high = known_bounds(model, box)[6]
        graph, zonotope = from_module(model, (16,)), Zonotope.from_box(*(end.unsqueeze(0) for end in box))
        first = sweep(graph, zonotope).intermediate
        for ends in (True, False):
            found = refine(graph, zonotope, first, Ascent(iterations=0), ends=ends).intermediate["relu"]
            lower, upper = (end[0] for end in found)
            some = (lower < 0) & (upper > 0)
            worse = (lower < low - 1e-9) | (upper > high + 1e-9)
            assert not ends or not bool((worse & some).any())
            lost += 0 if ends else int((worse & some).sum())
    assert lost > 3


@torch.no_grad()
@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_the_certificate_of_neurons_whose_rows_end_is_confirmed(semantics: str) -> None:
    """In float64 and in balls; not without the ends, and not of what is false."""
    model, box = two_pools(2)
    graph = from_module(model.float() if semantics == "float32" else model, (16,))
    wide = graph.to(torch.float64)
    zonotope = Zonotope.from_box(*(end.unsqueeze(0) for end in box))
    best = optimize_bounds(wide, zonotope, torch.eye(4)[:1], intermediate=20).lower.item()
    property_ = spec(box[0], box[1], [[constraint({0: 1.0}, -(best - 1e-2))]], 4)
    result = verify(graph, property_, effort="max", split="none", certificate=True, semantics=semantics)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is not None
    certificate = inline(result.certificate)
    layers = certificate["regions"][0]["activations"]
    assert layers[-1]["ended"]["ends"][0]["side"] == "negative"

    def holds(changed: dict[str, Any], about: Any = property_, exact: bool = False) -> bool:
        try:
            return check_proof(changed, graph, about, semantics=semantics, sources=Sources(exact=exact)).confirmed
        except CertificateError:
            return False

    assert holds(certificate)
    assert holds(certificate, exact=True)
    without = copy.deepcopy(certificate)
    for layer in without["regions"][0]["activations"]:
        layer["ended"] = None
    assert not holds(without)
    points = box[0] + (box[1] - box[0]) * torch.rand(2000, 16, dtype=torch.float64)
    least = float(wide(points)[:, 0].min())
    assert not holds(certificate, spec(box[0], box[1], [[constraint({0: 1.0}, -least - 1e-9)]], 4))
    for end in ({"name": "nothing"}, {"side": "both"}, {"neurons": None}):
        edited = copy.deepcopy(certificate)
        edited["regions"][0]["activations"][-1]["ended"]["ends"][0].update(end)
        assert not holds(edited)


class Factors(nn.Module):
    """A product that is pooled, or a maximum of values of unlike shapes, and ReLUs behind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.a, self.b = kind, nn.Linear(3, 8), nn.Linear(3, 8 if kind == "product" else 1)
        self.pool, self.relus, self.last = nn.MaxPool1d(2), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        value = a * b if self.kind == "product" else torch.maximum(a, b)
        found: Tensor = self.last(torch.relu(self.relus(self.pool(value.unsqueeze(1)).squeeze(1))))
        return found


@torch.no_grad()
@pytest.mark.parametrize("kind", ["product", "unlike"])
def test_neurons_behind_the_maximum_of_products_or_of_unlike_shapes_have_a_certificate(kind: str) -> None:
    graph = from_module(Factors(kind).double(), (3,))
    ends = torch.full((1, 3), -0.7, dtype=torch.float64), torch.full((1, 3), 0.7, dtype=torch.float64)
    zonotope, row = Zonotope.from_box(*ends), torch.eye(2, dtype=torch.float64)[:1]
    weak, best = (optimize_bounds(graph, zonotope, row, intermediate=steps).lower.item() for steps in (None, 40))
    assert best > weak
    wanted = weak + (best - weak) * 0.6
    property_ = spec(ends[0][0], ends[1][0], [[constraint({0: 1.0}, -wanted)]], 2)
    result = verify(graph, property_, effort="max", split="none", certificate=True)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is not None
    assert check_proof(inline(result.certificate), graph, property_).confirmed


def optimised(graph: Graph, box: tuple[Tensor, Tensor]) -> list[float]:
    """What optimised slopes say of each output."""
    zonotope = Zonotope.from_box(*(end.unsqueeze(0) for end in box))
    found: list[float] = optimize_bounds(graph.to(torch.float64), zonotope, torch.eye(16)).lower[0].tolist()
    return found


@torch.no_grad()
def test_a_maximum_that_the_network_itself_writes_as_a_sum_rounds_as_executed() -> None:
    """c + relu(a - c) in float32 may exceed both, so that intervals of maxima are not its own."""
    builder = GraphBuilder("x", (2,), torch.float32, batched=True)
    a, c = (select(builder, name, builder.input, 0, [i]) for i, name in enumerate("ac"))
    positive = relu(builder, "r", add(builder, "d", a, c, -1))
    graph = builder.finish(relu(builder, "out", add(builder, "m", c, positive)))
    wide, exceeds = graph.to(torch.float64), 0
    rounding = Rounding.of(graph, wide, torch.float64, Execution.of(graph, torch.float32))
    for seed in range(30):
        x = torch.randn(1, 2, generator=torch.Generator().manual_seed(seed))
        value = (x[0, 1] + torch.relu(x[0, 0] - x[0, 1])).double()
        low, high = sweep(wide, Zonotope.from_box(x.double(), x.double()), rounding=rounding).intermediate["out"]
        assert bool((low <= value) & (value <= high))
        exceeds += bool(value != x.double().max())
    assert exceeds
