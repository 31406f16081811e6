"""How large a network may be: a file of a few bytes can describe tensors that no machine holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from zonocuda.importers.errors import refuse

MAX_FEATURES = 1 << 24
"""Features of one tensor that depends on the input, with batch 1."""
MAX_VALUES = 1 << 28
"""Features of all of them together."""
MAX_FOLDED = 1 << 27
"""Elements of all constants together that the network computes from others."""


def check_features(shape: Sequence[int], others: int) -> int:
    """The features of ``shape`` and ``others`` together.

    Raises:
        UnsupportedNetworkError: more than MAX_FEATURES or, together, more than MAX_VALUES.
    """
    features = math.prod(shape)
    if features > MAX_FEATURES:
        refuse(f"its result, of shape {tuple(shape)}, would have more than {MAX_FEATURES} features")
    if features + others > MAX_VALUES:
        refuse(f"with it the network has more than {MAX_VALUES} features, over all nodes")
    return features + others


def check_folded(node: NodeProto, inputs: Sequence[NDArray[Any] | None], others: int) -> int:
    """Elements, at most, of the constants that a node computes from ``inputs`` (None: absent), and ``others``.

    Counted before they are computed: from the numbers that say the size where the operator has such, else from the
    shapes, which broadcast or multiply.

    Raises:
        UnsupportedNetworkError: more than MAX_FOLDED.
    """
    elements = others + _folded(node, [np.asarray(array) for array in inputs if array is not None])
    if elements > MAX_FOLDED:
        refuse(f"its constant result would have too many elements: more than {MAX_FOLDED} with those before it")
    return elements


def _folded(node: NodeProto, inputs: list[NDArray[Any]]) -> int:
    attributes = {entry.name: entry for entry in node.attribute}
    shapes, sizes = [array.shape for array in inputs], [array.size for array in inputs]
    numbers = [[int(v) for v in array] if array.dtype.kind in "iu" and array.ndim == 1 else [] for array in inputs]
    match node.op_type:
        case "ConstantOfShape" if inputs:
            return math.prod(max(0, n) for n in numbers[0])
        case "Expand" | "Tile" if len(inputs) == 2:
            return sizes[0] * math.prod(max(1, n) for n in numbers[1])
        case "Range" if sizes == [1, 1, 1]:
            start, limit, step = (float(array.reshape(())) for array in inputs)
            count = (limit - start) / step if step else math.inf
            return int(min(max(count, 0.0), 2.0**62)) if count == count else 0
        case "Pad" if inputs:
            pads = list(attributes["pads"].ints) if "pads" in attributes else [n for row in numbers[1:2] for n in row]
            return math.prod(shapes[0]) if not pads else math.prod(n + sum(map(abs, pads)) for n in shapes[0])
        case "MatMul" | "Gemm" if len(inputs) > 1 and shapes[0] and sizes[0]:
            transposed = "transA" in attributes and attributes["transA"].i
            terms: int = shapes[0][0 if transposed else -1]
            return sizes[0] // terms * -(-sizes[1] // terms)
        case "Gather" if len(inputs) == 2:
            return sizes[0] // max(1, min(shapes[0], default=1)) * sizes[1]
    return max(math.prod(_broadcast(shapes)), sum(sizes))


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """The largest extents of dimensions aligned at the last one."""
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return [max(1, *(shape[dim] for shape in padded)) for dim in range(rank)]
