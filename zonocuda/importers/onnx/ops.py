"""The ONNX operators that depend on the network's input, each with the function that converts it.

A converter appends nodes to the graph and returns what its node computes: a ``Value`` (or several, for several
outputs), or a constant. It raises ``UnsupportedNetworkError`` with the reason; the caller adds the node's name.
"""

from __future__ import annotations

from collections.abc import Callable

from zonocuda.importers.builder import Value
from zonocuda.importers.onnx import arithmetic, normal, piecewise, resize, shapes, smooth, windows
from zonocuda.importers.onnx.node import Constant, OnnxNode

Converter = Callable[[OnnxNode], Value | Constant | tuple[Value, ...]]

CONVERTERS: dict[str, Converter] = {
    **normal.CONVERTERS,
    **smooth.CONVERTERS,
    "Abs": piecewise.absolute,
    "Add": arithmetic.add,
    "AveragePool": windows.average_pool,
    "BatchNormalization": arithmetic.batch_normalization,
    "Cast": arithmetic.cast,
    "Clip": piecewise.clip,
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
    "GlobalMaxPool": windows.global_max_pool,
    "HardSigmoid": piecewise.hard_sigmoid,
    "Identity": arithmetic.identity,
    "LeakyRelu": piecewise.leaky_relu,
    "MatMul": arithmetic.matmul,
    "Max": piecewise.maximum,
    "MaxPool": windows.max_pool,
    "Min": piecewise.minimum,
    "Mul": arithmetic.mul,
    "Neg": arithmetic.neg,
    "PRelu": piecewise.prelu,
    "Pad": shapes.pad,
    "ReduceMax": piecewise.reduce_max,
    "ReduceMean": arithmetic.reduce_mean,
    "ReduceMin": piecewise.reduce_min,
    "ReduceSum": arithmetic.reduce_sum,
    "Relu": arithmetic.relu,
    "Resize": resize.resize,
    "Reshape": shapes.reshape,
    "Shape": shapes.shape,
    "Slice": shapes.slice_,
    "Split": shapes.split,
    "Squeeze": shapes.squeeze,
    "Sub": arithmetic.sub,
    "ThresholdedRelu": piecewise.thresholded_relu,
    "Transpose": shapes.transpose,
    "Upsample": resize.upsample,
    "Unsqueeze": shapes.unsqueeze,
    "Where": piecewise.where,
}
