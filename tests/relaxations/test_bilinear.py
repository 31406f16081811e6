"""Products of two values: McCormick's planes are proven, and every bound knows them."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch
from torch import Tensor

import zonocuda
from tests.relaxations.ways import both_ends, check_claims, property_of
from tests.verifier.graphs import Builder, random_box, sample_box
from zonocuda.bounds.dual.neurons import Relaxed, neuron_bounds
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import Slopes, initial_slopes
from zonocuda.bounds.forward.sweep import Means, sweep
from zonocuda.domains import Zonotope, use_backend
from zonocuda.graph import Bilinear, Concat, Graph, Linear, Relu
from zonocuda.relaxations.bilinear import BilinearRule
from zonocuda.tighten.ascent import Ascent, ascend
from zonocuda.tighten.joint import margin, slope_gradients, sweep_to
from zonocuda.tighten.refine import refine
from zonocuda.verifier import Verdict, optimize_bounds, verify

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
TERMS = pytest.mark.parametrize("terms", [1, 3])


def network(terms: int, seed: int = 0) -> Graph:
    """Products of two linear maps of ReLUs, and products of their sums with the first layer again."""
    b = Builder(4, seed=seed)
    first = b(b.linear(4, 6))
    relus = b(Relu())
    sides = [b(b.linear(6, 4 * terms), relus) for _ in range(2)]
    b(Concat(0), *sides)
    b(Bilinear(terms))
    b(b.linear(4, 3))
    b(Concat(0), b.nodes[-1].name, first)
    b(b.linear(9, 4))
    b(Bilinear())
    b(b.linear(2, 3))
    return b.graph()


# ---- the rule ------------------------------------------------------------------------------------------------------


def boxes(dtype: torch.dtype, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Bounds ``[count, 2]`` of pairs: of widths from none and one unit in the last place to 1e6, of every sign."""
    generator = torch.Generator().manual_seed(seed)
    size = 10 ** (12 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 6)
    low = (size * torch.randn(count, 2, generator=generator, dtype=torch.float64)).to(dtype)
    low[::7] = 0
    width = (10 ** (14 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 8)).to(dtype)
    high = low + width
    high[::5] = torch.nextafter(low[::5], torch.full_like(low[::5], torch.inf))
    high[1::11] = low[1::11]
    mirrored = torch.rand(count, 2, generator=generator) < 0.5
    return torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)


def residues(a: Fraction, b: Fraction, x: list[Fraction], y: list[Fraction]) -> list[Fraction]:
    """x y - a x - b y at the corners of a box, where it is least and largest."""
    return [p * q - a * p - b * q for p in x for q in y]


@DTYPES
@pytest.mark.parametrize("own_signs", [False, True])
def test_planes_enclose_the_product_at_every_corner_in_rationals(dtype: torch.dtype, own_signs: bool) -> None:
    """Where a bilinear function is least and largest; and they are hardly wider than they must be."""
    low, high = boxes(dtype, 300, 0)
    rule, pairs = BilinearRule(), low.shape[0]
    generator = torch.Generator().manual_seed(1)
    slopes = [1.6 * torch.rand(pairs, 1, 2, generator=generator).to(dtype) - 0.3 for _ in range(2)]
    for sign in (1.0, -1.0):
        rows = torch.full((pairs, 1, 1), sign, dtype=dtype)
        image = rule.dual(rows, low, high, slopes[0], slopes[1] if own_signs else None)
        ends = (image.low, None if own_signs else image.high)
        for i in range(pairs):
            a, b = (Fraction(v) for v in image.rows[i, 0].tolist())
            x, y = ([Fraction(low[i, j].item()), Fraction(high[i, j].item())] for j in range(2))
            values = residues(a * int(sign), b * int(sign), x, y)
            values = [int(sign) * v for v in values]
            scale = max(abs(p * q) for p in x for q in y) + max(abs(a * p) for p in x) + max(abs(b * q) for q in y)
            slack = 20 * Fraction(torch.finfo(dtype).eps) * scale + 8 * Fraction(torch.finfo(dtype).tiny)
            assert Fraction(ends[0][i, 0].item()) <= min(values) <= Fraction(ends[0][i, 0].item()) + slack
            if ends[1] is not None:
                assert Fraction(ends[1][i, 0].item()) - slack <= max(values) <= Fraction(ends[1][i, 0].item())


@DTYPES
def test_intervals_enclose_the_product_and_keep_a_known_sign(dtype: torch.dtype) -> None:
    low, high = boxes(dtype, 500, 2)
    below, above = BilinearRule().range(low, high)
    for i in range(len(low)):
        x, y = ([Fraction(low[i, j].item()), Fraction(high[i, j].item())] for j in range(2))
        ends = [p * q for p in x for q in y]
        assert Fraction(below[i, 0].item()) <= min(ends) <= max(ends) <= Fraction(above[i, 0].item())
        if min(x) >= 0 and min(y) >= 0:
            assert float(below[i, 0]) >= 0


@DTYPES
def test_sums_of_products_are_enclosed(dtype: torch.dtype) -> None:
    """Against the sum of the exact extremes of every product; x y - a x - b y takes them independently."""
    low, high = (b.reshape(-1, 10) for b in boxes(dtype, 200, 3))  # x and y, 5 terms
    rule = BilinearRule(5)
    lines = rule.lines(low, high, None)
    band, (below, above) = rule.band(low, high, None), rule.range(low, high)
    assert lines.below is not None
    for i in range(len(low)):
        least, most, first, last = (Fraction(0) for _ in range(4))
        for t in range(5):
            x, y = ([Fraction(low[i, j].item()), Fraction(high[i, j].item())] for j in (t, 5 + t))
            a, b = (Fraction(lines.slope[i, j].item()) for j in (t, 5 + t))
            values, ends = residues(a, b, x, y), [p * q for p in x for q in y]
            least, most = least + min(values), most + max(values)
            first, last = first + min(ends), last + max(ends)
        assert Fraction(lines.below[i, 0].item()) <= least
        assert most <= Fraction(lines.above[i, 0].item())
        middle, radius = Fraction(band.middle[i, 0].item()), Fraction(band.radius[i, 0].item())
        assert middle - radius <= least
        assert most <= middle + radius
        assert Fraction(below[i, 0].item()) <= first
        assert last <= Fraction(above[i, 0].item())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number_reaches_every_bound(bad: float) -> None:
    for place in range(2):
        low, high = torch.tensor([[-1.0, 2.0]]), torch.tensor([[1.0, 3.0]])
        high[0, place] = bad
        band, ends = BilinearRule().band(low, high, None), BilinearRule().range(low, high)
        assert not bool(band.middle.isfinite().any() and band.radius.isfinite().any())
        assert not bool(ends[0].isfinite().all() and ends[1].isfinite().all())


@pytest.mark.parametrize("weights", [(1.0, -0.3, -0.8), (-1.0, 0.2, 0.9)])
def test_a_learnt_r_reaches_the_best_of_mccormicks_planes(weights: tuple[float, float, float]) -> None:
    """w x y + a x + b y over a box: the linear program over both planes, whose value is at a corner or where they
    meet."""
    w, a, b = weights
    graph = Builder(2)
    graph(Bilinear())
    graph(Concat(0), "x", graph.nodes[-1].name)
    graph(Linear(torch.tensor([[a, b, w]], dtype=torch.float64)))
    net, box = graph.graph(), (torch.tensor([[-1.0, 0.5]]).double(), torch.tensor([[2.0, 3.0]]).double())
    (xl, yl), (xu, yu) = box[0][0].tolist(), box[1][0].tolist()
    best = torch.inf
    for x, y in itertools.product(torch.linspace(xl, xu, 301).tolist(), torch.linspace(yl, yu, 301).tolist()):
        planes = (yl * x + xl * y - xl * yl, yu * x + xu * y - xu * yu) if w > 0 else None
        planes = planes or (yu * x + xl * y - xl * yu, yl * x + xu * y - xu * yl)
        hull = max(planes) if w > 0 else min(planes)
        best = min(best, w * hull + a * x + b * y)
    inputs, rows = dict(sweep(net, Zonotope.from_box(*box)).intermediate), both_ends(net, box[0])
    found = ascend(RowProblem(output_rows(net, rows, 1), box, inputs), Ascent(iterations=200, signs="both")).lower
    assert best - 0.03 <= float(found[0, 0]) <= best + 1e-9


# ---- networks ------------------------------------------------------------------------------------------------------


@TERMS
def test_the_dual_with_one_r_for_both_signs_is_the_forward_zonotope(terms: int) -> None:
    graph = network(terms, 1)
    box = random_box(graph, 2, 0.4)
    result = sweep(graph, Zonotope.from_box(*box))
    assert result.output is not None
    low, high = result.output.bounds()
    found = neuron_bounds(Relaxed(graph, box, result.intermediate), graph.output, torch.arange(3))
    torch.testing.assert_close(found, (low, high), rtol=1e-11, atol=1e-11)
    assert sum(isinstance(graph[name].op, Bilinear) for name in result.intermediate) == 2
    by_dual = sweep(graph, Zonotope.from_box(*box), Means("dual"))
    for name, bounds in result.intermediate.items():
        torch.testing.assert_close(by_dual.intermediate[name], bounds, rtol=1e-9, atol=1e-9)


@DTYPES
@pytest.mark.parametrize("width", [0.0, 2.0**-20, 0.5, 30.0])
@TERMS
def test_proven_bounds_hold_in_rational_arithmetic(terms: int, width: float, dtype: torch.dtype) -> None:
    graph = network(terms, 2)
    low, high = (b.to(dtype) for b in random_box(graph, 1, width))
    points = [low[0], high[0], *sample_box(low, high, 2, seed=1)[:2].reshape(2, *low[0].shape)]
    assert check_claims(graph, dtype, (low, high), points) == 5 * 4 * 6


@TERMS
def test_refined_bounds_hold_and_are_tighter(terms: int) -> None:
    graph = network(terms, 3)
    box = random_box(graph, 1, 0.5)
    inputs = dict(sweep(graph, Zonotope.from_box(*box)).intermediate)
    refined = refine(graph, box, inputs, Ascent(iterations=5, signs="both"))
    assert refined.width < 0.999
    values: dict[str, Tensor] = {}
    points = sample_box(*box, 500)[:, 0]
    for node in graph.nodes:
        values[node.name] = points if node.name == "x" else node.op.apply(*(values[name] for name in node.inputs))
    for name, (low, high) in refined.intermediate.items():
        seen = values[graph[name].inputs[0]]
        assert bool(((seen >= low - 1e-9) & (seen <= high + 1e-9)).all())


@TERMS
def test_the_adjoint_of_a_sweep_is_autograds_derivative(terms: int) -> None:
    graph = network(terms, 5)
    zonotope = Zonotope.from_box(*random_box(graph, 2, 1.5))
    loss = margin(torch.eye(3, dtype=torch.float64))
    shapes = {n.name: graph[n.inputs[0]].shape for n in graph.nodes if isinstance(n.op, Bilinear | Relu)}
    generator = torch.Generator().manual_seed(0)
    slopes = {n: torch.rand(2, *s, dtype=torch.float64, generator=generator) for n, s in shapes.items()}
    found = slope_gradients(graph, sweep_to(graph, zonotope, slopes), loss)
    leaves = {n: s.clone().requires_grad_() for n, s in slopes.items()}
    with use_backend("reference"), torch.enable_grad():
        output = sweep(graph, zonotope, slopes=leaves).output
        assert output is not None
        expected = torch.autograd.grad(loss(output).sum(), list(leaves.values()))
    for node, other in zip(leaves, expected, strict=True):
        torch.testing.assert_close(found[node], other, rtol=1e-9, atol=1e-12)
        assert bool((other != 0).any()), node


def test_bounds_of_rows_have_the_derivative_in_r() -> None:
    graph = network(2, 6)
    box = random_box(graph, 1, 0.4)
    inputs, rows = dict(sweep(graph, Zonotope.from_box(*box)).intermediate), both_ends(graph, box[0])
    start = {n: s.flat() for n, s in initial_slopes(graph, inputs, "adaptive").items()}
    names = [node.name for node in graph.nodes if isinstance(node.op, Bilinear)]
    generator = torch.Generator().manual_seed(0)
    given = [
        0.2 + 0.6 * torch.rand(1, 1, inputs[n][0].shape[1], dtype=torch.float64, generator=generator) for n in names
    ]

    def bound(*r: Tensor) -> Tensor:
        slopes = start | {n: Slopes(1 - one, one) for n, one in zip(names, r, strict=True)}
        return RowProblem(output_rows(graph, rows, 1), box, inputs).bound(lambda node: slopes[node.name])[0]

    leaves = [one.requires_grad_() for one in given]
    assert torch.autograd.gradcheck(bound, leaves, eps=1e-6, atol=1e-6)


def test_joint_slopes_improve_the_margin() -> None:
    graph = network(1, 7)
    zonotope = Zonotope.from_box(*random_box(graph, 1, 1.5))
    rows = torch.eye(3, dtype=torch.float64)
    first = optimize_bounds(graph, zonotope, rows, mode="forward", ascent=Ascent(iterations=0))
    best = optimize_bounds(graph, zonotope, rows, mode="forward", ascent=Ascent(iterations=15, rate=0.1))
    assert bool((best.lower >= first.lower).all())
    assert float((best.lower - first.lower).sum()) > 1e-4


@pytest.mark.parametrize("budget", [2**16, 2**12])
def test_little_memory_gives_wider_bounds_that_hold(budget: int) -> None:
    graph = network(3, 8)
    box = random_box(graph, 1, 0.3)
    wide = zonocuda.compute_bounds(graph, Zonotope.from_box(*box), memory_budget=budget)
    outputs = graph(sample_box(*box, 500)[:, 0])
    assert bool(((outputs >= wide.lower) & (outputs <= wide.upper)).all())


# ---- verdicts ------------------------------------------------------------------------------------------------------


@TERMS
def test_what_holds_is_verified_and_a_planted_violation_never_is(terms: int) -> None:
    graph = network(terms, 9)
    box = tuple(b.float().double() for b in random_box(graph, 1, 0.3))
    least = float(graph(sample_box(box[0], box[1], 2000)[:, 0])[:, 0].min())
    lower = float(zonocuda.compute_bounds(graph, Zonotope.from_box(*box)).lower[0, 0])
    proven = verify(graph, property_of(graph, box, lower - 1e-4), split="none", certificate=True)
    assert proven.verdict is Verdict.VERIFIED
    assert proven.certificate is not None
    assert not proven.certificate.reason
    planted = verify(graph, property_of(graph, box, least + 1e-3), timeout=10)
    assert planted.verdict in (Verdict.FALSIFIED, Verdict.UNKNOWN)
    split = verify(graph, property_of(graph, box, least - 0.05), split="input", timeout=30)
    assert split.verdict is Verdict.VERIFIED


def test_an_execution_is_refused() -> None:
    graph = network(1, 0)
    box = tuple(b.float().double() for b in random_box(graph, 1, 0.1))
    with pytest.raises(ValueError, match=r"nothing is known about the rounding of node 'bilinear6' \(op Bilinear\)"):
        verify(graph, property_of(graph, box, -100.0), semantics="float32")
