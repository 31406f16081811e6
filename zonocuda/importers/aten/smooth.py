"""ATen operators that are smooth functions or steps: see :mod:`zonocuda.importers.functions`."""

from __future__ import annotations

from collections.abc import Callable

from zonocuda.functions import FunctionName
from zonocuda.graph import ENTRIES
from zonocuda.graph.elementwise import StepName
from zonocuda.importers import functions, lowering
from zonocuda.importers.aten.node import AtenNode
from zonocuda.importers.builder import Value
from zonocuda.importers.errors import refuse


def elu(node: AtenNode) -> Value:
    """scale * (x where x > 0, else alpha (e^(input_scale x) - 1)), which is a CELU where input_scale is 1 / alpha."""
    alpha, scale = node.number("alpha"), node.number("scale")
    if node["input_scale"] == 1:
        return functions.elu(node.builder, node.name, node.value("self"), alpha, scale)
    if scale != 1 or node["alpha"] == 0 or node["input_scale"] != 1 / node["alpha"]:
        refuse(f"an input_scale of {node['input_scale']} is not supported")
    return functions.celu(node.builder, node.name, node.value("self"), alpha)


SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def selu(node: AtenNode) -> Value:
    """An ELU with its own constants."""
    alpha, scale = (node.rounded(number) for number in (SELU_ALPHA, SELU_SCALE))
    return functions.elu(node.builder, node.name, node.value("self"), alpha, scale)


def celu(node: AtenNode) -> Value:
    """x where x > 0, else alpha (e^(x / alpha) - 1)."""
    return functions.celu(node.builder, node.name, node.value("self"), node.number("alpha"))


def gelu(node: AtenNode) -> Value:
    """GELU, or its approximation by a tanh."""
    return functions.gelu(node.builder, node.name, node.value("self"), node["approximate"])


def softplus(node: AtenNode) -> Value:
    """log(1 + e^(beta x)) / beta."""
    return functions.softplus(
        node.builder, node.name, node.value("self"), node.number("beta"), float(node["threshold"])
    )


def log_sigmoid(node: AtenNode) -> Value:
    """log sigmoid(x) = -softplus(-x)."""
    builder, name = node.builder, node.name
    turned = lowering.negate(builder, f"{name}/negative", node.value("self"))
    return lowering.negate(builder, name, functions.elementary(builder, f"{name}/softplus", turned, "softplus"))


def power(node: AtenNode) -> Value:
    """A power with a constant exponent."""
    exponent = node["exponent"]
    if isinstance(exponent, bool) or not isinstance(exponent, int | float):
        refuse("its exponent must be a number")
    return functions.power(node.builder, node.name, node.value("self"), float(exponent))


def square(node: AtenNode) -> Value:
    """x^2."""
    return functions.power(node.builder, node.name, node.value("self"), 2.0)


def _plain(function: FunctionName) -> Callable[[AtenNode], Value]:
    def convert(node: AtenNode) -> Value:
        return functions.elementary(node.builder, node.name, node.value("self"), function, whole=True)

    return convert


def _step(function: StepName) -> Callable[[AtenNode], Value]:
    def convert(node: AtenNode) -> Value:
        return functions.step(node.builder, node.name, node.value("self"), function)

    return convert


FUNCTIONS: dict[Callable[[AtenNode], Value], str] = {
    elu: "elu.default",
    selu: "selu.default",
    celu: "celu.default",
    gelu: "gelu.default",
    softplus: "softplus.default",
    log_sigmoid: "log_sigmoid.default",
    power: "pow.Tensor_Scalar",
    square: "square.default",
    _step("ceil"): "ceil.default",
    _step("floor"): "floor.default",
    _step("round"): "round.default",
    _step("sign"): "sign.default sgn.default",
    **{_plain(name): entry.aten for name, entry in ENTRIES.items() if entry.aten},
}
