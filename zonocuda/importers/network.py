"""A network from a file: its graph, and ONNX Runtime's execution of the same file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from torch import Tensor

from zonocuda.graph import Graph
from zonocuda.importers.check import check_against_onnxruntime, finite_against_onnxruntime
from zonocuda.importers.errors import NetworkFileError, one_line
from zonocuda.importers.final import Final, last_node, of_node, without_last
from zonocuda.importers.onnx.file import OnnxFile, parse_onnx
from zonocuda.importers.onnx.load import convert, read_onnx, reads_batch
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

    def __repr__(self) -> str:
        return f"Network({str(self.path) if self.path else 'in memory'}: {self.graph!r})"

    def check(self, lower: Tensor, upper: Tensor, points: int = 16, seed: int = 0) -> float:
        """Compare the graph with ONNX Runtime on the box; see ``check_against_onnxruntime``."""
        return check_against_onnxruntime(self.graph, self.runtime, lower, upper, points, seed)

    def finite(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Compare them on many boxes ``[S, N]``; see :func:`zonocuda.importers.check.finite_boxes`."""
        return finite_against_onnxruntime(self.graph, self.runtime, lower, upper)


@dataclass(frozen=True, eq=False)
class BeforeFinal:
    """A network that ends in a strictly increasing function, imported without it: see
    :mod:`zonocuda.importers.final`.

    Attributes:
        before: the network without its last operator.
        whole: ONNX Runtime's instance of the whole model.
        final: the last operator.
    """

    before: Network
    whole: OnnxRuntimeModel
    final: Final

    def with_final(self) -> Network:
        """The whole network, whose last operator is a layer like others."""
        return _network(parse_onnx(self.whole.content, self.whole.name), self.before.path)


def check_names(network: Network | BeforeFinal, names: tuple[str | None, str | None]) -> None:
    """Raises ValueError where a property is about an input or an output of another name than the network's; None is
    any."""
    runtime = network.whole if isinstance(network, BeforeFinal) else network.runtime
    for kind, asked, there in zip(("input", "output"), names, runtime.names, strict=True):
        if asked is not None and asked != there:
            raise ValueError(f"the specification is about the {kind} {asked!r}; the network's {kind} is {there!r}")


def load_network(source: str | Path | onnx.ModelProto) -> Network:
    """Load an ``.onnx`` or ``.onnx.gz`` file, or a model in memory.

    Raises:
        NetworkFileError, UnsupportedNetworkError: as ``load_onnx`` and ``OnnxRuntimeModel`` do.

    Examples:
        >>> load_network('examples/networks/fc.onnx').graph.output_shape
        (10,)
    """
    path, file = _read(source)
    return _network(file, path)


def load_for_comparisons(source: str | Path | onnx.ModelProto) -> Network | BeforeFinal:
    """:func:`load_network`, for a user that compares outputs with each other: a final function that keeps comparisons
    is left out, and returned beside the network.

    Raises:
        NetworkFileError, UnsupportedNetworkError: as ``load_network``.
    """
    path, file = _read(source)
    last = last_node(file)
    if last is None:
        return _network(file, path)
    cut = parse_onnx(without_last(file, last).SerializeToString(), file.name)
    before = _network(cut, path)
    keeps_batch = reads_batch(before.graph, cut)
    whole = OnnxRuntimeModel(file.content, file.name, keeps_batch=keeps_batch)
    shape = (1, *before.graph.output_shape) if keeps_batch else before.graph.output_shape
    return BeforeFinal(before, whole, of_node(last, file.opset, shape))


def _read(source: str | Path | onnx.ModelProto) -> tuple[Path | None, OnnxFile]:
    if not isinstance(source, str | Path | onnx.ModelProto):
        raise TypeError(f"load_network: needs a path or an ONNX model, got {type(source).__name__}")
    if isinstance(source, onnx.ModelProto):
        return None, parse_onnx(_serialized(source), "the ONNX model")
    return Path(source), read_onnx(source)


def _network(file: OnnxFile, path: Path | None) -> Network:
    graph = convert(file)
    runtime = OnnxRuntimeModel(file.content, file.name, keeps_batch=reads_batch(graph, file))
    return Network(graph, file.content, path, file.sha256, runtime)


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except (ValueError, EncodeError) as error:  # protobuf's limit
        raise NetworkFileError(f"importers.onnx: the ONNX model cannot be written: {one_line(error)}") from error
