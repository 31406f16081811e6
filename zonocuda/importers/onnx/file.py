"""Reading and validating an ONNX file, before anything of it is converted."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import heapq
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from zonocuda.graph.ops import Shape
from zonocuda.host_memory import free_host_memory
from zonocuda.importers.errors import NetworkFileError, UnsupportedNetworkError, one_line

OLDEST_OPSET = 7
"""Older operator sets broadcast by attribute and are refused."""

MAX_BYTES = (1 << 31) - 1
"""Size of a model, uncompressed; protobuf reads no more."""
MEMORY_SHARE = 4
"""A compressed model may expand to this fraction of the free memory: its bytes are held twice while it is read."""

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
_DOMAINS = ("", "ai.onnx")
_LIMITED_NAMES = "Cast Clip Equal Expand Greater Identity Less Max Min Reshape Squeeze Unsqueeze Where"
_LIMITED = frozenset(_LIMITED_NAMES.split())
"""Operators that may read an infinity among constants: those that compare, and those that move it there."""
_OPTIONAL = onnx.defs.OpSchema.FormalParameterOption.Optional


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A validated ONNX model.

    ``content`` is the model, self-contained, as ONNX Runtime loads it; ``nodes`` are those that the output needs, in
    the model's order; ``input_shape`` is the whole shape of the input, with 1 for the batch where ``batched``.
    """

    name: str
    model: onnx.ModelProto
    content: bytes
    nodes: tuple[onnx.NodeProto, ...]
    opset: int
    input_name: str
    input_shape: Shape
    batched: bool
    output_name: str

    def without_batch(self) -> OnnxFile:
        """The same file, read as a network of single inputs all of whose dimensions are features."""
        return dataclasses.replace(self, batched=False)

    @property
    def read_tensors(self) -> frozenset[str]:
        """The tensors that a needed node or the output reads."""
        return frozenset(name for node in self.nodes for name in node.input if name) | {self.output_name}

    @property
    def element_type(self) -> int:
        """ONNX's number for the input's type, float32 or float64."""
        (entry,) = (entry for entry in self.model.graph.input if entry.name == self.input_name)
        return int(entry.type.tensor_type.elem_type)

    @property
    def sha256(self) -> str:
        """Digest of the uncompressed model."""
        return hashlib.sha256(self.content).hexdigest()


def read_bytes(path: Path) -> bytes:
    """The model's bytes, uncompressed where the name ends in ``.gz``.

    Raises:
        NetworkFileError: no such file, unreadable, no regular file, larger than MAX_BYTES, or a gzip stream that is
            corrupt, ends early, or expands beyond MAX_BYTES or what memory allows.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OSError("is not a regular file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise OSError(f"is larger than {MAX_BYTES} bytes")
        if path.suffix != ".gz":
            return path.read_bytes()
        free = free_host_memory()
        limit = MAX_BYTES if free is None else min(MAX_BYTES, free // MEMORY_SHARE)
        parts: list[bytes] = []
        left = limit
        with gzip.open(path) as file:
            while part := file.read(1 << 24):
                parts.append(part)
                left -= len(part)
                if left < 0:
                    why = "protobuf reads no more" if limit == MAX_BYTES else "the free memory allows no more"
                    raise OSError(f"expands to more than {limit} bytes: {why}")
        return b"".join(parts)
    except (OSError, EOFError, zlib.error) as error:
        raise NetworkFileError(f"importers.onnx: {path}: cannot be read: {one_line(error)}") from error


def parse_onnx(content: bytes, name: str, folder: Path | None = None) -> OnnxFile:
    """Parse and validate a model.

    Args:
        content: the bytes of the model.
        name: the file's name in messages.
        folder: where external data lies; None refuses external data.

    Raises:
        NetworkFileError: not an ONNX model, an invalid one, absent external data, weights that are not finite, or a
            needed node that leaves out, by an empty name, what its operator must have.
        UnsupportedNetworkError: more than one input or output, unknown extents, input or output that is not float32 or
            float64, an operator set that is not supported, or sparse weights.
    """
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise NetworkFileError(f"importers.onnx: {name}: is not an ONNX model: {one_line(error)}") from error
    if not model.graph.output:
        raise NetworkFileError(f"importers.onnx: {name}: is not an ONNX model: it has no graph with an output")
    if _load_external(model, name, folder):
        content = model.SerializeToString()
    if model.functions or model.graph.sparse_initializer or model.training_info:
        raise UnsupportedNetworkError(
            f"importers.onnx: {name}: local functions, sparse weights and training information are not supported"
        )
    for node in model.graph.node:
        if any(entry.t.data_location == onnx.TensorProto.EXTERNAL for entry in node.attribute):
            raise UnsupportedNetworkError(
                f"importers.onnx: {name}: node {node.name!r}: an attribute whose data lie in another file is not "
                "supported"
            )
    opset = _opset(model, name)
    if _normalised(model, opset, name):
        content = model.SerializeToString()
    nodes = _needed_nodes(model)
    input_name, shape, batched = _input(model, name)
    if len(model.graph.output) != 1:
        names = [output.name for output in model.graph.output]
        raise UnsupportedNetworkError(f"importers.onnx: {name}: needs exactly one output, found {names}")
    _check_finite(model, nodes, name)
    _check_left_out(nodes, opset, name)
    output = model.graph.output[0].name
    return OnnxFile(name, model, content, nodes, opset, input_name, shape, batched, output)


def check_model(file: OnnxFile) -> None:
    """The ONNX checker's verdict: node order, unique tensor names, known attributes, numbers of inputs.

    Raises:
        NetworkFileError: the model is invalid.
    """
    output = file.model.graph.output[0]
    stated = onnx.ValueInfoProto.FromString(output.SerializeToString())
    tensor = output.type.tensor_type
    if not tensor.elem_type:
        tensor.elem_type = file.element_type
    if not tensor.HasField("shape"):  # which ONNX Runtime infers
        tensor.shape.SetInParent()
    try:
        onnx.checker.check_model(file.model)
    except onnx.checker.ValidationError as error:
        raise NetworkFileError(f"importers.onnx: {file.name}: is invalid: {one_line(error)}") from error
    finally:
        output.CopyFrom(stated)


def node_names(file: OnnxFile) -> dict[str, str]:
    """The graph's name of every tensor that a needed node computes.

    A node's own name where it is unique, differs from every tensor's name and the node has one output; else the
    tensor's name.
    """
    counts = Counter(node.name for node in file.nodes)
    tensors = {name for node in file.nodes for name in node.output} | {file.input_name}
    names: dict[str, str] = {}
    for node in file.nodes:
        outputs = [tensor for tensor in node.output if tensor]
        own = node.name and counts[node.name] == 1 and len(outputs) == 1
        for tensor in outputs:
            names[tensor] = node.name if own and (node.name not in tensors or node.name == tensor) else tensor
    return names


def batch_of_one(dims: Sequence[int | None], name: str) -> tuple[Shape, bool]:
    """The shape of an input with batch 1, and whether dimension 0 is a batch.

    It is one where it is open or 1, except at rank 1. A first extent that is fixed to another number belongs to the one
    sample that the file takes: a property counts all its numbers. ``dims`` holds None for an extent that the model
    leaves open.

    Raises:
        UnsupportedNetworkError: an open extent other than the batch, an extent of 0, or no dimensions.
    """
    shown = tuple("?" if extent is None else extent for extent in dims)
    batched = len(dims) > 1 and dims[0] in (None, 1)
    features = dims[1:] if batched else dims
    if any(extent is None for extent in features) or not dims:
        raise UnsupportedNetworkError(
            f"importers.onnx: {name}: the input's shape {shown} leaves more than the batch open; fix it in the file"
        )
    extents = tuple(1 if extent is None else extent for extent in dims)
    if any(extent < 1 for extent in extents):
        raise UnsupportedNetworkError(f"importers.onnx: {name}: the input's shape {shown} is empty")
    return extents, batched


def _load_external(model: onnx.ModelProto, name: str, folder: Path | None) -> bool:
    """Read weights that lie in other files; True where there are any."""
    external = [t.name for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    if not external:
        return False
    if folder is None:
        raise NetworkFileError(f"importers.onnx: {name}: tensor {external[0]!r} lies in another file; load it by path")
    try:
        onnx.load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise NetworkFileError(
            f"importers.onnx: {name}: the external data of {external[0]!r} cannot be read: {one_line(error)}"
        ) from error
    return True


def _needed_nodes(model: onnx.ModelProto) -> tuple[onnx.NodeProto, ...]:
    needed = {output.name for output in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(name for name in node.input if name)
    return tuple(reversed(kept))


def _opset(model: onnx.ModelProto, name: str) -> int:
    """The version of the ONNX operators; the highest one, where several are imported, as ONNX Runtime has it."""
    versions: list[int] = [entry.version for entry in model.opset_import if entry.domain in _DOMAINS]
    if not versions:
        raise NetworkFileError(f"importers.onnx: {name}: imports no version of the ONNX operators")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= max(versions) <= newest:
        raise UnsupportedNetworkError(
            f"importers.onnx: {name}: operator set {max(versions)} is not supported; supported: "
            f"{OLDEST_OPSET}..{newest}"
        )
    return max(versions)


def _normalised(model: onnx.ModelProto, opset: int, name: str) -> bool:
    """Writes one import of the ONNX operators, and the nodes in an order in which each follows those that it reads;
    whether that changed anything.

    Raises:
        NetworkFileError: nodes that read each other's outputs.
    """
    own = [entry for entry in model.opset_import if entry.domain in _DOMAINS]
    if len(own) > 1:
        others = [entry for entry in model.opset_import if entry.domain not in _DOMAINS]
        del model.opset_import[:]
        model.opset_import.extend([onnx.helper.make_opsetid("", opset), *others])
    nodes = _ordered(model.graph.node, name)
    if nodes is not None:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return len(own) > 1 or nodes is not None


def _ordered(nodes: Sequence[onnx.NodeProto], name: str) -> list[onnx.NodeProto] | None:
    """Nodes after those that compute what they read, otherwise as they are; None where they are so already."""
    writer: dict[str, int] = {}
    for place, node in enumerate(nodes):
        for tensor in node.output:
            writer.setdefault(tensor, place)
    reads = [[writer[t] for t in node.input if t and t in writer] for node in nodes]
    if all(source < place for place, sources in enumerate(reads) for source in sources):
        return None
    missing = [len(set(sources)) for sources in reads]
    readers: list[set[int]] = [set() for _ in nodes]
    for place, sources in enumerate(reads):
        for source in sources:
            readers[source].add(place)
    ready = [place for place, count in enumerate(missing) if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for reader in readers[place]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        stuck = next(place for place, count in enumerate(missing) if count)
        raise NetworkFileError(
            f"importers.onnx: {name}: node {nodes[stuck].name!r} reads what depends on its own output"
        )
    return [onnx.NodeProto.FromString(nodes[place].SerializeToString()) for place in order]


def _input(model: onnx.ModelProto, name: str) -> tuple[str, Shape, bool]:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    if len(inputs) != 1:
        names = [entry.name for entry in inputs]
        raise UnsupportedNetworkError(f"importers.onnx: {name}: needs exactly one input, found {names}")
    tensor = inputs[0].type.tensor_type
    if not inputs[0].type.HasField("tensor_type") or tensor.elem_type not in _FLOATS:
        raise UnsupportedNetworkError(f"importers.onnx: {name}: input {inputs[0].name!r} must be float32 or float64")
    if not tensor.HasField("shape"):
        raise UnsupportedNetworkError(f"importers.onnx: {name}: input {inputs[0].name!r} has no shape")
    dims = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value != -1 else None for dim in tensor.shape.dim]
    shape, batched = batch_of_one(dims, name)
    return inputs[0].name, shape, batched


def _check_finite(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], name: str) -> None:
    """Weights that the output needs must be numbers; infinity may be a limit (of Clip, say), if nothing else."""
    readers: dict[str, set[str]] = {output.name: {"the output"} for output in model.graph.output}
    for node in nodes:
        for entry in node.input:
            readers.setdefault(entry, set()).add(node.op_type)
    for tensor in model.graph.initializer:
        if tensor.name not in readers:
            continue
        try:
            values = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise NetworkFileError(
                f"importers.onnx: {name}: tensor {tensor.name!r} is corrupt: {one_line(error)}"
            ) from error
        if values.dtype not in (np.float16, np.float32, np.float64) or np.isfinite(values).all():
            continue
        if np.isnan(values).any() or not readers[tensor.name] <= _LIMITED:
            raise NetworkFileError(f"importers.onnx: {name}: tensor {tensor.name!r} holds NaN or infinity")


def _check_left_out(nodes: Sequence[onnx.NodeProto], opset: int, name: str) -> None:
    """What is left out by an empty name must be optional: the checker does not look, and ONNX Runtime may crash."""
    for node in nodes:
        known = isinstance(node.op_type, str) and node.domain in _DOMAINS  # bytes that are not UTF-8 stay bytes
        if not known or not onnx.defs.has(node.op_type, opset):
            continue  # refused later, by its name
        schema = onnx.defs.get_schema(node.op_type, opset)
        for kind, tensors, formal in (("input", node.input, schema.inputs), ("output", node.output, schema.outputs)):
            for position, tensor in enumerate(tensors):
                parameter = formal[min(position, len(formal) - 1)] if formal else None
                # the statistics of training are optional together: with one of them listed, the node computes all
                together = kind == "output" and node.op_type == "BatchNormalization"
                if tensor == "" and (parameter is None or parameter.option != _OPTIONAL or together):
                    raise NetworkFileError(
                        f"importers.onnx: {name}: is invalid: node {node.name!r} (op {node.op_type}) leaves out its "
                        f"{kind} {position}, which is not optional"
                    )
