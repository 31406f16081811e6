"""The ONNX operators that depend on the network's input, each with the function that converts it.

A converter appends nodes to the graph and returns what its node computes: a ``Value`` (or several, for several
outputs), or a constant. It raises ``UnsupportedNetworkError`` with the reason; the caller adds the node's name.
"""

from __future__ import annotations

from collections.abc import Callable

from zonocuda.importers.builder import Value
from zonocuda.importers.onnx import arithmetic, shapes, windows
from zonocuda.importers.onnx.node import Constant, OnnxNode

Converter = Callable[[OnnxNode], Value | Constant | tuple[Value, ...]]

CONVERTERS: dict[str, Converter] = {
    "Add": arithmetic.add,
    "AveragePool": windows.average_pool,
    "BatchNormalization": arithmetic.batch_normalization,
    "Cast": arithmetic.cast,
    "Concat": shapes.concat,
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "Div": arithmetic.div,
    "Dropout": arithmetic.dropout,
    "Expand": shapes.expand,
    "Flatten": shapes.flatten,
    "Gather": shapes.gather,
    "Gemm": arithmetic.gemm,
    "GlobalAveragePool": windows.global_average_pool,
    "Identity": arithmetic.identity,
    "MatMul": arithmetic.matmul,
    "Mul": arithmetic.mul,
    "Neg": arithmetic.neg,
    "Pad": shapes.pad,
    "ReduceMean": arithmetic.reduce_mean,
    "ReduceSum": arithmetic.reduce_sum,
    "Relu": arithmetic.relu,
    "Reshape": shapes.reshape,
    "Shape": shapes.shape,
    "Slice": shapes.slice_,
    "Split": shapes.split,
    "Squeeze": shapes.squeeze,
    "Sub": arithmetic.sub,
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.unsqueeze,
}
