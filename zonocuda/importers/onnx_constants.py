"""Evaluation of the nodes whose inputs are all constant."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from zonocuda.importers.errors import one_line, refuse
from zonocuda.importers.onnx_node import Constant

_NAMES = (
    "Abs Add And Cast Ceil Clip Concat Constant ConstantOfShape Div Equal Exp Expand Flatten Floor Gather Gemm Greater "
    "Identity Less MatMul Max Min Mod Mul Neg Not Or Pad Pow Range Reciprocal ReduceMean ReduceProd ReduceSum Relu "
    "Reshape Shape Size Slice Split Sqrt Squeeze Sub Tile Transpose Unsqueeze Where"
)
FOLDABLE = frozenset(_NAMES.split())
"""Operators that are evaluated on constants: all are deterministic."""


def fold(node: onnx.NodeProto, constants: Mapping[str, Constant], opset: int) -> dict[str, Constant]:
    """The outputs of a node whose inputs are all in ``constants``, in the node's own precision.

    Raises:
        UnsupportedNetworkError: the node cannot be evaluated.
    """
    inputs = {name: constants[name] for name in node.input if name}
    outputs = [name for name in node.output if name]
    graph = helper.make_graph(
        [node],
        "constants",
        [helper.make_empty_tensor_value_info(name) for name in inputs],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, inputs)
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, ArithmeticError) as error:
        refuse(f"its inputs are constant, but it cannot be evaluated: {one_line(error)}")
    if not isinstance(results, list) or not all(isinstance(result, np.ndarray | np.generic) for result in results):
        refuse("its inputs are constant, but its result is not a tensor")
    return {name: np.asarray(result) for name, result in zip(outputs, results, strict=True)}
