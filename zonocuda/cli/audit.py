"""``zonocuda audit``: reads a model and data, audits its ties, and prints."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zonocuda import nonsmooth
from zonocuda.cli.commands import _check_writable
from zonocuda.graph import Graph
from zonocuda.importers import load_onnx

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


def audit(options: argparse.Namespace) -> None:
    """``zonocuda audit MODEL --data X.npy``."""
    _check_writable(options.json, options.html)
    dtypes = []
    for name in options.dtypes.split(","):
        if name not in _DTYPES:
            raise ValueError(f"--dtypes: {name!r} is not one of {', '.join(_DTYPES)}")
        dtypes.append(_DTYPES[name])
    model, shape = _load_model(options.model)
    x = torch.from_numpy(_load(options.data, "fiu").astype(np.float64))
    if shape is not None:
        if x.dim() == 0 or x.numel() != len(x) * torch.Size(shape).numel():
            raise ValueError(
                f"{options.data}: has shape {list(x.shape)}, the network wants [n, {', '.join(map(str, shape))}]"
            )
        x = x.reshape(len(x), *shape)
    batch: tuple[Tensor, ...] = (x,)
    if options.labels:
        labels = torch.from_numpy(_load(options.labels, "iu").astype(np.int64))
        if labels.shape != (len(x),):
            raise ValueError(f"{options.labels}: must hold {len(x)} labels, has shape {list(labels.shape)}")
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
    if options.json:
        document = report.to_json() | {"files": {"model": _file(options.model), "data": _file(options.data)}}
        Path(options.json).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    if options.html:
        Path(options.html).write_text(nonsmooth.html_page(report), encoding="utf-8")
    print(report, end="")


def _cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(output.flatten(1), labels)


def _sum(output: Tensor) -> Tensor:
    return output.sum()


def _load_model(path: str) -> tuple[nn.Module, tuple[int, ...] | None]:
    """The model, and the shape of one input if the file says it."""
    if path.endswith((".onnx", ".onnx.gz")):
        graph = load_onnx(path)
        return GraphModule(graph), graph.input_shape
    if path.endswith(".pt2"):
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            program = torch.export.load(path)
        except Exception as error:  # torch names no class for a file that it cannot read
            raise ValueError(f"{path}: not an exported program ({error})") from error
        module: nn.Module = program.module()
        return module, None
    raise ValueError(f"{path}: a model is a .onnx, .onnx.gz or .pt2 file")


def _load(path: str, kinds: str) -> np.ndarray:
    """An array of numbers from a .npy file."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a .npy file ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds or array.ndim == 0:
        raise ValueError(f"{path}: holds no array of {'numbers' if 'f' in kinds else 'integers'}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{path}: holds a NaN or an infinity")
    return array


def _file(path: str) -> dict[str, str]:
    return {"name": Path(path).name, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
