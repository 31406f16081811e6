"""What a user may call a network, made into one thing: a graph to reason about and a program to replay on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from zonocuda.graph import Graph
from zonocuda.importers import Network, check_against_module, from_module, load_network

Model = nn.Module | Graph | Network | str | Path


@dataclass(frozen=True, eq=False)
class Subject:
    """A network under verification.

    Attributes:
        graph: what bounds are computed on.
        execute: the network itself, which decides whether a counterexample counts: float32 ``[n, *input features]`` to
            outputs ``[n, *output features]``.
        check: raises if graph and network disagree on a box (lower, upper ``[*input features]``).
        runs_on: what ``execute`` is, for the result: ``onnxruntime``, ``module`` or ``graph``.
        versions: of what executes, beyond torch.
        dtype: the precision in which ``execute`` computes.
        rounded_box: whether a counterexample may lie anywhere in the box rounded to float32; else it must lie in the
            box itself, too.
    """

    graph: Graph
    execute: Callable[[Tensor], Tensor]
    check: Callable[[Tensor, Tensor], object]
    runs_on: str
    versions: Mapping[str, str] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    rounded_box: bool = True

    @staticmethod
    def of(model: Model, input_shape: tuple[int, ...] | None) -> Subject:
        """The subject for a module, a graph, an imported network or a path to an ONNX file.

        Args:
            model: the network.
            input_shape: feature shape of a module's input, without the batch; others know theirs.

        Raises:
            ValueError: a module without ``input_shape``, or a file that cannot be read or is not supported.
        """
        if isinstance(model, str | Path):
            model = load_network(model)
        if isinstance(model, Network):
            versions = {"onnxruntime": onnxruntime.__version__}
            return Subject(model.graph, model.runtime, model.check, "onnxruntime", versions, model.runtime.dtype)
        if isinstance(model, Graph):
            single = cache(lambda: model.to(torch.float32, "cpu"))  # from a device a copy, which bounds do without
            return Subject(model, lambda x: single()(x), lambda lower, upper: None, "graph")
        if input_shape is None:
            raise ValueError("a module's input shape (without the batch) is needed: pass input_shape=(...)")
        return _module_subject(model, input_shape)


def _module_subject(module: nn.Module, input_shape: tuple[int, ...]) -> Subject:
    """A module, replayed by itself on its own device and in its own dtype."""
    graph = from_module(module, input_shape)
    own = next((t for t in [*module.parameters(), *module.buffers()] if t.is_floating_point()), torch.zeros(()))

    def execute(x: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = module(x.to(own.device, own.dtype))
        return result.cpu()

    def check(lower: Tensor, upper: Tensor) -> float:
        return check_against_module(graph, module, lower, upper)

    return Subject(graph, execute, check, "module", dtype=own.dtype)
