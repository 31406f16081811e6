"""Networks as ONNX files and properties as VNN-LIB files.

``torch.onnx.export`` would do for the networks, but needs onnxscript; for these five kinds of layers this is shorter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

Interval = tuple[Decimal, Decimal]


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def onnx_model(model: nn.Sequential, input_shape: tuple[int, ...]) -> onnx.ModelProto:
    """The network as an ONNX model (opset 13) from ``input`` ``[1, *input_shape]`` to ``output`` ``[1, classes]``.

    Raises:
        NotImplementedError: a layer that is none of Linear, plain Conv2d, ReLU, Flatten and Residual.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[TensorProto] = []

    def node(op: str, name: str, inputs: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def weighted(op: str, name: str, value: str, layer: nn.Linear | nn.Conv2d, **attributes: Any) -> str:
        names = [f"{name}.{key}" for key, _ in layer.named_parameters()]
        arrays = [p.detach().cpu().numpy() for p in layer.parameters()]
        weights.extend(numpy_helper.from_array(a, n) for a, n in zip(arrays, names, strict=True))
        return node(op, name, [value, *names], **attributes)

    def append(layer: nn.Module, name: str, value: str) -> str:
        """Adds the nodes of a layer that reads ``value``; returns what it computes."""
        match layer:
            case nn.Sequential():
                for key, child in layer.named_children():
                    value = append(child, f"{name}{key}", value)
                return value
            case Residual():
                return node("Add", f"{name}_add", [value, append(layer.body, f"{name}_", value)])
            case nn.Linear():
                return weighted("Gemm", f"{name}_linear", value, layer, transB=1)
            case nn.Conv2d(padding_mode="zeros", dilation=(1, 1), groups=1):
                pads = [*layer.padding, *layer.padding]
                return weighted("Conv", f"{name}_conv", value, layer, strides=layer.stride, pads=pads)
            case nn.ReLU():
                return node("Relu", f"{name}_relu", [value])
            case nn.Flatten(start_dim=1, end_dim=-1):
                return node("Flatten", f"{name}_flatten", [value], axis=1)
        raise NotImplementedError(f"onnx_model: layer {name!r} is not supported: {layer}")

    append(model, "layer", "input")
    nodes[-1].output[0] = "output"
    classes = [m for m in model.modules() if isinstance(m, nn.Linear)][-1].out_features
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *input_shape])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, classes])],
        weights,
    )
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(result, full_check=True)
    return result


def vnnlib(title: str, boxes: Sequence[Sequence[Interval]], label: int, classes: int = 10) -> str:
    """A VNN-LIB 1.0 file: on every box, output ``label`` stays the strict maximum.

    VNN-LIB describes the counterexamples: a point of some box where another output is at least as large. Bounds
    that all boxes share are asserted once, the others in a disjunction over the boxes; decimals are written exactly.
    """
    first, *others = boxes
    shared = [j for j, interval in enumerate(first) if all(box[j] == interval for box in others)]
    different = sorted(set(range(len(first))) - set(shared))
    lines = [f"; {title}", "", *_declare("X", len(first)), "", *_declare("Y", classes), ""]
    lines += [f"(assert {bound})" for bound in _bounds(first, shared)]
    if different:
        cases = [f"  (and {' '.join(_bounds(box, different))})" for box in boxes]
        lines += ["", "; one of the boxes", "(assert (or", *cases, "))"]
    wrong = [f"  (and (>= Y_{other} Y_{label}))" for other in range(classes) if other != label]
    lines += ["", f"; another output is at least as large as output {label}", "(assert (or", *wrong, "))"]
    return "\n".join(lines) + "\n"


def _declare(kind: str, count: int) -> list[str]:
    return [f"(declare-const {kind}_{i} Real)" for i in range(count)]


def _bounds(box: Sequence[Interval], pixels: Iterable[int]) -> list[str]:
    return [f"({op} X_{j} {bound:f})" for j in pixels for op, bound in zip((">=", "<="), box[j], strict=True)]
