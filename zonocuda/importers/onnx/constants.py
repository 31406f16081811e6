"""Evaluation of the nodes whose inputs are all constant.

In real arithmetic, or as the network's own execution computes them in the file's precision; both with what is not known
of them, as an error (:mod:`zonocuda.importers.constants.enclosure`). A cast to a narrower type, Floor and Ceil are part
of the network and keep their meaning in real arithmetic; comparisons, and casts to integers, of numbers that rounding
cannot decide are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper

from zonocuda.importers.constants import enclosure
from zonocuda.importers.constants.enclosure import Enclosure
from zonocuda.importers.errors import one_line, refuse
from zonocuda.importers.onnx.node import Attributes, Constant

Array = NDArray[Any]

_MOVES = "Concat Expand Flatten Gather Identity Pad Reshape Slice Split Squeeze Tile Transpose Unsqueeze Where"
_MOVING = frozenset(_MOVES.split())
_EXACT = frozenset({"Abs", "Clip", "Max", "Min", "Neg", "Relu"})
_STEPS = frozenset({"Ceil", "Floor"})
_COMPARISONS = frozenset({"Equal", "Greater", "Less"})
_REST = "And Cast Constant ConstantOfShape Mod Not Or Range Shape Size"


MACHINE_DEPENDENT = frozenset(
    ("Exp", "Gemm", "MatMul", "Pow", "Range", "Reciprocal", "ReduceMean", "ReduceProd", "ReduceSum"),
)
"""Those whose result in floating point is not the same on every machine; the others round each element once."""


def fold(
    node: onnx.NodeProto, constants: Mapping[str, Constant], opset: int, executed: bool = False
) -> dict[str, Constant]:
    """The outputs of a node whose inputs are all in ``constants``, in real arithmetic or as an execution has them.

    Raises:
        UnsupportedNetworkError: the node cannot be evaluated, or rounding cannot decide its result.
    """
    operands = [constants[name] for name in node.input if name]
    floating = [c for c in operands if isinstance(c, Enclosure) or np.issubdtype(c.dtype, np.floating)]
    kind = node.op_type
    if floating and kind in _ARITHMETIC and operands[0] is floating[0]:
        result = _ARITHMETIC[kind](_Call(node, constants, opset, executed))
        return {node.output[0]: _constant(result)}
    if not any(isinstance(c, Enclosure) for c in operands):
        if kind == "Range" and floating:
            return {node.output[0]: _constant(_range(node, operands, opset, executed))}
        return {**evaluate(node, {name: _array(constants[name]) for name in node.input if name}, opset)}
    values = {name: _array(constants[name], wide=True) for name in node.input if name}
    first = _enclosed(operands[0], executed)
    if kind == "Cast":
        return {node.output[0]: _constant(_cast(node, first))}
    if kind in _STEPS:
        function = torch.ceil if kind == "Ceil" else torch.floor
        return {node.output[0]: _constant(enclosure.step(function, first, first.dtype))}
    if kind in _COMPARISONS:
        gap = enclosure.add(first, _enclosed(operands[1], executed), -1)
        if bool(((gap.value.abs() <= gap.error) & (gap.error > 0)).any()):
            refuse("it compares constants that rounding cannot tell apart")
    elif kind in _MOVING or kind in _EXACT:
        dtype = next(c.dtype if isinstance(c, Enclosure) else _torch_dtype(c) for c in floating)
        results, errors = evaluate(node, values, opset), _errors(node, constants, opset)
        return {
            name: _constant(Enclosure(_tensor(array), _tensor(errors[name]), dtype, executed))
            for name, array in results.items()
        }
    elif kind not in ("Shape", "Size") and not all(_enclosed(c, executed).is_exact for c in floating):
        refuse("its inputs are constants that were rounded")
    return {**evaluate(node, values, opset)}


def _enclosed(constant: Constant, executed: bool) -> Enclosure:
    if isinstance(constant, Enclosure):
        return constant
    return Enclosure.exact(_tensor(constant), executed)


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(array, order="C"))


def _constant(result: Enclosure) -> Constant:
    """A result as an array of its own type where it is one, and nothing was rounded."""
    held = result.held()
    return held.numpy() if held.dtype == result.dtype and result.is_exact else result


def _array(constant: Constant, wide: bool = False) -> Array:
    """The numbers alone; ``wide``: floats in float64."""
    if isinstance(constant, Enclosure):
        return constant.value.numpy()
    return constant.astype(np.float64) if wide and np.issubdtype(constant.dtype, np.floating) else constant


def _torch_dtype(array: Array) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


def evaluate(node: onnx.NodeProto, inputs: Mapping[str, Array], opset: int) -> dict[str, Array]:
    """A node's outputs by :mod:`onnx.reference`; raises UnsupportedNetworkError where it cannot evaluate it."""
    from onnx.reference import ReferenceEvaluator  # takes as long to load as a small network to be read

    outputs = [name for name in node.output if name]
    graph = helper.make_graph(
        [node],
        "constants",
        [helper.make_empty_tensor_value_info(name) for name in inputs],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, dict(inputs))
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, ArithmeticError) as error:
        refuse(f"its inputs are constant, but it cannot be evaluated: {one_line(error)}")
    if not isinstance(results, list) or not all(isinstance(result, np.ndarray | np.generic) for result in results):
        refuse("its inputs are constant, but its result is not a tensor")
    return {name: np.asarray(result) for name, result in zip(outputs, results, strict=True)}


def _errors(node: onnx.NodeProto, constants: Mapping[str, Constant], opset: int) -> dict[str, Array]:
    """The errors of a node's outputs: those of its inputs, moved as it moves them, or the largest of them."""
    errors = {}
    for name in filter(None, node.input):
        constant = constants[name]
        if isinstance(constant, Enclosure):
            errors[name] = constant.error.numpy()
        else:
            floating = np.issubdtype(constant.dtype, np.floating)
            errors[name] = np.zeros(constant.shape) if floating else constant
    if node.op_type in _EXACT:
        largest = errors[node.input[0]]
        for error in errors.values():
            largest = np.maximum(largest, error)
        return {node.output[0]: largest}
    if node.op_type == "Pad":
        node = helper.make_node(
            "Pad",
            node.input,
            node.output,
            **{a.name: helper.get_attribute_value(a) for a in node.attribute if a.name != "value"},
        )
    return evaluate(node, errors, opset)


def _cast(node: onnx.NodeProto, constant: Enclosure) -> Enclosure:
    target = next(helper.get_attribute_value(a) for a in node.attribute if a.name == "to")
    dtype = _torch_dtype(np.empty(0, helper.tensor_dtype_to_np_dtype(target)))
    if dtype.is_floating_point:
        return enclosure.cast(constant, dtype)
    if dtype == torch.bool:
        truncated, undecided = constant.value != 0, constant.value.abs() <= constant.error
        result = Enclosure(truncated.double(), (undecided & (constant.error > 0)).double(), dtype)
    else:
        result = enclosure.step(torch.trunc, constant, dtype)
    if not result.is_exact:
        refuse(f"it casts constants to {dtype} that rounding cannot tell from other numbers")
    return result


def _range(node: onnx.NodeProto, operands: list[Constant], opset: int, executed: bool) -> Enclosure:
    """start + i delta; as many as the network's own execution counts."""
    start, _, delta = (_enclosed(c, executed) for c in operands)
    count = len(evaluate(node, dict(zip(node.input, map(_array, operands), strict=True)), opset)[node.output[0]])
    steps = torch.arange(count, dtype=torch.float64, device="cpu")
    return enclosure.add(start, enclosure.multiply(delta, delta.of(steps, torch.zeros_like(steps))))


class _Call:
    """A node's inputs as enclosures, and its attributes."""

    def __init__(self, node: onnx.NodeProto, constants: Mapping[str, Constant], opset: int, executed: bool) -> None:
        self._inputs = [constants[name] if name else None for name in node.input]
        self.attributes = Attributes(node, opset)
        self._executed = executed

    def __getitem__(self, position: int) -> Enclosure:
        found = self._inputs[position]
        if found is None:
            refuse(f"its input {position} is missing")
        return _enclosed(found, self._executed)

    def has(self, position: int) -> bool:
        return position < len(self._inputs) and self._inputs[position] is not None

    def reduced(self) -> tuple[Enclosure, tuple[int, ...], bool]:
        """What is reduced, over which dimensions, and whether they stay."""
        x, axes = self[0], self.attributes["axes"]
        if axes is None and self.has(1):
            axes = self[1].value.long().flatten().tolist()
        rank = x.value.dim()
        if not axes:
            axes = [] if self.attributes["noop_with_empty_axes"] else range(rank)
        dims = tuple(sorted({axis % rank if rank else 0 for axis in axes}))
        if any(not -rank <= axis < rank for axis in axes):
            refuse(f"its axes {list(axes)} do not fit a tensor of {rank} dimensions")
        return x, dims, bool(self.attributes["keepdims"])

    def _number(self, number: float) -> Enclosure:
        value = torch.tensor(number, dtype=torch.float64, device="cpu")
        return self[0].of(value, torch.zeros_like(value))

    def reciprocal(self) -> Enclosure:
        """1 / x."""
        return enclosure.divide(self._number(1.0), self[0])

    def gemm(self) -> Enclosure:
        """alpha A' B' + beta C."""
        a, b = self[0], self[1]
        alpha, beta = (self._number(self.attributes[name]) for name in ("alpha", "beta"))
        if self.attributes["transA"]:
            a = a.of(a.value.T, a.error.T)
        if self.attributes["transB"]:
            b = b.of(b.value.T, b.error.T)
        product = enclosure.multiply(enclosure.matmul(a, b), alpha)
        if not self.has(2):
            return product
        return enclosure.add(product, enclosure.multiply(self[2], beta))


_ARITHMETIC: dict[str, Callable[[_Call], Enclosure]] = {
    "Add": lambda call: enclosure.add(call[0], call[1]),
    "Div": lambda call: enclosure.divide(call[0], call[1]),
    "Exp": lambda call: enclosure.exponential(call[0]),
    "Gemm": _Call.gemm,
    "MatMul": lambda call: enclosure.matmul(call[0], call[1]),
    "Mul": lambda call: enclosure.multiply(call[0], call[1]),
    "Pow": lambda call: enclosure.power(call[0], call[1]),
    "Reciprocal": _Call.reciprocal,
    "ReduceMean": lambda call: enclosure.mean(*call.reduced()),
    "ReduceProd": lambda call: enclosure.product(*call.reduced()),
    "ReduceSum": lambda call: enclosure.total(*call.reduced()),
    "Sqrt": lambda call: enclosure.square_root(call[0]),
    "Sub": lambda call: enclosure.add(call[0], call[1], -1),
}

ARITHMETIC = frozenset(_ARITHMETIC)
"""Operators that compute floating-point constants from others."""

FOLDABLE = _MOVING | _EXACT | _STEPS | _COMPARISONS | frozenset(_REST.split()) | _ARITHMETIC.keys()
"""Operators that are evaluated on constants: all are deterministic."""
