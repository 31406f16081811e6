"""Models of every piecewise linear operator, with awkward attributes."""

from __future__ import annotations

import numpy as np

from tests.importers.onnx_models import Case, floats, ints, one, op

INF = np.float32(np.inf)
LIMITS = (np.float32(-0.3).reshape(()), np.float32(0.7).reshape(()))
CONDITION = np.array([[True, False, True], [False, False, True]])


def _pool(shape: list[int | str], out: tuple[int, ...], opset: int = 13, **attributes: object) -> Case:
    return one("MaxPool", shape, out, opset=opset, **attributes)


PIECEWISE = {
    # of one
    "leaky relu": one("LeakyRelu", [1, 3], (3,)),
    "leaky relu, alpha": one("LeakyRelu", ["n", 2, 3], (2, 3), alpha=0.2),
    "leaky relu, alpha beyond 1": one("LeakyRelu", [1, 3], (3,), alpha=1.7),
    "leaky relu, negative alpha": one("LeakyRelu", [1, 3], (3,), alpha=-0.3),
    "leaky relu, alpha 0": one("LeakyRelu", [1, 3], (3,), alpha=0.0),
    "prelu": one("PRelu", [1, 3, 4], (3, 4), np.float32([[0.1], [-0.7], [1.3]])),
    "prelu, one slope": one("PRelu", [1, 3, 4], (3, 4), floats(1)),
    "abs": one("Abs", [1, 3], (3,)),
    "hard sigmoid": one("HardSigmoid", [1, 5], (5,)),
    "hard sigmoid, alpha and beta": one("HardSigmoid", [1, 5], (5,), alpha=1 / 6, beta=0.3),
    "thresholded relu at 0": one("ThresholdedRelu", [1, 3], (3,), alpha=0.0),
    # limits
    "clip": one("Clip", [1, 4], (4,), *LIMITS),
    "clip to relu6": one("Clip", [1, 4], (4,), np.float32(0).reshape(()), np.float32(6).reshape(())),
    "clip from below": one("Clip", [1, 4], (4,), LIMITS[0]),
    "clip from above": Case([op("Clip", "x  hi")], [1, 4], (4,), {"hi": LIMITS[1]}),
    "clip without limits": Case([op("Clip", "x", "c"), op("Relu", "c")], [1, 4], (4,)),
    "clip, limits in the wrong order": one("Clip", [1, 4], (4,), LIMITS[1], LIMITS[0]),
    "clip, infinite limits": one("Clip", [1, 4], (4,), -INF.reshape(()), INF.reshape(())),
    "clip by attributes": one("Clip", [1, 4], (4,), opset=10, min=-0.5, max=0.25),
    "clip by the least attribute": one("Clip", [1, 4], (4,), opset=9, min=0.1),
    # of several
    "max of two branches": Case([op("Neg", "x", "n"), op("Max", "x n")], [1, 3], (3,)),
    "max of three, one constant": Case(
        [op("Neg", "x", "n"), op("Max", "n c x")], [1, 3, 2], (3, 2), {"c": floats(3, 1)}
    ),
    "max that broadcasts": Case([op("ReduceMean", "x", "m", axes=[2]), op("Max", "m x")], [1, 3, 4], (3, 4)),
    "max with a constant that expands": one("Max", [1, 1, 4], (3, 4), floats(3, 1)),
    "max of one": Case([op("Max", "x", "m"), op("Relu", "m")], [1, 3], (3,)),
    "max with some infinite constants": one("Max", [1, 3], (3,), np.float32([-np.inf, 0.2, -np.inf])),
    "min of two branches": Case([op("Neg", "x", "n"), op("Min", "x n")], [1, 3], (3,)),
    "min of five": Case(
        [op("Neg", "x", "n"), op("Mul", "x a", "h"), op("Add", "x b", "p"), op("Min", "x n h p c")],
        [1, 3],
        (3,),
        {"a": floats(3), "b": floats(3, seed=1), "c": floats(3, seed=2)},
    ),
    "min with some infinite constants": one("Min", [1, 3], (3,), np.float32([0.1, np.inf, -0.3])),
    "where": Case([op("Where", "c x k")], [1, 2, 3], (2, 3), {"c": CONDITION, "k": floats(2, 1)}),
    "where, constant first": Case([op("Where", "c k x")], [1, 2, 3], (2, 3), {"c": CONDITION, "k": floats(3)}),
    "where, of two branches": Case(
        [op("Neg", "x", "n"), op("Where", "c x n")], [1, 2, 3], (2, 3), {"c": CONDITION[:, :1]}
    ),
    "reduce max": one("ReduceMax", [1, 3, 5], (3, 1), axes=[2]),
    "reduce max, dropped": one("ReduceMax", ["n", 3, 5], (3,), axes=[-1], keepdims=0),
    "reduce max over two": one("ReduceMax", [1, 2, 3, 4], (2, 1, 1), axes=[2, 3]),
    "reduce min": one("ReduceMin", [1, 3, 4], (1, 4), axes=[1]),
    "reduce min, axes as an input": one("ReduceMin", [1, 3, 4], (3,), ints(2), opset=18, keepdims=0),
    "reduce max of a vector": Case([op("Relu", "x", "r"), op("ReduceMax", "r")], [5], (1,)),
    # windows
    "max pool": _pool([1, 2, 4, 6], (2, 2, 3), kernel_shape=[2, 2], strides=[2, 2]),
    "max pool, overlapping": _pool(["n", 1, 5, 5], (1, 3, 3), kernel_shape=[3, 3]),
    "max pool that leaves a rest": _pool([1, 2, 7], (2, 3), kernel_shape=[2], strides=[2]),
    "max pool, stride beyond the kernel": _pool([1, 1, 8, 7], (1, 3, 2), kernel_shape=[2, 1], strides=[3, 4]),
    "max pool, padded": _pool([1, 2, 6, 7], (2, 3, 4), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "max pool, asymmetric pads": _pool([1, 1, 5, 4], (1, 5, 5), kernel_shape=[3, 2], pads=[2, 1, 0, 1]),
    "max pool, dilated": _pool([1, 1, 7, 8], (1, 3, 4), kernel_shape=[3, 3], dilations=[2, 2]),
    "max pool, dilated and padded": _pool(
        [1, 1, 7, 6], (1, 3, 4), kernel_shape=[2, 3], dilations=[3, 2], strides=[2, 1], pads=[1, 1, 1, 1]
    ),
    "max pool, ceil mode": _pool([1, 1, 6, 5], (1, 3, 3), kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
    "max pool, ceil mode and pads": _pool(
        [1, 1, 6, 7], (1, 4, 4), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1
    ),
    "max pool SAME_UPPER": _pool([1, 1, 5, 6], (1, 3, 3), kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    "max pool SAME_LOWER": _pool([1, 1, 5, 6], (1, 3, 3), kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    "max pool VALID": _pool([1, 1, 5, 6], (1, 4, 4), kernel_shape=[2, 3], auto_pad="VALID"),
    "max pool 1d": _pool([1, 3, 9], (3, 4), kernel_shape=[4], strides=[2], pads=[1, 1]),
    "max pool 3d": _pool(
        [1, 1, 3, 4, 4], (1, 2, 2, 4), kernel_shape=[2, 2, 3], strides=[2, 2, 1], pads=[0, 0, 1, 1, 0, 1]
    ),
    "max pool of an old operator set": _pool([1, 2, 4, 4], (2, 2, 2), opset=8, kernel_shape=[2, 2], strides=[2, 2]),
    "max pool, unread indices": Case([op("MaxPool", "x", "y i", kernel_shape=[2], storage_order=1)], [1, 1, 4], (1, 3)),
    "max pool of a layer": Case(
        [
            op("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
            op("Relu", "c", "r"),
            op("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
            op("Conv", "p v", "d"),
            op("LeakyRelu", "d", "l", alpha=0.1),
            op("MaxPool", "l", kernel_shape=[2, 1]),
        ],
        [1, 1, 6, 6],
        (2, 1, 2),
        {"w": floats(3, 1, 3, 3), "b": floats(3), "v": floats(2, 3, 2, 2)},
    ),
    "vector input, pooled": Case(
        [op("Reshape", "x s", "i"), op("MaxPool", "i", kernel_shape=[2, 2])],
        [16],
        (1, 1, 3, 3),
        {"s": ints(1, 1, 4, 4)},
    ),
    "global max pool": one("GlobalMaxPool", [1, 2, 3, 5], (2, 1, 1)),
    "limits after a layer": Case(
        [op("Gemm", "x w b", "g"), op("Clip", "g lo hi", "c"), op("Gemm", "c v", "h"), op("HardSigmoid", "h")],
        [1, 3],
        (2,),
        {"w": floats(3, 4), "b": floats(4), "v": floats(4, 2), "lo": LIMITS[0], "hi": LIMITS[1]},
    ),
}
