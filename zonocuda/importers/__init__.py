"""Networks from ONNX files and torch modules, as graphs."""

from zonocuda.importers.aten.check import check_against_module, finite_against_module
from zonocuda.importers.aten.module import from_module, module_graph
from zonocuda.importers.aten.trace import call_each
from zonocuda.importers.check import check_against_onnxruntime
from zonocuda.importers.errors import (
    NetworkFileError,
    NetworkMismatchError,
    NetworkOverflowError,
    UnsupportedNetworkError,
)
from zonocuda.importers.final import Final
from zonocuda.importers.network import BeforeFinal, Network, check_names, load_for_comparisons, load_network
from zonocuda.importers.onnx.load import load_onnx
from zonocuda.importers.onnx.runtime import OnnxRuntimeModel

__all__ = [
    "BeforeFinal",
    "Final",
    "Network",
    "NetworkFileError",
    "NetworkMismatchError",
    "NetworkOverflowError",
    "OnnxRuntimeModel",
    "UnsupportedNetworkError",
    "call_each",
    "check_against_module",
    "check_against_onnxruntime",
    "check_names",
    "finite_against_module",
    "from_module",
    "load_for_comparisons",
    "load_network",
    "load_onnx",
    "module_graph",
]
