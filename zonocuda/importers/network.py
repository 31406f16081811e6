"""A network from a file: its graph, and ONNX Runtime's execution of the same file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from zonocuda.graph import Graph
from zonocuda.importers.check import check_against_onnxruntime
from zonocuda.importers.onnx import convert, read_onnx
from zonocuda.importers.runtime import OnnxRuntimeModel


@dataclass(frozen=True, eq=False)
class Network:
    """An imported network.

    Attributes:
        graph: what the verifier works on.
        onnx_bytes: the uncompressed, self-contained model.
        path: the file.
        sha256: digest of ``onnx_bytes``.
        runtime: ONNX Runtime's instance of the model.
    """

    graph: Graph
    onnx_bytes: bytes
    path: Path
    sha256: str
    runtime: OnnxRuntimeModel

    def check(self, lower: Tensor, upper: Tensor, points: int = 16, seed: int = 0) -> float:
        """Compare the graph with ONNX Runtime on the box; see ``check_against_onnxruntime``."""
        return check_against_onnxruntime(self.graph, self.runtime, lower, upper, points, seed)


def load_network(path: str | Path) -> Network:
    """Load an ``.onnx`` or ``.onnx.gz`` file; raises as ``load_onnx`` and ``OnnxRuntimeModel`` do."""
    file = read_onnx(path)
    graph = convert(file)
    return Network(graph, file.content, Path(path), file.sha256, OnnxRuntimeModel(file.content, file.name))
