"""Comparison of a graph with the network it was imported from, at points."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zonocuda.graph import HOPELESS, Affine, Graph, Node, Op, ScaleShift, absolute, constants, interpret
from zonocuda.importers.errors import NetworkMismatchError, NetworkOverflowError
from zonocuda.importers.onnx.file import node_names, parse_onnx
from zonocuda.importers.onnx.runtime import OnnxRuntimeModel
from zonocuda.importers.rounding import Bounded, transfer
from zonocuda.importers.simplify import check_same_structure
from zonocuda.roundoff import unit_roundoff

CHUNK = 8
"""Points that are compared at once, where the network is small enough."""
MAX_VALUES = 1 << 21
"""Values of one tensor at the points that are compared at once: 16 MiB, which a C library gives out again; what is
larger costs a page fault for every 4 KiB, every time."""
MAX_OBSERVED = 1 << 26
"""Values of all tensors together at these points."""
MANY = 512
"""As CHUNK, where many boxes are compared."""

_EXECUTIONS = 2 * (1 + 2**-10)
"""Two executions are compared, each within the bound; the rest covers the rounding of the bound itself."""


PLAIN = 2.0**14
"""Units of roundoff, times 1 + the largest output, that two executions may differ by where no bound is finite; not in
types of 16 bits, where they are too many."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """A graph beside another execution of the same network.

    Attributes:
        graph: the graph.
        network: the network's name in messages.
        other: what executes it.
        dtype: the type in which it computes nodes that do not say.

    The constants are those of an execution (:attr:`zonocuda.graph.Graph.executed`): how far the real ones may be from
    them is :func:`check_constants`'s question. Every node is compared in the precision in which the network itself
    computes it.
    """

    graph: Graph
    network: str
    other: str
    dtype: torch.dtype
    _own: Graph = field(init=False)
    _wide: Graph = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_own", self.graph.as_executed())
        object.__setattr__(self, "_wide", self._own.to(torch.float64))

    @torch.no_grad()
    def check_nodes(self, x: Tensor, observed: Mapping[str, Tensor], output: Tensor) -> None:
        """Compare node by node.

        Every node is evaluated in float64 from the values that the other execution gave to the nodes before it
        (those in ``observed``, by node name), and so is the output.

        Raises:
            NetworkMismatchError: a value differs beyond rounding, or in shape.
        """

        def step(node: Node, inputs: tuple[Bounded, ...]) -> Bounded:
            result = self._transfer(node, inputs)
            if node.name not in observed:
                return result
            self._agree(f"node {node.name!r}: element", result, observed[node.name])
            return Bounded.exact(observed[node.name])

        self._agree("output", interpret(self._wide, Bounded.exact(x), step), output)

    @torch.no_grad()
    def check_output(self, x: Tensor, output: Tensor) -> float:
        """Compare the whole network in float64, and in its own precision where it has one; the largest difference to
        float64.

        The bound on how far two executions may be apart grows with every layer, as nothing cancels in it, and ends at
        infinity in deep transformers. There PLAIN decides, which is stricter than any bound: each node by itself is
        compared within its own by :meth:`check_nodes`.

        Raises:
            NetworkMismatchError: an output differs beyond rounding, or in shape.
        """
        result = interpret(self._wide, Bounded.exact(x), self._transfer)
        result = _explained(result, self.dtype)
        self._agree("output", result, output)
        if {node.dtype or self.dtype for node in self.graph.nodes} == {self.dtype}:
            executed = self._own.to(self.dtype)(x.to(self.dtype))
            self._agree(f"output in {self.dtype}", Bounded(executed.double(), result.error), output)
        return float((result.value - output.double()).abs().max())

    def _transfer(self, node: Node, inputs: tuple[Bounded, ...]) -> Bounded:
        """``transfer`` in the node's own precision, for an execution whose constants may be others within what the
        operator says."""
        result, op = transfer(node, inputs, node.dtype or self.dtype), node.op
        if not isinstance(op, Affine) or not (op.roundings or op.doubt):
            return result
        reach = inputs[0].value.abs() + inputs[0].error
        error = result.error + op.roundings * torch.finfo(torch.float64).eps * absolute(op).apply(reach)
        if op.doubt:
            doubts: dict[str, Any] = {name: torch.zeros_like(t) for name, t in constants(op).items()}
            if isinstance(op, ScaleShift) and op.scale is None:
                doubts["scale"] = torch.zeros_like(op.doubt["shift"])
            doubts.update(op.doubt)
            error = error + dataclasses.replace(op, **doubts).apply(reach)
        return Bounded(result.value, error)

    def _agree(self, what: str, result: Bounded, other: Tensor) -> None:
        if other.shape != result.value.shape:
            raise NetworkMismatchError(
                f"importers.check: {self.network}: {what}: shape {tuple(result.value.shape[1:])} in the graph, "
                f"{tuple(other.shape[1:])} in {self.other}"
            )
        value, error, found = (
            t.reshape(len(t), -1) for t in (result.value, _EXECUTIONS * result.error, other.double())
        )
        wrong = ~(((value - found).abs() <= error) & (error < math.inf))
        if bool(wrong.any()):
            overflow = ~found.isfinite()
            if bool(overflow.any()):
                index = int(overflow.nonzero()[0, 1])
                raise NetworkOverflowError(
                    f"importers.check: {self.network}: {what} {index} is not finite in {self.other}"
                )
            sample, index = (int(i) for i in wrong.nonzero()[0])
            raise NetworkMismatchError(
                f"importers.check: {self.network}: {what} {index} is {value[sample, index].item():.9g} in the graph "
                f"and {found[sample, index].item():.9g} in {self.other}; rounding explains "
                f"{error[sample, index].item():.3g}"
            )


def _explained(result: Bounded, dtype: torch.dtype) -> Bounded:
    """The values, with PLAIN in place of errors that are infinite."""
    size = 1 + result.value.abs().reshape(len(result.value), -1).amax(1).reshape(-1, *[1] * (result.value.dim() - 1))
    u = unit_roundoff(dtype)
    plain = (PLAIN * u if PLAIN * u < 0.01 else math.inf) * size.expand_as(result.error)
    return Bounded(result.value, torch.where(result.error < math.inf, result.error, plain))


def check_constants(graph: Graph, explained: Graph, network: str) -> None:
    """Compare the constants of real arithmetic with those of the network's own execution.

    Two ways to fold a network's constants must agree up to what the executed roundings of the chain explain, element by
    element: a number that was read, or rounded, wrongly on one of the ways shows.

    Args:
        graph: the network, with the operators that are others as executed.
        explained: the same network, folded in real arithmetic inside
            :func:`zonocuda.importers.constants.enclosure.executed_roundings`.
        network: its name in messages.

    Raises:
        NetworkOverflowError: the network's own constant is infinite or NaN, as where a float16 product exceeds 65504.
        NetworkMismatchError: a constant differs by more.
        UnsupportedNetworkError: the two are different networks otherwise.
    """
    check_same_structure(graph, explained)
    for node, other in zip(graph.nodes, explained.nodes, strict=True):
        executed = graph.executed.get(node.name)
        if executed is None:
            continue
        theirs = constants(executed) if isinstance(executed, Affine) else {}
        for name, held in constants(node.op).items() if isinstance(node.op, Affine) else ():
            real, own = _wide(held), _wide(theirs[name])
            allowed = _doubt(other.op, name) + _doubt(executed, name)
            wrong = ~((real - own).abs() <= allowed)
            if bool(wrong.any()):
                overflow = wrong & ~own.isfinite()
                first = tuple(int(i) for i in (overflow if bool(overflow.any()) else wrong).nonzero()[0])
                if bool(overflow.any()):
                    raise NetworkOverflowError(
                        f"importers.check: {network}: node {node.name!r}: its {name}{list(first)} is not finite as "
                        f"executed ({real[first].item():.9g} in real arithmetic): a number that it is computed from "
                        "exceeds the range of its type"
                    )
                raise NetworkMismatchError(
                    f"importers.check: {network}: node {node.name!r}: its {name}{list(first)} is "
                    f"{real[first].item():.17g} in real arithmetic and {own[first].item():.17g} as executed; rounding "
                    f"explains {allowed.expand(wrong.shape)[first].item():.3g}"
                )


def _doubt(op: Op, name: str) -> Tensor:
    """How far the network's constants may be from those held as ``name``; see :class:`zonocuda.graph.Affine`."""
    assert isinstance(op, Affine)
    held = _wide(getattr(op, name))
    if op.roundings >= HOPELESS:
        return torch.full_like(held, math.inf)
    error = op.roundings * torch.finfo(torch.float64).eps * held.abs()
    return error + op.doubt[name] if name in op.doubt else error


def _wide(constant: Tensor | float) -> Tensor:
    """A constant of an operator in float64, where it lies; a number on the CPU."""
    if isinstance(constant, Tensor):
        return constant.detach().double()
    return torch.tensor(constant, dtype=torch.float64, device="cpu")


def check_against_onnxruntime(
    graph: Graph,
    model: bytes | OnnxRuntimeModel,
    lower: Tensor,
    upper: Tensor,
    points: int = 16,
    seed: int = 0,
    name: str = "model",
) -> float:
    """Compare a graph from ``load_onnx`` with ONNX Runtime at points of a box and around it.

    The points are the box's corners ``lower`` and ``upper``, its center, ``points`` random ones in it, and as many
    far outside it. At each of them

    * every node whose name ``load_onnx`` took from the model is evaluated in float64 *from the values that ONNX
      Runtime computed for the nodes before it*, and compared with ONNX Runtime's value of the same tensor;
    * the whole graph, in float64 and in the network's own precision, is compared with ONNX Runtime's output.

    Both allow what two executions in different orders of summation can differ by, and no more: twice the running
    error bound of ``rounding.transfer``. Node by node that is a few units in the last place of the sums, so that a
    layer read wrongly shows; over a whole deep network the bound grows with the product of the norms of the layers,
    which is why the first comparison is there.

    Args:
        graph: the graph, whose node names connect it to the model.
        model: the ONNX model, or ONNX Runtime's instance of it.
        lower, upper: bounds of the inputs, ``[N]`` or the input's feature shape; see ``sample_points``.
        points: number of random points in the box.
        seed: seed of the random points.
        name: the file's name in messages, where ``model`` is bytes.

    Returns:
        The largest difference between an output of the float64 graph and of ONNX Runtime.

    Raises:
        NetworkMismatchError: the two disagree beyond rounding, or in shape.
        NetworkOverflowError: ONNX Runtime computes an infinity or a NaN in the box (outside it, such points are
            skipped).
        ValueError: the box does not fit the input, is empty or holds NaN.
    """
    if isinstance(model, bytes):
        rank = len(parse_onnx(model, name).input_shape)
        model = OnnxRuntimeModel(model, name, keeps_batch=len(graph.input_shape) < rank)
    beside = _BesideRuntime(graph, model)
    worst = 0.0
    samples = sample_points(lower, upper, graph.input_shape, points, seed)
    in_box, chunk = len(samples) - points, beside.chunk(CHUNK)
    for begin in [*range(0, in_box, chunk), *range(in_box, len(samples), chunk)]:
        x = samples[begin : min(begin + chunk, in_box if begin < in_box else len(samples))]
        try:
            worst = max(worst, beside.compare(x))
        except NetworkOverflowError:
            if begin < in_box:
                raise
    return worst


def finite_against_onnxruntime(graph: Graph, runtime: OnnxRuntimeModel, lower: Tensor, upper: Tensor) -> Tensor:
    """:func:`check_against_onnxruntime` for many boxes at once, at fewer points of each: see :func:`finite_boxes`."""
    beside = _BesideRuntime(graph, runtime)
    return finite_boxes(beside.compare, lower, upper, graph.input_shape, beside.chunk(MANY))


class _BesideRuntime:
    """A graph beside ONNX Runtime's execution, node by node and as a whole."""

    def __init__(self, graph: Graph, runtime: OnnxRuntimeModel) -> None:
        if runtime.input_shape != graph.input_shape:
            raise NetworkMismatchError(
                f"importers.check: {runtime.name}: the input has shape {graph.input_shape} in the graph, "
                f"{runtime.input_shape} in ONNX Runtime"
            )
        own = {node.name for node in graph.nodes[1:] if node.dtype != torch.bfloat16}  # for which NumPy has no type
        names = node_names(parse_onnx(runtime.content, runtime.name))
        self.tensors = {tensor: node for tensor, node in names.items() if node in own}
        self.runtime, self.inside = runtime, runtime.observing((runtime.output_name, *self.tensors))
        self.comparison = Comparison(graph, runtime.name, "ONNX Runtime", runtime.dtype)
        self.sizes = [math.prod(node.shape) for node in graph.nodes]

    def chunk(self, most: int) -> int:
        """How many points are compared at once, at most ``most``."""
        return max(1, min(most, MAX_VALUES // max(self.sizes), MAX_OBSERVED // sum(self.sizes)))

    def compare(self, x: Tensor) -> float:
        """The largest difference of an output at points ``[n, *input features]``; raises where the two disagree."""
        seen = self.inside.observe(x)
        inner = {node: seen[tensor] for tensor, node in self.tensors.items()}
        self.comparison.check_nodes(x, inner, seen[self.inside.output_name])
        return self.comparison.check_output(x, self.runtime(x))


def finite_boxes(
    compare: Callable[[Tensor], object], lower: Tensor, upper: Tensor, shape: tuple[int, ...], chunk: int
) -> Tensor:
    """Compares a graph with another execution at points of many boxes: both corners of each, the center, and a random
    one.

    Args:
        compare: compares at points ``[n, *shape]``, of which it gets at most ``chunk`` (or those of one box).
        lower, upper: ends of the boxes, ``[S, N]``, finite.
        shape: of an input.
        chunk: of points.

    Returns:
        ``[S]``, whether the execution is finite at the points of a box.

    Raises:
        NetworkMismatchError: the two disagree beyond rounding, or in shape.
    """
    low, high = (end.detach().cpu().double() for end in (lower, upper))
    generator = torch.Generator().manual_seed(0)
    inside = low + torch.rand(low.shape, generator=generator, dtype=torch.float64, device="cpu") * (high - low)
    samples = torch.stack([low, high, low / 2 + high / 2, inside], 1).float()
    finite = torch.ones(len(samples), dtype=torch.bool, device="cpu")
    step = max(1, chunk // samples.shape[1])
    pending = [range(first, min(first + step, len(samples))) for first in range(0, len(samples), step)][::-1]
    while pending:
        part = pending.pop()
        try:
            compare(samples[part.start : part.stop].reshape(-1, *shape))
        except NetworkOverflowError:
            if len(part) == 1:
                finite[part.start] = False
            else:  # in which of them?
                middle = part.start + len(part) // 2
                pending += [range(middle, part.stop), range(part.start, middle)]
    return finite


def sample_points(lower: Tensor, upper: Tensor, shape: tuple[int, ...], points: int, seed: int) -> Tensor:
    """Float32 points ``[2 * points + 3, *shape]``: both corners, the center, random ones in the box, and around it.

    An infinite bound is replaced by one at distance 2 from the other, or by -1 or 1. The points around the box are
    normally distributed about its center, with the largest of 1 and the box's bounds as standard deviation.

    Raises:
        ValueError: bounds of another size, lower above upper, or NaN; points that are no number.
        TypeError: bounds that are no tensors.
    """
    for bound in (lower, upper):
        if not isinstance(bound, Tensor):
            raise TypeError(f"importers.check: the box must be two tensors, got {type(bound).__name__}")
    if isinstance(points, bool) or not isinstance(points, int) or points < 0:
        raise ValueError(f"importers.check: points must be a number of points, got {points!r}")
    size = math.prod(shape)
    if lower.numel() != size or upper.numel() != size:
        raise ValueError(
            f"importers.check: the box has {lower.numel()} lower and {upper.numel()} upper bounds, "
            f"the network {size} inputs"
        )
    low, high = (bound.detach().cpu().double().flatten() for bound in (lower, upper))
    if not bool((low <= high).all()):
        raise ValueError("importers.check: the box is empty or holds NaN")
    finite_low, finite_high = low.isfinite(), high.isfinite()
    first = torch.where(finite_low, low, torch.where(finite_high, high - 2, -1.0))
    last = torch.where(finite_high, high, torch.where(finite_low, low + 2, 1.0))
    generator = torch.Generator().manual_seed(seed)
    center, spread = first / 2 + last / 2, torch.cat([first, last]).abs().max().clamp(min=1.0)
    uniform = torch.rand(points, size, generator=generator, dtype=torch.float64, device="cpu")
    normal = torch.randn(points, size, generator=generator, dtype=torch.float64, device="cpu")
    inside = first + uniform * (last - first)
    fixed = torch.stack([first, last, center])
    return torch.cat([fixed, inside, center + spread * normal]).float().reshape(-1, *shape)
