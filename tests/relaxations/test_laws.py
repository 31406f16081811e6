"""Laws of every operator of the table, and of the toy: one that is added is among :data:`MEMBERS`, or fails here.

An operator outside the table is refused by every pass in ``tests/verifier/test_unknown_op.py``; the lines of smooth
functions are compared with ball arithmetic in ``test_smooth.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from tests.relaxations import toy
from tests.relaxations.toy import Toy
from tests.verifier.exact import STEPS
from tests.verifier.graphs import conv, fc, random_box, residual
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import initial_slopes
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rounding.tally import Tally
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope, use_backend
from zonocuda.functions import FunctionName
from zonocuda.graph import Bilinear, Elementary, Graph, Node, Op, Relu, Staircase
from zonocuda.prove.boxes import BoxBounder
from zonocuda.prove.stages import Arithmetic
from zonocuda.relaxations import RULES, Rule
from zonocuda.relaxations.rule import Start
from zonocuda.roundoff import unit_roundoff
from zonocuda.tighten.joint import margin, slope_gradients, sweep_to

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
STARTS: tuple[Start, ...] = ("minimum_area", "adaptive")
SMOOTH: tuple[FunctionName, ...] = ("sigmoid", "softplus", "gelu", "sin")
WIDTHS = (0.0, 1e-6, 0.1, 1.0, 5.0, 1e4)


@dataclass(frozen=True)
class Member:
    """An operator with what a law needs to know of it.

    Attributes:
        op: the operator.
        exact: f in rationals, where it is rational.
        special: where f bends.
        charged: how many roundings ``above`` may be too small by, for its users to charge.
    """

    op: Op
    exact: Callable[[Fraction], Fraction] | None = None
    special: tuple[float, ...] = ()
    charged: int = 0

    @property
    def rule(self) -> Rule:
        return RULES[type(self.op)](self.op)

    def __str__(self) -> str:
        return self.op.kind

    def at(self, x: Fraction) -> Fraction:
        """f(x)."""
        assert self.exact is not None
        return self.exact(x)


MEMBERS = [
    Member(Relu(), lambda x: max(x, Fraction(0)), (0.0,), charged=3),
    Member(Toy(), toy.exact, (-1.0, 1.0)),
    Member(Staircase("round"), STEPS["round"], (-0.5, 0.5)),
    *(Member(Elementary(function)) for function in SMOOTH),
]
EACH = pytest.mark.parametrize("member", MEMBERS, ids=str)
RATIONAL = pytest.mark.parametrize("member", [member for member in MEMBERS if member.exact is not None], ids=str)
NETWORKS = pytest.mark.parametrize("build", [fc, conv, residual])


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    """The table has the toy."""
    with toy.known():
        yield


def test_every_operator_of_the_table_is_looked_at() -> None:
    """Products, which read several numbers for each that they write, in ``test_bilinear.py``."""
    assert set(RULES) == {type(member.op) for member in MEMBERS} | {Bilinear}


def network(build: Callable[[int], Graph], member: Member, seed: int = 0) -> Graph:
    """A network with the operator in place of its ReLUs."""
    graph = build(seed)
    return Graph(tuple(replace(n, op=member.op) if isinstance(n.op, Relu) else n for n in graph.nodes), graph.output)


def intervals(member: Member, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Intervals ``[1, N]`` of all widths, about the places where f bends, at them, and away from them."""
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([*member.special, 0.3, -7.0, 40.0], dtype=torch.float64)
    widths = torch.tensor(WIDTHS, dtype=torch.float64)
    at, width, shift = torch.meshgrid(places, widths, torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0]).double(), indexing="ij")
    noise = 1e-3 * torch.rand(at.shape, generator=generator, dtype=torch.float64) * (shift != 0) * (shift != 1)
    lower = (at - (shift + noise) * width).to(dtype).flatten().unsqueeze(0)
    return lower, torch.maximum(lower, (lower.double() + width.flatten()).to(dtype))


def points(member: Member, lower: float, upper: float) -> list[Fraction]:
    """Of an interval its ends, the places where f bends, and some between."""
    a, b = Fraction(lower), Fraction(upper)
    inside = [a + (b - a) * k / 7 for k in range(8)]
    return [*inside, *(Fraction(x) for x in member.special if lower <= x <= upper)]


def slopes(rule: Rule, lower: Tensor, upper: Tensor) -> Iterator[Tensor | None]:
    """Those to begin with, and others, admissible or not."""
    yield None
    for start in STARTS:
        yield rule.initial(lower, upper, start)
    generator = torch.Generator().manual_seed(1)
    for size in (1.0, 3.0):
        yield (size * torch.randn(lower.shape, generator=generator, dtype=torch.float64)).to(lower)


@RATIONAL
@DTYPES
def test_range_and_lines_enclose_in_rationals(member: Member, dtype: torch.dtype) -> None:
    rule, (lower, upper) = member.rule, intervals(member, dtype)
    ends = list(zip(lower[0].tolist(), upper[0].tolist(), strict=True))
    values = [[(x, member.at(x)) for x in points(member, *end)] for end in ends]
    low, high = rule.range(lower, upper)
    for a, b, seen in zip(low[0].tolist(), high[0].tolist(), values, strict=True):
        assert all(Fraction(a) <= y <= Fraction(b) for _, y in seen)
    short = 1 + member.charged * 2 * Fraction(unit_roundoff(dtype))
    for slope in slopes(rule, lower, upper):
        lines = rule.lines(lower, upper, slope)
        below = torch.zeros_like(lower) if lines.below is None else lines.below
        for s, d, e, seen in zip(*(t[0].tolist() for t in (lines.slope, below, lines.above)), values, strict=True):
            for x, y in seen:
                assert Fraction(s) * x + Fraction(d) <= y <= Fraction(s) * x + Fraction(e) * short


@RATIONAL
@DTYPES
def test_projected_slopes_stay_and_are_those_that_lines_take(member: Member, dtype: torch.dtype) -> None:
    rule, (lower, upper) = member.rule, intervals(member, dtype)
    for slope in slopes(rule, lower, upper):
        if slope is None:
            continue
        projected = rule.project(slope)
        assert torch.equal(rule.project(projected), projected)
        given, taken = rule.lines(lower, upper, slope), rule.lines(lower, upper, projected)
        assert torch.equal(given.slope, taken.slope)
        assert torch.equal(given.above, taken.above)
        assert (given.below is None) == (taken.below is None)
        assert given.below is None or torch.equal(given.below, taken.below)


@EACH
@DTYPES
def test_an_execution_that_is_called_exact_is_and_every_other_is_refused(member: Member, dtype: torch.dtype) -> None:
    graph = network(fc, member)
    if not member.rule.is_exact:
        with pytest.raises(NotImplementedError, match=f"nothing is known about the rounding of node .*{member}"):
            Execution.of(graph, dtype)
        return
    Execution.of(graph, dtype)
    x = torch.cat([*intervals(member, dtype)[0], torch.tensor([-0.0, 1e-38, -torch.finfo(dtype).max], dtype=dtype)])
    values = member.op.execute(x.unsqueeze(0))[0]
    assert values.dtype is dtype
    assert all(Fraction(y) == member.at(Fraction(a)) for a, y in zip(x.tolist(), values.tolist(), strict=True))


@EACH
@NETWORKS
def test_the_dual_of_minimum_area_slopes_is_the_forward_bound(member: Member, build: Callable[[int], Graph]) -> None:
    graph = network(build, member, 1)
    box = random_box(graph, 2, 0.4)
    result = sweep(graph, Zonotope.from_box(*box))
    assert result.output is not None
    rows = both_ends(graph, box[0])
    start = {n: s.flat() for n, s in initial_slopes(graph, result.intermediate, "minimum_area").items()}
    bound, _ = RowProblem(output_rows(graph, rows, 2), box, result.intermediate).bound(lambda node: start[node.name])
    low, high = (b.flatten(1) for b in result.output.bounds())
    torch.testing.assert_close(bound, torch.cat([low, -high], 1), rtol=1e-11, atol=1e-11)


@EACH
@pytest.mark.parametrize("build", [fc, residual])
def test_the_adjoint_of_a_sweep_is_autograds_derivative(member: Member, build: Callable[[int], Graph]) -> None:
    graph = network(build, member, 5)
    zonotope = Zonotope.from_box(*random_box(graph, 2, 0.4))
    loss = margin(torch.eye(graph.output_shape[0], dtype=torch.float64))
    chosen = {n.name: torch.full((2, *n.shape), 0.2).double() for n in graph.nodes if type(n.op) is type(member.op)}
    found = slope_gradients(graph, sweep_to(graph, zonotope, chosen), loss)
    leaves = {n: s.clone().requires_grad_() for n, s in chosen.items()}
    with use_backend("reference"), torch.enable_grad():
        output = sweep(graph, zonotope, slopes=leaves).output
        assert output is not None
        expected = torch.autograd.grad(loss(output).sum(), list(leaves.values()))
    assert any(bool(g.any()) for g in expected)
    for node, other in zip(leaves, expected, strict=True):
        torch.testing.assert_close(found[node], other, rtol=1e-9, atol=1e-12)


@EACH
@NETWORKS
def test_a_batch_of_boxes_is_bounded_as_each_alone(member: Member, build: Callable[[int], Graph]) -> None:
    """Up to what both count for their rounding: either is within that of the same real number."""
    graph = network(build, member, 2)
    arithmetic = Arithmetic.of(graph, torch.float64, torch.device("cpu"))
    centers = [random_box(graph, 1, width, seed=seed) for seed, width in enumerate((1e-3, 0.1, 0.4, 1.0))]
    lower, upper = (torch.cat(ends).flatten(1) for ends in zip(*centers, strict=True))
    rows = both_ends(graph, lower)
    bounder = BoxBounder(arithmetic, rows)
    together, slack = bounder._bound(lower, upper)
    for i in range(len(lower)):
        alone, own = bounder._bound(lower[i : i + 1], upper[i : i + 1])
        assert bool(((together.lower[i] - alone.lower[0]).abs() <= slack[i] + own[0]).all())
    assert bool((slack < 1e-6).all())


def both_ends(graph: Graph, like: Tensor) -> Rows:
    """Rows +y_i and -y_i of the outputs."""
    eye = torch.eye(graph.output_shape[0], dtype=like.dtype)
    output = torch.cat([eye, -eye])
    input_ = output.new_zeros(len(output), torch.Size(graph.input_shape).numel())
    constant, members = output.new_zeros(len(output)), tuple((r,) for r in range(len(output)))
    return Rows(output, input_, constant, (Fraction(1),) * len(output), members, ("",) * len(output))


@EACH
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_rows_that_cancel_an_image_never_lower_what_it_is_charged(member: Member, share: float) -> None:
    """As where a split sends multipliers to the inputs of neurons."""
    arithmetic = Arithmetic.of(network(fc, member, 3), torch.float64, torch.device("cpu"))
    graph = arithmetic.graph
    box = random_box(graph, 1, 0.4)
    inputs = dict(sweep(graph, Zonotope.from_box(*box)).intermediate)
    ledger = Ledger(arithmetic.rounding, box, inputs)
    node = [n for n in graph.nodes if type(n.op) is type(member.op)][-1]
    flow, images = output_rows(graph, both_ends(graph, box[0]), 1, ledger), list[Tensor]()

    def activation(at: Node, v: Tensor) -> Tensor | None:
        if at is not node:
            return None
        lower, upper = inputs[node.name]
        found = member.rule.dual(v.reshape(1, flow.rows, -1), lower, upper, None, None, counted=True)
        images.append(found.rows.flatten(0, 1))
        flow.tally.activation(node, images[0], flow.measure(images[0]), found.magnitude(both=False))
        return images[0] if share == 0 else images[0] - share * images[0]

    flow.run(activation)
    assert isinstance(flow.tally, Tally)
    least = flow.measure(images[0])(ledger.activation(node)[0])
    assert bool((least > 0).any())
    assert bool((flow.tally.total() >= least).all())
