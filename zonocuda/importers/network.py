"""A network from a file: its graph, and ONNX Runtime's execution of the same file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from torch import Tensor

from zonocuda.graph import Graph
from zonocuda.importers.check import check_against_onnxruntime
from zonocuda.importers.errors import NetworkFileError, one_line
from zonocuda.importers.onnx.file import parse_onnx
from zonocuda.importers.onnx.load import convert, read_onnx
from zonocuda.importers.onnx.runtime import OnnxRuntimeModel


@dataclass(frozen=True, eq=False)
class Network:
    """An imported network.

    Attributes:
        graph: what the verifier works on.
        onnx_bytes: the uncompressed, self-contained model.
        path: the file; None for a model in memory.
        sha256: digest of ``onnx_bytes``.
        runtime: ONNX Runtime's instance of the model.
    """

    graph: Graph
    onnx_bytes: bytes
    path: Path | None
    sha256: str
    runtime: OnnxRuntimeModel

    def check(self, lower: Tensor, upper: Tensor, points: int = 16, seed: int = 0) -> float:
        """Compare the graph with ONNX Runtime on the box; see ``check_against_onnxruntime``."""
        return check_against_onnxruntime(self.graph, self.runtime, lower, upper, points, seed)


def load_network(source: str | Path | onnx.ModelProto) -> Network:
    """Load an ``.onnx`` or ``.onnx.gz`` file, or a model in memory.

    Raises:
        NetworkFileError, UnsupportedNetworkError: as ``load_onnx`` and ``OnnxRuntimeModel`` do.
    """
    if not isinstance(source, str | Path | onnx.ModelProto):
        raise TypeError(f"load_network: needs a path or an ONNX model, got {type(source).__name__}")
    if isinstance(source, onnx.ModelProto):
        path, file = None, parse_onnx(_serialized(source), "the ONNX model")
    else:
        path, file = Path(source), read_onnx(source)
    graph = convert(file)
    return Network(graph, file.content, path, file.sha256, OnnxRuntimeModel(file.content, file.name))


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except (ValueError, EncodeError) as error:  # protobuf's limit
        raise NetworkFileError(f"importers.onnx: the ONNX model cannot be written: {one_line(error)}") from error
