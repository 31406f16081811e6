"""The counterexamples to shorter formulas and to sums that are not counted: each is wrong without, and holds with."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from tests.verifier.exact import evaluate, exactly
from tests.verifier.graphs import Builder, rand
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import Slopes
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.forward_error import Error, ForwardErrors
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Dense, Symbols, Zonotope
from zonocuda.graph import Add, Graph, Linear, Node, Pad, Relu, ScaleShift
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, verify

BIG = 2.0**26 + 2.0**16

FIRST = LinearConstraint({0: Fraction(1)}, {}, Fraction(0))


def lower_bound(
    graph: Graph, box: tuple[Tensor, Tensor], inputs: dict[str, tuple[Tensor, Tensor]], slope: float
) -> tuple[float, float]:
    """Of the first output, by the dual pass with one slope: not counting rounding, and counting it."""
    dtype = box[0].dtype
    single = graph.to(dtype)
    rows = Rows.of(Region(Box.from_tensors(*box), ((FIRST,),)), box[0].numel(), math.prod(graph.output_shape), box[0])
    slopes = {name: Slopes(torch.full((1, 1, low.numel()), slope, dtype=dtype)) for name, (low, _) in inputs.items()}

    def slopes_of(node: Node) -> Slopes:
        return slopes[node.name]

    found = []
    for counted in (False, True):
        ledger = Ledger(Rounding.of(graph, single, dtype), box, inputs) if counted else None
        problem = RowProblem(output_rows(single, rows, 1, ledger), box, inputs)
        found.append(float(problem.bound(slopes_of)[0]))
    return found[0], found[1]


def test_a_chain_of_101_layers_of_one_neuron_needs_the_rounding_of_the_constant() -> None:
    """Biases of just less than half a unit in the last place of the last one are absorbed one after the other.

    The shorter formula, gamma (|v| (|W| m + |b|)) at each layer, claims hundreds too much; the complete one does not.
    """
    one, absorbed = torch.ones(1, 1, dtype=torch.float64), -3.875
    b = Builder(1)
    for bias in [absorbed] * 100 + [BIG]:
        b(Linear(one, torch.tensor([bias], dtype=torch.float64)))
    graph, x = b.graph(), torch.zeros(1, 1)
    naive, counted = lower_bound(graph, (x, x), {}, 0.0)
    (true,) = evaluate(graph, exactly(x))
    gamma = 2 * 2.0**-24 / (1 - 2 * 2.0**-24)
    magnitudes = [abs(absorbed) * i for i in range(101)]  # of each layer's input
    shorter = gamma * sum(m + abs(absorbed) for m in magnitudes[:-1]) + gamma * (magnitudes[-1] + BIG)
    assert Fraction(naive) - Fraction(shorter) > true + 300
    assert Fraction(counted) <= true


def test_a_million_crossing_neurons_with_slope_zero_cost_the_rounding_of_their_sum() -> None:
    """y = - sum_j relu(w x) on [-1, 1]: the bound is minus the sum of all w, which is attained at 1."""
    count = 2**20
    ones = torch.ones(count, 1, dtype=torch.float64)
    wrong = 0
    for numerator in range(1, 8):
        weight = float(torch.tensor(numerator / 7, dtype=torch.float32))
        b = Builder(1)
        b(Linear(weight * ones))
        b(Relu())
        b(Linear(-ones.T))
        box = -torch.ones(1, 1), torch.ones(1, 1)
        inputs = {"relu2": (torch.full((1, count), -weight), torch.full((1, count), weight))}
        naive, counted = lower_bound(b.graph(), box, inputs, 0.0)
        true = -count * Fraction(weight)  # at x = 1
        assert Fraction(counted) <= true
        wrong += Fraction(naive) > true
    assert wrong > 0


@pytest.mark.parametrize("count", [10**4, 10**5])
def test_the_radius_of_many_symbols_costs_more_than_one_unit_in_the_last_place(count: int) -> None:
    """``nextafter`` of the computed bounds is short; the counted bounds are not."""
    short = 0
    for seed in range(8):
        generators = rand(1, count, 1, seed=seed).float()
        zonotope = Zonotope(torch.zeros(1, 1), (Dense(Symbols(count), generators),))
        exact = Fraction(math.fsum(generators.abs().flatten().tolist()))  # correctly rounded in float64
        graph = Builder(1)
        graph(Linear(torch.ones(1, 1, dtype=torch.float64)))
        rounding = Rounding.of(graph.graph(), graph.graph().to(torch.float32), torch.float32)
        errors = ForwardErrors(rounding)
        (lower, upper), _ = errors.bounds(zonotope, Error(torch.zeros(1, 1), zonotope.radius() * 2))
        assert Fraction(upper.item()) >= exact
        assert Fraction(lower.item()) <= -exact
        near = zonotope.bounds()[1]
        short += Fraction(torch.nextafter(near, torch.tensor(torch.inf)).item()) < exact
    assert short > 0


def hidden_in_float32() -> Graph:
    """relu(fl(fl(x + 1e8) - 1e8) - 5) on [0, 4]: dead over the reals, where it is relu(x - 5); executed, 8 - 5 at 4."""
    one = torch.ones(1, 1, dtype=torch.float64)
    b = Builder(1)
    for bias in (1e8, -1e8, -5.0):
        b(Linear(one, torch.tensor([bias], dtype=torch.float64)))
    b(Relu())
    return b.graph()


@pytest.mark.usefixtures("prover_only")
def test_a_neuron_that_is_dead_over_the_reals_and_alive_as_executed_is_verified_over_the_reals_alone() -> None:
    graph = hidden_in_float32()
    low, high = torch.zeros(1, dtype=torch.float64), torch.full((1,), 4.0, dtype=torch.float64)
    assert float(graph.to(torch.float32)(torch.tensor([[4.0000005]]))) > 0
    half = LinearConstraint({0: Fraction(-1)}, {}, Fraction(1, 2))  # Y_0 >= 1/2 is unsafe
    problem = Spec(1, 1, (Region(Box.from_tensors(low, high), ((half,),)),))
    assert verify(graph, problem).verdict is Verdict.VERIFIED
    assert verify(graph, problem, dtype=torch.float32).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_value_that_many_read_costs_the_rounding_of_the_sum_of_their_rows(dtype: torch.dtype) -> None:
    """Differences of branches of one value whose weights nearly cancel, on boxes of one point."""
    wrong = 0
    for seed in range(40):
        b = Builder(3, seed=seed)
        start = b(b.linear(3, 3))
        total = b(b.linear(3, 1), start)
        for _ in range(6):
            total = b(Add(1 if len(b.nodes) % 2 else -1), total, b(b.linear(3, 1), start))
        graph = b.graph().to(dtype).to(torch.float64)
        x = (1e3 * rand(1, 3, seed=seed)).to(dtype)
        naive, counted = lower_bound(graph, (x, x), {}, 0.0)
        (true,) = evaluate(graph, exactly(x))
        assert Fraction(counted) <= true
        wrong += Fraction(naive) > true
    assert wrong > 0


def padded(constant: float, *scales: float) -> Graph:
    """256 - constant * scales[0] * scales[1] ..., whose constant comes of padding."""
    b = Builder(1)
    b(Pad(((0, 1),), constant))
    for scale in scales:
        b(ScaleShift(torch.tensor(scale, dtype=torch.float64), None))
    row, bias = torch.tensor([[0.0, -1.0]], dtype=torch.float64), torch.tensor([256.0], dtype=torch.float64)
    b(Linear(row, bias))
    return b.graph()


@pytest.mark.parametrize(
    ("dtype", "constant", "scales"),
    [
        (torch.float32, 2.0**-160, (2.0**100, 2.0**70)),  # float32 does not hold the constant
        (torch.float32, 2.0**-100, (2.0**-60, 2.0**100, 2.0**70)),  # nor its first product
        (torch.float64, 2.0**-900, (2.0**-300, 2.0**900, 2.0**310)),
    ],
)
@pytest.mark.usefixtures("prover_only")
def test_a_padded_constant_that_is_lost_to_underflow_is_not_taken_for_zero(
    dtype: torch.dtype, constant: float, scales: tuple[float, ...]
) -> None:
    graph, x = padded(constant, *scales), torch.zeros(1, dtype=torch.float64)
    assert evaluate(graph, exactly(x)) == [Fraction(256 - 1024)]
    problem = Spec(1, 1, (Region(Box.from_tensors(x, x), ((FIRST,),)),))
    assert verify(graph, problem, dtype=dtype).verdict is Verdict.UNKNOWN
