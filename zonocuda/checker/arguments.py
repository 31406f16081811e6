"""What a check is asked about: a claim, a network and a property, from files or from memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from onnx import ModelProto
from torch import Tensor

from zonocuda.checker.certificate import CertificateError, Document, check_document, open_regular, read_document
from zonocuda.graph import Graph
from zonocuda.importers import Network, load_network
from zonocuda.specs import Spec, load_vnnlib


class HasDocument(Protocol):
    """A result of ``zonocuda.verify``."""

    def to_json(self) -> dict[str, object]:
        """The document of the verdict."""


@dataclass(frozen=True, eq=False)
class Claimed:
    """The network that a claim is checked for.

    Attributes:
        graph: its graph.
        execute: the network itself.
        executor: what ``execute`` is, for messages.
        content: the ONNX model that the graph was read from; None where it was read from none.
        name: in messages.
        network: what was read, where names of its tensors are known.
    """

    graph: Graph
    execute: Callable[[Tensor], Tensor]
    executor: str
    content: bytes | None
    name: str
    network: Network | None = None


def document_of(certificate: object) -> tuple[Document, str]:
    """The document of a verdict, and its name in messages.

    Raises:
        CertificateError: no such document.
        TypeError: neither a result, nor a document, nor a path.
    """
    if isinstance(certificate, str | Path):
        return read_document(certificate), str(certificate)
    name = "the result"
    if isinstance(certificate, Mapping):
        return check_document(dict(certificate), name), name
    if not hasattr(certificate, "to_json"):
        raise TypeError(
            "check: the certificate must be a result of zonocuda.verify, its document or the path of a file, got "
            f"{type(certificate).__name__}"
        )
    return check_document(certificate.to_json(), name), name


def network_of(net: object) -> Claimed:
    """The network, read where it is a file or a model.

    Raises:
        ValueError: it cannot be read.
        TypeError: no network.
    """
    name = str(net) if isinstance(net, str | Path) else "the network"
    if isinstance(net, Graph):
        graph = net.current()
        return Claimed(graph, graph.to(torch.float32, "cpu"), "the graph", None, name)
    if isinstance(net, str | Path | ModelProto):
        net = load_network(net)
    if not isinstance(net, Network):
        raise TypeError(
            "check: the network must be the path of an ONNX file, an ONNX model, a loaded Network or a Graph (of a "
            f"module: zonocuda.from_module), got {type(net).__name__}"
        )
    return Claimed(net.graph, net.runtime, "ONNX Runtime", net.onnx_bytes, name, net)


def spec_of(spec: object) -> Spec:
    """The property, read where it is a file.

    Raises:
        ValueError: it cannot be read.
        TypeError: no property.
    """
    if isinstance(spec, Spec):
        return spec
    if isinstance(spec, str | Path):
        return load_vnnlib(spec)
    raise TypeError(f"check: the property must be the path of a VNN-LIB file or a Spec, got {type(spec).__name__}")


def compare_digest(document: Mapping[str, Any], name: str, kind: str, given: object) -> None:
    """Refuses another file than the one of a ``kind`` that a document names. Where it names none, or no file is given,
    there is nothing to compare: what is proven again is about what is given.

    Raises:
        CertificateError: another file.
        OSError: it cannot be read.
    """
    files = document.get("files")
    if not isinstance(given, str | Path) or (isinstance(files, dict) and kind in files and files[kind] is None):
        return
    with open_regular(given) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    entry = files.get(kind) if isinstance(files, dict) else None
    if not isinstance(entry, dict) or entry.get("sha256") != digest:
        raise CertificateError(f"{given}: is not the file that {name} is about (sha256 {digest})")
