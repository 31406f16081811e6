"""ONNX operators that are smooth functions or steps: see :mod:`zonocuda.importers.functions`.

Attributes are float32 numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from zonocuda.functions import FunctionName
from zonocuda.graph import ENTRIES
from zonocuda.graph.elementwise import StepName
from zonocuda.importers import functions
from zonocuda.importers.builder import Value
from zonocuda.importers.errors import refuse
from zonocuda.importers.onnx.node import OnnxNode


def elu(node: OnnxNode) -> Value:
    """x where x >= 0, else alpha (e^x - 1)."""
    return functions.elu(node.builder, node.name, node.value(0), node.attribute("alpha"))


def selu(node: OnnxNode) -> Value:
    """gamma times an ELU."""
    return functions.elu(node.builder, node.name, node.value(0), node.attribute("alpha"), node.attribute("gamma"))


def celu(node: OnnxNode) -> Value:
    """x where x >= 0, else alpha (e^(x / alpha) - 1)."""
    return functions.celu(node.builder, node.name, node.value(0), node.attribute("alpha"))


def gelu(node: OnnxNode) -> Value:
    """GELU, or its approximation by a tanh."""
    return functions.gelu(node.builder, node.name, node.value(0), node.attribute("approximate"))


def swish(node: OnnxNode) -> Value:
    """x sigmoid(x)."""
    if node.attribute("alpha") != 1:
        refuse("only alpha = 1 is supported")
    return functions.elementary(node.builder, node.name, node.value(0), "silu", whole=True)


def power(node: OnnxNode) -> Value:
    """A power with a constant exponent."""
    if node.is_value(1):
        refuse("an exponent that depends on the network's input is not supported")
    exponent = float(node.exact_scalar(1))
    if node.constant(1).ndim > node.rank(node.value(0)):
        refuse("an exponent of more dimensions than what it is the exponent of is not supported")
    return functions.power(node.builder, node.name, node.value(0), exponent)


def _plain(function: FunctionName) -> Callable[[OnnxNode], Value]:
    def convert(node: OnnxNode) -> Value:
        return functions.elementary(node.builder, node.name, node.value(0), function, whole=True)

    return convert


def _step(function: StepName) -> Callable[[OnnxNode], Value]:
    def convert(node: OnnxNode) -> Value:
        return functions.step(node.builder, node.name, node.value(0), function)

    return convert


CONVERTERS: dict[str, Callable[[OnnxNode], Value]] = {
    "Ceil": _step("ceil"),
    "Celu": celu,
    "Elu": elu,
    "Floor": _step("floor"),
    "Gelu": gelu,
    "Pow": power,
    "Round": _step("round"),
    "Selu": selu,
    "Sign": _step("sign"),
    "Swish": swish,
    **{entry.onnx: _plain(name) for name, entry in ENTRIES.items() if entry.onnx is not None},
}
