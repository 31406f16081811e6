"""``zonocuda audit``: reads a model and data, audits its ties, and prints."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zonocuda import nonsmooth
from zonocuda.cli.arrays import load_array
from zonocuda.cli.output import Outputs
from zonocuda.graph import Graph
from zonocuda.importers import load_onnx
from zonocuda.verifier.documents import file_entry, json_text

_DTYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}


class GraphModule(nn.Module):
    """An imported graph whose weights are parameters, in float32 as the file has them."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.weights = nn.ParameterDict()
        for i, node in enumerate(graph.nodes):
            for f in fields(node.op):
                value = getattr(node.op, f.name)
                if isinstance(value, Tensor) and value.is_floating_point():
                    self.weights[f"{i}_{f.name}"] = nn.Parameter(value.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        nodes = []
        for i, node in enumerate(self.graph.nodes):
            own = {f.name: self.weights[f"{i}_{f.name}"] for f in fields(node.op) if f"{i}_{f.name}" in self.weights}
            nodes.append(replace(node, op=replace(node.op, **own)))
        return Graph(tuple(nodes), self.graph.output)(x)


def audit(options: argparse.Namespace, outputs: Outputs) -> None:
    """``zonocuda audit MODEL --data X.npy``."""
    dtypes = []
    for name in options.dtypes.split(","):
        if name not in _DTYPES:
            raise ValueError(f"--dtypes: {name!r} is not one of {', '.join(_DTYPES)}")
        dtypes.append(_DTYPES[name])
    model = _load_model(options.model)
    shape, classes = model.graph.input_shape, math.prod(model.graph.output_shape)
    x = torch.from_numpy(load_array(options.data, "numbers"))
    if x.dim() == 0 or x.numel() != len(x) * math.prod(shape):
        raise ValueError(
            f"{options.data}: has shape {list(x.shape)}, the network wants [n, {', '.join(map(str, shape))}]"
        )
    x = x.reshape(len(x), *shape)
    batch: tuple[Tensor, ...] = (x,)
    if options.labels:
        labels = torch.from_numpy(load_array(options.labels, "integers"))
        if labels.shape != (len(x),):
            raise ValueError(f"{options.labels}: must hold {len(x)} labels, has shape {list(labels.shape)}")
        if not bool(((labels >= 0) & (labels < classes)).all()):
            raise ValueError(f"{options.labels}: labels must lie in 0..{classes - 1}, the outputs of the network")
        batch = (x, labels)
    report = nonsmooth.audit(
        model,
        batch,
        _cross_entropy if options.labels else _sum,
        dtypes=dtypes,
        batch_size=options.batch_size,
        certificates=not options.no_certificates,
        progress=sys.stderr.isatty(),
    )
    report = replace(report, model=Path(options.model).name)
    outputs.say(*str(report).splitlines())
    outputs.write("--json", lambda: json_text(_document(report, options)))
    outputs.write("--html", lambda: nonsmooth.html_page(report))


def _document(report: nonsmooth.AuditReport, options: argparse.Namespace) -> dict[str, object]:
    return report.to_json() | {"files": {"model": file_entry(options.model), "data": file_entry(options.data)}}


def _cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(output.flatten(1), labels)


def _sum(output: Tensor) -> Tensor:
    return output.sum()


def _load_model(path: str) -> GraphModule:
    """The model of an ONNX file.

    Exported programs (.pt2) are refused: reading one evaluates expressions and, where it holds them, pickles.
    """
    if path.endswith(".pt2"):
        raise ValueError(
            f"{path}: an exported program can run code when it is opened; if you trust it, call torch.export.load "
            "and zonocuda.nonsmooth.audit(program.module(), ...) in Python"
        )
    if not path.endswith((".onnx", ".onnx.gz")):
        raise ValueError(f"{path}: a model is a .onnx or .onnx.gz file")
    return GraphModule(load_onnx(path))
