"""float64 with a-priori errors: every bound against exact rationals and balls, and against what flips on the way."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.check.test_affine import Case, cases
from tests.verifier.exact import affine_map, evaluate, exactly
from tests.verifier.graphs import NETWORKS, Builder, casting, random_box, sample_box
from zonocuda.checker.affine import explicit
from zonocuda.checker.arithmetic import balls, precisely
from zonocuda.checker.derive import Derivation
from zonocuda.checker.exact import Disagreement, Sample
from zonocuda.checker.floats import TINY, FloatMap, above, gamma, held
from zonocuda.checker.intervals import interval
from zonocuda.checker.maps import Maps
from zonocuda.checker.maps import cast_error as ball_error
from zonocuda.checker.sets import FloatNet, carry, cast_error
from zonocuda.graph import HOPELESS, Affine, Cast, Graph, Input, Linear, Node, Relu, ScaleShift

U = Fraction(1, 2**53)


def test_gamma_and_above_are_upper_bounds() -> None:
    for n in (1, 7, 1000, 10**6):
        assert Fraction(gamma(n)) >= n * U / (1 - n * U)
        assert Fraction(float(above(np.array(0.7), n))) * (1 - U) ** min(n, 1000) >= Fraction(0.7)
    assert gamma(2**60) == np.inf
    assert float(above(np.array(0.0), 1)) == TINY


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case[0].kind}-{case[1]}")
def test_rows_and_values_are_within_their_error_of_the_exact_ones(case: Case) -> None:
    op, shape = case
    matrix, _ = affine_map(op, shape)
    out_shape = tuple(op.apply(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])
    torch.manual_seed(5)
    x, v = (torch.randn(1, n, dtype=torch.float64).numpy() for n in (len(torch.zeros(shape).flatten()), len(matrix)))
    with precisely():
        map_ = FloatMap(explicit(op, shape, out_shape))
    size = np.abs(x)
    error = [Fraction(e) for e in map_.error(size)[0].tolist()]
    exact_v, exact_x, sizes = (exactly(torch.from_numpy(t)) for t in (v, x, size))
    image, back, reach = (exactly(torch.from_numpy(t)) for t in (map_.linear(x), map_.adjoint(v), map_.reach(size)))
    transposed = [Fraction(0)] * len(exact_x)
    slack = Fraction(1, 2**52)  # of the matrix itself, where it holds means
    for i, row in enumerate(matrix):
        total = sum(abs(c) * sizes[j] for j, c in row.items())
        assert abs(sum(c * exact_x[j] for j, c in row.items()) - image[i]) <= error[i]
        assert reach[i] >= total
        assert error[i] <= 1000 * U * total + slack
        for j, c in row.items():
            transposed[j] += c * exact_v[i]
    away = sum(abs(a - b) * m for a, b, m in zip(transposed, back, sizes, strict=True))
    assert away <= sum(abs(c) * e for c, e in zip(exact_v, error, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_a_cast_rounds_is_enclosed_up_to_the_largest_number(dtype: torch.dtype) -> None:
    top = torch.finfo(dtype).max
    sizes = [0.0, 1.0, np.pi, top / 3, np.nextafter(top, 0)]
    error = cast_error(Cast(dtype), np.array([*sizes, top, np.inf]))
    assert bool(np.isfinite(error[:-1]).all())
    assert error[-1] == np.inf
    for size, most in zip(sizes, error.tolist(), strict=False):
        assert abs(Fraction(torch.tensor(size, dtype=torch.float64).to(dtype).item()) - Fraction(size)) <= most
    with precisely():
        ends = balls([*sizes, top])
        assert bool(all(a <= b for a, b in zip(ball_error(Cast(dtype), -ends, ends), balls(error[:-1]), strict=True)))


def test_a_constant_of_which_nothing_is_known_bounds_nothing() -> None:
    op = Linear(torch.ones(1, 1, dtype=torch.float64), roundings=HOPELESS)
    graph = Graph((Node("x", Input(), (), (1,)), Node("y", op, ("x",), (1,))), "y")
    with precisely(), np.errstate(all="ignore"):
        net = FloatNet(Maps(graph))
        sets = Derivation(net, np.array([[0.5]]), np.array([[1.0]])).run()
        found = carry(sets, np.array([0]), [("y", lambda index: np.ones((1, 1)))], lambda *_: None)  # type: ignore[arg-type,return-value]
        assert not found.least(sets.lower, sets.upper, net.operations)[0] > -np.inf


@pytest.mark.parametrize("name", [*NETWORKS, "casting"])
def test_every_bound_of_every_set_is_confirmed_by_balls_and_encloses_samples(name: str) -> None:
    graph = casting(1) if name == "casting" else NETWORKS[name](1)
    lower, upper = random_box(graph, batch=2, width=1.0, seed=1)
    size = lower[0].numel()
    with precisely(), np.errstate(all="ignore"):
        maps = Maps(graph)
        net = FloatNet(maps)
        sample = Sample(maps, 1.0, np.inf)
        derivation = Derivation(net, lower.reshape(2, size).numpy(), upper.reshape(2, size).numpy(), sample=sample)
        sets = derivation.run()
    assert sample.confirmed or name in ("pooling",)
    pre = [node.inputs[0] for node in graph.relus]
    for number in range(2):
        for x in sample_box(lower[number], upper[number], 4, seed=2):
            evaluate(graph, exactly(x))
            values: dict[str, torch.Tensor] = {}
            for node in graph.nodes:
                values[node.name] = x[None] if not node.inputs else node.op.execute(*(values[n] for n in node.inputs))
            for relu, before in zip(graph.relus, pre, strict=True):
                value = values[before].flatten().numpy()
                relaxed = sets.relus[relu.name]
                assert (value >= relaxed.low[number] - 1e-9).all()
                assert (value <= relaxed.high[number] + 1e-9).all()


@pytest.mark.parametrize("name", ["residual", "deep"])
def test_constants_that_are_known_up_to_an_error_cost_balls_no_more_than_float64(name: str) -> None:
    """Balls that are multiplied by |A| layer after layer would."""
    graph = chain(12, 16) if name == "deep" else NETWORKS[name](1)
    nodes = tuple(
        replace(node, op=replace(node.op, roundings=4)) if isinstance(node.op, Affine) else node for node in graph.nodes
    )
    lower, upper = (b.flatten(1).numpy() for b in random_box(graph, width=0.1, seed=1))
    with precisely(), np.errstate(all="ignore"):
        maps = Maps(Graph(nodes, graph.output))
        sample = Sample(maps, 1.0, np.inf)
        Derivation(FloatNet(maps), lower, upper, sample=sample).run()
    assert sample.confirmed


def chain(depth: int, width: int) -> Graph:
    """Fully connected layers, of which each grows what it is given."""
    b = Builder(width, seed=3)
    for _ in range(depth):
        b(b.linear(width, width))
        b(Relu())
    b(b.linear(width, 1))
    return b.graph()


def test_a_machine_that_rounds_otherwise_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = NETWORKS["fc"](1)
    lower, upper = (b.numpy() for b in random_box(graph, width=1.0, seed=1))
    true = FloatMap.adjoint
    monkeypatch.setattr(FloatMap, "adjoint", lambda self, v: true(self, v) * (1 - 2.0**-20))
    with precisely():
        maps = Maps(graph)
        with pytest.raises(Disagreement):
            Derivation(FloatNet(maps), lower, upper, sample=Sample(maps, 1.0, np.inf)).run()


def test_held_floats_are_near_what_they_stand_for() -> None:
    with precisely():
        op = ScaleShift(torch.tensor([0.1, 3.0], dtype=torch.float64), None, roundings=2)
        scale = explicit(op, (2,), (2,)).scale
        assert scale is not None
        near, away = held(scale)
        assert near.tolist() == [0.1, 3.0]
        assert away is not None
        assert (away >= 2 * 2.0**-53 * near).all()
        assert held(explicit(ScaleShift(torch.tensor([0.5]), None), (1,), (1,)).scale)[1] is None  # type: ignore[arg-type]


def test_intervals_enclose_those_of_balls() -> None:
    graph = NETWORKS["everything"](0)
    lower, upper = random_box(graph, width=1.0, seed=1)
    with precisely():
        maps = Maps(graph)
        net, sample = FloatNet(maps), Sample(maps, 1.0, np.inf)
        low, high = lower.reshape(1, -1).numpy(), upper.reshape(1, -1).numpy()
        ends = {graph.nodes[0].name: (low, high)}
        for node in graph.nodes[1:]:
            before = [ends[name] for name in node.inputs]
            ends[node.name] = interval(net, node, before, low, high, {})
            sample.confirm_interval(node, before, *ends[node.name], {})
