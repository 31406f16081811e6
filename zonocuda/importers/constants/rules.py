"""What ATen operators compute from constants in real arithmetic: a rule for each, of the call's enclosures."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from zonocuda.importers.constants import enclosure
from zonocuda.importers.constants.call import ConstantCall
from zonocuda.importers.constants.enclosure import Enclosure

Rule = Callable[[ConstantCall], Enclosure]


def _product(*factors: Enclosure) -> Enclosure:
    first, *others = factors
    for other in others:
        first = enclosure.multiply(first, other)
    return first


def _sum(call: ConstantCall, first: str, second: str, sign: int) -> Enclosure:
    other = call(second)
    if call["alpha"] not in (None, 1):
        other = _product(other, call("alpha"))
    return enclosure.add(call(first), other, sign)


def _affine(first: str, second: str) -> Rule:
    """beta self + alpha (a product of matrices)."""

    def rule(call: ConstantCall) -> Enclosure:
        product = _product(enclosure.matmul(call(first), call(second)), call("alpha"))
        return enclosure.add(_product(call("self"), call("beta")), product)

    return rule


def _linear(call: ConstantCall) -> Enclosure:
    weight = call("weight")
    product = enclosure.matmul(call("input"), weight.t() if weight.dim() == 2 else weight)
    return product if call["bias"] is None else enclosure.add(product, call("bias"))


def _lerp(call: ConstantCall) -> Enclosure:
    """start + weight (end - start)."""
    start = call("self")
    return enclosure.add(start, _product(call("weight"), enclosure.add(call("end"), start, -1)))


def _power(call: ConstantCall) -> Enclosure:
    base = call("self")
    return enclosure.hull(*(enclosure.power(base, reading) for reading in call.exponents("exponent")))


def _norm(call: ConstantCall) -> Enclosure:
    """The Euclidean norm; nothing is known about others."""
    order = call["ord"] if call["ord"] is not None else call["p"]
    x, dims, keepdim = call.reduced()
    if order not in (None, 2):
        return enclosure.unknown(torch.linalg.vector_norm(x.value, order, dims, keepdim), x.dtype)
    return enclosure.norm(x, dims, keepdim)


def _weight_norm(call: ConstantCall) -> Enclosure:
    v = call("v")
    dims = tuple(dim for dim in range(v.dim()) if dim != call["dim"])
    return _product(v, enclosure.divide(call("g"), enclosure.norm(v, dims, keepdim=True)))


def _variance(call: ConstantCall) -> Enclosure:
    """sum (x - mean)^2 / (n - correction)."""
    x, dims, keepdim = call.reduced()
    centered = enclosure.add(x, enclosure.mean(x, dims, keepdim=True), -1)
    squares = enclosure.total(_product(centered, centered), dims, keepdim)
    correction = call["correction"] if call["correction"] is not None else int(call["unbiased"] in (None, True))
    count = math.prod(x.shape[dim] for dim in dims) - correction
    if count <= 0:
        return enclosure.unknown(squares.value, x.dtype)
    return enclosure.divide(squares, x.of(x.value.new_tensor(float(count)), x.error.new_zeros(())))


def _prod(call: ConstantCall) -> Enclosure:
    x, dims, keepdim = call.reduced()
    return enclosure.product(x, dims, keepdim)


def _leaky_relu(call: ConstantCall) -> Enclosure:
    x = call("self")
    negative = enclosure.contract(lambda v: v.clamp(max=0), x)
    return enclosure.add(enclosure.contract(torch.relu, x), _product(call("negative_slope"), negative))


_RULES: dict[Rule, str] = {
    lambda call: _sum(call, "self", "other", 1): "add.Tensor add.Scalar",
    lambda call: _sum(call, "self", "other", -1): "sub.Tensor sub.Scalar subtract.Tensor subtract.Scalar",
    lambda call: _sum(call, "other", "self", -1): "rsub.Tensor rsub.Scalar",
    lambda call: _product(call("self"), call("other")): "mul.Tensor mul.Scalar multiply.Tensor multiply.Scalar",
    lambda call: enclosure.divide(call("self"), call("other")): (
        "div.Tensor div.Scalar divide.Tensor divide.Scalar true_divide.Tensor true_divide.Scalar"
    ),
    lambda call: _product(call("self").unsqueeze(-1), call("vec2")): "outer.default",
    lambda call: enclosure.divide(call.one(), call("self")): "reciprocal.default",
    lambda call: enclosure.square_root(call("self")): "sqrt.default",
    lambda call: enclosure.divide(call.one(), enclosure.square_root(call("self"))): "rsqrt.default",
    lambda call: _product(call("self"), call("self")): "square.default",
    lambda call: enclosure.exponential(call("self")): "exp.default",
    _power: "pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar",
    lambda call: enclosure.matmul(call("self"), call("mat2")): "mm.default bmm.default",
    lambda call: enclosure.matmul(call("self"), call("other")): "matmul.default vdot.default",
    lambda call: enclosure.matmul(call("self"), call("vec")): "mv.default",
    lambda call: enclosure.matmul(call("self"), call("tensor")): "dot.default",
    _affine("mat1", "mat2"): "addmm.default",
    _affine("mat", "vec"): "addmv.default",
    _affine("batch1", "batch2"): "baddbmm.default",
    _linear: "linear.default",
    lambda call: enclosure.add(
        call("self"), _product(call("value"), call("tensor1"), call("tensor2"))
    ): "addcmul.default",
    lambda call: enclosure.add(
        call("self"), enclosure.divide(_product(call("value"), call("tensor1")), call("tensor2"))
    ): "addcdiv.default",
    _lerp: "lerp.Scalar lerp.Tensor",
    lambda call: enclosure.total(*call.reduced()): "sum.default sum.dim_IntList",
    lambda call: enclosure.mean(*call.reduced()): "mean.default mean.dim",
    _prod: "prod.default prod.dim_int",
    _variance: "var.correction var.default var.dim",
    lambda call: enclosure.square_root(_variance(call)): "std.correction std.default std.dim",
    _norm: "linalg_vector_norm.default norm.Scalar norm.ScalarOpt_dim",
    _weight_norm: "_weight_norm.default",
    _leaky_relu: "leaky_relu.default",
}
ARITHMETIC = {name: rule for rule, names in _RULES.items() for name in names.split()}
"""Those that compute, by name."""


def _clamp(low: str, high: str) -> Rule:
    def rule(call: ConstantCall) -> Enclosure:
        result = call("self")
        for name, function in ((low, torch.maximum), (high, torch.minimum)):
            if call[name] is not None:
                result = enclosure.contract(function, result, call(name))
        return result

    return rule


_CONTRACTIONS: dict[Rule, str] = {
    lambda call: enclosure.contract(torch.abs, call("self")): "abs.default absolute.default",
    _clamp("min", "max"): (
        "clamp.default clamp.Tensor clamp_max.default clamp_max.Tensor clamp_min.default clamp_min.Tensor "
        "clip.default clip.Tensor"
    ),
    _clamp("min_val", "max_val"): "hardtanh.default",
    lambda call: enclosure.contract(torch.maximum, call("self"), call("other")): "maximum.default max.other",
    lambda call: enclosure.contract(torch.minimum, call("self"), call("other")): "minimum.default min.other",
    lambda call: enclosure.contract(torch.neg, call("self")): "neg.default negative.default",
    lambda call: enclosure.contract(torch.relu, call("self")): "relu.default",
    lambda call: enclosure.contract(lambda v: v.clamp(0, 6), call("self")): "relu6.default",
}
CONTRACTIONS = {name: rule for rule, names in _CONTRACTIONS.items() for name in names.split()}
"""Those whose every result is one of its operands or its negative, and errs by no more than the largest error."""
