"""ONNX Runtime as the judge of what a network computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as errors
from torch import Tensor

from zonocuda.graph.ops import Shape
from zonocuda.importers.errors import NetworkFileError, one_line
from zonocuda.importers.onnx.file import parse_onnx

Array = NDArray[Any]

_ERRORS = (
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NotImplemented,
    errors.RuntimeException,
)


class OnnxRuntimeModel:
    """A network as ONNX Runtime executes it: on the CPU, in one thread, one sample after the other.

    Samples run alone even where the model leaves the batch open, because a network means what it computes for batch
    1, and because the order of summation may depend on the batch.

    Args:
        content: a self-contained ONNX model.
        name: the file's name in messages.
        observe: tensors inside the model to record; with any, the graph is executed node by node as written, without
            ONNX Runtime's rewriting.
        keeps_batch: whether samples leave out a batch that the model's input has, as graphs do where every node keeps
            it; else all dimensions of tensors are features.

    Raises:
        NetworkFileError: ONNX Runtime cannot load the model.
        UnsupportedNetworkError: the model has more than one input or output, or an open or fixed batch shape that
            ``load_onnx`` refuses.
    """

    def __init__(
        self, content: bytes, name: str = "model", observe: Sequence[str] = (), keeps_batch: bool = True
    ) -> None:
        file = parse_onnx(content, name)
        file = file if keeps_batch else file.without_batch()
        self.name = name
        self.content = content
        self.input_shape: Shape = file.input_shape[1:] if file.batched else file.input_shape
        self._batched = file.batched
        self._observer: tuple[tuple[str, ...], OnnxRuntimeModel] | None = None
        self._input = file.input_name
        self.names = file.input_name, file.output_name
        self._outputs = [file.output_name, *(tensor for tensor in observe if tensor != file.output_name)]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised, not written to stderr
        if observe:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            file.model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in self._outputs[1:])
        if len(file.nodes) < len(file.model.graph.node):  # it executes nodes that the output does not need
            del file.model.graph.node[:]
            file.model.graph.node.extend(file.nodes)
        content = file.model.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise NetworkFileError(
                f"importers.runtime: {name}: ONNX Runtime cannot load it: {one_line(error)}"
            ) from error
        is_double = self._session.get_inputs()[0].type == "tensor(double)"
        self.dtype = torch.float64 if is_double else torch.float32

    @overload
    def __call__(self, x: Tensor) -> Tensor: ...

    @overload
    def __call__(self, x: Array) -> Array: ...

    def __call__(self, x: Tensor | Array) -> Tensor | Array:
        """The outputs ``[B, *output shape]`` for ``x`` ``[B, *input shape]``, a tensor for a tensor.

        ``x`` is float32, or the model's own type.

        Raises:
            ValueError: another shape or type, or no samples.
            TypeError: no tensor and no array.
            NetworkFileError: ONNX Runtime cannot run the model.
        """
        if not isinstance(x, Tensor | np.ndarray):
            raise TypeError(
                f"OnnxRuntimeModel: {self.name}: inputs must be a tensor or an array, got {type(x).__name__}"
            )
        if isinstance(x, Tensor):
            return torch.from_numpy(self._run(x.detach().cpu().numpy(), self._outputs[:1])[0])
        return self._run(x, self._outputs[:1])[0]

    def observe(self, x: Tensor) -> dict[str, Tensor]:
        """The output and every observed tensor for ``x``, by name, each ``[B, *shape]``."""
        arrays = self._run(x.detach().cpu().numpy(), self._outputs)
        return {name: torch.from_numpy(array) for name, array in zip(self._outputs, arrays, strict=True)}

    def observing(self, tensors: tuple[str, ...]) -> OnnxRuntimeModel:
        """An instance of the same model that records ``tensors``; made once and kept."""
        if self._observer is None or self._observer[0] != tensors:
            self._observer = (tensors, OnnxRuntimeModel(self.content, self.name, tensors, self._batched))
        return self._observer[1]

    @property
    def output_name(self) -> str:
        """Name of the model's output."""
        return self._outputs[0]

    def _run(self, x: Array, outputs: list[str]) -> list[Array]:
        own = np.float64 if self.dtype == torch.float64 else np.float32
        if x.dtype not in (np.float32, own):
            raise ValueError(f"OnnxRuntimeModel: {self.name}: inputs must be {own.__name__}, got {x.dtype}")
        if x.ndim == 0 or not len(x) or x.shape[1:] != self.input_shape:
            raise ValueError(
                f"OnnxRuntimeModel: {self.name}: inputs must have shape [B, {', '.join(map(str, self.input_shape))}] "
                f"with B > 0, got {list(x.shape)}"
            )
        samples = x.astype(own)
        try:
            runs = [
                self._session.run(outputs, {self._input: sample[None] if self._batched else sample})
                for sample in samples
            ]
        except _ERRORS as error:
            raise NetworkFileError(
                f"importers.runtime: {self.name}: ONNX Runtime cannot run it: {one_line(error)}"
            ) from error
        join = np.concatenate if self._batched else np.stack
        joined = [join(parts) for parts in zip(*runs, strict=True)]
        if any(len(array) != len(x) for array in joined):
            raise NetworkFileError(f"importers.runtime: {self.name}: an output does not keep the batch of 1")
        return joined
