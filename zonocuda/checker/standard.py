"""What the ONNX standard says that a file computes, in balls: a reading of the file apart from the importer's.

Every operator of the file is evaluated at random numbers, and the graph that the importer made of it must give the
same. What computes is written in :mod:`zonocuda.checker.operators`; what only moves values is asked of
:mod:`onnx.reference`, by moving places instead of balls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import onnx
import torch
from flint import arb
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from zonocuda.checker.arithmetic import ZERO, Array, balls
from zonocuda.checker.final import Loss, no_loss
from zonocuda.checker.maps import Ends, Maps, interval
from zonocuda.checker.operators import COMPUTED, Call
from zonocuda.checker.smooth_operators import POSITIVE
from zonocuda.graph import Bilinear, Node, interpret
from zonocuda.importers.onnx.constants import evaluate
from zonocuda.importers.onnx.file import OnnxFile, node_names

_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
}

LARGEST = 2**22
"""Elements of a tensor: a ball takes a hundred bytes."""

SIZES = np.array([1.0, 0.25, 8.0, 64.0])
"""Of the numbers that networks are compared at."""
MOST_ROUNDS = 8
"""Comparisons of a network; two of one with many numbers."""
ROUND_NUMBERS = 2**12
"""Of a network times comparisons, where these are more than two."""

_KEEPING = "Concat Dropout Expand Flatten Gather Identity Pad Relu Reshape Slice Split Squeeze Tile Transpose Unsqueeze"
"""Operators whose results are numbers of the type that their operands are numbers of."""


def difference(file: OnnxFile, maps: Maps, lost: Loss = no_loss) -> str:
    """Why the graph is not the file's network; empty where all its operators agree.

    Every tensor that a node of the graph stands for is given random numbers of its type, exact ones. The graph's node,
    computed from the numbers of the nodes before it, must enclose what the standard computes from them. That is done
    with numbers of both signs and several sizes, so that every piece of a function is met: at least once more with
    all signs turned, and more often in small networks. Why the output is not what is asked for, ``lost`` says of its
    full shape.
    """
    try:
        reading = _Reading(file)
    except ValueError as error:
        return str(error)
    count = sum(maps.size.values())
    for number in range(max(2, min(MOST_ROUNDS, ROUND_NUMBERS // count))):
        found = _compared(reading, file, maps, number)
        if found:
            return found
    return lost(reading.values[file.output_name].shape)


def _compared(reading: _Reading, file: OnnxFile, maps: Maps, number: int) -> str:
    """One comparison: odd ones have the numbers of those before, with the other sign."""
    graph, names = maps.graph, node_names(file)
    own = {node.name for node in graph.nodes[1:]}
    random = np.random.default_rng(number // 2)
    given: dict[str, Array] = {}
    expected: dict[str, Array] = {}

    def draw(tensor: str, shape: tuple[int, ...]) -> Array:
        sizes = SIZES[(np.arange(prod(shape)) + number // 2) % len(SIZES)].reshape(shape) * (-1) ** number
        numbers = torch.from_numpy(np.asarray(random.standard_normal(shape) * sizes)).to(reading.held[tensor])
        if any(tensor in node.input and reading.wants_positive(node) for node in file.nodes):
            numbers = numbers.abs() + 2.0**-10
        return balls(numbers.double().flatten().tolist(), shape)

    given[graph.nodes[0].name] = reading.values[file.input_name] = draw(file.input_name, file.input_shape)
    for node in file.nodes:
        try:
            reading.run(node)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, NotImplementedError) as error:
            return f"node {node.name!r} (op {node.op_type}) cannot be evaluated: {error}"
        for tensor in node.output:
            if names.get(tensor) in own and tensor in reading.values:
                name = names[tensor]
                expected[name] = reading.values[tensor]
                given[name] = reading.values[tensor] = draw(tensor, expected[name].shape)
    found: list[str] = []

    def step(node: Node, before: tuple[Ends, ...]) -> Ends:
        op = node.op  # its factors are drawn apart: no norm's
        free = replace(node, op=Bilinear(op.terms)) if isinstance(op, Bilinear) else node
        ends = interval(maps, free, list(before))
        if node.name not in expected:
            return ends
        if not found and not _enclosed(expected[node.name], ends):
            found.append(f"the file computes other values at {node.name!r} than the graph")
        return _exactly(given[node.name])

    result = interpret(graph, _exactly(given[graph.nodes[0].name]), step)
    missing = expected.keys() - {node.name for node in graph.nodes}
    assert not missing, "all of them are nodes"
    if not found and not _enclosed(reading.values[file.output_name], result):
        found.append("the file computes another output than the graph")
    return "".join(found)


def _exactly(numbers: Array) -> Ends:
    return numbers.ravel(), numbers.ravel()


def _enclosed(numbers: Array, ends: Ends) -> bool:
    """Whether balls meet the intervals that should enclose what they stand for."""
    if numbers.size != len(ends[0]):
        return False
    return all(bool(x.lower() <= b) and bool(x.upper() >= a) for x, a, b in zip(numbers.ravel(), *ends, strict=True))


class _Reading:
    """The values of a file's tensors: balls in place of floats, integers and truth values as they are.

    Attributes:
        values: by tensor.
        held: of floats, by tensor, the type that holds them: of the last operator that computed or rounded them.
    """

    def __init__(self, file: OnnxFile) -> None:
        self.opset = file.opset
        self.values: dict[str, NDArray[Any]] = {}
        self.held: dict[str, torch.dtype] = {file.input_name: _TYPES[file.element_type]}
        self._types = dict(self.held)
        for tensor in file.model.graph.initializer:
            if tensor.name in file.read_tensors:
                self._keep(tensor.name, numpy_helper.to_array(tensor), _TYPES.get(tensor.data_type))

    def _keep(self, name: str, array: NDArray[Any], dtype: torch.dtype | None) -> None:
        if array.size > LARGEST:
            raise ValueError(f"tensor {name!r} has more than {LARGEST} elements, too many to check")
        if array.dtype != object and (dtype is not None or array.dtype.kind == "f"):
            dtype = dtype or torch.from_numpy(np.empty(0, array.dtype)).dtype
            array = balls(array.astype(np.float64).ravel().tolist(), array.shape)
        self.values[name] = array
        if dtype is not None:
            self._types[name] = self.held[name] = dtype

    def wants_positive(self, node: onnx.NodeProto) -> bool:
        """Whether a node's function is defined for positive numbers alone."""
        if node.op_type != "Pow":
            return node.op_type in POSITIVE
        exponent = self.values.get(node.input[1])
        return exponent is not None and any(float(v) != int(float(v)) for v in exponent.ravel())

    def run(self, node: onnx.NodeProto) -> None:
        """Evaluates a node."""
        read = [name for name in node.input if name]
        floats = [name for name in read if name in self._types]
        call = Call(node, self.opset, self.values)
        if node.op_type == "Cast":
            self._cast(node, call)
            return
        if node.op_type in COMPUTED and floats:
            results = {node.output[0]: np.asarray(COMPUTED[node.op_type](call))}  # of no dimension numpy gives a ball
        else:
            results = _moved(node, call, floats, self.values, self.opset)
        for name, array in results.items():
            self._keep(name, array, self._types[floats[0]] if floats and array.dtype == object else None)
            if node.op_type in _KEEPING.split() and name in self.held:
                kinds = {self.held[entry] for entry in floats if not _is_zero(self.values[entry])}
                self.held[name] = kinds.pop() if len(kinds) == 1 else self._types[name]

    def _cast(self, node: onnx.NodeProto, call: Call) -> None:
        source, (name,) = node.input[0], node.output
        target = _TYPES.get(call["to"])
        x = call(0)
        if source in self._types and target is not None:
            narrow = not _holds(target, self.held[source])
            shape = x.shape
            self._keep(name, balls((_rounded(v, target) for v in x.ravel()), shape) if narrow else x, target)
            self.held[name] = target if narrow else self.held[source]
        elif source in self._types:
            numbers = np.array([_integer(v) for v in x.ravel()], dtype=np.int64).reshape(x.shape)
            self._keep(name, numbers.astype(helper.tensor_dtype_to_np_dtype(call["to"])), None)
        else:
            self._keep(name, x.astype(helper.tensor_dtype_to_np_dtype(call["to"])), target)


def _is_zero(array: NDArray[Any]) -> bool:
    """What :class:`_Reading` takes for a constant that every type holds, as Pad fills with."""
    return array.size == 1 and bool(array.item() == 0)


def _holds(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Whether a type has all numbers of another: digits, and exponents at both ends."""
    a, b = torch.finfo(dtype), torch.finfo(other)
    return a.eps <= b.eps and a.max >= b.max and a.smallest_normal * a.eps <= b.smallest_normal * b.eps


def _rounded(x: arb, dtype: torch.dtype) -> arb:
    """Every number to which a number of the ball may be rounded: rounding is increasing."""
    ends = []
    for end, outside in ((x.lower(), -np.inf), (x.upper(), np.inf)):
        near = float(end.mid())
        near = near if arb(near) == end else float(np.nextafter(near, outside))
        ends.append(arb(torch.tensor(near, dtype=torch.float64).to(dtype).double().item()))
    return ends[0].union(ends[1])


def _integer(x: arb) -> int:
    """A ball's one integer, towards zero."""
    found = x.floor().unique_fmpz() if x >= 0 else x.ceil().unique_fmpz()
    if found is None:
        raise ValueError("rounding cannot tell an integer")
    return int(found)


def _moved(
    node: onnx.NodeProto, call: Call, floats: list[str], values: Mapping[str, NDArray[Any]], opset: int
) -> dict[str, NDArray[Any]]:
    """The outputs of an operator that computes no floats: :mod:`onnx.reference` moves places of a list of balls."""
    pool: list[Any] = [ZERO]  # place 0: what Pad fills with
    inputs: dict[str, NDArray[Any]] = {}
    for name in filter(None, node.input):
        array = values[name]
        if name in floats:
            inputs[name] = np.arange(len(pool), len(pool) + array.size).reshape(array.shape)
            pool += array.ravel().tolist()
        else:
            inputs[name] = array
    if node.op_type == "Pad" and call["value"]:
        pool[0] = call.number("value")
        kept = {e.name: helper.get_attribute_value(e) for e in node.attribute if e.name != "value"}
        node = helper.make_node("Pad", node.input, node.output, **kept)
    results = evaluate(node, inputs, opset)
    if not floats or node.op_type in ("Shape", "Size"):
        return results
    table = balls(pool)
    return {name: np.asarray(table[places.astype(np.int64)]).reshape(places.shape) for name, places in results.items()}
