"""Small ONNX models for the tests of the importer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str | None]


def floats(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Standard normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> NDArray[np.int64]:
    """A list of int64."""
    return np.array(values, dtype=np.int64)


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Dims,
    weights: Mapping[str, NDArray[Any]] | None = None,
    *,
    opset: int = 13,
    output: str = "y",
    rank: int = 2,
    dtype: int = TensorProto.FLOAT,
    output_dtype: int | None = None,
) -> onnx.ModelProto:
    """A model from input ``x`` of ``shape`` to ``output``, of ``rank`` open extents."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(output, dtype if output_dtype is None else output_dtype, [None] * rank)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    built.ir_version = 8
    return built


@dataclass
class Case:
    """One model: its nodes, the input's shape, its weights; ``out`` is the expected feature shape of the output."""

    nodes: list[onnx.NodeProto]
    shape: Dims
    out: tuple[int, ...] = ()
    weights: dict[str, Any] = field(default_factory=dict)
    opset: int = 13

    def model(self) -> onnx.ModelProto:
        """The ONNX model."""
        rank = len(self.out) + (len(self.shape) > 1)
        return model(self.nodes, self.shape, self.weights, opset=self.opset, rank=rank)


def op(kind: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A node; its inputs and outputs are separated by spaces."""
    return helper.make_node(kind, inputs.split(" "), outputs.split(" "), **attributes)


def one(kind: str, shape: Dims, out: tuple[int, ...], *weights: Any, opset: int = 13, **attributes: Any) -> Case:
    """A single node with x as its first input and constants as the others."""
    names = {f"w{i}": array for i, array in enumerate(weights)}
    return Case([op(kind, " ".join(["x", *names]), **attributes)], shape, out, names, opset)


def constant_first(kind: str, shape: Dims, out: tuple[int, ...], weight: Any) -> Case:
    """A single node with a constant as its first input and x as its second."""
    return Case([op(kind, "w x")], shape, out, {"w": weight})


def save(built: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    """Write a model to a file."""
    path = folder / name
    path.write_bytes(built.SerializeToString())
    return path
