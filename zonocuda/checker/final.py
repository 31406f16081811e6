"""A strictly increasing function at the end of a network, which a proof about comparisons leaves out.

Over the reals, softmax(z)_i <= softmax(z)_j exactly where z_i <= z_j, for i and j that share a sum, and so with
LogSoftmax; Sigmoid and Tanh keep all comparisons. A row c (y_i - y_j) <= 0 (or < 0) of such outputs is the same row of
z. That the file ends so, and that the property has no other rows, is found here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto, load_model_from_string

from zonocuda.checker.certificate import CertificateError
from zonocuda.importers import BeforeFinal, Network, load_for_comparisons
from zonocuda.importers.onnx.file import OnnxFile, parse_onnx
from zonocuda.specs import LinearConstraint, Spec

Loss = Callable[[tuple[int, ...]], str]
"""Why comparisons are lost, for the full shape of what the last operator reads; empty if none are."""


def no_loss(shape: tuple[int, ...]) -> str:
    """Of a whole network."""
    return ""


def before_final(content: bytes, name: str, spec: Spec) -> tuple[Network, Loss]:
    """The network of an ONNX model without its last operator, and what tells whether a property is the same of it.

    Raises:
        CertificateError: its last operator is none of these, or the importer made something else of the rest.
    """
    file = parse_onnx(content, name)
    (last,) = (node for node in file.nodes if file.output_name in node.output)
    others = [node for node in file.nodes if node is not last]
    known = last.op_type in ("Softmax", "LogSoftmax", "Sigmoid", "Tanh") and last.domain in ("", "ai.onnx")
    read = [tensor for node in others for tensor in node.input]
    if not known or len(last.input) != 1 or list(last.output) != [file.output_name] or file.output_name in read:
        raise CertificateError(f"leaves out a last operator of {name} that is no Softmax, LogSoftmax, Sigmoid or Tanh")
    loaded = load_for_comparisons(load_model_from_string(content))
    if not isinstance(loaded, BeforeFinal):
        raise CertificateError(f"{name} cannot be read without its last operator")
    cut = parse_onnx(loaded.before.onnx_bytes, name)
    if _parts(cut, list(cut.nodes), cut.output_name) != _parts(file, others, last.input[0]):
        raise CertificateError(f"{name} was read as another network without its last operator")
    return loaded.before, lambda shape: _lost(last, file.opset, shape, spec)


def _parts(file: OnnxFile, nodes: list[NodeProto], output: str) -> tuple[object, ...]:
    """All that a file computes by, where its output is a tensor of some nodes."""
    held = file.model.graph.initializer
    return (
        [node.SerializeToString(deterministic=True) for node in nodes],
        {t.name: t.SerializeToString(deterministic=True) for t in held if t.name in file.read_tensors},
        (file.input_name, file.input_shape, file.element_type, file.opset, output),
    )


def _lost(last: NodeProto, opset: int, shape: tuple[int, ...], spec: Spec) -> str:
    groups = np.zeros(shape, dtype=np.int64)
    if "max" in last.op_type.lower():
        default = -1 if opset >= 13 else 1
        axis = next((int(a.i) for a in last.attribute if a.name == "axis"), default)
        if not -len(shape) <= axis < len(shape):
            return f"the last operator's axis {axis} is none of {list(shape)}"
        summed = [axis % len(shape)] if opset >= 13 else list(range(axis % len(shape), len(shape)))
        kept = [1 if dim in summed else extent for dim, extent in enumerate(shape)]
        groups = groups + np.arange(np.prod(kept, dtype=np.int64)).reshape(kept)
    flat = groups.ravel().tolist()
    for region in spec.regions:
        for row in (row for rows in region.disjuncts for row in rows):
            if not _compares(row, flat):
                return f"the property asks for more than comparisons that {last.op_type} keeps: {row}"[:300]
    return ""


def _compares(row: LinearConstraint, groups: list[int]) -> bool:
    """Whether a row says the same of a function's results and of its arguments."""
    if not row.outputs:
        return True
    if len(row.outputs) != 2 or row.inputs or row.constant:
        return False
    (i, a), (j, b) = row.outputs.items()
    return a + b == 0 and 0 <= min(i, j) <= max(i, j) < len(groups) and groups[i] == groups[j]
