"""Torch modules as graphs that share the modules' parameters."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from zonocuda.graph import Graph
from zonocuda.importers.aten_constants import enclose, may_round
from zonocuda.importers.aten_node import AtenNode
from zonocuda.importers.aten_ops import CONVERTERS, IGNORED, cast
from zonocuda.importers.builder import GraphBuilder, Value, holds
from zonocuda.importers.check import Comparison, check_constants, sample_points
from zonocuda.importers.constant_call import flat
from zonocuda.importers.enclosure import Enclosure, executed_roundings
from zonocuda.importers.errors import UnsupportedNetworkError, located, one_line, refuse
from zonocuda.importers.simplify import with_executed
from zonocuda.precision import full_precision

Folding = Callable[[fx.Node, Sequence[Any], Mapping[str, Any]], Any]

_UNSUPPORTED = f"is not supported; supported: {', '.join(sorted(CONVERTERS))}"

_NAMES = (
    "abs add alias cat clone contiguous detach expand flatten full lift_fresh_copy mul neg ones permute reshape "
    "rsub select slice split split_with_sizes sqrt squeeze sub t to _to_copy transpose unbind unflatten unsqueeze "
    "_unsafe_view view zeros"
)
_ROUND_ONCE = frozenset(_NAMES.split())
"""Operators on constants that round each element of their result at most once, the same on every machine. (A quotient
is a product with the reciprocal on some; sums take a factor ``alpha``, which must be 1.)"""

_ARITHMETIC = frozenset({"add", "mul", "rsub", "sqrt", "sub"})
"""Those among them that compute."""

BATCH = 2
"""The batch that a module is traced with: not 1, which would hide what an operator does to the batch."""


def from_module(model: nn.Module, input_shape: tuple[int, ...], points: int = 6, seed: int = 0) -> Graph:
    """The graph of a module in evaluation, for inputs ``[B, *input_shape]``.

    The graph holds the module's own parameters, not copies: bounds computed with it have gradients with respect to
    ``model.parameters()``, and follow updates of weights and biases. Tensors derived from them (batch normalisation,
    parametrised weights, transposes) are computed here, differentiably: import again after an update. Those that
    arithmetic derives are float64, and their operators count the roundings (:mod:`zonocuda.importers.aten_constants`):
    convert the graph with ``Graph.to`` before use.

    The graph is compared with the module at random points: node by node with the operators that torch traced, as
    ``check_against_onnxruntime`` does, and as a whole, in batches of 1, 2 and 3.

    Args:
        model: the module; it must be in evaluation mode if it holds batch normalisation or dropout.
        input_shape: shape of one input, without the batch.
        points: number of points of the comparison.
        seed: seed of those points.

    Raises:
        UnsupportedNetworkError: torch.export cannot trace the module, or the graph cannot express an operator.
        NetworkMismatchError: the graph and the module disagree beyond rounding.
    """
    name = type(model).__name__
    _check_mode(model, name)
    example = _example(model, (BATCH, *input_shape))
    program = _export(model, example, name)
    graph, computed = _convert(program, model, tuple(input_shape), name, enclose)
    if computed:
        with torch.no_grad(), full_precision():
            graph = with_executed(graph, _convert(program, model, tuple(input_shape), name, _execute)[0])
            with executed_roundings():
                check_constants(graph, _convert(program, model, tuple(input_shape), name, enclose)[0], name)
    _compare(graph, program, model, example, name, points, seed)
    return graph


def _export(model: nn.Module, example: Tensor, name: str) -> ExportedProgram:
    """The traced module, without operators that write to their arguments."""
    try:
        with warnings.catch_warnings():
            # torch's own use of a class that it deprecates
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            exported: ExportedProgram = torch.export.export(model, (example,), strict=False)
            exported = exported.run_decompositions({})
            return exported
    except RuntimeError as error:
        raise UnsupportedNetworkError(
            f"importers.module: {name}: torch.export cannot trace it: {one_line(error)}"
        ) from error


def _check_mode(model: nn.Module, name: str) -> None:
    for path, module in model.named_modules():
        stochastic = isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd)
        if stochastic and module.training:
            raise UnsupportedNetworkError(
                f"importers.module: {name}: module {path!r} ({type(module).__name__}) is in training mode; "
                "call model.eval() first"
            )


def _example(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Zeros with the type and device of the module's floating-point parameters or buffers."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
    return torch.zeros(shape)  # a module without any computes in torch's default type, on its default device


def _execute(node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What the module itself computes from constants."""
    function: Any = node.target
    return function(*args, **kwargs)


def _convert(
    program: ExportedProgram, model: nn.Module, input_shape: tuple[int, ...], name: str, folding: Folding
) -> tuple[Graph, bool]:
    """The graph, and whether it holds constants that the module computes, which its own precision may round."""
    output = _output_name(program, name)
    nodes = program.graph_module.graph.nodes
    builder: GraphBuilder | None = None
    env: dict[fx.Node, Any] = {}
    leaves = {leaf.arg.name: leaf for leaf in program.graph_signature.input_specs}
    for node in nodes:
        if node.op != "placeholder":
            continue
        if leaves[node.name].kind == InputKind.USER_INPUT:
            reserved = [other.name for other in nodes]
            builder = GraphBuilder(node.name, input_shape, node.meta["val"].dtype, batched=True, reserved=reserved)
            env[node] = builder.input
        else:
            env[node] = _leaf(leaves[node.name], program, model, name)
    if builder is None:
        raise UnsupportedNetworkError(f"importers.module: {name}: its forward does not take one tensor")
    for node in nodes:
        if node.op not in ("placeholder", "output"):
            builder.begin([node.name], _dtype(node))
            try:
                env[node] = _value(node, env, builder, folding)
            except UnsupportedNetworkError as error:
                raise located(f"importers.module: {name}: {_describe(node)}", error) from error
    results = [value for node, value in env.items() if node.name == output and isinstance(value, Value)]
    if not results:
        raise UnsupportedNetworkError(f"importers.module: {name}: its output does not depend on the input")
    computed = any(
        isinstance(leaf, Enclosure) or (isinstance(leaf, Tensor) and node.op == "call_function" and may_round(node))
        for node, value in env.items()
        for leaf in flat(value)
    )
    return builder.finish(results[0]), computed


def _output_name(program: ExportedProgram, name: str) -> str:
    """The name of the one output; the module may overwrite its input, but no buffer."""
    specs = program.graph_signature.output_specs
    outputs = [spec.arg.name for spec in specs if spec.kind == OutputKind.USER_OUTPUT and hasattr(spec.arg, "name")]
    written = [spec.target for spec in specs if spec.kind == OutputKind.BUFFER_MUTATION]
    if written:
        raise UnsupportedNetworkError(f"importers.module: {name}: it writes to its buffer {written[0]!r}")
    if len(outputs) != 1 or any(
        spec.kind not in (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION) for spec in specs
    ):
        raise UnsupportedNetworkError(f"importers.module: {name}: it must return exactly one tensor")
    return str(outputs[0])


def _leaf(leaf: Any, program: ExportedProgram, model: nn.Module, name: str) -> Tensor:
    """The module's own parameter or buffer, or a constant of the traced program."""
    if leaf.kind == InputKind.PARAMETER:
        return model.get_parameter(leaf.target)
    if leaf.kind == InputKind.BUFFER:
        return model.get_buffer(leaf.target)
    constant = program.constants.get(leaf.target) if leaf.kind == InputKind.CONSTANT_TENSOR else None
    if not isinstance(constant, Tensor):
        raise UnsupportedNetworkError(f"importers.module: {name}: its input {leaf.arg.name!r} is not supported")
    return constant


def _dtype(node: fx.Node) -> torch.dtype | None:
    """The floating-point type of a node's (first) result, if it has one."""
    traced = node.meta.get("val")
    first = traced[0] if isinstance(traced, tuple | list) and traced else traced
    return first.dtype if isinstance(first, Tensor) and first.dtype.is_floating_point else None


def _value(node: fx.Node, env: dict[fx.Node, Any], builder: GraphBuilder, folding: Folding) -> Any:
    """What a node computes: a ``Value``, a tuple of them, or a constant."""
    if node.op != "call_function":
        refuse("control flow and changes of the gradient mode are not supported")
    if str(node.target) in IGNORED:
        return None
    args: Any = fx.map_arg(node.args, lambda used: env[used])
    kwargs: Any = fx.map_arg(node.kwargs, lambda used: env[used])
    if node.target is operator.getitem:
        return args[0][args[1]]
    if not isinstance(node.target, torch._ops.OpOverload):
        refuse(_UNSUPPORTED)
    if not any(_depends_on_input(env[used]) for used in node.all_input_nodes):
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            refuse("it draws random numbers")
        constant = folding(node, args, kwargs)
        computes = not isinstance(constant, Tensor) or constant.is_floating_point()
        once = node.target._schema.name.removeprefix("aten::") in _ROUND_ONCE and kwargs.get("alpha", 1) == 1
        if computes and not once:
            builder.unaccounted(f"{_describe(node)} computes a constant, differently on every machine")
        if computes and node.target._schema.name.removeprefix("aten::") in _ARITHMETIC:
            builder.check_underflow(_describe(node), [*args, *kwargs.values(), constant])
        return constant
    converter = CONVERTERS.get(str(node.target))
    if converter is None:
        refuse(_UNSUPPORTED)
    operands = [env[used] for used in node.all_input_nodes if isinstance(env[used], Value)]
    dtype = _dtype(node)
    if converter is not cast and dtype is not None and not all(holds(dtype, value.dtype) for value in operands):
        refuse(f"it rounds its operands to {dtype}; convert them first, with .to({dtype})")
    if dtype is not None and any(dtype != value.dtype for value in operands):
        builder.unaccounted(f"{_describe(node)} changes the precision to {dtype}")
    result = converter(AtenNode(node, args, kwargs, builder))
    if isinstance(result, tuple):
        return tuple(_checked(value, traced) for value, traced in zip(result, node.meta["val"], strict=False))
    return _checked(result, node.meta["val"])


def _checked(value: Value | None, traced: Tensor) -> Value | None:
    """A converted result, in the type that torch gives it."""
    if value is None:
        return None
    if tuple(traced.shape) != (BATCH, *value.shape):
        refuse(f"its result, of shape {tuple(traced.shape)} for a batch of {BATCH}, does not keep the batch first")
    if not traced.dtype.is_floating_point:
        refuse(f"its result is {traced.dtype}; only floating-point types are supported")
    return replace(value, dtype=traced.dtype)


def _depends_on_input(value: Any) -> bool:
    return any(map(_depends_on_input, value)) if isinstance(value, tuple | list) else isinstance(value, Value)


def _describe(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return f"{node.target} (node {node.name!r}{f', module {path!r}' if path else ''})"


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
    graph: Graph, program: ExportedProgram, model: nn.Module, example: Tensor, name: str, points: int, seed: int
) -> None:
    """Compare the graph with the traced program, node by node, and with the module itself."""
    leaves = program.graph_signature.input_specs
    own = [node.name for node in graph.nodes[1:]]
    recorder = _Recorder(program.graph_module)
    comparison = Comparison(graph.to(device=example.device), name, "the module", example.dtype)
    output = _output_name(program, name)
    generator = torch.Generator().manual_seed(seed)
    rounds = max(1, -(-points // 6))
    with torch.no_grad(), full_precision():
        for _ in range(rounds):
            x = torch.randn((6, *example.shape[1:]), generator=generator, dtype=torch.float64, device="cpu").to(example)
            traced = x[:BATCH].clone()
            inputs = [
                traced if leaf.kind == InputKind.USER_INPUT else _leaf(leaf, program, model, name) for leaf in leaves
            ]
            recorder.run(*inputs)
            seen = recorder.tensors
            comparison.check_nodes(x[:BATCH], {node: seen[node] for node in own if node in seen}, seen[output])
            for batch in (x[:1], x[1:3], x[3:]):
                comparison.check_output(batch, model(batch.clone()))


@torch.no_grad()
def check_against_module(
    graph: Graph, model: nn.Module, lower: Tensor, upper: Tensor, points: int = 16, seed: int = 0
) -> float:
    """Compare a graph from ``from_module`` with its module at points of a box: both corners, the center, random ones.

    Products must be in full float32 while it runs: see ``zonocuda.precision.full_precision``.

    Returns:
        The largest difference between an output of the float64 graph and of the module.

    Raises:
        NetworkMismatchError: the two disagree beyond rounding, or in shape.
        NetworkOverflowError: the module computes an infinity or a NaN in the box.
    """
    example = _example(model, (1, *graph.input_shape))
    comparison = Comparison(graph.to(device=example.device), type(model).__name__, "the module", example.dtype)
    samples = sample_points(lower, upper, graph.input_shape, points, seed)
    x = samples[: len(samples) - points].to(example)
    return comparison.check_output(x, model(x.clone()))
