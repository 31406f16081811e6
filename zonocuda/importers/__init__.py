"""Networks from ONNX files and torch modules, as graphs."""

from zonocuda.importers.aten.module import check_against_module, from_module, module_graph
from zonocuda.importers.aten.trace import call_each
from zonocuda.importers.check import check_against_onnxruntime
from zonocuda.importers.errors import (
    NetworkFileError,
    NetworkMismatchError,
    NetworkOverflowError,
    UnsupportedNetworkError,
)
from zonocuda.importers.network import Network, load_network
from zonocuda.importers.onnx.load import load_onnx
from zonocuda.importers.onnx.runtime import OnnxRuntimeModel

__all__ = [
    "Network",
    "NetworkFileError",
    "NetworkMismatchError",
    "NetworkOverflowError",
    "OnnxRuntimeModel",
    "UnsupportedNetworkError",
    "call_each",
    "check_against_module",
    "check_against_onnxruntime",
    "from_module",
    "load_network",
    "load_onnx",
    "module_graph",
]
