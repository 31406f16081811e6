"""What a traced module says: its graph, node by node, for any values of its parameters."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from zonocuda.graph import Graph
from zonocuda.importers import lowering
from zonocuda.importers.aten.constants import enclose, makes, may_round
from zonocuda.importers.aten.node import AtenNode
from zonocuda.importers.aten.ops import CONVERTERS, IGNORED, cast
from zonocuda.importers.aten.trace import output_name
from zonocuda.importers.builder import GraphBuilder, Value
from zonocuda.importers.constants.call import flat
from zonocuda.importers.constants.enclosure import Enclosure, holds
from zonocuda.importers.errors import UnsupportedNetworkError, located, one_line, refuse
from zonocuda.importers.simplify import with_executed
from zonocuda.precision import full_precision, plain_torch

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


@dataclass(frozen=True, eq=False)
class Reading:
    """What a trace says, read with some parameters.

    Attributes:
        graph: the graph.
        computed: whether it holds constants that the module computes, which its own precision may round.
        derived: the parameters that operators do not hold as they are, but something derived from them.
        depends_on_batch: whether constants have an extent of the batch.
    """

    graph: Graph
    computed: bool
    derived: frozenset[str]
    depends_on_batch: bool


@dataclass(frozen=True, eq=False)
class Trace:
    """A traced module, which can be read with other parameters again and again.

    Attributes:
        program: the trace, of inputs ``[batch, *input_shape]``.
        name: the module's, in messages.
    """

    program: ExportedProgram
    input_shape: tuple[int, ...]
    name: str
    batch: int
    _known: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def read(self, found: Mapping[str, Tensor], folding: Folding) -> Reading:
        """The graph for the parameters, buffers and constants ``found``, whose constants ``folding`` computes."""
        return _convert(self.program, found, self.input_shape, self.name, folding, self.batch, self._known)

    def derive(self, found: Mapping[str, Tensor]) -> Reading:
        """The graph in real arithmetic, with the constants of an execution where they are others."""
        with plain_torch():
            read = self.read(found, enclose)
            if not read.computed:
                return read
            with torch.no_grad(), full_precision():
                executed = self.read(found, _execute).graph
            return replace(read, graph=with_executed(read.graph, executed))


def _execute(node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What the module itself computes from constants."""
    function: Any = node.target
    return function(*args, **kwargs)


def _convert(
    program: ExportedProgram,
    found: Mapping[str, Tensor],
    input_shape: tuple[int, ...],
    name: str,
    folding: Folding,
    batch: int,
    known: dict[str, tuple[int, ...]],
) -> Reading:
    output = output_name(program, name)
    nodes = program.graph_module.graph.nodes
    builder: GraphBuilder | None = None
    env: dict[fx.Node, Any] = {}
    sources: dict[fx.Node, frozenset[str]] = {}
    derived: set[str] = set()
    for node in nodes:
        if node.op != "placeholder":
            continue
        sources[node] = frozenset()
        if node.name not in found:
            names = [other.name for other in nodes]
            dtype = node.meta["val"].dtype
            builder = GraphBuilder(
                node.name,
                input_shape,
                dtype,
                batched=True,
                reserved=names,
                known=known,
                batch=batch,
                executed=folding is _execute,
            )
            env[node] = builder.input
        else:
            env[node] = found[node.name]
            sources[node] = frozenset([node.name])
    if builder is None:
        raise UnsupportedNetworkError(f"importers.module: {name}: its forward does not take one tensor")
    for node in nodes:
        if node.op not in ("placeholder", "output"):
            builder.begin([node.name], _dtype(node))
            before = len(builder.emitted())
            try:
                env[node] = _value(node, env, builder, folding, batch)
            except UnsupportedNetworkError as error:
                raise located(f"importers.module: {name}: {_describe(node)}", error) from error
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                # an argument or a constant of a kind that no converter expects
                reason = UnsupportedNetworkError(f"cannot be converted: {type(error).__name__}: {one_line(error)}")
                raise located(f"importers.module: {name}: {_describe(node)}", reason) from error
            read = frozenset().union(*(sources[used] for used in node.all_input_nodes))
            sources[node] = frozenset() if _depends_on_input(env[node]) else read
            held = {id(t) for emitted in builder.emitted(before) for t in vars(emitted.op).values() if _is_tensor(t)}
            if _depends_on_input(env[node]) and held != {id(found[leaf]) for leaf in read}:
                derived |= read
    result = next(env[node] for node in nodes if node.name == output)
    if not isinstance(result, Value):
        result = _constant_output(result, builder, name, output)
    computed = builder.differs_as_executed or any(
        isinstance(leaf, Enclosure) or (isinstance(leaf, Tensor) and node.op == "call_function" and may_round(node))
        for node, value in env.items()
        for leaf in flat(value)
    )
    return Reading(builder.finish(result), computed, frozenset(derived), builder.depends_on_batch)


def _constant_output(found: Any, builder: GraphBuilder, name: str, output: str) -> Value:
    if not isinstance(found, Tensor | Enclosure) or not found.dtype.is_floating_point or not found.dim():
        raise UnsupportedNetworkError(f"importers.module: {name}: its output does not depend on the input")
    builder.begin([output], found.dtype)
    return lowering.constant_output(builder, output, lowering.without_batch(builder, found))


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _dtype(node: fx.Node) -> torch.dtype | None:
    """The floating-point type of a node's (first) result, if it has one."""
    traced = node.meta.get("val")
    first = traced[0] if isinstance(traced, tuple | list) and traced else traced
    return first.dtype if isinstance(first, Tensor) and first.dtype.is_floating_point else None


def _value(node: fx.Node, env: dict[fx.Node, Any], builder: GraphBuilder, folding: Folding, batch: int) -> Any:
    """What a node computes: a ``Value``, a tuple of them, or a constant."""
    if node.op != "call_function":
        refuse("control flow and changes of the gradient mode are not supported")
    if str(node.target) in IGNORED:
        return None
    args: Any = fx.map_arg(node.args, lambda used: env[used])
    kwargs: Any = fx.map_arg(node.kwargs, lambda used: env[used])
    if node.target is operator.getitem:
        return args[0][args[1]]
    if node.target in _SIZES:
        return _size(node, args, batch)
    if not isinstance(node.target, torch._ops.OpOverload):
        refuse(_UNSUPPORTED)
    target, batch_sized = str(node.target), False
    if _reads_shape_alone(target, args):
        args, kwargs = (fx.map_arg(a, lambda used: _stand_in(used, env)) for a in (node.args, node.kwargs))
        batch_sized = True
    if batch_sized or not any(_depends_on_input(env[used]) for used in node.all_input_nodes):
        if batch > 1 and (batch_sized or (makes(target) and batch in flat(args))):
            builder.depends_on_batch = True
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
        return tuple(_checked(value, traced, batch) for value, traced in zip(result, node.meta["val"], strict=False))
    return _checked(result, node.meta["val"], batch)


_SIZES = (operator.ge, operator.le, operator.gt, operator.lt, operator.eq, torch.ops.aten.sym_size.int)
"""What traces hold about extents that a constant mask decides."""


def _size(node: fx.Node, args: Sequence[Any], batch: int) -> Any:
    """An extent of a tensor, or a comparison of extents."""
    first = args[0]
    if isinstance(first, Value):
        return (batch, *first.shape)[args[1]]
    function: Any = node.target
    return function(*args)


def _reads_shape_alone(target: str, args: Sequence[Any]) -> bool:
    """Whether an operator takes no more than shape and type from what depends on the input."""
    if makes(target):
        return True
    first, *others = [_depends_on_input(argument) for argument in args] or [False]
    if target in ("aten.fill.Scalar", "aten.fill.Tensor", "aten.copy.default"):
        return first and not any(others)
    return target == "aten.type_as.default" and not first


def _stand_in(node: fx.Node, env: Mapping[fx.Node, Any]) -> Any:
    """Zeros in the shape of what depends on the input."""
    found = env[node]
    if not isinstance(found, Value):
        return found
    traced = node.meta["val"]
    return torch.zeros(tuple(traced.shape), dtype=traced.dtype, device=traced.device)


def _checked(value: Any, traced: Tensor, batch: int) -> Any:
    """A converted result, in the type that torch gives it."""
    if not isinstance(value, Value):
        return value
    own = (batch, *value.shape)
    if len(own) != traced.dim() or any(isinstance(n, int) and n != m for n, m in zip(traced.shape, own, strict=True)):
        refuse(f"its result, of shape {tuple(traced.shape)} for a batch of {batch}, does not keep the batch first")
    if not traced.dtype.is_floating_point:
        refuse(f"its result is {traced.dtype}; only floating-point types are supported")
    return replace(value, dtype=traced.dtype)


def _depends_on_input(value: Any) -> bool:
    return any(map(_depends_on_input, value)) if isinstance(value, tuple | list) else isinstance(value, Value)


def _describe(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return f"{node.target} (node {node.name!r}{f', module {path!r}' if path else ''})"
