"""Operators with few attributes, and with those that other cases do not state."""

from __future__ import annotations

import numpy as np

from tests.importers.onnx_models import Case, floats, ints, one, op

IMAGE = [1, 1, 4, 4]
CHANNELS = floats(3), floats(3, seed=1)
POSITIVE = (np.float32([0.5, 1.0, 2.0]),)
FOUR = floats(4), floats(4, seed=1)

BARE: dict[str, Case] = {
    **{
        f"{kind} of all in newer files": one(kind, [1, 3], (1, 1), opset=18)
        for kind in ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceLogSumExp")
    },
    "clip from above": one("Clip", [1, 3], (3,), opset=10, max=0.5),
    "clip from below": one("Clip", [1, 3], (3,), opset=10, min=-0.5),
    "average pool": one("AveragePool", IMAGE, (1, 3, 3), kernel_shape=[2, 2]),
    "average pool in newer files": one("AveragePool", IMAGE, (1, 3, 3), kernel_shape=[2, 2], opset=19),
    "batch norm in older files": one("BatchNormalization", [1, 3], (3,), *CHANNELS, *CHANNELS[:1], *POSITIVE, opset=8),
    "max pool": one("MaxPool", IMAGE, (1, 3, 3), kernel_shape=[2, 2]),
    "conv": one("Conv", IMAGE, (2, 3, 3), floats(2, 1, 2, 2)),
    "transposed conv": one("ConvTranspose", IMAGE, (2, 5, 5), floats(1, 2, 2, 2)),
    "largest of all": one("ReduceMax", [1, 3], (1, 1)),
    "least of all": one("ReduceMin", [1, 3], (1, 1)),
    "mean of all": one("ReduceMean", [1, 3], (1, 1)),
    "sum of all": one("ReduceSum", [1, 3], (1, 1)),
    "sum of all in older files": one("ReduceSum", [1, 3], (1, 1), opset=11),
    "log of the sum of all exps": one("ReduceLogSumExp", [1, 3, 4], (1, 1, 1)),
    "log of a sum of exps": one("ReduceLogSumExp", [1, 3, 4], (3,), axes=[2], keepdims=0),
    "log of no sum": one("ReduceLogSumExp", [1, 3], (3,), noop_with_empty_axes=1, opset=18),
    "largest of none": one("ReduceMax", [1, 3], (3,), noop_with_empty_axes=1, opset=18),
    "least of none": one("ReduceMin", [1, 3], (3,), noop_with_empty_axes=1, opset=18),
    "mean of none": one("ReduceMean", [1, 3], (3,), noop_with_empty_axes=1, opset=18),
    "sum of none": one("ReduceSum", [1, 3], (3,), noop_with_empty_axes=1),
    "sums that stay": one("ReduceSum", [1, 3, 4], (3, 1), ints(2)),
    "transpose": one("Transpose", [1, 3, 4], (4, 3, 1)),
    "squeeze": one("Squeeze", [1, 3, 1], (3,), opset=11),
    "flatten": one("Flatten", [1, 3, 4], (12,)),
    "pad": one("Pad", [1, 3], (5,), opset=10, pads=[0, 1, 0, 1]),
    "slice": one("Slice", [1, 3], (1, 2), opset=9, starts=[0, 1], ends=[1, 3]),
    "split": Case([op("Split", "x", "p q"), op("Sub", "p q")], [2, 3], (1, 3)),
    "split in older files": Case([op("Split", "x", "p q"), op("Sub", "p q")], [2, 3], (1, 3), opset=11),
    "split in newer files": Case(
        [op("Split", "x s", "p q"), op("Sub", "p q")], [2, 3], (1, 3), {"s": ints(1, 1)}, opset=18
    ),
    "shape": Case(
        [op("Shape", "x", "s", start=1, end=2), op("ConstantOfShape", "s", "c"), op("Add", "x c")], [1, 3], (3,), {}, 15
    ),
    "shape, all of it": Case(
        [op("Shape", "x", "s"), op("ConstantOfShape", "s", "c"), op("Add", "x c")], [1, 3], (3,), {}, 15
    ),
    "reshape": one("Reshape", [1, 3, 4], (4, 3), ints(0, 4, 3), opset=14),
    "gather": Case([op("Gather", "x i", "g"), op("Relu", "g")], [1, 3], (3,), {"i": np.array(0)}),
    "softmax": one("Softmax", [1, 3, 4], (3, 4)),
    "softmax of another axis": one("Softmax", [1, 3, 4], (3, 4), axis=1),
    "log softmax": one("LogSoftmax", [1, 3, 4], (3, 4)),
    "log softmax of another axis": one("LogSoftmax", [1, 3, 4], (3, 4), axis=1),
    "instance norm": one("InstanceNormalization", [1, 3, 4], (3, 4), *CHANNELS),
    "instance norm, epsilon": one("InstanceNormalization", [1, 3, 4], (3, 4), *CHANNELS, epsilon=0.01),
    "layer norm": one("LayerNormalization", [1, 3, 4], (3, 4), floats(4), opset=17),
    "layer norm, all": one("LayerNormalization", [1, 3, 4], (3, 4), floats(3, 4), opset=17, axis=1, epsilon=0.01),
    "group norm": one("GroupNormalization", [1, 4, 4], (4, 4), *FOUR, num_groups=2, stash_type=11, opset=21),
    "group norm, epsilon": one(
        "GroupNormalization", [1, 4, 4], (4, 4), *FOUR, num_groups=2, epsilon=0.01, stash_type=11, opset=21
    ),
    "group norm, float32": one("GroupNormalization", [1, 4, 4], (4, 4), *FOUR, num_groups=2, opset=21),
    "rms norm": one("RMSNormalization", [1, 3, 4], (3, 4), floats(4), opset=23),
    "rms norm, all": one("RMSNormalization", [1, 3, 4], (3, 4), floats(3, 4), axis=1, epsilon=0.01, opset=23),
    "swish": one("Swish", [1, 3], (3,), opset=24),
}
