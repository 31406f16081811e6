"""A strictly increasing function at the end of a network, and the network without it.

Softmax, and LogSoftmax, of z are strictly increasing in each comparison: softmax(z)_i <= softmax(z)_j exactly where
z_i <= z_j, over the reals, for i and j that share a sum. So are functions of single outputs, such as Sigmoid. Who asks
for comparisons of two outputs and nothing else may leave the function out; nobody else may.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper
from torch import nn

from zonocuda.importers.onnx.file import OnnxFile
from zonocuda.importers.onnx.node import Attributes

_ELEMENTWISE = ("Sigmoid", "Tanh")
_NORMALISING = ("Softmax", "LogSoftmax")

_MODULES: dict[type[nn.Module], str] = {
    nn.Softmax: "Softmax",
    nn.LogSoftmax: "LogSoftmax",
    nn.Sigmoid: "Sigmoid",
    nn.Tanh: "Tanh",
}


@dataclass(frozen=True)
class Final:
    """A network's last operator.

    Attributes:
        kind: its name in ONNX.
        groups: for each of the flattened outputs, a number that those have in common whose comparisons the operator
            keeps.
    """

    kind: str
    groups: tuple[int, ...]

    def keeps(self, first: int, second: int) -> bool:
        """Whether output ``first`` exceeds output ``second`` exactly where the operator's inputs do."""
        return self.groups[first] == self.groups[second]


def last_node(file: OnnxFile) -> onnx.NodeProto | None:
    """The node that computes a file's output, if it is a strictly increasing function that nothing else reads."""
    for node in file.nodes:
        if list(node.output) != [file.output_name]:
            continue
        alone = all(file.output_name not in other.input for other in file.nodes)
        known = node.domain in ("", "ai.onnx") and node.op_type in (*_ELEMENTWISE, *_NORMALISING)
        return node if alone and known and len(node.input) == 1 else None
    return None


def without_last(file: OnnxFile, node: onnx.NodeProto) -> onnx.ModelProto:
    """The model whose output is what ``node``, the last one, reads."""
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    kept = [other for other in model.graph.node if list(other.output) != list(node.output)]
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(kept)
    output = helper.make_tensor_value_info(node.input[0], file.element_type, None)
    model.graph.output.append(output)
    return model


def of_node(node: onnx.NodeProto, opset: int, shape: Sequence[int]) -> Final:
    """The operator of a node whose input has a full ``shape``.

    Up to operator set 12 the sum of Softmax goes over all dimensions from its axis on, later over that one.
    """
    if node.op_type in _ELEMENTWISE:
        return Final(node.op_type, (0,) * math.prod(shape))
    axis = Attributes(node, opset)["axis"]
    axis = axis + len(shape) if axis < 0 else axis
    return _normalising(node.op_type, shape, range(axis, len(shape)) if opset < 13 else (axis,))


def _normalising(kind: str, shape: Sequence[int], axes: Sequence[int]) -> Final:
    """A group for every position along the other axes."""
    kept = [1 if dim in axes else extent for dim, extent in enumerate(shape)]
    numbers = np.broadcast_to(np.arange(math.prod(kept)).reshape(kept), tuple(shape))
    return Final(kind, tuple(int(n) for n in numbers.ravel()))


def last_module(module: nn.Module) -> nn.Module | None:
    """The last layer of a plain ``Sequential``, if it is a strictly increasing function."""
    if type(module) is not nn.Sequential or not len(module) or not _is_plain(module):
        return None
    last = list(module)[-1]
    if type(last) is nn.Sequential:
        return last_module(last)
    return last if type(last) in _MODULES and _is_plain(last) and len(module) > 1 else None


def without_last_module(module: nn.Sequential) -> nn.Sequential:
    """The same layers without the last one, of a module where :func:`last_module` finds one."""
    *layers, last = list(module)
    cut = nn.Sequential(*layers, *([without_last_module(last)] if type(last) is nn.Sequential else []))
    cut.training = module.training
    return cut


def of_module(last: nn.Module, features: Sequence[int]) -> Final | None:
    """The function of a layer behind outputs ``[B, *features]``; None for one that sums over the batch."""
    kind = _MODULES[type(last)]
    if kind in _ELEMENTWISE:
        return Final(kind, (0,) * math.prod(features))
    dim = getattr(last, "dim", None)
    rank = len(features) + 1
    if not isinstance(dim, int) or dim % rank == 0:
        return None
    return _normalising(kind, features, (dim % rank - 1,))


def _is_plain(module: nn.Module) -> bool:
    """Whether a module computes what its class says: no hooks are about it, nor has it a ``forward`` of its own."""
    everywhere = nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks
    hooked = everywhere or module._forward_hooks or module._forward_pre_hooks
    return not hooked and not vars(module).keys() & {"forward", "_call_impl"}
