"""ONNX operators that are smooth functions, softmax and norms, in balls, as :mod:`zonocuda.checker.operators`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from flint import arb

from zonocuda.checker.arithmetic import ONE, ZERO, Array, balls


class Call(Protocol):
    """A node: see :class:`zonocuda.checker.operators.Call`."""

    opset: int

    def __getitem__(self, name: str) -> Any:
        """An attribute."""

    def number(self, name: str) -> arb:
        """An attribute that is a float."""

    def has(self, position: int) -> bool:
        """Whether an optional input is there."""

    def __call__(self, position: int) -> Any:
        """An input."""


def _of(function: Callable[[Any], Any], x: Any) -> Array:
    return balls((function(v) for v in x.ravel()), x.shape)


def _each(function: Callable[[Any], Any]) -> Callable[[Call], Array]:
    return lambda call: _of(function, call(0))


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + (-x).exp())


def _softplus(x: Any) -> Any:
    return (1 + x.exp()).log()


def _elu(x: Any, alpha: Any, inner: Any) -> Any:
    return x.max(ZERO) + alpha * ((x.min(ZERO) / inner).exp() - 1)


def _gelu(call: Call) -> Array:
    if call["approximate"] == b"tanh":
        scale = (2 / arb.pi()).sqrt()
        return _of(lambda x: x * (1 + (scale * (x + x**3 * arb("0.044715"))).tanh()) / 2, call(0))
    return _of(lambda x: x * (1 + (x / arb(2).sqrt()).erf()) / 2, call(0))


def _softmax(call: Call, log: bool = False) -> Array:
    x = call(0)
    axis = call["axis"] % x.ndim
    shape = x.shape
    if call.opset < 13:
        x, axis = x.reshape(int(np.prod(shape[:axis])), -1), 1
    powers = _of(lambda v: v.exp(), x)
    total = np.asarray(powers.sum(axis=axis, keepdims=True), dtype=object)
    found = x - _of(lambda v: v.log(), total) if log else powers / total
    return np.asarray(found.reshape(shape), dtype=object)


def _log_sum_exp(call: Call) -> Array:
    x = call(0)
    axes = call["axes"] if not call.has(1) else call(1).ravel().tolist()
    if not axes and call["noop_with_empty_axes"]:
        return np.asarray(x)
    dims = tuple(axis % x.ndim for axis in axes) if axes else tuple(range(x.ndim))
    powers = _of(lambda v: v.exp(), x)
    total: Any = powers.sum(axis=dims, keepdims=bool(call["keepdims"]))
    return _of(lambda v: v.log(), np.asarray(total))


def _standard(x: Array, dims: tuple[int, ...], epsilon: arb, centered: bool = True) -> Array:
    """(x - mean) / sqrt(variance + epsilon) along some dimensions."""
    count = int(np.prod([x.shape[d] for d in dims]))
    d = x - np.asarray(x.sum(axis=dims, keepdims=True), dtype=object) / count if centered else x
    variance = np.asarray((d * d).sum(axis=dims, keepdims=True), dtype=object) / count
    return np.asarray(d / _of(lambda v: (v + epsilon).sqrt(), variance), dtype=object)


def _over_last(call: Call, centered: bool) -> Array:
    x = call(0)
    found = _standard(x, tuple(range(call["axis"] % x.ndim, x.ndim)), call.number("epsilon"), centered)
    found = found * call(1)
    return np.asarray(found + call(2) if centered and call.has(2) else found, dtype=object)


def _by_channel(values: Array, like: Array) -> Array:
    return values.reshape(-1, *[1] * (like.ndim - 2))


def _groups(call: Call, groups: int, each: bool) -> Array:
    """``each``: whether there are a scale and a bias for every channel, else for every group."""
    x = call(0)
    flat = x.reshape(x.shape[0], groups, -1)
    found = _standard(flat, (2,), call.number("epsilon")).reshape(x.shape)
    scale, bias = (t if each else np.repeat(t, x.shape[1] // groups) for t in (call(1), call(2)))
    return np.asarray(found * _by_channel(scale, x) + _by_channel(bias, x), dtype=object)


SMOOTH: Mapping[str, Callable[[Call], Array]] = {
    "Atan": _each(lambda x: x.atan()),
    "Celu": lambda call: _of(lambda x: _elu(x, call.number("alpha"), call.number("alpha")), call(0)),
    "Cos": _each(lambda x: x.cos()),
    "Elu": lambda call: _of(lambda x: _elu(x, call.number("alpha"), ONE), call(0)),
    "Erf": _each(lambda x: x.erf()),
    "Gelu": _gelu,
    "GroupNormalization": lambda call: _groups(call, call["num_groups"], call.opset >= 21),
    "HardSwish": _each(lambda x: x * (x / 6 + ONE / 2).min(ONE).max(ZERO)),
    "InstanceNormalization": lambda call: _groups(call, call(0).shape[1], True),
    "LayerNormalization": lambda call: _over_last(call, True),
    "Log": _each(lambda x: x.log()),
    "LogSoftmax": lambda call: _softmax(call, log=True),
    "Mish": _each(lambda x: x * _softplus(x).tanh()),
    "RMSNormalization": lambda call: _over_last(call, False),
    "ReduceLogSumExp": _log_sum_exp,
    "Selu": lambda call: _of(lambda x: _elu(x, call.number("alpha"), ONE) * call.number("gamma"), call(0)),
    "Sigmoid": _each(_sigmoid),
    "Sin": _each(lambda x: x.sin()),
    "Softmax": _softmax,
    "Softplus": _each(_softplus),
    "Softsign": _each(lambda x: x / (1 + abs(x))),
    "Swish": lambda call: _of(lambda x: x * _sigmoid(x * call.number("alpha")), call(0)),
    "Tanh": _each(lambda x: x.tanh()),
}
POSITIVE = {"Log", "Sqrt"}
"""Operators that take positive numbers alone."""
