"""The comparison with ONNX Runtime: what it accepts, and that it catches networks that were read wrongly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from tests.importers.onnx_models import floats, model, op, save
from zonocuda.graph import Elementary, Graph, Input, Linear, Node, Reshape, ScaleShift
from zonocuda.importers import (
    Network,
    NetworkFileError,
    NetworkMismatchError,
    NetworkOverflowError,
    OnnxRuntimeModel,
    check,
    check_against_onnxruntime,
    load_network,
    load_onnx,
)
from zonocuda.importers.check import Comparison, finite_boxes, sample_points
from zonocuda.importers.onnx import arithmetic
from zonocuda.importers.onnx.node import OnnxNode
from zonocuda.importers.onnx.ops import CONVERTERS
from zonocuda.importers.rounding import Bounded, transfer


def deep(depth: int = 12, width: int = 30) -> onnx.ModelProto:
    """A deep network whose worst-case rounding error exceeds its output many times."""
    nodes, weights, last = [], {}, "x"
    for layer in range(depth):
        weights[f"w{layer}"] = floats(width, width, seed=layer) / math.sqrt(width) * 1.4
        nodes += [op("MatMul", f"{last} w{layer}", f"p{layer}"), op("Relu", f"p{layer}", f"r{layer}")]
        last = f"r{layer}"
    nodes.append(op("Neg", last))
    return model(nodes, [1, width], {name: array.astype(np.float32) for name, array in weights.items()})


def loaded(built: onnx.ModelProto, folder: Path) -> Network:
    return load_network(save(built, folder))


def box(network: Network) -> tuple[Tensor, Tensor]:
    shape = network.graph.input_shape
    return -torch.ones(shape), torch.ones(shape)


def test_a_deep_network_read_correctly_passes(tmp_path: Path) -> None:
    network = loaded(deep(), tmp_path)
    difference = network.check(*box(network))
    assert 0 < difference < 1e-4


def test_the_whole_network_s_bound_alone_would_prove_nothing(tmp_path: Path) -> None:
    """Why the comparison goes node by node: over the whole depth the bound is larger than the output."""
    network = loaded(deep(), tmp_path)
    graph, x = network.graph.to(torch.float64), torch.ones(1, 30, dtype=torch.float64)
    values = {graph.nodes[0].name: Bounded.exact(x)}
    for node in graph.nodes[1:]:
        values[node.name] = transfer(node, tuple(values[name] for name in node.inputs), torch.float32)
    result = values[graph.output]
    assert (result.error > result.value.abs()).all()


@pytest.mark.parametrize("layer", range(12))
def test_a_weight_that_differs_in_one_thousandth_is_caught_at_any_depth(layer: int, tmp_path: Path) -> None:
    network = loaded(deep(), tmp_path)

    def scaled(node: Node) -> Node:
        if node.name != f"p{layer}":
            return node
        assert isinstance(node.op, Linear)
        return dataclasses.replace(node, op=Linear(node.op.weight * 1.001))

    graph = Graph(tuple(scaled(node) for node in network.graph.nodes), network.graph.output)
    with pytest.raises(NetworkMismatchError, match=f"node 'p{layer}': element"):
        check_against_onnxruntime(graph, network.runtime, *box(network))


def misread(kind: str, converter: Callable[[OnnxNode], object], built: onnx.ModelProto, folder: Path) -> str:
    """The message of the comparison for a model that was read with another converter."""
    original = CONVERTERS[kind]
    CONVERTERS[kind] = converter  # type: ignore[assignment]
    try:
        network = loaded(built, folder)
    finally:
        CONVERTERS[kind] = original
    with pytest.raises(NetworkMismatchError) as caught:
        network.check(*box(network))
    message = str(caught.value)
    assert message.startswith(f"importers.check: {folder / 'net.onnx'}: ")
    assert "\n" not in message
    return message


def without(node: OnnxNode, attribute: str) -> None:
    """Forgets what a node states."""
    node.ignore(attribute)
    del node._attributes.stated[attribute]


def test_a_last_node_misread_as_the_identity_is_caught(tmp_path: Path) -> None:
    assert "output 0 is" in misread("Neg", arithmetic.identity, deep(), tmp_path)


def test_a_relu_misread_as_the_identity_is_caught(tmp_path: Path) -> None:
    assert "node 'p1': element" in misread("Relu", arithmetic.identity, deep(2), tmp_path)


def test_an_epsilon_that_is_not_read_is_caught(tmp_path: Path) -> None:
    def with_default_epsilon(node: OnnxNode) -> object:
        without(node, "epsilon")
        return arithmetic.batch_normalization(node)

    statistics = {"g": floats(3), "b": floats(3), "m": floats(3), "v": np.abs(floats(3)) + 1}
    weights = {name: array.astype(np.float32) for name, array in statistics.items()}
    built = model([op("BatchNormalization", "x g b m v", epsilon=1e-3)], [1, 3], weights, opset=15)
    assert "node 'y': element" in misread("BatchNormalization", with_default_epsilon, built, tmp_path)


def test_alpha_that_is_not_read_is_caught(tmp_path: Path) -> None:
    def without_alpha(node: OnnxNode) -> object:
        without(node, "alpha")
        return arithmetic.gemm(node)

    built = model([op("Gemm", "x w", alpha=1.0001)], [1, 3], {"w": floats(3, 3)})
    assert "node 'y': element" in misread("Gemm", without_alpha, built, tmp_path)


def test_another_output_shape_is_caught(tmp_path: Path) -> None:
    network = loaded(deep(1), tmp_path)
    flipped = Node("extra", Reshape((30, 1)), (network.graph.output,), (30, 1))
    graph = Graph((*network.graph.nodes, flipped), "extra")
    with pytest.raises(NetworkMismatchError, match=r"output: shape \(30, 1\) in the graph, \(30,\) in ONNX Runtime"):
        check_against_onnxruntime(graph, network.runtime, *box(network))


def test_another_input_shape_is_caught(tmp_path: Path) -> None:
    network = loaded(deep(1), tmp_path)
    content = model([op("Relu", "x")], [1, 4]).SerializeToString()
    with pytest.raises(NetworkMismatchError, match=r"the input has shape \(30,\) in the graph, \(4,\) in ONNX"):
        check_against_onnxruntime(network.graph, content, torch.zeros(30), torch.ones(30))


def test_outputs_that_are_not_finite_are_caught(tmp_path: Path) -> None:
    built = model([op("Mul", "x w", "p"), op("Mul", "p w")], [1, 1], {"w": np.float32([1e30])})
    network = loaded(built, tmp_path)
    with pytest.raises(NetworkMismatchError, match="in ONNX Runtime"):
        network.check(torch.zeros(1), torch.ones(1))


def test_bytes_can_be_compared_under_a_name(tmp_path: Path) -> None:
    path = save(deep(1), tmp_path)
    graph = load_onnx(path)
    assert check_against_onnxruntime(graph, path.read_bytes(), torch.zeros(30), torch.ones(30)) < 1e-5
    wrong = Graph((*graph.nodes, Node("z", ScaleShift(torch.tensor([2.0]), None), (graph.output,), (30,))), "z")
    with pytest.raises(NetworkMismatchError, match=r"importers\.check: my network: output"):
        check_against_onnxruntime(wrong, path.read_bytes(), torch.zeros(30), torch.ones(30), name="my network")


@pytest.mark.parametrize("limit", ["MAX_VALUES", "MAX_OBSERVED"])
def test_large_networks_are_compared_at_fewer_points_at_once(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = loaded(deep(), tmp_path)
    together = len(network.graph.nodes) if limit == "MAX_OBSERVED" else 1
    monkeypatch.setattr(check, limit, 2 * 30 * together)
    sizes: list[int] = []
    observe = OnnxRuntimeModel.observe

    def counted(self: OnnxRuntimeModel, x: Tensor) -> dict[str, Tensor]:
        sizes.append(len(x))
        return observe(self, x)

    monkeypatch.setattr(OnnxRuntimeModel, "observe", counted)
    check_against_onnxruntime(network.graph, network.runtime, *box(network), points=4)
    assert max(sizes) == 2
    assert sum(sizes) == 11


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        (torch.zeros(29), torch.ones(30), "29 lower and 30 upper bounds, the network 30 inputs"),
        (torch.ones(30), torch.zeros(30), "empty or holds NaN"),
        (torch.full((30,), math.nan), torch.ones(30), "empty or holds NaN"),
    ],
)
def test_a_box_that_does_not_fit_is_an_error(lower: Tensor, upper: Tensor, message: str, tmp_path: Path) -> None:
    network = loaded(deep(1), tmp_path)
    with pytest.raises(ValueError, match=message):
        network.check(lower, upper)


def test_points_are_the_corners_the_center_and_random_ones_in_the_box_and_around_it() -> None:
    lower, upper = torch.tensor([0.0, 4.0]), torch.tensor([1.0, 4.0])
    points = sample_points(lower, upper, (2, 1), points=50, seed=3)
    assert points.shape == (103, 2, 1)
    assert points.dtype == torch.float32
    flat = points.flatten(1)
    assert flat[:3].tolist() == [[0.0, 4.0], [1.0, 4.0], [0.5, 4.0]]
    assert ((flat[:53] >= lower) & (flat[:53] <= upper)).all()
    assert (flat[53:].std(0) > 2).all()
    assert torch.equal(points, sample_points(lower, upper, (2, 1), points=50, seed=3))
    assert not torch.equal(points, sample_points(lower, upper, (2, 1), points=50, seed=4))


def test_infinite_bounds_are_replaced() -> None:
    inf = math.inf
    points = sample_points(torch.tensor([-inf, 5.0, -inf]), torch.tensor([inf, inf, -7.0]), (3,), points=4, seed=0)
    assert points.isfinite().all()
    assert points[:2].tolist() == [[-1.0, 5.0, -9.0], [1.0, 7.0, -7.0]]


# ONNX Runtime's instance


def runtime(tmp_path: Path, shape: list[int | str], built: onnx.ModelProto | None = None) -> OnnxRuntimeModel:
    built = model([op("Relu", "x")], shape, rank=len(shape)) if built is None else built
    return OnnxRuntimeModel(built.SerializeToString(), "net")


@pytest.mark.parametrize("batch", [1, "n"])
def test_a_batch_runs_one_sample_at_a_time(batch: int | str, tmp_path: Path) -> None:
    instance = runtime(tmp_path, [batch, 2, 3])
    x = torch.randn(5, 2, 3)
    assert torch.equal(instance(x), x.relu())
    as_array = instance(x.numpy())
    assert isinstance(as_array, np.ndarray)
    assert (as_array == x.relu().numpy()).all()
    assert instance.input_shape == (2, 3)


def test_a_network_without_a_batch_runs_on_samples(tmp_path: Path) -> None:
    x = torch.randn(5, 4)
    assert torch.equal(runtime(tmp_path, [4])(x), x.relu())


def test_a_model_of_float64_takes_float32_and_float64(tmp_path: Path) -> None:
    built = model([op("Add", "x w")], [1, 2], {"w": np.array([0.1, 0.2])}, dtype=onnx.TensorProto.DOUBLE)
    instance = runtime(tmp_path, [], built)
    assert instance(torch.ones(1, 2)).tolist() == [[1.1, 1.2]]
    assert instance(torch.ones(1, 2, dtype=torch.float64)).tolist() == [[1.1, 1.2]]
    network = load_network(save(built, tmp_path))
    network.check(torch.zeros(2), torch.ones(2))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 4), r"shape \[B, 3\] with B > 0, got \[2, 4\]"),
        (torch.zeros(3), r"got \[3\]"),
        (torch.zeros(0, 3), r"got \[0, 3\]"),
        (torch.zeros(1, 3, dtype=torch.float64), "must be float32, got float64"),
        (torch.zeros(1, 3, dtype=torch.int64), "must be float32, got int64"),
    ],
)
def test_inputs_of_another_shape_or_type_are_an_error(x: Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        runtime(tmp_path, [1, 3])(x)


# the error bound


def test_executions_in_float32_stay_within_the_bound(tmp_path: Path) -> None:
    """Any order of summation: here the reversed one, term by term."""
    torch.manual_seed(0)
    weight, bias, x = torch.randn(5, 200), torch.randn(5), torch.randn(1, 200)
    node = Node("y", Linear(weight.double(), bias.double()), ("x",), (5,))
    bounded = transfer(node, (Bounded.exact(x),), torch.float32)
    total = bias.clone()
    for column in reversed(range(200)):
        total = total + weight[:, column] * x[0, column]
    difference = (total.double() - bounded.value[0]).abs()
    assert (difference > 0).any()
    assert (difference <= bounded.error[0]).all()
    magnitude = weight.double().abs() @ x[0].double().abs() + bias.double().abs()
    assert (bounded.error[0] <= 210 * 2**-24 * magnitude).all()


def test_a_model_that_onnx_runtime_cannot_execute_is_an_error(tmp_path: Path) -> None:
    built = model([op("Conv", "x w")], [1, 1, 4], {"w": np.ones((1, 1, 2))}, rank=3, dtype=onnx.TensorProto.DOUBLE)
    with pytest.raises(NetworkFileError, match=r"net\.onnx: ONNX Runtime cannot load it: "):
        load_network(save(built, tmp_path))


def test_boxes_where_the_network_is_not_finite_are_found_among_many_and_all_are_looked_at() -> None:
    lower = torch.arange(40).double().reshape(20, 2)
    bad, seen = {3, 4, 17}, list[Tensor]()

    def compare(x: Tensor) -> None:
        boxes = {int(one) // 2 for one in x[:, 0]}
        if boxes & bad:
            raise NetworkOverflowError
        seen.append(x)

    finite = finite_boxes(compare, lower, lower + 0.5, (2,), 16)
    assert {i for i, ok in enumerate(finite.tolist()) if not ok} == bad
    points = torch.cat(seen)
    assert len(points) == 17 * 4
    assert sorted({int(one) // 2 for one in points[:, 0]}) == sorted(set(range(20)) - bad)


def test_a_mismatch_in_one_of_many_boxes_is_raised_though_another_one_overflows() -> None:
    def compare(x: Tensor) -> None:
        if bool((x == 1).any()):
            raise NetworkOverflowError
        if bool((x == 5).any()):
            raise NetworkMismatchError

    lower = torch.arange(6).double().unsqueeze(1)
    with pytest.raises(NetworkMismatchError):
        finite_boxes(compare, lower, lower, (1,), 100)


def test_where_no_bound_on_rounding_is_finite_outputs_are_still_compared() -> None:
    """1 / sqrt(1 + (a - b)) for large a and b: what rounding may do to a - b is more than 1."""
    layer = Linear(torch.tensor([[1e9, -1e9]]), torch.ones(1))
    nodes = (
        Node("x", Input(), (), (2,)),
        Node("sum", layer, ("x",), (1,)),
        Node("out", Elementary("rsqrt"), ("sum",), (1,)),
    )
    comparison = Comparison(Graph(nodes, "out"), "net", "elsewhere", torch.float32)
    x = torch.ones(1, 2)
    assert comparison.check_output(x, torch.tensor([[1.0005]])) == pytest.approx(0.0005, rel=1e-3)
    for wrong in (1.01, 0.0, float("nan"), float("inf")):
        with pytest.raises(NetworkMismatchError):
            comparison.check_output(x, torch.tensor([[wrong]]))
