"""Torch modules as graphs that share the modules' parameters."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from zonocuda.graph import Graph
from zonocuda.importers.aten.constants import enclose
from zonocuda.importers.aten.fingerprint import Fingerprint
from zonocuda.importers.aten.live import Imported, ModuleOrigin, remembered
from zonocuda.importers.aten.trace import LOCK, call, check_module, example, export, leaves, output_name
from zonocuda.importers.aten.trace_reading import Trace
from zonocuda.importers.check import Comparison, check_constants
from zonocuda.importers.constants.enclosure import executed_roundings
from zonocuda.importers.errors import UnsupportedNetworkError
from zonocuda.precision import full_precision, plain_torch


@plain_torch()
def from_module(model: nn.Module, input_shape: tuple[int, ...], points: int = 6, seed: int = 0) -> Graph:
    """The graph of a module in evaluation, for inputs ``[B, *input_shape]``.

    The graph holds the module's own parameters, not copies, and follows the module
    (:mod:`zonocuda.importers.aten.live`): what is computed with it is about the weights of that moment, whoever wrote
    them, and has gradients with respect to ``model.parameters()``. What is derived from weights (batch normalisation,
    parametrised weights, transposes) is derived again when they have changed, differentiably; where flags, attributes
    or types of the module have changed, it is imported again, which takes seconds. Derived numbers are float64, and
    their operators count the roundings (:mod:`zonocuda.importers.aten.constants`): convert the graph with ``Graph.to``
    before use; it still follows.

    The graph is compared with the module at random points: node by node with the operators that torch traced, as
    ``check_against_onnxruntime`` does, and as a whole, in batches of 1, 2 and 3.

    A module that takes no batch but 1 is traced and compared with that, and its graph is of single inputs: it may
    compute a batch, each for itself.

    Args:
        model: the module; it must be in evaluation mode if it holds batch normalisation or dropout. It returns one
            tensor, or a tuple, list or mapping of one.
        input_shape: shape of one input, without the batch.
        points: number of points of the comparison.
        seed: seed of those points.

    Raises:
        UnsupportedNetworkError: torch.export cannot trace the module, or the graph cannot express an operator.
        NetworkMismatchError: the graph and the module disagree beyond rounding.

    Examples:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()).eval()
        >>> from_module(model, (2,))
        Graph((2,) -> Linear -> Relu -> (3,))
    """
    shape = _checked_shape(input_shape)
    if not isinstance(model, nn.Module):
        raise TypeError(f"from_module: the model must be a torch.nn.Module, got {type(model).__name__}")
    if not all(isinstance(number, int) for number in (points, seed)) or points < 0:
        raise TypeError(f"from_module: points and seed must be integers, points at least 0, got {points!r}, {seed!r}")
    with LOCK:
        origin = ModuleOrigin(model, lambda module: _import(module, shape, points, seed))
        return origin.current().following(origin)


def module_graph(model: nn.Module, input_shape: tuple[int, ...]) -> Graph:
    """:func:`from_module`, remembered for as long as the module lives: see :mod:`zonocuda.importers.aten.live`."""
    return remembered(model, _checked_shape(input_shape), from_module)


def _checked_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    try:
        shape = tuple(operator.index(extent) for extent in input_shape)
    except TypeError as error:
        raise TypeError(f"from_module: input_shape must be a tuple of integers, got {input_shape!r}") from error
    if any(extent < 1 for extent in shape):
        raise ValueError(f"from_module: input_shape must be positive, got {list(shape)}")
    return shape


def _import(model: nn.Module, input_shape: tuple[int, ...], points: int, seed: int) -> Imported:
    name = type(model).__name__
    check_module(model, name)
    _check_mode(model, name)
    before = Fingerprint.of(model)
    program, batch = export(model, input_shape, name)
    found = leaves(program, model, name)
    sizes = [1, 2, 3] if batch > 1 else [1] * 6
    trace = Trace(program, input_shape, name, batch)
    with torch.no_grad():
        read = trace.derive(found)
        if read.depends_on_batch and batch > 1:  # its constants may be others for a single input, which is what counts
            program, batch = export(model, input_shape, name, batches=(1,))
            found = leaves(program, model, name)
            trace = Trace(program, input_shape, name, batch)
            read = trace.derive(found)
        if read.computed:
            with plain_torch(), full_precision(), executed_roundings():
                check_constants(read.graph, trace.read(found, enclose).graph, name)
    with plain_torch():
        _compare(read.graph, program, found, model, batch, sizes, name, points, seed)
    structure = Fingerprint.of(model).without(before)
    return Imported(
        read.graph,
        found,
        read.derived,
        lambda now: leaves(program, now, name),
        lambda now: trace.derive(now).graph,
        structure,
    )


def _check_mode(model: nn.Module, name: str) -> None:
    for path, module in model.named_modules():
        stochastic = isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd)
        if stochastic and module.training:
            raise UnsupportedNetworkError(
                f"importers.module: {name}: module {path!r} ({type(module).__name__}) is in training mode; "
                "call model.eval() first"
            )


class _Recorder(fx.Interpreter):
    """Runs a traced program and keeps every tensor by its node's name."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.tensors: dict[str, Tensor] = {}

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        if isinstance(result, Tensor):
            self.tensors[node.name] = result
        return result


def _compare(
    graph: Graph,
    program: ExportedProgram,
    found: Mapping[str, Tensor],
    model: nn.Module,
    batch: int,
    sizes: Sequence[int],
    name: str,
    points: int,
    seed: int,
) -> None:
    """Compare the graph with the traced program, node by node, and with the module itself."""
    placeholders = [node.name for node in program.graph_module.graph.nodes if node.op == "placeholder"]
    own = [node.name for node in graph.nodes[1:]]
    recorder = _Recorder(program.graph_module)
    like = example(model, ())
    comparison = Comparison(graph.to(device=like.device), name, "the module", like.dtype)
    output = output_name(program, name)
    generator = torch.Generator().manual_seed(seed)
    rounds = max(1, -(-points // 6))
    with torch.no_grad(), full_precision():
        for _ in range(rounds):
            x = torch.randn((6, *graph.input_shape), generator=generator, dtype=torch.float64, device="cpu").to(like)
            recorder.run(*(found.get(placeholder, x[:batch].clone()) for placeholder in placeholders))
            seen = recorder.tensors
            comparison.check_nodes(x[:batch], {node: seen[node] for node in own if node in seen}, seen[output])
            for part in torch.split(x, list(sizes)):
                comparison.check_output(part, call(model, part))
