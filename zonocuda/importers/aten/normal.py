"""ATen operators that are quotients, norms and attention: see :mod:`zonocuda.importers.lowering_normal`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zonocuda.importers import functions
from zonocuda.importers import lowering_normal as normal
from zonocuda.importers.aten.node import AtenNode
from zonocuda.importers.builder import Value
from zonocuda.importers.constants.enclosure import Enclosure, Numbers
from zonocuda.importers.errors import refuse
from zonocuda.importers.lowering import feature_constant, select
from zonocuda.importers.lowering_products import multiply


def quotient(node: AtenNode) -> Value:
    """x / y for a divisor that depends on the input."""
    builder, name, y = node.builder, node.name, node.value("other")
    if not node.is_value("self"):
        return normal.divide(builder, name, node.numbers("self"), y)
    x = node.value("self")
    for known in (functions.recognised_quotient, normal.recognised_softmax):
        found = known(builder, name, x, y)
        if found is not None:
            return found
    return normal.divide(builder, name, x, y)


def glu(node: AtenNode) -> Value:
    """a * sigmoid(b) for the two halves of a dimension."""
    builder, name, x = node.builder, node.name, node.value("self")
    dim = node.dim("dim", x)
    half = x.shape[dim] // 2
    a = select(builder, f"{name}/value", x, dim, range(half))
    b = select(builder, f"{name}/gate", x, dim, range(half, 2 * half))
    return multiply(builder, name, a, functions.elementary(builder, f"{name}/sigmoid", b, "sigmoid"))


def softmax(node: AtenNode) -> Value:
    """e^x / sum e^x along a dimension."""
    x = node.value("self")
    return normal.softmax(node.builder, node.name, x, node.dim("dim", x))


def log_softmax(node: AtenNode) -> Value:
    """Its logarithm."""
    x = node.value("self")
    return normal.softmax(node.builder, node.name, x, node.dim("dim", x), log=True)


def log_sum_exp(node: AtenNode) -> Value:
    """log sum e^x over dimensions."""
    x = node.value("self")
    return normal.log_sum_exp(node.builder, node.name, x, node.dims("dim", x), node["keepdim"])


def layer_norm(node: AtenNode) -> Value:
    """Standardised over the last dimensions, times a weight, plus a bias."""
    return _over_last(node, "bias", centered=True)


def rms_norm(node: AtenNode) -> Value:
    """The same without a mean and a bias."""
    return _over_last(node, None, centered=False)


def _over_last(node: AtenNode, bias: str | None, centered: bool) -> Value:
    x, last = node.value("input"), tuple(node["normalized_shape"])
    dims = tuple(range(len(x.shape) - len(last), len(x.shape)))
    if not last or len(last) > len(x.shape) or x.shape[len(x.shape) - len(last) :] != last:
        refuse(f"features {x.shape} do not end in its shape {last}")
    shift = None if bias is None else node.optional_weights(bias)
    weight = node.optional_weights("weight")
    return normal.layer_norm(node.builder, node.name, x, dims, weight, shift, _epsilon(node), centered)


def group_norm(node: AtenNode) -> Value:
    """Groups of channels standardised."""
    weight, bias = node.optional_weights("weight"), node.optional_weights("bias")
    return normal.group_norm(
        node.builder, node.name, node.value("input"), node["num_groups"], weight, bias, _epsilon(node)
    )


def instance_norm(node: AtenNode) -> Value:
    """Every channel standardised by what the sample has itself."""
    if not node["use_input_stats"]:
        refuse("running statistics are not supported; a batch normalisation has them")
    x, weight, bias = node.value("input"), node.optional_weights("weight"), node.optional_weights("bias")
    return normal.group_norm(node.builder, node.name, x, x.shape[0], weight, bias, _epsilon(node))


def _epsilon(node: AtenNode) -> Numbers:
    """eps as a number of the result's type or, as some kernels add it, as a double: both are enclosed."""
    given = node.get("eps", None)
    if given is None:  # of an RMS norm that was given none
        return torch.tensor(torch.finfo(node.dtype).eps, dtype=torch.float64, device="cpu")
    return _either(node, given)


def _either(node: AtenNode, given: float) -> Enclosure:
    """A number of the module's code, as it is and as the result's type holds it: both are enclosed."""
    own = node.rounded(given)
    value, error = (torch.tensor(v, dtype=torch.float64, device="cpu") for v in (own, abs(given - own)))
    return Enclosure(value, error, node.dtype)


def attention(node: AtenNode) -> Value:
    """Scaled dot-product attention, with a constant mask."""
    builder = node.builder
    query, key, value = (node.value(name) for name in ("query", "key", "value"))
    if node["dropout_p"] != 0:
        refuse("it drops out; call model.eval() first")
    if node["enable_gqa"]:
        refuse("enable_gqa is not supported; repeat keys and values before")
    added: Numbers | None = None
    allowed: Tensor | None = None
    if node["is_causal"]:
        allowed = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device="cpu").tril()
    if node["attn_mask"] is not None:
        mask = feature_constant(builder, node.tensor("attn_mask"), query)
        assert isinstance(mask, Tensor)
        allowed = mask if mask.dtype == torch.bool else ~(mask == -torch.inf)
        added = None if mask.dtype == torch.bool else mask.masked_fill(~allowed, 0)
    if allowed is not None and bool(allowed.all()):
        allowed = None
    scale = None if node["scale"] is None else _either(node, node["scale"])
    return normal.attention(builder, node.name, query, key, value, scale, added, allowed)


FUNCTIONS: dict[Callable[[AtenNode], Value], str] = {
    glu: "glu.default",
    softmax: "softmax.int _softmax.default",
    log_softmax: "log_softmax.int _log_softmax.default",
    log_sum_exp: "logsumexp.default",
    layer_norm: "layer_norm.default",
    rms_norm: "rms_norm.default",
    group_norm: "group_norm.default",
    instance_norm: "instance_norm.default",
    attention: "scaled_dot_product_attention.default",
}
