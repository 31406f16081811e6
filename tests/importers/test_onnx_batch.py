"""ONNX networks that do something with their batch of 1: all dimensions are features then."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto

from tests.importers.onnx_models import Case, constant_first, floats, ints, model, one, op, save
from zonocuda import Spec, verify
from zonocuda.importers import load_network
from zonocuda.verifier import Verdict

BATCH = {
    "transposition": one("Transpose", ["n", 1], (1,), perm=[1, 0]),
    "default transposition": one("Transpose", [1, 3], (1,)),
    "reshape to a vector": one("Reshape", [1, 3], (), ints(-1)),
    "reshape to rows": one("Reshape", ["n", 6], (3,), ints(2, 3)),
    "reshape to inferred rows": one("Reshape", ["n", 6], (3,), ints(-1, 3)),
    "flatten to rows": one("Flatten", [1, 2, 3], (3,), axis=2),
    "concat": Case([op("Concat", "x x", axis=0)], [1, 3], (3,)),
    "slice": one("Slice", ["n", 3], (3,), ints(0), ints(1), ints(0)),
    "slice backwards": one("Slice", ["n", 3], (3,), ints(-1), ints(-100), ints(0), ints(-1)),
    "split": Case([op("Split", "x", "y", axis=0)], ["n", 3], (3,)),
    "gather": one("Gather", ["n", 3], (), np.array(0, dtype=np.int64), axis=0),
    "mean": one("ReduceMean", ["n", 3], (3,), axes=[0]),
    "mean of everything": one("ReduceMean", ["n", 3], (1,)),
    "sum of everything": one("ReduceSum", ["n", 3], (), keepdims=0),
    "squeeze": one("Squeeze", [1, 3], (), ints(0)),
    "squeeze without axes": one("Squeeze", [1, 3], ()),
    "unsqueeze": one("Unsqueeze", [1, 3], (1, 3), ints(0)),
    "expand": one("Expand", [1, 3], (3,), ints(2, 3)),
    "padding": one("Pad", [1, 3], (3,), ints(1, 0, 0, 0)),
    "a constant for two samples": one("Add", [1, 3], (3,), floats(2, 3)),
    "a constant that adds dimensions": one("Mul", [1, 3], (1, 3), floats(1, 1, 3)),
    "branches of different rank": Case(
        [op("ReduceSum", "x a", "s", keepdims=0), op("Add", "x s")], [1, 3, 1], (3, 1), {"a": ints(2)}
    ),
    "a product from the left": constant_first("MatMul", ["n", 3], (3,), floats(2, 1)),
    "a transposed A": one("Gemm", ["n", 3], (2,), floats(1, 2), transA=1),
    "matrices that add dimensions": one("MatMul", [1, 3], (1, 2), floats(1, 3, 2)),
    "columns": Case([op("Transpose", "x", "c", perm=[1, 0]), op("MatMul", "w c")], [1, 3], (2, 1), {"w": floats(2, 3)}),
    "columns of Gemm": Case(
        [op("Gemm", "w x b", "h", transB=1, alpha=0.5, beta=2.0), op("Relu", "h")],
        [1, 3],
        (2, 1),
        {"w": floats(2, 3), "b": floats(2, 1)},
    ),
    "a transposed constant": Case([op("Gemm", "w x", transA=1, transB=1)], ["n", 3], (2, 1), {"w": floats(3, 2)}),
    "columns turned back": Case(
        [op("Transpose", "x", "c", perm=[1, 0]), op("Gemm", "c w", transA=1)], [1, 3], (2,), {"w": floats(3, 2)}
    ),
    "a vector through a layer": Case(
        [op("Reshape", "x s", "v"), op("MatMul", "v w", "h"), op("Relu", "h")],
        [1, 3],
        (2,),
        {"s": ints(-1), "w": floats(3, 2)},
    ),
    "convolution in between": Case(
        [op("Conv", "x w", "h"), op("Relu", "h", "r"), op("Flatten", "r", "f"), op("Squeeze", "f a")],
        [1, 1, 2, 3],
        (4,),
        {"w": floats(2, 1, 2, 2), "a": ints(0)},
    ),
}


@pytest.mark.parametrize("name", BATCH)
def test_a_network_that_works_on_its_batch_computes_what_onnx_runtime_does(name: str, tmp_path: Path) -> None:
    case = BATCH[name]
    network = load_network(save(case.model(), tmp_path))
    shape = tuple(extent if isinstance(extent, int) else 1 for extent in case.shape)
    assert network.graph.input_shape == shape
    size = math.prod(shape)
    network.check(-torch.ones(size), torch.ones(size))


@pytest.mark.parametrize("name", ["columns of Gemm", "reshape to a vector", "convolution in between"])
def test_bounds_of_such_a_network_are_sound_and_exact_enough(name: str, tmp_path: Path) -> None:
    network = load_network(save(BATCH[name].model(), tmp_path))
    size, outputs = math.prod(network.graph.input_shape), math.prod(network.graph.output_shape)
    points = torch.rand(200, *network.graph.input_shape, generator=torch.Generator().manual_seed(0))
    top = float(network.runtime(points).reshape(200, -1)[:, 0].max())
    row = [1.0] + [0.0] * (outputs - 1)
    proven = verify(network, Spec.linear(np.zeros(size), np.ones(size), row, 100.0))
    assert proven.verdict is Verdict.VERIFIED
    refuted = verify(network, Spec.linear(np.zeros(size), np.ones(size), row, top - 1e-3))
    assert refuted.verdict is Verdict.FALSIFIED


def test_a_network_that_keeps_its_batch_leaves_it_out(tmp_path: Path) -> None:
    assert load_network(save(one("Relu", ["n", 3], (3,)).model(), tmp_path)).graph.input_shape == (3,)


def test_a_sample_that_is_a_column_needs_no_batch(tmp_path: Path) -> None:
    network = load_network(save(constant_first("MatMul", [5, 1], (2, 1), floats(2, 5)).model(), tmp_path))
    assert (network.graph.input_shape, network.graph.output_shape) == ((5, 1), (2, 1))
    network.check(-torch.ones(5), torch.ones(5))


def test_stacks_of_matrices_multiply_on_both_sides(tmp_path: Path) -> None:
    for shape, stack, left in (
        ([1, 2, 3, 4], (2, 4, 5), False),
        ([1, 1, 3, 4], (2, 4, 5), False),
        ([1, 2, 1, 3, 4], (3, 4, 5), False),
        ([1, 2, 3, 4], (2, 5, 3), True),
        ([1, 1, 3, 4], (2, 5, 3), True),
    ):
        weight = floats(*stack)
        case = constant_first("MatMul", shape, (), weight) if left else one("MatMul", shape, (), weight)
        built = model(case.nodes, shape, case.weights, rank=len(shape))
        size = math.prod(shape)
        load_network(save(built, tmp_path)).check(-torch.ones(size), torch.ones(size))


def test_a_type_is_not_taken_from_the_batch(tmp_path: Path) -> None:
    case = Case([op("Cast", "x", "i", to=TensorProto.INT64), op("Squeeze", "i a")], [1, 3], (3,), {"a": ints(0)})
    with pytest.raises(ValueError, match="to INT64 is not supported"):
        load_network(save(case.model(), tmp_path))
