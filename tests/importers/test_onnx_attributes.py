"""Attributes and their defaults: of every operator, in both types, against ONNX's own evaluator and schemas."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tests.importers.attribute_models import BARE
from tests.importers.onnx_models import floats, model, op, save
from tests.importers.test_onnx_ops import EVERY_CASE
from zonocuda.graph import Graph
from zonocuda.importers import NetworkMismatchError, UnsupportedNetworkError, check, load_network
from zonocuda.importers.check import Comparison
from zonocuda.importers.onnx import constants as onnx_constants
from zonocuda.importers.onnx.file import OLDEST_OPSET, OnnxFile, parse_onnx
from zonocuda.importers.onnx.load import convert
from zonocuda.importers.onnx.node import Attributes, OnnxNode
from zonocuda.importers.onnx.ops import CONVERTERS

OPSETS = range(OLDEST_OPSET, onnx.defs.onnx_opset_version() + 1)
WIDE = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}
STATED = {**EVERY_CASE, **{f"{name}, bare": case for name, case in BARE.items()}}
ONE_VALUE = {
    "AveragePool": {"ceil_mode", "dilations"},
    "BatchNormalization": {"spatial", "training_mode"},
    "ConvTranspose": {"output_shape"},
    "LayerNormalization": {"stash_type"},
    "Pad": {"mode"},
    "RMSNormalization": {"stash_type"},
    "Swish": {"alpha"},
}
"""Attributes of which only the default is supported, here or by the evaluator."""
NARROWED = {
    f"{name}, bare" for name in ("layer norm", "layer norm, all", "rms norm", "rms norm, all", "group norm, float32")
}
"""Normalisations that round doubles to float32, and are refused."""


def defaults(kind: str, opset: int) -> dict[str, onnx.AttributeProto]:
    """The standard's defaults of an operator."""
    if not onnx.defs.has(kind, opset):
        return {}
    schema = onnx.defs.get_schema(kind, opset)
    entries = {name: entry.default_value for name, entry in schema.attributes.items()}
    return {name: entry for name, entry in entries.items() if entry.type != onnx.AttributeProto.UNDEFINED}


@pytest.mark.parametrize("kind", sorted(CONVERTERS.keys() | onnx_constants.FOLDABLE))
def test_every_default_is_the_standard_s_and_floats_are_float32(kind: str) -> None:
    for opset in OPSETS:
        read = Attributes(op(kind, "x"), opset)
        for name, entry in defaults(kind, opset).items():
            value = read[name]
            if entry.type == onnx.AttributeProto.FLOAT:
                assert value == float(np.float32(value)) == entry.f
            else:
                found = helper.get_attribute_value(entry)
                assert value == (found.decode() if isinstance(found, bytes) else found)
        assert read["no such attribute"] is None


def test_a_default_of_a_hundred_thousandth_is_the_float32_one() -> None:
    assert Attributes(op("BatchNormalization", "x"), 15)["epsilon"] == float(np.float32(1e-5)) != 1e-5
    assert Attributes(op("LeakyRelu", "x"), 15)["alpha"] == float(np.float32(0.01)) != 0.01


# every operator, with and without each attribute


def built(name: str, dtype: int) -> onnx.ModelProto:
    """A case as a model of that type."""
    case = STATED[name]
    weights = {k: w.astype(WIDE[dtype]) if w.dtype == np.float32 else w for k, w in case.weights.items()}
    rank = len(case.out) + (len(case.shape) > 1)
    casts = [node for node in case.nodes if node.op_type == "Cast"]
    kept = dtype if not casts else TensorProto.FLOAT
    return model(case.nodes, case.shape, weights, opset=case.opset, rank=rank, dtype=dtype, output_dtype=kept)


def read(built: onnx.ModelProto) -> tuple[OnnxFile, Graph]:
    file = parse_onnx(built.SerializeToString(), "net")
    return file, convert(file)


def same(graph: Graph, other: Graph) -> bool:
    """Whether two graphs are the same, to the last bit."""
    if [(n.name, n.inputs, n.shape, n.op.kind) for n in graph.nodes] != [
        (n.name, n.inputs, n.shape, n.op.kind) for n in other.nodes
    ]:
        return False
    pairs = zip(graph.nodes, other.nodes, strict=True)
    for a, b in ((a.op, b.op) for a, b in pairs):
        for entry in dataclasses.fields(a):
            one, two = getattr(a, entry.name), getattr(b, entry.name)
            if not (torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two):
                return False
    return True


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("name", STATED)
def test_stating_a_default_changes_nothing(name: str, dtype: int) -> None:
    if name in NARROWED and dtype == TensorProto.DOUBLE:
        pytest.skip("it is refused")
    plain = built(name, dtype)
    graph = read(plain)[1]
    for position, node in enumerate(plain.graph.node):
        stated = {entry.name for entry in node.attribute}
        for attribute, entry in defaults(node.op_type, STATED[name].opset).items():
            if attribute not in stated and attribute not in ("saturate", "round_mode"):
                explicit = onnx.ModelProto.FromString(plain.SerializeToString())
                explicit.graph.node[position].attribute.append(entry)
                assert same(graph, read(explicit)[1]), f"{node.op_type}: {attribute}"


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("name", STATED)
def test_an_operator_computes_what_onnx_s_own_evaluator_computes(name: str, dtype: int) -> None:
    """In the model's own precision, where the evaluator is right and the case is one of both types."""
    case = STATED[name]
    if case.opset < 14 and any(node.op_type == "BatchNormalization" for node in case.nodes):
        pytest.skip("the evaluator takes the default momentum for training")
    if any(entry.name == "output_padding" for node in case.nodes for entry in node.attribute):
        pytest.skip("the evaluator has no room for output_padding")
    if name in ("max pool SAME_LOWER", "max pool, asymmetric pads"):
        pytest.skip("the evaluator counts the pads of one end twice")
    if dtype == TensorProto.DOUBLE and any(node.op_type.startswith("Constant") for node in case.nodes):
        pytest.skip("its constants are float32")
    if name in NARROWED and dtype == TensorProto.DOUBLE:
        pytest.skip("it rounds doubles to float32, and is refused")
    if dtype == TensorProto.DOUBLE and any(node.op_type in ("Erf", "Gelu", "HardSwish") for node in case.nodes):
        pytest.skip("the evaluator's error function and constants are float32")
    file, graph = read(built(name, dtype))
    own = torch.float64 if dtype == TensorProto.DOUBLE else torch.float32
    evaluator = ReferenceEvaluator(file.model)
    x = torch.randn((3, *file.input_shape), generator=torch.Generator().manual_seed(1), dtype=own)
    y = [torch.from_numpy(np.array(evaluator.run(None, {file.input_name: row.numpy()})[0])) for row in x]
    points = x.reshape(3, *graph.input_shape)
    outputs = torch.stack(y).reshape(3, *graph.output_shape)
    Comparison(graph, "net", "onnx.reference", own).check_output(points, outputs)


def test_every_attribute_is_stated_in_one_case_and_left_out_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a converter reads. Resize and Upsample have tests of their own, and ThresholdedRelu without alpha is
    refused, for it jumps."""
    asked, stated, absent = (collections.defaultdict[str, set[str]](set) for _ in range(3))
    kind_of: dict[str, str] = {}
    plain = OnnxNode.attribute

    def recorded(node: OnnxNode, name: str) -> object:
        asked[kind_of[node.outputs[0]]].add(name)
        return plain(node, name)

    monkeypatch.setattr(OnnxNode, "attribute", recorded)
    for name, case in STATED.items():
        proto = built(name, TensorProto.FLOAT)
        kind_of = {node.output[0]: node.op_type for node in proto.graph.node}
        for node in proto.graph.node:
            known = defaults(node.op_type, case.opset)
            given = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
            stated[node.op_type] |= {
                k for k, v in given.items() if k not in known or v != helper.get_attribute_value(known[k])
            }
            schema = onnx.defs.get_schema(node.op_type, case.opset).attributes
            absent[node.op_type] |= schema.keys() - given.keys()
            absent[node.op_type] |= {k for k, entry in schema.items() if entry.required}
        read(proto)
    assert CONVERTERS.keys() - absent.keys() == {"Resize", "Upsample"}
    never = collections.defaultdict[tuple[str, str], set[str]](set)
    for kind, names in asked.items():
        for opset in OPSETS:
            if onnx.defs.has(kind, opset):
                there = names & onnx.defs.get_schema(kind, opset).attributes.keys()
                never["stated", kind] |= there - stated[kind] - ONE_VALUE.get(kind, set())
                never["left out", kind] |= there - absent[kind]
    assert {key: names for key, names in never.items() if names} == {("left out", "ThresholdedRelu"): {"alpha"}}


def test_statistics_that_are_rounded_to_a_narrower_type_are_refused() -> None:
    """The standard rounds the input of these to float32 unless told otherwise."""
    for kind, opset, stash, dtype in (
        ("LayerNormalization", 17, TensorProto.FLOAT, TensorProto.DOUBLE),
        ("LayerNormalization", 17, TensorProto.UNDEFINED, TensorProto.FLOAT),
        ("RMSNormalization", 23, TensorProto.FLOAT, TensorProto.DOUBLE),
        ("GroupNormalization", 21, TensorProto.FLOAT, TensorProto.DOUBLE),
        ("GroupNormalization", 21, TensorProto.FLOAT16, TensorProto.FLOAT),
        ("LayerNormalization", 17, TensorProto.BFLOAT16, TensorProto.FLOAT),
    ):
        weights = {"w": np.ones(4, WIDE[dtype]), "b": np.ones(4, WIDE[dtype])}
        more = {"num_groups": 2} if kind == "GroupNormalization" else {}
        node = op(kind, "x w" if kind == "RMSNormalization" else "x w b", stash_type=stash, **more)
        with pytest.raises(UnsupportedNetworkError, match=r"statistics are rounded to a narrow.* \(stash_type\)"):
            read(model([node], [1, 4, 4], weights, opset=opset, rank=3, dtype=dtype))


# what the comparison forgives


def normalisation(opset: int, variance: float, **attributes: float) -> onnx.ModelProto:
    weights = {n: np.array([v]) for n, v in {"g": 0.7, "b": 0.3, "m": 0.2, "v": variance}.items()}
    return model(
        [op("BatchNormalization", "x g b m v", **attributes)], [1, 1], weights, opset=opset, dtype=TensorProto.DOUBLE
    )


def wrong_default(monkeypatch: pytest.MonkeyPatch, epsilon: float) -> None:
    original = Attributes.__getitem__

    def getitem(self: Attributes, name: str) -> object:
        return epsilon if name == "epsilon" and name not in self.stated else original(self, name)

    monkeypatch.setattr(Attributes, "__getitem__", getitem)


@pytest.mark.parametrize("epsilon", [1e-5, float(np.nextafter(np.float32(1e-5), np.float32(1)))])
@pytest.mark.parametrize("variance", [0.0, 1e-3, 1.0])
def test_a_wrong_default_is_a_mismatch_in_a_float64_model(
    epsilon: float, variance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A float64 model is compared in float64: a unit in the last place of float32 is no rounding there."""
    path = save(normalisation(15, variance), tmp_path)
    load_network(path).check(torch.zeros(1), torch.ones(1))
    wrong_default(monkeypatch, epsilon)
    with pytest.raises(NetworkMismatchError, match="node 'y': element 0"):
        load_network(path).check(torch.zeros(1), torch.ones(1))


def test_layers_of_one_file_are_compared_each_in_its_own_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32 in front of float64: what the first rounds is nothing that the second may be off by."""
    normalise = normalisation(15, 1.0)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in normalise.graph.initializer}
    weights["w"] = floats(1, 1)
    nodes = [op("MatMul", "x w", "p"), op("Cast", "p", "d", to=TensorProto.DOUBLE), *normalise.graph.node]
    nodes[2].input[0] = "d"
    path = save(model(nodes, [1, 1], weights, opset=15, output_dtype=TensorProto.DOUBLE), tmp_path)
    network = load_network(path)
    assert [node.dtype for node in network.graph.nodes] == [torch.float32] * 2 + [torch.float64] * 2
    network.check(torch.zeros(1), torch.ones(1))
    wrong_default(monkeypatch, 1e-5)
    with pytest.raises(NetworkMismatchError, match="node 'y': element 0"):
        load_network(path).check(torch.zeros(1), torch.ones(1))


def test_constants_folded_wrongly_in_real_arithmetic_are_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real and executed constants may differ by the executed roundings, and by no more: here one factor is off by four
    units in the last place of float32, where three roundings explain three; cancelled terms explain more."""
    weights = {"v": np.float32([1e8, 0.1, -3.0]), "c": np.float32([0.25, 0.3, 7.0])}
    sums = [op("Add", "v c", "s"), op("Sub", "s v", "t"), op("Mul", "t c", "k"), op("Mul", "x k")]
    read(model(sums, [1, 3], weights))
    original = onnx_constants.enclosure.multiply

    def off(a: onnx_constants.Enclosure, b: onnx_constants.Enclosure) -> onnx_constants.Enclosure:
        found = original(a, b)
        return found if found.executed else dataclasses.replace(found, value=found.value * (1 + 2.0**-19))

    monkeypatch.setattr(onnx_constants.enclosure, "multiply", off)
    with pytest.raises(NetworkMismatchError, match=r"its scale\[\d.*\] is .* in real arithmetic and .* as executed"):
        read(model(sums, [1, 3], weights))


@pytest.mark.parametrize("to", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT])
def test_a_cast_of_values_is_compared_with_onnx_runtime(to: int, tmp_path: Path) -> None:
    dtype = TensorProto.DOUBLE if to == TensorProto.FLOAT else TensorProto.FLOAT
    nodes = [op("Mul", "x w", "p"), op("Cast", "p", "h", to=to), op("Cast", "h", "f", to=dtype), op("Sub", "f x")]
    network = load_network(save(model(nodes, [1, 3], {"w": floats(3).astype(WIDE[dtype])}, dtype=dtype), tmp_path))
    network.check(-torch.ones(3), torch.ones(3))
    (node,) = (node for node in network.graph.nodes if node.name == "h")
    assert node.op.kind == "Cast"
    wrong = dataclasses.replace(network, graph=without(network.graph, "h"))
    with pytest.raises(NetworkMismatchError):
        wrong.check(-torch.ones(3), torch.ones(3))


def without(graph: Graph, name: str) -> Graph:
    """The graph that takes a cast for the identity."""
    (source,) = graph[name].inputs
    nodes = (
        dataclasses.replace(node, inputs=tuple(source if entry == name else entry for entry in node.inputs))
        for node in graph.nodes
        if node.name != name
    )
    return dataclasses.replace(graph, nodes=tuple(nodes))


def test_a_normalisation_in_float64_in_front_of_a_float32_network_is_read(tmp_path: Path) -> None:
    weights = {"c": np.array(0.1307), "e": np.array(0.3081), "w": floats(3, 2)}
    nodes = [
        op("Cast", "x", "d", to=TensorProto.DOUBLE),
        op("Sub", "d c", "s"),
        op("Div", "s e", "q"),
        op("Cast", "q", "f", to=TensorProto.FLOAT),
        op("MatMul", "f w"),
    ]
    network = load_network(save(model(nodes, [1, 3], weights), tmp_path))
    network.check(-torch.ones(3), torch.ones(3))
    assert [node.op.kind for node in network.graph.nodes] == ["Input", "ScaleShift", "ScaleShift", "Cast", "Linear"]


def test_an_output_of_bfloat16_is_refused_with_the_remedy() -> None:
    built = model([op("Cast", "x", to=TensorProto.BFLOAT16)], [1, 3], output_dtype=TensorProto.BFLOAT16)
    with pytest.raises(UnsupportedNetworkError, match=r"output 'y' is bfloat16, .* cast it to FLOAT"):
        read(built)


def test_half_weights_behind_a_cast_are_refused_by_name() -> None:
    nodes = [op("Cast", "x", "h", to=TensorProto.FLOAT16), op("Mul", "h w", "p"), op("Cast", "p", to=TensorProto.FLOAT)]
    with pytest.raises(UnsupportedNetworkError, match=r"node 'p' \(op Mul\): a constant of type float16"):
        read(model(nodes, [1, 3], {"w": floats(3).astype(np.float16)}))


def test_the_comparison_knows_no_precision_of_its_own() -> None:
    (dtype,) = (entry for entry in dataclasses.fields(check.Comparison) if entry.name == "dtype")
    assert dtype.default is dataclasses.MISSING
