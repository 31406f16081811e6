"""ONNX operators that compute: products, sums, normalisation, reductions and the ReLU."""

from __future__ import annotations

import torch
from onnx import TensorProto
from torch import Tensor

from zonocuda.importers import functions, lowering, lowering_products, products
from zonocuda.importers.builder import Value
from zonocuda.importers.constants.enclosure import Numbers
from zonocuda.importers.errors import refuse
from zonocuda.importers.onnx import normal
from zonocuda.importers.onnx.node import OnnxNode


def gemm(node: OnnxNode) -> Value:
    """alpha A' B' + beta C, with A or B the tensor that depends on the input."""
    if node.is_value(0) and node.is_value(1):
        refuse("a product of two tensors that depend on the input is not affine")
    return _gemm_left(node) if node.is_value(1) else _gemm_right(node)


def _gemm_left(node: OnnxNode) -> Value:
    """A constant A times columns."""
    builder, name, x, weight = node.builder, node.name, node.value(1), node.numbers(0)
    alpha, beta = node.attribute("alpha"), node.attribute("beta")
    if len(node.full_shape(x)) != 2 or weight.dim() != 2:
        refuse(f"its inputs must be matrices, got shapes {tuple(weight.shape)} and {node.full_shape(x)}")
    if node.attribute("transB"):
        x = lowering.permute(builder, f"{name}/transpose", x, (1, 0))
    weight = weight.t() if node.attribute("transA") else weight
    steps = ["product"] + ["alpha"] * (alpha != 1) + ["sum"] * (node.has(2) and beta != 0)
    names = {step: name if step == steps[-1] else f"{name}/{step}" for step in steps}
    out = products.matmul_left(builder, names["product"], weight, x)
    if alpha != 1:
        factor = torch.tensor(alpha, dtype=torch.float64, device="cpu")
        out = lowering.scale_shift(builder, names["alpha"], out, factor, None)
    return _plus(node, out, names["sum"], beta) if "sum" in names else out


def _plus(node: OnnxNode, product: Value, name: str, beta: float) -> Value:
    """product + beta C."""
    if node.is_value(2):
        branch = node.value(2)
        if beta != 1:
            factor = torch.tensor(beta, dtype=torch.float64, device="cpu")
            branch = lowering.scale_shift(node.builder, f"{name}/beta", branch, factor, None)
        total = lowering.add(node.builder, name, product, branch)
        if total.shape != product.shape:
            refuse(f"its input 2, of shape {node.full_shape(branch)}, expands the product")
        return total
    bias = _times(node, node.numbers(2) if beta == 1 else node.tensor(2), beta)
    total = lowering.scale_shift(node.builder, name, product, None, bias, roundings=1)
    if total.shape != product.shape:
        refuse(f"its input 2, of shape {tuple(bias.shape)}, expands the product")
    return total


def _gemm_right(node: OnnxNode) -> Value:
    """What depends on the input times a constant B."""
    alpha, beta = node.attribute("alpha"), node.attribute("beta")
    transpose_a, transpose_b = node.attribute("transA"), node.attribute("transB")
    x = node.value(0)
    if len(node.full_shape(x)) != 2:
        refuse(f"its input 0 must be a matrix, got shape {node.full_shape(x)}")
    if transpose_a and node.full_shape(x) != (1, 1):
        x = lowering.permute(node.builder, f"{node.name}/transpose", x, (1, 0))
    weight = node.numbers(1) if alpha == 1 else node.tensor(1)
    if weight.dim() != 2:
        refuse(f"its input 1 must be a matrix, got shape {tuple(weight.shape)}")
    weight = _times(node, weight if transpose_b else weight.t().contiguous(), alpha)
    if not node.has(2) or beta == 0:
        return lowering.linear(node.builder, node.name, x, weight, roundings=1)
    if not node.is_value(2):
        bias = _times(node, node.numbers(2) if beta == 1 else node.tensor(2), beta)
        if bias.dim() <= 1 and bias.numel() in (1, weight.shape[0]):
            bias = bias.expand(weight.shape[0]).contiguous()
            return lowering.linear(node.builder, node.name, x, weight, bias, roundings=1)
    product = lowering.linear(node.builder, f"{node.name}/product", x, weight, roundings=1)
    return _plus(node, product, node.name, beta)


def _times(node: OnnxNode, constant: Numbers, factor: float) -> Numbers:
    """factor * constant."""
    return lowering.times(node.builder, node.name, constant, factor) if isinstance(constant, Tensor) else constant


def matmul(node: OnnxNode) -> Value:
    """Product of two branches, or with a constant on either side."""
    if node.is_value(0) and node.is_value(1):
        return lowering_products.matmul(node.builder, node.name, node.value(0), node.value(1))
    if node.is_value(0):
        return products.matmul_right(node.builder, node.name, node.value(0), node.numbers(1))
    return products.matmul_left(node.builder, node.name, node.numbers(0), node.value(1))


def add(node: OnnxNode) -> Value:
    """Sum of two branches, or of one and a constant."""
    if node.is_value(0) and node.is_value(1):
        return lowering.add(node.builder, node.name, node.value(0), node.value(1))
    x, constant = (0, 1) if node.is_value(0) else (1, 0)
    return lowering.scale_shift(node.builder, node.name, node.value(x), None, node.numbers(constant))


def sub(node: OnnxNode) -> Value:
    """Difference of two branches, or of one and a constant on either side."""
    if node.is_value(0) and node.is_value(1):
        return lowering.add(node.builder, node.name, node.value(0), node.value(1), sign=-1)
    if node.is_value(0):
        return lowering.scale_shift(node.builder, node.name, node.value(0), None, -node.numbers(1))
    return lowering.negate(node.builder, node.name, node.value(1), node.numbers(0))


def mul(node: OnnxNode) -> Value:
    """Product of two branches, or of one and a constant, elementwise."""
    if node.is_value(0) and node.is_value(1):
        found = functions.recognised_product(node.builder, node.name, node.value(0), node.value(1))
        if found is not None:
            return found
        return lowering_products.multiply(node.builder, node.name, node.value(0), node.value(1))
    x, constant = (0, 1) if node.is_value(0) else (1, 0)
    return lowering.scale_shift(node.builder, node.name, node.value(x), node.numbers(constant), None)


def div(node: OnnxNode) -> Value:
    """Quotient, elementwise."""
    if node.is_value(1):
        return normal.quotient(node)
    factor = lowering.reciprocal(node.tensor(1))
    return lowering.scale_shift(node.builder, node.name, node.value(0), factor, None, roundings=1)


def neg(node: OnnxNode) -> Value:
    """-x."""
    return lowering.negate(node.builder, node.name, node.value(0))


def batch_normalization(node: OnnxNode) -> Value:
    """Normalisation with the stored statistics."""
    eps = node.attribute("epsilon")
    node.ignore("momentum")
    if node.attribute("training_mode") or len([name for name in node.outputs if name]) > 1:
        refuse("it is in training mode; export the network for inference")
    if node.attribute("spatial") == 0:
        refuse("attribute 'spatial' = 0 is not supported")
    weight, bias, mean, variance = (node.tensor(position) for position in range(1, 5))
    return node.per_sample(
        node.value(0),
        lambda name, x: lowering.batch_norm(node.builder, name, x, mean, variance, weight, bias, eps),
    )


def reduce_mean(node: OnnxNode) -> Value:
    """Mean over feature dimensions."""
    return _reduce(node, mean=True)


def reduce_sum(node: OnnxNode) -> Value:
    """Sum over feature dimensions."""
    return _reduce(node, mean=False)


def _reduce(node: OnnxNode, mean: bool) -> Value:
    x = node.value(0)
    keepdim = bool(node.attribute("keepdims"))
    does_nothing = bool(node.attribute("noop_with_empty_axes"))
    axes = node.axes(1)
    if not axes:
        if does_nothing:
            return x
        axes = list(range(node.rank(x)))
    dims = lowering.feature_dims(node.builder, axes, node.rank(x))
    return lowering.reduce(node.builder, node.name, x, dims, mean, keepdim)


def relu(node: OnnxNode) -> Value:
    """max(x, 0)."""
    return lowering.relu(node.builder, node.name, node.value(0))


def identity(node: OnnxNode) -> Value:
    """x."""
    return node.value(0)


def dropout(node: OnnxNode) -> Value:
    """x: dropout in inference."""
    node.ignore("ratio", "seed")
    if node.has(2) and node.scalar(2):
        refuse("it is in training mode; export the network for inference")
    return node.value(0)


def cast(node: OnnxNode) -> Value:
    """A conversion to another type: see :func:`zonocuda.importers.lowering.cast`."""
    target = node.attribute("to")
    node.ignore("saturate", "round_mode")
    dtype = _FLOATS.get(target)
    if dtype is None:
        refuse(
            f"a cast of what depends on the input to {TensorProto.DataType.Name(target)} is not supported; to FLOAT16, "
            "BFLOAT16, FLOAT and DOUBLE it is"
        )
    return lowering.cast(node.builder, node.name, node.value(0), dtype)


_FLOATS = {
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
}
