"""ONNX operators that compute, in balls: written from the standard, not from the importer.

Floats are arrays of balls; attributes are those of the node, or the standard's defaults (:mod:`onnx.defs`), whose
floats are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from math import prod
from typing import Any

import numpy as np
import onnx
from flint import arb
from numpy.typing import NDArray
from onnx import helper

from zonocuda.checker.affine import windows
from zonocuda.checker.arithmetic import ONE, ZERO, Array, balls, matrix, product, zeros
from zonocuda.checker.resize import resized
from zonocuda.checker.smooth_operators import SMOOTH


class Call:
    """A node's inputs, and its attributes as the standard has them."""

    def __init__(self, node: onnx.NodeProto, opset: int, values: Mapping[str, NDArray[Any]]) -> None:
        self.opset = opset
        self.values = [values[name] if name else None for name in node.input]
        schema = onnx.defs.get_schema(node.op_type, opset)
        self._attributes = {
            name: helper.get_attribute_value(entry.default_value)
            for name, entry in schema.attributes.items()
            if entry.default_value.type != onnx.AttributeProto.UNDEFINED
        }
        self._attributes |= {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}

    def __getitem__(self, name: str) -> Any:
        return self._attributes.get(name)

    def number(self, name: str) -> arb:
        """An attribute that is a float."""
        return arb(self._attributes[name])

    def has(self, position: int) -> bool:
        """Whether an optional input is there."""
        return position < len(self.values) and self.values[position] is not None

    def __call__(self, position: int) -> NDArray[Any]:
        found = self.values[position]
        if found is None:
            raise ValueError(f"its input {position} is missing")
        return found


# ---- the operators --------------------------------------------------------------------------------------------------


def _each(function: Callable[[Any], Any]) -> Callable[[Call], Array]:
    """An elementwise function of the first input."""
    return lambda call: balls((function(x) for x in call(0).ravel()), call(0).shape)


def _larger(a: Array, b: Array) -> Array:
    return np.asarray(np.frompyfunc(lambda x, y: x.max(y), 2, 1)(a, b), dtype=object)


def _smaller(a: Array, b: Array) -> Array:
    return np.asarray(np.frompyfunc(lambda x, y: x.min(y), 2, 1)(a, b), dtype=object)


def _clip(call: Call) -> Array:
    x = call(0)
    for position, (name, function) in enumerate((("min", _larger), ("max", _smaller)), start=1):
        if call.has(position):
            x = function(x, call(position))
        elif call[name] is not None:
            x = function(x, np.array(call.number(name), dtype=object))
    return x


def _matmul(a: Array, b: Array) -> Array:
    if a.ndim > 2 or b.ndim > 2:
        return np.asarray(np.matmul(a, b))
    left, right = a.reshape(-1, a.shape[-1]), b.reshape(b.shape[0], -1)
    return product(left, matrix(right)).reshape(*a.shape[:-1], *b.shape[1:])


def _gemm(call: Call) -> Array:
    a, b = (t.T if call[name] else t for t, name in ((call(0), "transA"), (call(1), "transB")))
    total: Array = _matmul(a, b) * call.number("alpha")
    return total + call(2) * call.number("beta") if call.has(2) else total


def _batch_normalization(call: Call) -> Array:
    x = call(0)
    scale, bias, mean, variance = (call(i).reshape(-1, *[1] * (x.ndim - 2)) for i in range(1, 5))
    deviation = balls(((v + call.number("epsilon")).sqrt() for v in variance.ravel()), variance.shape)
    result: Array = (x - mean) / deviation * scale + bias
    return result


def _power(call: Call) -> Array:
    """The exponent may be of integers."""
    exponent = call(1)
    return np.asarray(call(0) ** balls(exponent.ravel().tolist(), exponent.shape), dtype=object)


def _reduced(combine: Callable[[Array, Any], Array], mean: bool = False) -> Callable[[Call], Array]:
    def reduction(call: Call) -> Array:
        x, axes = call(0), call["axes"]
        if axes is None and call.has(1):
            axes = call(1).ravel().tolist()
        if not axes:
            axes = [] if call["noop_with_empty_axes"] else range(x.ndim)
        dims = tuple(axis % x.ndim for axis in axes)
        count = prod(x.shape[dim] for dim in dims) if mean else 1
        kept = tuple(1 if d in dims else n for d, n in enumerate(x.shape)) if call["keepdims"] else None
        out = np.asarray(combine(x, dims) if dims else x, dtype=object)
        shares = balls((value / count for value in out.ravel()), out.shape)
        return shares if kept is None else shares.reshape(kept)

    return reduction


def _combined(pairs: Callable[[Any, Any], Any]) -> Callable[[Array, Any], Array]:
    """A function of all numbers along some dimensions by one of two."""

    def combination(x: Array, dims: tuple[int, ...]) -> Array:
        moved = np.moveaxis(x, dims, range(len(dims)))
        return np.asarray(reduce(pairs, moved.reshape(-1, *moved.shape[len(dims) :])))

    return combination


def _geometry(call: Call, kernel: tuple[int, ...], extent: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Strides, dilations, and pads (begin, end) of a window."""
    count = len(kernel)
    strides, dilations = (tuple(call[name] or [1] * count) for name in ("strides", "dilations"))
    mode, stated = (call["auto_pad"] or b"NOTSET").decode(), call["pads"] or [0] * (2 * count)
    pads = list(zip(stated[:count], stated[count:], strict=True))
    if mode.startswith("SAME"):
        pads = []
        for n, k, s, d in zip(extent, kernel, strides, dilations, strict=True):
            extra = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            half = (extra // 2, extra - extra // 2)
            pads.append(half if mode == "SAME_UPPER" else half[::-1])
    return strides, dilations, tuple(pads)


def _results(extent: tuple[int, ...], kernel: Any, strides: Any, dilations: Any, pads: Any) -> tuple[int, ...]:
    """How many windows lie along each axis."""
    axes = zip(extent, kernel, strides, dilations, pads, strict=True)
    return tuple((n + b + e - d * (k - 1) - 1) // s + 1 for n, k, s, d, (b, e) in axes)


def _convolution(call: Call) -> Array:
    x, weight, groups = call(0)[0], call(1), call["group"]
    extent, kernel = x.shape[1:], weight.shape[2:]
    how = _geometry(call, kernel, extent)
    columns = _gathered(x, windows(extent, kernel, *how))  # [C, windows, positions]
    rows = weight.reshape(groups, len(weight) // groups, -1)
    parts = columns.reshape(groups, len(x) // groups, *columns.shape[1:])
    out = [product(w, matrix(p.transpose(0, 2, 1).reshape(w.shape[1], -1))) for w, p in zip(rows, parts, strict=True)]
    y = np.concatenate(out).reshape(1, len(weight), *_results(extent, kernel, *how))
    return y + _channels(call(2), y) if call.has(2) else y


def _transposed_convolution(call: Call) -> Array:
    x, weight, groups = call(0)[0], call(1), call["group"]
    extent, kernel = x.shape[1:], weight.shape[2:]
    strides, dilations, pads = _geometry(call, kernel, extent)
    extra = call["output_padding"] or [0] * len(kernel)
    axes = zip(extent, kernel, strides, dilations, extra, strict=True)
    full = tuple((n - 1) * s + d * (k - 1) + 1 + more for n, k, s, d, more in axes)
    kept = tuple(slice(b, n - e) for n, (b, e) in zip(full, pads, strict=True))
    reach = tuple(n - more for n, more in zip(full, extra, strict=True))
    grid = np.arange(prod(full)).reshape(full)[tuple(slice(0, n) for n in reach)].ravel()
    places = grid[windows(reach, kernel, strides, dilations, ((0, 0),) * len(kernel))]
    out, each = zeros(weight.shape[1] * groups, prod(full)), weight.shape[1]
    for group, (part, w) in enumerate(
        zip(x.reshape(groups, len(x) // groups, -1), weight.reshape(groups, len(x) // groups, -1), strict=True)
    ):
        spread = product(part.T, matrix(w)).reshape(len(places), each, -1)
        for channel in range(each):
            np.add.at(out[group * each + channel], places, spread[:, channel])
    y = out.reshape(-1, *full)[(slice(None), *kept)][None]
    return y + _channels(call(2), y) if call.has(2) else y


def _average_pool(call: Call) -> Array:
    x, kernel = call(0)[0], tuple(call["kernel_shape"])
    how = _geometry(call, kernel, x.shape[1:])
    places = windows(x.shape[1:], kernel, *how)
    counts = np.full(len(places), prod(kernel)) if call["count_include_pad"] else (places >= 0).sum(1)
    shares = balls([ONE / int(count) for count in counts])
    means: Array = _gathered(x, places).sum(2) * shares
    return means.reshape(1, len(x), *_results(x.shape[1:], kernel, *how))


def _max_pool(call: Call) -> Array:
    x, kernel = call(0)[0], tuple(call["kernel_shape"])
    extent = x.shape[1:]
    strides, dilations, pads = _geometry(call, kernel, extent)
    if call["ceil_mode"]:  # windows begin in the input or before it, and may end behind what follows it
        ends = []
        for n, k, s, d, (b, e) in zip(extent, kernel, strides, dilations, pads, strict=True):
            reach = d * (k - 1) + 1
            starts = [start for start in range(-b, n + e - reach + s, s) if start < n]
            ends.append((b, starts[-1] + reach - n))
        pads = tuple(ends)
    flat, places = x.reshape(len(x), -1), windows(extent, kernel, strides, dilations, pads)
    largest = [reduce(_larger, flat[:, window[window >= 0]].T) for window in places]
    return np.stack(largest, axis=1).reshape(1, len(x), *_results(extent, kernel, strides, dilations, pads))


def _global_max(call: Call) -> Array:
    x = call(0)
    largest = _combined(_larger)(x, tuple(range(2, x.ndim)))
    return largest.reshape(*x.shape[:2], *[1] * (x.ndim - 2))


def _leaky(x: Array, slope: Any) -> Array:
    return np.asarray(_larger(x, _ZERO) + _smaller(x, _ZERO) * slope, dtype=object)


def _hard_sigmoid(call: Call) -> Array:
    line = call(0) * call.number("alpha") + call.number("beta")
    return _larger(_smaller(line, np.array(ONE, dtype=object)), _ZERO)


def _thresholded(call: Call) -> Array:
    if call["alpha"] != 0:
        raise ValueError("it jumps")
    return _larger(call(0), _ZERO)


_ZERO = np.array(ZERO, dtype=object)


def _gathered(x: Array, places: NDArray[np.int64]) -> Array:
    """``[C, windows, positions]`` of maps ``[C, *extent]``; place -1 is a zero."""
    flat = np.concatenate([x.reshape(len(x), -1), zeros(len(x), 1)], axis=1)
    return np.asarray(flat[:, places])


def _channels(bias: Array, y: Array) -> Array:
    return bias.reshape(-1, *[1] * (y.ndim - 2))


def _global_average(call: Call) -> Array:
    x = call(0)
    dims = tuple(range(2, x.ndim))
    total = np.asarray(x.sum(axis=dims), dtype=object) / arb(prod(x.shape[2:]))
    return np.asarray(total.reshape(*x.shape[:2], *[1] * len(dims)))


def _range(call: Call) -> Array:
    start, limit, delta = (call(i).item() for i in range(3))
    count = max(0, int(np.ceil((float(limit) - float(start)) / float(delta))))
    return balls(start + delta * i for i in range(count))


def _compared(function: Callable[[Any, Any], Any]) -> Callable[[Call], NDArray[Any]]:
    return lambda call: np.asarray(np.frompyfunc(function, 2, 1)(call(0), call(1)), dtype=object).astype(bool)


def _round(x: arb) -> arb:
    """To the nearest integer; of two as near to the even one."""
    up = (x + 0.5).floor()
    return up - 1 if x + 0.5 == up and (up / 2).floor() != up / 2 else up


COMPUTED: dict[str, Callable[[Call], NDArray[Any]]] = {
    **SMOOTH,
    "Abs": _each(abs),
    "Add": lambda call: call(0) + call(1),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Ceil": _each(lambda x: x.ceil()),
    "Clip": _clip,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Div": lambda call: call(0) / call(1),
    "Dropout": lambda call: call(0),
    "Equal": _compared(lambda x, y: x == y),
    "Exp": _each(lambda x: x.exp()),
    "Floor": _each(lambda x: x.floor()),
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "Greater": _compared(lambda x, y: x > y),
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": lambda call: _leaky(call(0), call.number("alpha")),
    "Less": _compared(lambda x, y: x < y),
    "MatMul": lambda call: _matmul(call(0), call(1)),
    "Max": lambda call: reduce(_larger, map(call, range(len(call.values)))),
    "MaxPool": _max_pool,
    "Min": lambda call: reduce(_smaller, map(call, range(len(call.values)))),
    "Mul": lambda call: call(0) * call(1),
    "Neg": _each(lambda x: -x),
    "PRelu": lambda call: _leaky(call(0), call(1)),
    "Pow": _power,
    "Range": _range,
    "Reciprocal": _each(lambda x: ONE / x),
    "ReduceMax": _reduced(_combined(_larger)),
    "ReduceMean": _reduced(lambda x, dims: x.sum(axis=dims), mean=True),
    "ReduceMin": _reduced(_combined(_smaller)),
    "ReduceProd": _reduced(_combined(np.multiply)),
    "ReduceSum": _reduced(lambda x, dims: x.sum(axis=dims)),
    "Resize": resized,
    "Relu": _each(lambda x: x.max(ZERO)),
    "Round": _each(_round),
    "Sign": _each(lambda x: x.sgn()),
    "Sqrt": _each(lambda x: x.sqrt()),
    "Sub": lambda call: call(0) - call(1),
    "ThresholdedRelu": _thresholded,
    "Upsample": resized,
}
