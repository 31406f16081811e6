"""One ONNX node while it is converted: its inputs, attributes and outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor

from zonocuda.graph.ops import Shape
from zonocuda.importers import lowering
from zonocuda.importers.builder import GraphBuilder, Value
from zonocuda.importers.constants.enclosure import Enclosure, Numbers
from zonocuda.importers.errors import refuse

Constant: TypeAlias = NDArray[Any] | Enclosure
"""What a file holds, and what it computes without rounding, are arrays of the file's own types."""


class Attributes:
    """What a node states, and what the standard says of what it leaves out: the one place where attributes are read.

    Floats are float32, stated or not: the default epsilon of BatchNormalization is float32(1e-5), as ONNX's own schema
    holds it.
    """

    def __init__(self, proto: onnx.NodeProto, opset: int) -> None:
        self.stated = {entry.name: helper.get_attribute_value(entry) for entry in proto.attribute}
        self._defaults: dict[str, Any] = {}
        if onnx.defs.has(proto.op_type, opset):
            for name, attribute in onnx.defs.get_schema(proto.op_type, opset).attributes.items():
                if attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
                    self._defaults[name] = helper.get_attribute_value(attribute.default_value)

    def __getitem__(self, name: str) -> Any:
        """A value, text decoded; None where the node states none and the operator set has no default."""
        value = self.stated.get(name, self._defaults.get(name))
        return value.decode() if isinstance(value, bytes) else value


class OnnxNode:
    """A node whose inputs have been converted.

    Args:
        proto: the node.
        name: the name of the graph node that computes its (first) output.
        inputs: a ``Value``, a constant, or None for an optional input that is absent, per input.
        builder: the graph under construction.
        opset: version of the operator set.
    """

    def __init__(
        self,
        proto: onnx.NodeProto,
        name: str,
        inputs: Sequence[Value | Constant | None],
        builder: GraphBuilder,
        opset: int,
    ) -> None:
        self.name = name
        self.builder = builder
        self.opset = opset
        self.outputs = tuple(proto.output)
        self._inputs = tuple(inputs)
        self._attributes = Attributes(proto, opset)
        self._unread = set(self._attributes.stated)

    def attribute(self, name: str) -> Any:
        """An attribute's value or default, see :class:`Attributes`; those that nobody reads are refused."""
        self._unread.discard(name)
        return self._attributes[name]

    def ignore(self, *names: str) -> None:
        """Attributes that change nothing in inference."""
        self._unread.difference_update(names)

    def check_finished(self) -> None:
        """Refuse attributes that the converter did not read."""
        if self._unread:
            refuse(f"attribute {min(self._unread)!r} is not supported")

    def has(self, position: int) -> bool:
        """Whether an optional input is there."""
        return position < len(self._inputs) and self._inputs[position] is not None

    def is_value(self, position: int) -> bool:
        """Whether an input is there and depends on the network's input."""
        return self.has(position) and isinstance(self._inputs[position], Value)

    @property
    def arity(self) -> int:
        """Number of inputs."""
        return len(self._inputs)

    def value(self, position: int) -> Value:
        """An input that depends on the network's input."""
        found = self._inputs[position] if self.has(position) else None
        if not isinstance(found, Value):
            refuse(f"its input {position} must depend on the network's input")
        return found

    def constant(self, position: int) -> NDArray[Any]:
        """A constant input; where rounding lies in it, the node's operators are charged for it."""
        found = self._inputs[position] if self.has(position) else None
        if found is None or isinstance(found, Value):
            refuse(f"its input {position} must be constant")
        if not isinstance(found, Enclosure):
            return found
        _is_supported(found)
        return self.builder.charge(found).numpy()

    def tensor(self, position: int) -> Tensor:
        """A constant float input, as :meth:`constant`."""
        return as_tensor(self.constant(position))

    def numbers(self, position: int) -> Numbers:
        """A constant float input that becomes a constant of an operator as it is."""
        found = self._inputs[position] if self.has(position) else None
        return found if isinstance(found, Enclosure) and _is_supported(found) else self.tensor(position)

    def optional_numbers(self, position: int) -> Numbers | None:
        """As :meth:`numbers`, or None where it is absent."""
        return self.numbers(position) if self.has(position) else None

    def ints(self, position: int) -> list[int]:
        """A constant integer input as a flat list."""
        array = self.constant(position)
        if not np.issubdtype(array.dtype, np.integer) or array.ndim > 1:
            refuse(f"its input {position} must be a list of integers")
        return [int(entry) for entry in array.reshape(-1)]

    def scalar(self, position: int) -> float | int | bool:
        """A constant input of one element."""
        array = self.constant(position)
        if array.size != 1:
            refuse(f"its input {position} must be a single number")
        found: float | int | bool = array.reshape(()).item()
        return found

    def exact_scalar(self, position: int) -> float | int | bool:
        """As :meth:`scalar`, of a constant that no rounding has made what it is."""
        found = self._inputs[position] if self.has(position) else None
        if isinstance(found, Enclosure) and not found.is_exact:
            refuse(f"its input {position} is computed with rounding: what number it stands for is not known exactly")
        return self.scalar(position)

    def axes(self, position: int) -> list[int] | None:
        """The axes, an attribute in old operator sets and an input in new ones; None where there are none."""
        attribute = self.attribute("axes")
        if attribute is not None:
            return [int(axis) for axis in attribute]
        return self.ints(position) if self.has(position) else None

    def rank(self, value: Value) -> int:
        """Number of dimensions that a value has in the ONNX model."""
        return self.builder.full_rank(value)

    def full_shape(self, value: Value) -> Shape:
        """The shape that a value has in the ONNX model, with batch 1."""
        return (1, *value.shape) if self.builder.batched else value.shape

    def dim(self, axis: int, value: Value) -> int:
        """The feature dimension of an axis; refuses the batch."""
        return lowering.feature_dim(self.builder, axis, self.rank(value))

    def reshaped(self, x: Value, shape: Sequence[int]) -> Value:
        """``x`` with another full shape, whose batch must still be 1."""
        return lowering.reshape(self.builder, self.name, x, lowering.feature_shape(self.builder, shape))

    def per_sample(self, x: Value, layer: Callable[[str, Value], Value]) -> Value:
        """``layer(name, sample)`` of an operator that takes dimension 0 for a batch.

        In a network without a batch that dimension is a feature of extent 1, which is dropped and restored.
        """
        if self.builder.batched:
            return layer(self.name, x)
        if not x.shape or x.shape[0] != 1:
            refuse(f"its input, of shape {x.shape}, needs a batch dimension of extent 1")
        sample = lowering.reshape(self.builder, f"{self.name}/sample", x, x.shape[1:])
        out = layer(f"{self.name}/layer", sample)
        return lowering.reshape(self.builder, self.name, out, (1, *out.shape))


def _is_supported(found: Enclosure) -> bool:
    if found.dtype not in (torch.float32, torch.float64):
        refuse(f"a constant of type {found.dtype} meets a tensor that depends on the input")
    return True


def as_tensor(array: NDArray[Any]) -> Tensor:
    """A constant as a tensor of its own float32 or float64."""
    if array.dtype not in (np.float32, np.float64):
        refuse(f"a constant of type {array.dtype} meets a tensor that depends on the input")
    return torch.from_numpy(np.array(array, order="C"))
