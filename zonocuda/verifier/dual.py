"""The dual pass: linear bounds of specifications, carried from the output back to the input.

For given bounds l, u of every ReLU input and given slopes, a row v of the specification is pushed through the network:

    at an affine node:  const += v . b;  v = A^T v
    at a ReLU:          const += sum min(v, 0) * 2 mu;  v = v * lam
    at the input box:   lower = const + v . c0 - sum |v| r0

No generator is stored: memory is rows times neurons. For one slope for both signs of v this equals the bound of the
forward sweep with the same l, u and slopes; the pass may also take another slope where v >= 0 (any slope in [0, 1] is
valid there, since relu(x) >= lam x) than where v < 0 (design of CROWN, Zhang et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zonocuda.domains import ReluRelaxation
from zonocuda.graph import Add, Affine, Concat, Graph, Input, Node, Relu
from zonocuda.verifier.interval import Bounds
from zonocuda.verifier.rows import Rows


@dataclass(frozen=True, eq=False)
class Slopes:
    """The slopes of one ReLU: ``negative`` where v < 0, ``nonnegative`` where v >= 0; ``[B, *features]``."""

    negative: Tensor
    nonnegative: Tensor


@dataclass(frozen=True, eq=False)
class DualBound:
    """Linear lower bounds of the rows over the box.

    Attributes:
        lower: ``[B, R]``, a lower bound of every row.
        weight: ``[B, R, *input features]``; row >= weight . x + constant on the box.
        corner: ``[B, R, *input features]``, the point of the box where that linear bound is smallest.
    """

    lower: Tensor
    weight: Tensor
    corner: Tensor


def dual_bound(
    graph: Graph,
    rows: Rows,
    box: Bounds,
    inputs: Mapping[str, Bounds],
    slopes: Mapping[str, Slopes | Tensor] | None = None,
    on_node: Callable[[Node], None] = lambda node: None,
) -> DualBound:
    """Lower bounds of ``rows`` over a box, for bounds of every ReLU's input that hold on it.

    Args:
        graph: the network.
        rows: the specification's rows, in the dtype and on the device of the network.
        box: lower and upper bounds of the input, ``[B, *input features]``.
        inputs: bounds of the input of every ReLU, by node name, ``[B, *features]``.
        slopes: by node name, one slope for both signs of v or :class:`Slopes`; the minimum-area slope elsewhere.
        on_node: called before each node; may raise to stop the pass.

    Returns:
        The bounds; NaN wherever a NaN entered.
    """
    batch = box[0].shape[0]
    count = rows.count
    const = rows.constant.expand(batch, count).clone()
    pending: dict[str, Tensor] = {}

    def send(name: str, v: Tensor) -> None:
        pending[name] = pending[name] + v if name in pending else v

    send(graph.output, rows.output.reshape(1, count, *graph.output_shape).expand(batch, -1, *graph.output_shape))
    given = dict(slopes or {})
    weight = rows.input.reshape(1, count, *graph.input_shape).expand(batch, -1, *graph.input_shape)
    for node in reversed(graph.nodes):
        on_node(node)
        v = pending.pop(node.name, None)
        if v is None:
            continue
        op = node.op
        if isinstance(op, Input):
            weight = weight + v
        elif isinstance(op, Relu):
            offset, v = _relu(v, inputs[node.name], given.get(node.name))
            const = const + offset
            send(node.inputs[0], v)
        elif isinstance(op, Affine):
            shape = graph[node.inputs[0]].shape
            if op.has_offset:
                const = const + (v * op.offset(shape, v).unsqueeze(1)).reshape(batch, count, -1).sum(2)
            send(node.inputs[0], op.adjoint(v.flatten(0, 1), shape).reshape(batch, count, *shape))
        elif isinstance(op, Add):
            send(node.inputs[0], v)
            send(node.inputs[1], v if op.sign == 1 else -v)
        elif isinstance(op, Concat):
            sizes = [graph[name].shape[op.dim] for name in node.inputs]
            for name, part in zip(node.inputs, torch.split(v, sizes, dim=op.dim + 2), strict=True):
                send(name, part)
        else:
            raise NotImplementedError(f"dual_bound: node {node.name!r} (op {op.kind}) has no adjoint")
    low, high = (b.unsqueeze(1) for b in box)
    # the smallest weight * x over the box, elementwise; a NaN in either factor stays a NaN
    smallest = torch.minimum(weight * low, weight * high).reshape(batch, count, -1).sum(2)
    corner = torch.where(weight >= 0, low, high)
    return DualBound(const + smallest, weight, corner)


def _relu(v: Tensor, bounds: Bounds, slopes: Slopes | Tensor | None) -> tuple[Tensor, Tensor]:
    """The constant ``[B, R]`` that a ReLU adds, and v ``[B, R, *features]`` at its input."""
    lower, upper = bounds
    negative = slopes.negative if isinstance(slopes, Slopes) else slopes
    multiplier, offset = ReluRelaxation.linearize(lower, upper, negative)
    constant = (v.clamp(max=0) * (2 * offset).unsqueeze(1)).reshape(*v.shape[:2], -1).sum(2)
    if not isinstance(slopes, Slopes):
        return constant, v * multiplier.unsqueeze(1)
    other, _ = ReluRelaxation.linearize(lower, upper, slopes.nonnegative)
    factor = torch.where(v >= 0, other.unsqueeze(1), multiplier.unsqueeze(1))
    return constant, v * factor


def adaptive_slopes(inputs: Mapping[str, Bounds]) -> dict[str, Slopes]:
    """The slopes of CROWN: the minimum-area one where v < 0, and 1 or 0, whichever wastes less, where v >= 0."""
    return {
        name: Slopes(
            ReluRelaxation.initial(lower, upper),
            ReluRelaxation.initial(lower, upper, "adaptive"),
        )
        for name, (lower, upper) in inputs.items()
    }
