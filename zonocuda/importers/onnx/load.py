"""ONNX files as graphs."""

from __future__ import annotations

from pathlib import Path

import torch
from onnx import NodeProto, TensorProto, numpy_helper

from zonocuda.graph import Graph
from zonocuda.importers import lowering
from zonocuda.importers.builder import GraphBuilder, Value
from zonocuda.importers.check import check_constants
from zonocuda.importers.constants.enclosure import Enclosure, executed_roundings
from zonocuda.importers.constants.sizes import check_folded
from zonocuda.importers.errors import BatchError, NetworkFileError, UnsupportedNetworkError, located, one_line
from zonocuda.importers.onnx.constants import ARITHMETIC, FOLDABLE, MACHINE_DEPENDENT, fold
from zonocuda.importers.onnx.file import OnnxFile, check_model, node_names, parse_onnx, read_bytes
from zonocuda.importers.onnx.node import Constant, OnnxNode, as_tensor
from zonocuda.importers.onnx.ops import CONVERTERS
from zonocuda.importers.simplify import absorb_biases, with_executed

_SUPPORTED = f"supported ops: {', '.join(sorted(CONVERTERS))}"


def load_onnx(path: str | Path) -> Graph:
    """The graph of an ``.onnx`` or ``.onnx.gz`` file.

    Dimension 0 of every tensor is the batch, open or 1, and the graph's features leave it out. An input of rank 1 has
    no batch, and all of its dimensions are features; so they are, with batch 1, where the network itself drops that
    dimension, moves it, or works on it. Weights keep the precision of the file; constants derived from
    them (batch normalisation, division, padded pooling) and those that the file computes from constants are float64
    where they must be, and their operators count the roundings: convert the graph with ``Graph.to`` before use.

    A node that computes an ONNX node's output has that node's name where it is unique, else the output tensor's.
    The graph is not compared with ONNX Runtime here; ``load_network`` offers that.

    Raises:
        NetworkFileError: the file is missing, unreadable, corrupt, not a valid ONNX model, lacks its external data,
            or holds weights that are not finite.
        UnsupportedNetworkError: the network cannot be expressed; the message names the node.
        TypeError: no path.

    Examples:
        >>> load_onnx('examples/networks/fc.onnx').input_shape
        (1, 8, 8)
    """
    return convert(read_onnx(path))


def read_onnx(path: str | Path) -> OnnxFile:
    """Read and validate an ``.onnx`` or ``.onnx.gz`` file; raises as ``load_onnx`` does."""
    if not isinstance(path, str | Path):
        raise TypeError(f"load_onnx: needs a path (load_network takes models in memory), got {type(path).__name__}")
    path = Path(path)
    return parse_onnx(read_bytes(path), str(path), path.parent)


def convert(file: OnnxFile) -> Graph:
    """The graph of a validated ONNX model; raises as ``load_onnx`` does."""
    _check_operators(file)
    check_model(file)
    try:
        return _graph(file)
    except BatchError:
        if not file.batched:
            raise
    return _graph(file.without_batch())


def reads_batch(graph: Graph, file: OnnxFile) -> bool:
    """Whether the graph of a file leaves out a batch, or has all dimensions as features."""
    return file.batched and len(graph.input_shape) < len(file.input_shape)


def _graph(file: OnnxFile) -> Graph:
    graph, computed = _convert(file, executed=False)
    if computed:
        graph = with_executed(graph, _convert(file, executed=True)[0])
        with executed_roundings():
            check_constants(graph, _convert(file, executed=False)[0], file.name)
    return graph


def _convert(file: OnnxFile, executed: bool) -> tuple[Graph, bool]:
    """The graph, and whether it holds constants that the file computes and its precision does not hold."""
    names = node_names(file)
    features = file.input_shape[1:] if file.batched else file.input_shape
    dtype = torch.float64 if file.element_type == TensorProto.DOUBLE else torch.float32
    builder = GraphBuilder(file.input_name, features, dtype, file.batched, reserved=names.values(), executed=executed)
    constants: dict[str, Constant] = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in file.model.graph.initializer
    }
    values: dict[str, Value] = {file.input_name: builder.input}
    for node in file.nodes:
        for name, result in _outputs(node, file, names, builder, constants, values, executed).items():
            if name in values or name in constants:
                raise NetworkFileError(f"importers.onnx: {file.name}: two nodes compute the tensor {name!r}")
            if isinstance(result, Value):
                values[name] = result
            else:
                constants[name] = result
                floating = isinstance(result, Enclosure) or result.dtype.kind == "f"
                if node.op_type in ARITHMETIC and floating:
                    read = (constants[entry] for entry in node.input if entry)
                    numbers = [
                        c if isinstance(c, Enclosure) else torch.tensor(c, device="cpu") for c in (*read, result)
                    ]
                    builder.check_underflow(_describe(node, name), numbers)
                if node.op_type in MACHINE_DEPENDENT and floating:
                    builder.unaccounted(f"{_describe(node, name)} computes a constant, differently on every machine")
    if file.output_name not in values:
        values[file.output_name] = _constant_output(file, builder, constants, names)
    if values[file.output_name].dtype == torch.bfloat16:
        raise UnsupportedNetworkError(
            f"importers.onnx: {file.name}: output {file.output_name!r} is bfloat16, which NumPy lacks; cast it to FLOAT"
        )
    computed = builder.differs_as_executed or any(isinstance(c, Enclosure) for c in constants.values())
    return absorb_biases(builder.finish(values[file.output_name])), computed


def _constant_output(
    file: OnnxFile, builder: GraphBuilder, constants: dict[str, Constant], names: dict[str, str]
) -> Value:
    """An output that does not depend on the input."""
    found = constants.get(file.output_name)
    where = f"importers.onnx: {file.name}: output {file.output_name!r}"
    if found is None:
        raise NetworkFileError(f"{where}: no node computes it")
    try:
        constant = found if isinstance(found, Enclosure) else as_tensor(found)
        shape = tuple(constant.shape)
        constant = constant.reshape(lowering.feature_shape(builder, shape))
        name = names.get(file.output_name, file.output_name)
        builder.begin([name], constant.dtype)
        return lowering.constant_output(builder, name, constant)
    except UnsupportedNetworkError as error:
        raise located(where, error) from error


def _outputs(
    node: NodeProto,
    file: OnnxFile,
    names: dict[str, str],
    builder: GraphBuilder,
    constants: dict[str, Constant],
    values: dict[str, Value],
    executed: bool,
) -> dict[str, Value | Constant]:
    """What a node computes, by tensor name."""
    outputs = [name for name in node.output if name]
    name = names[outputs[0]]
    builder.begin(names[output] for output in outputs)
    try:
        if node.op_type in FOLDABLE and all(entry in constants for entry in node.input if entry):
            operands = [constants[entry] for entry in node.input if entry]
            arrays = [c.value.detach().numpy() if isinstance(c, Enclosure) else c for c in operands]
            builder.folded = check_folded(node, arrays, builder.folded)
            folded = fold(node, constants, file.opset, executed)
            # torch takes no array that runs backwards, as a Slice by -1 gives
            return {
                tensor: c if isinstance(c, Enclosure) or c.flags.c_contiguous else c.copy()
                for tensor, c in folded.items()
            }
        if node.op_type not in CONVERTERS:
            raise UnsupportedNetworkError(f"is supported on constants only; {_SUPPORTED}")
        inputs = [_lookup(entry, values, constants) for entry in node.input]
        converted = OnnxNode(node, name, inputs, builder, file.opset)
        results = CONVERTERS[node.op_type](converted)
        converted.check_finished()
    except UnsupportedNetworkError as error:
        raise located(f"importers.onnx: {file.name}: {_describe(node, name)}", error) from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # An attribute or a constant of a kind that no converter expects; the checker knows most of them.
        reason = UnsupportedNetworkError(f"cannot be converted: {type(error).__name__}: {one_line(error)}")
        raise located(f"importers.onnx: {file.name}: {_describe(node, name)}", reason) from error
    computed = results if isinstance(results, tuple) else (results,)
    unread = [tensor for tensor in node.output[len(computed) :] if tensor in file.read_tensors]
    if unread:
        raise UnsupportedNetworkError(
            f"importers.onnx: {file.name}: {_describe(node, name)}: its output {unread[0]!r} is not supported"
        )
    return {tensor: result for tensor, result in zip(node.output, computed, strict=False) if tensor}


def _lookup(name: str, values: dict[str, Value], constants: dict[str, Constant]) -> Value | Constant | None:
    """An input of a node; None where the node leaves it out."""
    if not name:
        return None
    if name in values:
        return values[name]
    if name in constants:
        return constants[name]
    raise UnsupportedNetworkError(f"no node before it computes its input {name!r}")


def _check_operators(file: OnnxFile) -> None:
    for node in file.nodes:
        if node.domain not in ("", "ai.onnx") or node.op_type not in FOLDABLE | CONVERTERS.keys():
            tensor = next((name for name in node.output if name), "")
            raise UnsupportedNetworkError(
                f"importers.onnx: {file.name}: {_describe(node, node.name or tensor)} is not supported; {_SUPPORTED}"
            )


def _describe(node: NodeProto, name: str) -> str:
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
    return f"node {node.name or name!r} (op {domain}{node.op_type})"
