"""ATen operators that multiply by constants and sum: einsum, stacks of matrices, interpolation between tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from zonocuda.graph import ConvTranspose
from zonocuda.importers import lowering, lowering_products, products
from zonocuda.importers.aten.node import AtenNode
from zonocuda.importers.builder import Value
from zonocuda.importers.constants.call import rounded
from zonocuda.importers.constants.enclosure import Numbers
from zonocuda.importers.errors import refuse


def matmul(node: AtenNode) -> Value:
    """A product of two values, or with a constant on either side."""
    right = "mat2" if node.get("mat2", None) is not None else "vec" if node.get("vec", None) is not None else "other"
    return _product(node, node.name, "self", right)


def _product(node: AtenNode, name: str, left: str, right: str) -> Value:
    if node.is_value(left) and node.is_value(right):
        return lowering_products.matmul(node.builder, name, node.value(left), node.value(right))
    if node.is_value(left):
        return products.matmul_right(node.builder, name, node.value(left), node.weights(right))
    return products.matmul_left(node.builder, name, node.weights(left), node.value(right))


def _addmm(node: AtenNode) -> Value:
    return _plus_product(node, "mat1", "mat2")


def _baddbmm(node: AtenNode) -> Value:
    return _plus_product(node, "batch1", "batch2")


def _plus_product(node: AtenNode, left: str, right: str) -> Value:
    """beta * self + alpha * left @ right."""
    builder, name = node.builder, node.name
    alpha, beta = node.number("alpha"), node.number("beta")
    if not node.is_value(left) and not node.is_value(right):
        refuse("its product is constant; compute it before")
    out = _product(node, f"{name}/product", left, right)
    if alpha != 1:
        out = lowering.scale_shift(builder, f"{name}/alpha", out, rounded(alpha, node.dtype), None)
    if beta == 0:
        return out
    factor = rounded(beta, node.dtype)
    if node.is_value("self"):
        other = node.value("self")
        if beta != 1:
            other = lowering.scale_shift(builder, f"{name}/beta", other, factor, None)
        return lowering.add(builder, name, out, other)
    shift = node.numbers("self") if beta == 1 else lowering.times(builder, name, node.constant("self"), beta)
    return lowering.scale_shift(builder, name, out, None, shift, roundings=1)


def _einsum(node: AtenNode) -> Value:
    operands = [_operand(node, part) for part in node["tensors"]]
    ranks = [node.builder.full_rank(part) if isinstance(part, Value) else part.dim() for part in operands]
    labels, out = products.parse_equation(node["equation"], ranks)
    return products.einsum(node.builder, node.name, operands, labels, out)


def _tensordot(node: AtenNode) -> Value:
    operands = [_operand(node, node[name]) for name in ("self", "other")]
    labels: list[list[Any]] = []
    for side, operand in enumerate(operands):
        rank = node.builder.full_rank(operand) if isinstance(operand, Value) else operand.dim()
        labels.append([(side, dim) for dim in range(rank)])
    pairs = zip(node["dims_self"], node["dims_other"], strict=True)
    for count, (first, second) in enumerate(pairs):
        labels[0][first] = labels[1][second] = ("sum", count)
    out = [label for part in labels for label in part if label[0] != "sum"]
    return products.einsum(node.builder, node.name, operands, labels, out)


def _inner(node: AtenNode) -> Value:
    """Sums over the last dimension of both."""
    operands = [_operand(node, node[name]) for name in ("self", "other")]
    ranks = [node.builder.full_rank(part) if isinstance(part, Value) else part.dim() for part in operands]
    if 0 in ranks:
        refuse("a product with a scalar")
    labels = [[*((side, dim) for dim in range(rank - 1)), "sum"] for side, rank in enumerate(ranks)]
    out = [label for part in labels for label in part if label != "sum"]
    return products.einsum(node.builder, node.name, operands, labels, out)


def _operand(node: AtenNode, found: Any) -> Value | Numbers:
    return found if isinstance(found, Value) else node.stored(found)


def _lerp(node: AtenNode) -> Value:
    """start + weight (end - start), which torch computes in one of two ways."""
    builder, name = node.builder, node.name
    if node.is_value("weight"):
        refuse("a weight that depends on the input is not affine")
    builder.unaccounted(f"node {name!r} interpolates, in one of two ways")
    if node.is_value("self") and node.is_value("end"):
        step = lowering.add(builder, f"{name}/step", node.value("end"), node.value("self"), sign=-1)
    elif node.is_value("end"):
        step = lowering.scale_shift(builder, f"{name}/step", node.value("end"), None, -node.numbers("self"))
    else:
        step = lowering.negate(builder, f"{name}/step", node.value("self"), node.numbers("end"))
    scaled = lowering.scale_shift(builder, f"{name}/scaled", step, node.numbers("weight"), None)
    if node.is_value("self"):
        return lowering.add(builder, name, node.value("self"), scaled)
    return lowering.scale_shift(builder, name, scaled, None, node.numbers("self"))


def _addcmul(node: AtenNode) -> Value:
    return _plus_term(node, divides=False)


def _addcdiv(node: AtenNode) -> Value:
    return _plus_term(node, divides=True)


def _plus_term(node: AtenNode, divides: bool) -> Value:
    """self + value * tensor1 * tensor2, or a quotient of the two."""
    builder, name = node.builder, node.name
    names = [entry for entry in ("tensor1", "tensor2") if node.is_value(entry)]
    if len(names) == 2 or (divides and "tensor2" in names):
        refuse("a product or quotient of tensors that depend on the input is not affine")
    if not names and divides:
        refuse("its quotient is constant; compute it before")
    value = rounded(node["value"], node.dtype)
    builder.unaccounted(f"node {name!r} multiplies three numbers in an order of its own")
    if not names:
        shift = products.times(builder, value, node.numbers("tensor1"), node.numbers("tensor2"))
        return lowering.scale_shift(builder, name, node.value("self"), None, shift)
    other = "tensor2" if names == ["tensor1"] else "tensor1"
    if divides:
        factor: Numbers = lowering.reciprocal(node.constant(other))
        term = lowering.scale_shift(builder, f"{name}/term", node.value(names[0]), factor, None, roundings=1)
    else:
        term = lowering.scale_shift(builder, f"{name}/term", node.value(names[0]), node.numbers(other), None)
    if node["value"] != 1:
        term = lowering.scale_shift(builder, f"{name}/scaled", term, value, None)
    if node.is_value("self"):
        return lowering.add(builder, name, node.value("self"), term)
    return lowering.scale_shift(builder, name, term, None, node.numbers("self"))


def _cumsum(node: AtenNode) -> Value:
    x = node.value("self")
    dim = node.dim("dim", x)
    ones = torch.ones(x.shape[dim], x.shape[dim], dtype=node.dtype, device="cpu").tril()
    return products.along(node.builder, node.name, x, dim, ones)


def _diff(node: AtenNode) -> Value:
    """Differences of neighbours, n times."""
    if node["prepend"] is not None or node["append"] is not None:
        refuse("prepend and append are not supported; concatenate before")
    x = node.value("self")
    dim = node.dim("dim", x)
    for count in range(node["n"]):
        name = node.name if count == node["n"] - 1 else f"{node.name}/{count}"
        extent = x.shape[dim]
        upper = lowering.select(node.builder, f"{name}/upper", x, dim, range(1, extent))
        lower = lowering.select(node.builder, f"{name}/lower", x, dim, range(extent - 1))
        x = lowering.add(node.builder, name, upper, lower, sign=-1)
    return x


def _fold(node: AtenNode) -> Value:
    """Sums of patches: a transposed convolution whose weights are 1, each at one place of the kernel."""
    x, builder, name = node.value("self"), node.builder, node.name
    kernel, stride, dilation = (node.ints(entry, 2) for entry in ("kernel_size", "stride", "dilation"))
    padding, size = node.ints("padding", 2), node.ints("output_size", 2)
    places = kernel[0] * kernel[1]
    if len(x.shape) != 2 or x.shape[0] % places:
        refuse(f"features {x.shape} are no patches of {kernel}")
    axes = list(zip(size, padding, kernel, stride, dilation, strict=True))
    counts = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, k, s, d in axes)
    extra = tuple(n + 2 * p - (m - 1) * s - d * (k - 1) - 1 for (n, p, k, s, d), m in zip(axes, counts, strict=True))
    channels = x.shape[0] // places
    weight = torch.eye(places, dtype=node.dtype, device="cpu").reshape(places, 1, *kernel).repeat(channels, 1, 1, 1)
    maps = lowering.reshape(builder, f"{name}/maps", x, (x.shape[0], *counts))
    pads = ((padding[0], padding[0]), (padding[1], padding[1]))
    fold = ConvTranspose(weight, None, stride, pads, extra, dilation, channels)
    return builder.emit(name, fold, maps)


_FUNCTIONS: dict[Callable[[AtenNode], Value], str] = {
    matmul: "matmul.default mm.default mv.default bmm.default",
    _addmm: "addmm.default",
    _baddbmm: "baddbmm.default",
    _einsum: "einsum.default",
    _tensordot: "tensordot.default",
    _inner: "inner.default",
    _lerp: "lerp.Scalar lerp.Tensor",
    _addcmul: "addcmul.default",
    _addcdiv: "addcdiv.default",
    _cumsum: "cumsum.default",
    _diff: "diff.default",
    _fold: "col2im.default",
}
PRODUCTS: dict[str, Callable[[AtenNode], Value]] = {
    f"aten.{name}": function for function, names in _FUNCTIONS.items() for name in names.split()
}
