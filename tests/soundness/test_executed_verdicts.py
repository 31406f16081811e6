"""Verdicts about executed networks: what is verified over the reals alone, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from tests.importers.onnx_models import Case, floats, op, save
from tests.soundness.executions import Layers, Machine
from tests.soundness.hidden import FAMILIES
from tests.soundness.test_counterexamples import hidden_in_float32, padded
from tests.verifier.exact import exactly
from tests.verifier.graphs import Builder, rand
from tests.verifier.verdicts import IDENTITY, NEVER, SOMETIMES, chain, matrix, run
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.graph import AveragePool, Concat, Graph, Linear, Pad, Reduce, Relu, Reshape, ScaleShift
from zonocuda.importers import from_module, load_network, load_onnx
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, VerifyResult, verify

BITS = {"float32": 24, "float64": 53}


def spec(low: Tensor, high: Tensor, row: LinearConstraint, outputs: int = 1) -> Spec:
    """The property that no point of a box satisfies ``row``."""
    return Spec(low.numel(), outputs, (Region(Box.from_tensors(low, high), ((row,),)),))


def at_least(bound: Fraction) -> LinearConstraint:
    """Y_0 >= bound is unsafe."""
    return LinearConstraint({0: Fraction(-1)}, {}, bound)


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("direction", ["forward", "dual"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_neuron_that_is_alive_as_executed_is_not_verified_in_float32(direction: str, dtype: torch.dtype) -> None:
    low, high = torch.zeros(1, dtype=torch.float64), torch.full((1,), 4.0, dtype=torch.float64)
    problem = spec(low, high, at_least(Fraction(1, 2)))
    options = {"direction": direction, "effort": "max"}
    executed = verify(hidden_in_float32(), problem, semantics="float32", dtype=dtype, **options)  # type: ignore[arg-type]
    assert executed.verdict is Verdict.UNKNOWN
    for semantics in ("real", "float64"):
        assert verify(hidden_in_float32(), problem, semantics=semantics, **options).verdict is Verdict.VERIFIED  # type: ignore[arg-type]


def crossing(semantics: str, seed: int) -> tuple[Graph, Tensor, Fraction]:
    """A layer whose sum of four hundred rising terms, added in the order given, loses many roundings, and a ReLU; a
    point, and the executed output there."""
    dtype = {"float32": torch.float32, "float64": torch.float64}[semantics]
    weight = (rand(1, 400, seed=seed).abs() + 1).to(dtype).double()
    graph = chain(Linear(weight), Relu(), matrix([1]), size=400)
    x = (rand(400, seed=seed + 1).abs() + 1).to(dtype).double()
    layers, point = Layers(graph), exactly(x)
    outputs = [Machine(dtype, s).run(layers, point)[1][0] for s in range(40)]
    return graph, x, max(outputs)


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("semantics", ["float32", "float64"])
def test_what_some_order_of_summation_violates_is_verified_over_the_reals_alone(semantics: str) -> None:
    for seed in range(5):
        graph, x, reached = crossing(semantics, seed)
        problem = spec(x, x, at_least(reached))
        if semantics == "float32":
            assert verify(graph, problem).verdict is Verdict.VERIFIED, seed
        assert verify(graph, problem, semantics=semantics, effort="max").verdict is Verdict.UNKNOWN, seed  # type: ignore[arg-type]
        above = reached * (1 + Fraction(1000, 2 ** BITS[semantics]))
        assert verify(graph, spec(x, x, at_least(above)), semantics=semantics).verdict is Verdict.VERIFIED, seed  # type: ignore[arg-type]


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("semantics", ["float32", "float64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_value_of_networks_that_hide_neurons_behind_rounding_is_excluded(family: str, semantics: str) -> None:
    """The largest and the smallest output of many executions at a point; over the reals one of them is excluded."""
    dtype = {"float32": torch.float32, "float64": torch.float64}[semantics]
    excluded = 0
    for seed in range(3):
        hidden = FAMILIES[family](dtype, seed)
        layers, x = Layers(hidden.graph), exactly(hidden.x)
        outputs = [Machine(dtype, s).run(layers, x)[1][0] for s in range(8)]
        at_most = LinearConstraint({0: Fraction(1)}, {}, -min(outputs))
        for row in (at_least(max(outputs)), at_most):
            problem = spec(hidden.x, hidden.x, row)
            for direction in ("forward", "dual"):
                result = verify(hidden.graph, problem, semantics=semantics, direction=direction, effort="fast")  # type: ignore[arg-type]
                assert result.verdict is Verdict.UNKNOWN
            excluded += verify(hidden.graph, problem).verdict is Verdict.VERIFIED
    assert excluded > 0 or semantics == "float64"


@pytest.mark.usefixtures("prover_only")
def test_a_padded_constant_that_float32_rounds_is_counted() -> None:
    """256 - 256 c, of a c that float32 rounds up: 0 over the reals is exceeded as executed."""
    constant = 1 + 2.0**-24 + 2.0**-40
    b = Builder(1)
    b(Pad(((0, 1),), constant))
    b(Linear(torch.tensor([[0.0, 256.0]], dtype=torch.float64), torch.tensor([-256.0], dtype=torch.float64)))
    x = torch.zeros(1, dtype=torch.float64)
    problem = spec(x, x, at_least(Fraction(256, 2**23)))
    assert verify(b.graph(), problem).verdict is Verdict.VERIFIED
    assert verify(b.graph(), problem, semantics="float64").verdict is Verdict.VERIFIED
    assert verify(b.graph(), problem, semantics="float32").verdict is Verdict.UNKNOWN


@pytest.mark.usefixtures("prover_only")
def test_values_that_overflow_as_executed_are_not_verified() -> None:
    """A product that is infinite in float32, and then multiplied by a zero."""
    large = matrix([1e30, 0], [0, 1e30])
    never = LinearConstraint({0: Fraction(1)}, {}, Fraction(1))  # Y_0 <= -1
    graph = chain(large, large, matrix([-1e-30, 0]), Relu())
    x = torch.ones(2, dtype=torch.float64)
    assert verify(graph, spec(x, x, never)).verdict is Verdict.VERIFIED
    result = verify(graph, spec(x, x, never), semantics="float32")
    assert result.verdict is Verdict.UNKNOWN
    assert "range of torch.float32" in result.reason
    assert verify(graph, spec(x, x, never), semantics="float64").verdict is Verdict.VERIFIED


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("pool", [False, True])
def test_the_sum_of_a_mean_overflows_before_it_is_divided(pool: bool) -> None:
    """The mean of 64 numbers 1e37 is below 1e38; their sum is not a float32 number."""
    mean = (Reshape((1, 64)), AveragePool((64,), (64,))) if pool else (Reduce((0,), True, True),)
    graph = chain(Linear(torch.full((64, 1), 1e37, dtype=torch.float64)), Relu(), *mean, size=1)
    x = torch.ones(1, dtype=torch.float64)
    problem = spec(x, x, at_least(Fraction(10) ** 38))
    assert not bool(graph.to(torch.float32)(x.float()[None]).isfinite().all())
    assert verify(graph, problem).verdict is Verdict.VERIFIED
    result = verify(graph, problem, semantics="float32")
    assert result.verdict is Verdict.UNKNOWN
    assert "range of torch.float32" in result.reason


@pytest.mark.usefixtures("prover_only")
def test_a_product_of_constants_that_is_flushed_is_counted() -> None:
    """1e14 * 1e-19 * 1e-19 * 1e24 = 1; 0 where the two small ones are multiplied first, and flushed."""
    small = torch.tensor([1e-19], dtype=torch.float32).double()
    large = Linear(torch.tensor([[1e24]], dtype=torch.float32).double())
    graph = chain(Linear(small[None]), ScaleShift(small, None), large, size=1)
    x = torch.tensor([1e14], dtype=torch.float32).double()
    problem = spec(x, x, LinearConstraint({0: Fraction(1)}, {}, Fraction(-1, 2)))  # Y_0 <= 1/2
    layers = Layers(graph)
    assert any(Machine(torch.float32, s).run(layers, exactly(x))[1] == [0] for s in range(20))
    assert verify(graph, problem).verdict is Verdict.VERIFIED
    assert verify(graph, problem, semantics="float32").verdict is Verdict.UNKNOWN


def test_what_a_concatenation_takes_into_a_chain_counts_as_new_there() -> None:
    """A layer and a ReLU side by side, and then many scales, which may be one product."""
    b = Builder(1)
    relu = b(Relu())
    layer = b(matrix([1]), relu)
    both = b(Concat(0), layer, relu)
    first = last = b(ScaleShift(torch.ones(2, dtype=torch.float64), None), both)
    for _ in range(3):
        last = b(ScaleShift(torch.ones(2, dtype=torch.float64), None), last)
    execution = Execution.of(b.graph(), torch.float32)
    assert execution.roundings[first][0] >= execution.roundings[layer][0]
    assert execution.roundings[last][0] < execution.roundings[layer][0]
    assert execution.scalings == 4


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_underflows_as_executed_is_not_taken_for_what_it_is(dtype: torch.dtype) -> None:
    """256 - 1024 over the reals; 256 where the constant is lost. Neither is below the other's side."""
    graph = padded(2.0**-100, 2.0**-60, 2.0**100, 2.0**70)
    x = torch.zeros(1, dtype=torch.float64)
    positive = LinearConstraint({0: Fraction(-1)}, {}, Fraction(0))  # Y_0 >= 0
    assert verify(graph, spec(x, x, positive), dtype=torch.float64).verdict is Verdict.VERIFIED
    assert verify(graph, spec(x, x, positive), semantics="float32", dtype=dtype).verdict is Verdict.UNKNOWN


def test_the_box_of_float32_semantics_is_the_rounded_one() -> None:
    """x in [1/10, 1/10]: the float32 next to it is larger, and violates x <= 1/10."""
    tenth = Fraction(1, 10)
    region = Region(Box.exact([tenth], [tenth]), ((at_least(tenth + Fraction(1, 10**9)),),))
    graph = chain(matrix([1]), size=1)
    problem = Spec(1, 1, (region,))
    assert verify(graph, problem, semantics="float32").verdict is Verdict.FALSIFIED
    assert verify(graph, problem, semantics="float64").verdict is Verdict.VERIFIED


def test_a_counterexample_that_meets_a_proof_says_so() -> None:
    """x in [1/10, 1/10]: over the reals nothing exceeds 1/10, and the float32 next to it does."""
    tenth = Fraction(1, 10)
    graph = chain(matrix([1]), size=1)

    def result(high: Fraction, unsafe: Fraction) -> VerifyResult:
        return verify(graph, Spec(1, 1, (Region(Box.exact([tenth], [high]), ((at_least(unsafe),),)),)))

    rounded, real = result(tenth, tenth + Fraction(1, 10**9)), result(Fraction(1), Fraction(1, 2))
    assert rounded.verdict is real.verdict is Verdict.FALSIFIED
    assert "over the reals, on the enclosing box, the property is proven" in rounded.reason
    assert "over the reals" not in real.reason


def test_a_result_says_in_which_arithmetic_it_holds() -> None:
    for semantics in ("float32", "float64"):
        proof, failure = run(IDENTITY, [NEVER], semantics=semantics), run(IDENTITY, [SOMETIMES], semantics=semantics)
        assert (proof.verdict, failure.verdict) == (Verdict.VERIFIED, Verdict.FALSIFIED)
        assert proof.ran.semantics == failure.ran.semantics == semantics
        assert failure.ran.replay_dtype == semantics
        assert f"as executed in {semantics}" in proof.meaning
        assert f"in {semantics} at a point" in failure.meaning


def test_a_network_of_float64_has_no_float32_semantics() -> None:
    module = nn.Linear(2, 1).double()
    problem = spec(torch.zeros(2), torch.ones(2), at_least(Fraction(100)))
    assert verify(module, problem, semantics="float64", input_shape=(2,)).verdict is Verdict.VERIFIED
    with pytest.raises(ValueError, match="computes in float64"):
        verify(module, problem, semantics="float32", input_shape=(2,))


CONSTANTS = {
    "a cast": Case(
        [op("Cast", "x", "d", to=TensorProto.DOUBLE), op("Relu", "d", "r"), op("Cast", "r", to=TensorProto.FLOAT)],
        [1, 3],
        (3,),
    ),
    "a product of constants": Case(
        [op("MatMul", "a b", "w"), op("MatMul", "x w")], [1, 3], (2,), {"a": floats(3, 4), "b": floats(4, 2)}
    ),
    "a mean of constants": Case(
        [op("ReduceMean", "a", "w", axes=[1]), op("Add", "x w")], [1, 3], (3,), {"a": floats(1, 4)}
    ),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_what_no_node_accounts_for_is_refused(name: str, tmp_path: Path) -> None:
    graph = load_onnx(save(CONSTANTS[name].model(), tmp_path))
    assert len(graph.unaccounted) >= 1
    for dtype in (torch.float32, torch.float64):
        with pytest.raises(ValueError, match="as executed, the network cannot be proven: node"):
            Execution.of(graph, dtype)


class Normed(nn.Module):
    """A layer whose weight is divided by its norm, when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight / self.weight.sum())


class Mixed(nn.Module):
    """Half in float64."""

    def forward(self, x: Tensor) -> Tensor:
        return (torch.relu(x.double()) * 2.0).float()


@pytest.mark.parametrize("module", [Normed(), Mixed()])
def test_a_module_that_sums_constants_or_changes_the_precision_is_refused(module: nn.Module) -> None:
    graph = from_module(module.eval(), (3,))
    with pytest.raises(ValueError, match="as executed, the network cannot be proven"):
        Execution.of(graph, torch.float32)


def test_constants_that_round_once_are_accepted(tmp_path: Path) -> None:
    nodes = [op("Sqrt", "a", "b"), op("Transpose", "b", "w", perm=[1, 0]), op("MatMul", "x w")]
    graph = load_onnx(save(Case(nodes, [1, 3], (2,), {"a": floats(2, 3) ** 2}).model(), tmp_path))
    assert graph.unaccounted == ()


@pytest.mark.parametrize(("weight", "alpha"), [(1e38, 1e-38), (1e-41, 1e38)])
def test_a_factor_of_a_product_that_leaves_the_range_is_refused(weight: float, alpha: float, tmp_path: Path) -> None:
    """ONNX Runtime multiplies by alpha what it has summed: infinity, or products that underflowed."""
    w = np.full((4, 1), weight, np.float32)
    network = load_network(save(Case([op("Gemm", "x w", alpha=alpha)], [1, 4], (1,), {"w": w}).model(), tmp_path))
    x = torch.full((4,), 1 / 1024, dtype=torch.float64) * (1024 if weight > 1 else 1)
    real, executed = network.graph.to(torch.float64)(x[None]), network.runtime(x.float()[None]).double()
    assert not bool((executed - real).abs() <= 1e-3 * real)
    with pytest.raises(ValueError, match="may leave the dtype's range; use 'real'"):
        verify(network, spec(x, x, at_least(Fraction(8))), semantics="float32")


@pytest.mark.parametrize("factors", [("a", "a"), ("b", "c")])
def test_constants_that_pass_through_subnormal_numbers_are_refused(factors: tuple[str, str], tmp_path: Path) -> None:
    """(1e-20 1e-20) 1e38 and 1e-40 1e38: 0.01, or 0 on a machine that flushes subnormal numbers to zero."""
    weights = {name: np.array([v], np.float32) for name, v in (("a", 1e-20), ("b", 1e-40), ("c", 1e38))}
    nodes = [op("Mul", " ".join(factors), "t"), op("Mul", "t c", "s"), op("Mul", "x s")]
    graph = load_onnx(save(Case(nodes, [1, 1], (1,), weights).model(), tmp_path))
    x = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="a machine may flush to zero; use 'real'"):
        verify(graph, spec(x, x, at_least(Fraction(8))), semantics="float32")


class Scaled(nn.Module):
    """A product with a constant that a machine may flush to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Parameter(torch.tensor([1e-40]))
        self.large = nn.Parameter(torch.tensor([1e38]))

    def forward(self, x: Tensor) -> Tensor:
        """x times about 0.01."""
        return x * (self.small * self.large)


def test_constants_of_modules_that_pass_through_subnormal_numbers_are_refused() -> None:
    x = torch.ones(1, dtype=torch.float64)
    problem = spec(x, x, at_least(Fraction(8)))
    assert verify(Scaled(), problem, input_shape=(1,)).verdict is Verdict.VERIFIED
    with pytest.raises(ValueError, match="a machine may flush to zero; use 'real'"):
        verify(Scaled(), problem, input_shape=(1,), semantics="float32")


def test_a_box_is_empty_in_the_numbers_that_semantics_ask_about() -> None:
    """[1/10 + 1e-12, 1/10] holds no number; rounded to float32 it holds the one that both ends round to."""
    tenth = Fraction(1, 10)
    box = Box.exact([tenth + Fraction(1, 10**12)], [tenth])
    problem = Spec(1, 1, (Region(box, ((at_least(Fraction(0)),),)),))
    graph = chain(matrix([1]), size=1)
    assert verify(graph, problem).verdict is Verdict.VERIFIED
    assert verify(graph, problem, semantics="float32").verdict is Verdict.FALSIFIED
