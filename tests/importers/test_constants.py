"""Constants that a file or a module computes from constants are within the roundings that its operators count."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.importers.constant_programs import Exact, Program, exact, folded, random_program, root
from tests.importers.onnx_models import model, op, save
from tests.importers.ratios import U, ratio
from zonocuda.graph import HOPELESS, Graph, Linear, ScaleShift
from zonocuda.importers import Network, UnsupportedNetworkError, from_module, load_network


def operators(graph: Graph) -> tuple[ScaleShift, ScaleShift]:
    """scale and shift of a program's network."""
    scale, shift = (node.op for node in graph.nodes[1:])
    assert isinstance(scale, ScaleShift)
    assert isinstance(shift, ScaleShift)
    return scale, shift


def within(graph: Graph, program: Program, scale: str, shift: str) -> list[bool]:
    """Whether the constants of scale and shift are where their operators say."""
    scaling, shifting = operators(graph)
    assert scaling.scale is not None
    assert shifting.shift is not None
    return [
        fits(scaling, scaling.scale, program.values[scale]),
        fits(shifting, shifting.shift, program.values[shift]),
    ]


def fits(op: ScaleShift, held: Tensor | None, true: Exact) -> bool:
    """Whether a constant is where its operator says."""
    assert held is not None
    known = op.roundings * U < Fraction(1, 8)
    return not known or ratio(held, true, op.doubt.get("shift" if held is op.shift else "scale")) <= op.roundings


def loaded(program: Program, scale: str, shift: str, folder: Path) -> Network:
    return load_network(save(program.model(scale, shift), folder))


def test_constants_of_random_programs_are_within_the_roundings_counted(tmp_path: Path) -> None:
    counts, own = [], 0
    for seed in range(80):
        program, scale, shift = random_program(seed)
        network = loaded(program, scale, shift, tmp_path)
        assert all(within(network.graph, program, scale, shift)), f"seed {seed}"
        counts += [op.roundings for op in operators(network.graph)]
        own += sum(not fits for fits in within(folded(network.graph), program, scale, shift))
    assert own > 80, "the file's own precision should miss most of them"
    assert sum(count <= 16 for count in counts) > 0.95 * len(counts)


def test_a_graph_agrees_with_onnx_runtime_where_their_constants_differ(tmp_path: Path) -> None:
    compared = 0
    for seed in range(40):
        program, scale, shift = random_program(seed)
        network = loaded(program, scale, shift, tmp_path)
        network.check(-torch.ones(4), torch.ones(4))
        compared += bool(network.graph.executed)
    assert compared > 30


def test_executed_constants_are_within_the_roundings_that_executed_operators_count(tmp_path: Path) -> None:
    """Beside those of ONNX Runtime, which sums in an order of its own."""
    inexact = 0
    for seed in range(40):
        program, scale, shift = random_program(seed)
        graph = loaded(program, scale, shift, tmp_path).graph
        built = program.model(scale, shift)
        built.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in (scale, shift))
        session = onnxruntime.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])
        _, *own = session.run(None, {"x": np.zeros((1, 4), dtype=np.float32)})
        pairs = zip(operators(graph.as_executed()), own, strict=True)
        for node, array in pairs:
            held = node.shift if node.scale is None else node.scale
            assert held is not None
            assert fits(node, held, exact(array)), f"seed {seed}"
            inexact += bool((held.flatten().double() != torch.from_numpy(array).double()).any())
    assert inexact > 0


def test_what_float64_computes_exactly_is_not_charged(tmp_path: Path) -> None:
    """Products and sums of two, a product of small integers that cancels, halves, and roots of squares."""
    program = Program()
    a, b = program.constant([1e8, 3.3, -1e-9, 0]), program.constant([0.25, 1.7, 1e-3, 5])
    signs = program.constant([[1, -1, 0, 0], [2, 3, -1, 5], [0, 0, 0, 0], [-7, 1, 1, 1]])
    whole = program.constant([3, 3, 15, 0])
    product = program("MatMul", signs, whole)
    root = program("Sqrt", program.constant([4, 0.25, 0, 9]))
    scale = program("Add", program("Mul", a, b), program("Mul", product, root))
    shift = program("Div", program("Sub", program("Add", a, b), a), program.constant([2, 4, 0.5, 8]))
    graph = loaded(program, scale, shift, tmp_path).graph
    assert all(within(graph, program, scale, shift))
    scaling, shifting = operators(graph)
    assert (scaling.roundings, shifting.roundings) == (0, 0)
    assert set(graph.executed) == {node.name for node in graph.nodes[1:]}


def test_constants_that_nothing_is_computed_from_stay_those_of_the_file(tmp_path: Path) -> None:
    program = Program()
    scale, shift = program.constant([1, 2, 3, 4]), program("Neg", program.constant([0.1, 0.2, 0.3, 0.4]))
    graph = loaded(program, scale, shift, tmp_path).graph
    scaling, shifting = operators(graph)
    assert scaling.scale is not None
    assert shifting.shift is not None
    assert scaling.scale.dtype == shifting.shift.dtype == torch.float32
    assert (scaling.roundings, shifting.roundings) == (0, 0)
    assert not graph.executed


def test_a_zero_that_rounding_hides_is_not_taken_for_one(tmp_path: Path) -> None:
    """sqrt(2)^2 - 2 is zero; in float64 it is not, and no count of roundings says by how much."""
    program = Program(1)
    two = program.constant([2])
    shift = program("Sub", program("Pow", program("Sqrt", two), two), two)
    graph = loaded(program, two, shift, tmp_path).graph
    _, shifting = operators(graph)
    assert shifting.shift is not None
    assert 0 < abs(float(shifting.shift)) <= float(shifting.doubt["shift"]) < 1e-14


V = np.array([0.1, -2.7, 3e5 + 0.5, 1.5], dtype=np.float32)
ROWS = np.arange(8, dtype=np.float32).reshape(2, 4) / 7
THIRD = np.array([3], dtype=np.float32)
DECIMALS = decimal.Context(prec=120)


def exponentials(x: Exact) -> Exact:
    quotients = [DECIMALS.divide(decimal.Decimal(v.numerator), decimal.Decimal(v.denominator)) for v in x]
    return np.array([Fraction(v.exp(DECIMALS)) for v in quotients])


OTHERS: dict[str, tuple[list[onnx.NodeProto], Exact]] = {
    "Gemm": (
        [op("Gemm", "column rows v", "k", alpha=0.1, beta=0.7, transA=1)],
        Fraction(float(np.float32(0.1))) * (exact(ROWS)[0] + exact(ROWS)[1] * 5)
        + Fraction(float(np.float32(0.7))) * exact(V),
    ),
    "Exp": (
        [op("ReduceMean", "rows", "m", axes=[0]), op("Div", "m c", "q"), op("Exp", "q", "k")],
        exponentials(exact(ROWS).sum(0) / 6),
    ),
    "a power": ([op("Div", "v c", "q"), op("Pow", "q c", "k")], (exact(V) / 3) ** 3),
    "sums over rows": ([op("ReduceSum", "rows axis", "k", keepdims=0)], exact(ROWS).sum(0)),
    "means over rows": ([op("ReduceMean", "rows", "k", axes=[-2], keepdims=0)], exact(ROWS).sum(0) / 2),
    "Floor": ([op("Div", "v c", "q"), op("Mul", "q c", "t"), op("Floor", "t", "k")], exact(np.floor(V))),
    "where": (
        [op("Div", "v c", "q"), op("Greater", "q tenth", "b"), op("Where", "b q v", "k")],
        np.array([exact(V)[0], exact(V)[1], exact(V)[2] / 3, exact(V)[3] / 3]),
    ),
    "parts": (
        [
            op("Div", "v c", "q"),
            op("Split", "q", "low high", axis=0),
            op("Concat", "high low", "j", axis=0),
            op("Clip", "j tenth", "k"),
        ],
        np.maximum(np.array([exact(V)[i] / 3 for i in (2, 3, 0, 1)]), Fraction(float(np.float32(0.1)))),
    ),
    "a cast that the file asks for": (
        [op("Cast", "v", "w", to=11), op("Cast", "c", "d", to=11), op("Div", "w d", "q"), op("Cast", "q", "k", to=1)],
        exact((V.astype(np.float64) / 3).astype(np.float32)),
    ),
    "a cast of what float32 does not hold": ([op("Mul", "v v", "q"), op("Cast", "q", "k", to=1)], exact(V) ** 2),
}


def other(name: str) -> onnx.ModelProto:
    """A network that adds what the operators compute."""
    nodes, _ = OTHERS[name]
    weights = {"v": V, "rows": ROWS, "c": THIRD, "tenth": np.array(0.1, dtype=np.float32), "axis": np.array([0])}
    weights["column"] = np.array([[1], [5]], dtype=np.float32)
    return model([*nodes, op("Add", "x k")], [1, 4], weights)


@pytest.mark.parametrize("name", OTHERS)
def test_other_operators_on_constants_are_within_the_roundings_counted(name: str, tmp_path: Path) -> None:
    true = OTHERS[name][1]
    graph = load_network(save(other(name), tmp_path)).graph
    (held,) = (node.op for node in graph.nodes[1:])
    assert isinstance(held, ScaleShift)
    assert held.shift is not None
    assert fits(held, held.shift, true)
    assert held.roundings <= 16
    assert all((error <= 100 * 2.0**-53 * held.shift.abs()).all() for error in held.doubt.values())


def test_a_comparison_that_rounding_decides_is_refused(tmp_path: Path) -> None:
    nodes = [op("Div", "v c", "q"), op("Mul", "q c", "t"), op("Equal", "t v", "b"), op("Where", "b v c", "k")]
    built = model([*nodes, op("Add", "x k")], [1, 4], {"v": V, "c": THIRD})
    with pytest.raises(
        UnsupportedNetworkError, match=r"'b' \(op Equal\): it compares constants that rounding cannot tell"
    ):
        load_network(save(built, tmp_path))


class Computed(nn.Module):
    """A layer whose weight and bias are computed from parameters."""

    def __init__(self, weight: Callable[[Tensor], Tensor], bias: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.matrix = nn.Parameter(torch.randn(3, 4, generator=generator))
        self.vector = nn.Parameter(torch.tensor([1e6, 0.3, 7.0]))
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight(self.matrix), self.bias(self.vector))


TENTH = Fraction(float(torch.tensor(0.1)))
"""The number 0.1 of a module's code in float32."""

MODULES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Exact], Exact]]] = {
    "a product with a number": (lambda v: v * 0.1, lambda v: v * TENTH),
    "cancellation": (lambda v: (v + 0.1) - v, lambda v: v * 0 + TENTH),
    "a quotient": (lambda v: 1 / (v * v + 3), lambda v: 1 / (v * v + 3)),
    "a mean": (lambda v: v - v.mean(), lambda v: v - sum(v) / len(v)),
    "parts": (lambda v: torch.cat([v[:1] / 3, v[1:].flip(0) * 3]), lambda v: np.array([v[0] / 3, v[2] * 3, v[1] * 3])),
    "the larger": (
        lambda v: torch.where(v > 1, v / 7, v.clamp(max=0.1)),
        lambda v: np.array([v[0] / 7, TENTH, v[2] / 7]),
    ),
    "integers": (lambda v: v + torch.arange(3) / 3, lambda v: v + exact(np.arange(3)) / 3),
}


@pytest.mark.parametrize("name", MODULES)
def test_constants_that_a_module_computes_are_within_the_roundings_counted(name: str) -> None:
    compute, truth = MODULES[name]
    module = Computed(lambda w: w, compute)
    graph = from_module(module, (4,))
    (op,) = (node.op for node in graph.nodes[1:])
    assert isinstance(op, Linear)
    assert op.bias is not None
    true = truth(exact(module.vector.detach().numpy()))
    assert ratio(op.bias, true, op.doubt.get("bias")) <= op.roundings <= 16
    assert op.weight is module.matrix
    executed = graph.as_executed()[graph.output].op
    assert isinstance(executed, Linear)
    assert executed.bias is not None
    assert torch.equal(executed.bias, compute(module.vector))
    assert ratio(executed.bias, true, op.doubt.get("bias")) > op.roundings


def test_weight_normalisation_is_within_the_roundings_counted() -> None:
    module = nn.utils.parametrizations.weight_norm(nn.Linear(5, 3))
    (op,) = (node.op for node in from_module(module, (5,)).nodes[1:])
    assert isinstance(op, Linear)
    assert 0 < op.roundings < 30
    magnitude, direction = (exact(p.detach().numpy()) for p in module.parametrizations.weight.parameters())
    true = np.array(
        [[v * g / root(sum(row * row)) for v in row] for row, (g,) in zip(direction, magnitude, strict=True)]
    )
    assert ratio(op.weight, true) <= op.roundings


def test_about_what_an_unknown_operator_computes_nothing_is_claimed() -> None:
    module = Computed(lambda w: torch.sin(w), lambda v: v)
    (op,) = (node.op for node in from_module(module, (4,)).nodes[1:])
    assert isinstance(op, Linear)
    assert op.roundings == HOPELESS
