"""Evaluation of a module's operators on its parameters, buffers and numbers alone, in real arithmetic.

As :mod:`zonocuda.importers.onnx_constants` does for files: in float64, differentiably, with an error. A number in the
module's code is a double that torch rounds to the type it computes in; that rounding, as any other conversion to a
narrower type, is the module's own, and its result the constant of the network. So is what an operator creates from
numbers alone (``linspace``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from zonocuda.importers import enclosure
from zonocuda.importers.enclosure import Enclosure
from zonocuda.importers.errors import refuse


def enclose(node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operator computes from tensors, enclosures and numbers: a tensor where torch holds it exactly.

    About results of operators that are not known here nothing is known: their error is infinite.

    Raises:
        UnsupportedNetworkError: the result is not a float, and rounding decides it.
    """
    target: Any = node.target
    operands = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, Tensor | Enclosure)]
    computed = any(isinstance(leaf, Enclosure) for leaf in operands)
    types = {leaf.dtype for leaf in _leaves([node.meta["val"]]) if isinstance(leaf, Tensor)}
    dtype = types.pop() if len(types) == 1 else None
    name = str(target).removeprefix("aten.")
    if dtype is None or not dtype.is_floating_point:
        if any(isinstance(leaf, Enclosure) and not leaf.is_exact for leaf in operands):
            refuse("its result depends on a constant that was rounded when it was computed")
        return target(*_map(_value, args), **_map(_value, kwargs))
    if not operands or (not computed and (name in _MOVING or name in _EXACT or name in _CASTS)):
        return target(*args, **kwargs)
    if name in _MOVING:
        rounded = partial(_rounded, dtype=dtype)
        values = target(*_map(rounded, args), **_map(rounded, kwargs))
        errors = target(*_map(_error, args), **_map(_error, kwargs))
        if isinstance(values, Tensor):
            return _result(Enclosure(values, errors, dtype))
        return tuple(_result(Enclosure(v, e, dtype)) for v, e in zip(values, errors, strict=True))
    rule = _ARITHMETIC.get(name) or _EXACT.get(name)
    if rule is not None:
        schema = target._schema.arguments
        given = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
        given |= dict(zip((argument.name for argument in schema), args, strict=False)) | dict(kwargs)
        return _result(rule(_Call(given, dtype)))
    if name in _CASTS:
        return _result(enclosure.cast(args[0], dtype))
    results = target(*_map(_own, args), **_map(_own, kwargs))
    return _map(lambda t: enclosure.unknown(t, t.dtype) if isinstance(t, Tensor) else t, results)


def _result(found: Enclosure) -> Tensor | Enclosure:
    held = found.held()
    return held if held.dtype == found.dtype and found.is_exact else found


def _leaves(entry: Any) -> list[Any]:
    if isinstance(entry, Mapping):
        entry = tuple(entry.values())
    return [leaf for part in entry for leaf in _leaves(part)] if isinstance(entry, tuple | list) else [entry]


def _map(function: Callable[[Any], Any], entry: Any) -> Any:
    """A function of every leaf."""
    if isinstance(entry, Mapping):
        return {key: _map(function, part) for key, part in entry.items()}
    return [_map(function, part) for part in entry] if isinstance(entry, tuple | list) else function(entry)


def _value(leaf: Any) -> Any:
    if isinstance(leaf, Enclosure):
        return leaf.value
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _rounded(leaf: Any, dtype: torch.dtype) -> Any:
    return torch.tensor(leaf, dtype=dtype).item() if isinstance(leaf, float) else _value(leaf)


def _error(leaf: Any) -> Any:
    if isinstance(leaf, float):
        return 0.0
    if isinstance(leaf, Enclosure):
        return leaf.error
    floating = isinstance(leaf, Tensor) and leaf.is_floating_point()
    return torch.zeros_like(leaf, dtype=torch.float64, requires_grad=False) if floating else leaf


def _own(leaf: Any) -> Any:
    return leaf.value.to(leaf.dtype) if isinstance(leaf, Enclosure) else leaf


class _Call:
    """The arguments of an operator whose result has type ``dtype``."""

    def __init__(self, arguments: Mapping[str, Any], dtype: torch.dtype) -> None:
        self._arguments, self._dtype = arguments, dtype

    def __getitem__(self, name: str) -> Any:
        return self._arguments.get(name)

    def __call__(self, name: str) -> Enclosure:
        """A tensor or a number, which torch rounds to the result's type."""
        found = self._arguments[name]
        if isinstance(found, Enclosure):
            return enclosure.cast(found, self._dtype)
        like = found if isinstance(found, Tensor) else torch.tensor(found)
        return Enclosure.exact(like.to(self._dtype))

    def one(self) -> Enclosure:
        """Ones like ``self``."""
        return Enclosure.exact(torch.ones_like(self("self").value, dtype=self._dtype))

    def reduced(self) -> tuple[Enclosure, tuple[int, ...], bool]:
        """What is reduced, over which dimensions, and whether they stay."""
        x, dims = self("self"), self["dim"]
        listed = [dims] if isinstance(dims, int) else dims
        rank = x.value.dim()
        every = tuple(range(rank))
        return x, tuple(sorted({dim % rank for dim in listed})) if listed and rank else every, bool(self["keepdim"])


def _sum(call: _Call, first: str, second: str, sign: int) -> Enclosure:
    other = call(second)
    if call["alpha"] not in (None, 1):
        other = enclosure.multiply(other, call("alpha"))
    return enclosure.add(call(first), other, sign)


def _norm(call: _Call) -> Enclosure:
    """The Euclidean norm; nothing is known about others."""
    order = call["ord"] if call["ord"] is not None else call["p"]
    x, dims, keepdim = call.reduced()
    if order not in (None, 2):
        return enclosure.unknown(torch.linalg.vector_norm(x.value, order, dims, keepdim), x.dtype)
    return enclosure.norm(x, dims, keepdim)


def _weight_norm(call: _Call) -> Enclosure:
    v = call("v")
    dims = tuple(dim for dim in range(v.value.dim()) if dim != call["dim"])
    return enclosure.multiply(v, enclosure.divide(call("g"), enclosure.norm(v, dims, keepdim=True)))


def _affine(call: _Call) -> Enclosure:
    product = enclosure.multiply(enclosure.matmul(call("mat1"), call("mat2")), call("alpha"))
    return enclosure.add(enclosure.multiply(call("self"), call("beta")), product)


def _clamp(call: _Call) -> Enclosure:
    result = call("self")
    for name, function in (("min", torch.maximum), ("max", torch.minimum)):
        if call[name] is not None:
            result = enclosure.contract(function, result, call(name))
    return result


_RULES: dict[Callable[[_Call], Enclosure], str] = {
    lambda call: _sum(call, "self", "other", 1): "add.Tensor add.Scalar",
    lambda call: _sum(call, "self", "other", -1): "sub.Tensor sub.Scalar",
    lambda call: _sum(call, "other", "self", -1): "rsub.Tensor rsub.Scalar",
    lambda call: enclosure.multiply(call("self"), call("other")): "mul.Tensor mul.Scalar",
    lambda call: enclosure.divide(call("self"), call("other")): "div.Tensor div.Scalar",
    lambda call: enclosure.divide(call.one(), call("self")): "reciprocal.default",
    lambda call: enclosure.square_root(call("self")): "sqrt.default",
    lambda call: enclosure.divide(call.one(), enclosure.square_root(call("self"))): "rsqrt.default",
    lambda call: enclosure.multiply(call("self"), call("self")): "square.default",
    lambda call: enclosure.exponential(call("self")): "exp.default",
    lambda call: enclosure.power(call("self"), call("exponent")): "pow.Tensor_Scalar pow.Tensor_Tensor",
    lambda call: enclosure.matmul(call("self"), call("mat2")): "mm.default bmm.default",
    lambda call: enclosure.matmul(call("self"), call("other")): "matmul.default vdot.default",
    lambda call: enclosure.matmul(call("self"), call("vec")): "mv.default",
    lambda call: enclosure.matmul(call("self"), call("tensor")): "dot.default",
    _affine: "addmm.default",
    lambda call: enclosure.total(*call.reduced()): "sum.default sum.dim_IntList",
    lambda call: enclosure.mean(*call.reduced()): "mean.default mean.dim",
    _norm: "linalg_vector_norm.default norm.Scalar norm.ScalarOpt_dim",
    _weight_norm: "_weight_norm.default",
}
_ARITHMETIC = {name: rule for rule, names in _RULES.items() for name in names.split()}

_EXACT: dict[str, Callable[[_Call], Enclosure]] = {
    "abs.default": lambda call: enclosure.contract(torch.abs, call("self")),
    "clamp.default": _clamp,
    "clamp_max.default": _clamp,
    "clamp_min.default": _clamp,
    "maximum.default": lambda call: enclosure.contract(torch.maximum, call("self"), call("other")),
    "minimum.default": lambda call: enclosure.contract(torch.minimum, call("self"), call("other")),
    "neg.default": lambda call: enclosure.contract(torch.neg, call("self")),
    "relu.default": lambda call: enclosure.contract(torch.relu, call("self")),
}

_CASTS = frozenset({"_to_copy.default", "to.device", "to.dtype", "to.dtype_layout"})

_MOVES = (
    "alias.default clone.default contiguous.default detach.default lift_fresh_copy.default view.default "
    "_unsafe_view.default reshape.default flatten.using_ints unflatten.int unsqueeze.default squeeze.default "
    "squeeze.dim squeeze.dims permute.default transpose.int t.default slice.Tensor select.int index_select.default "
    "index.Tensor cat.default stack.default expand.default repeat.default flip.default tril.default triu.default "
    "where.self diagonal.default diag_embed.default pad.default constant_pad_nd.default split.Tensor "
    "split_with_sizes.default chunk.default unbind.int"
)
_MOVING = frozenset(_MOVES.split())
