"""Small ONNX and VNN-LIB files for the tests of verdicts and of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DISTANCE = ([[1, -1], [-1, 1]], [[1, 1], [1, -1]])
"""Y_0 = |X_0 - X_1| and Y_1 = X_0 - X_1, through one ReLU layer."""


def save_model(
    path: Path, nodes: Sequence[onnx.NodeProto], weights: dict[str, object], shape: Sequence[int], out: Sequence[int]
) -> Path:
    """A model from ``x`` of ``shape`` to ``y`` of shape ``out``."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(np.array(array, dtype=np.float32), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def fc_model(path: Path, *matrices: Sequence[Sequence[float]]) -> Path:
    """Linear layers without biases, with ReLUs named ``relu0``, ``relu1``, ... between."""
    nodes, name = [], "x"
    for i in range(len(matrices)):
        last = i == len(matrices) - 1
        nodes.append(helper.make_node("Gemm", [name, f"w{i}"], ["y" if last else f"h{i}"], f"gemm{i}", transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [f"h{i}"], [f"r{i}"], f"relu{i}"))
            name = f"r{i}"
    weights: dict[str, object] = {f"w{i}": matrix for i, matrix in enumerate(matrices)}
    return save_model(path, nodes, weights, [1, len(matrices[0][0])], [1, len(matrices[-1])])


def save_spec(path: Path, low: Sequence[float], high: Sequence[float], outputs: int, *asserts: str) -> Path:
    """A VNN-LIB 1.0 file: a box, and assertions over Y_0, Y_1, ..."""
    lines = [f"(declare-const X_{i} Real)" for i in range(len(low))]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    lines += [
        f"(assert (>= X_{i} {v}))\n(assert (<= X_{i} {w}))" for i, (v, w) in enumerate(zip(low, high, strict=True))
    ]
    lines += [f"(assert {text})" for text in asserts]
    path.write_text("\n".join(lines) + "\n")
    return path
