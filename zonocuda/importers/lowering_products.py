"""Products of two values that both depend on the input: :class:`zonocuda.graph.Bilinear` of their factors.

As in :mod:`zonocuda.importers.lowering_piecewise` the nodes of an operator are its parts, and the last one carries
``name``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from zonocuda.graph import Bilinear
from zonocuda.graph.ops import Shape
from zonocuda.graph.whole import MatrixProduct, Multiply
from zonocuda.importers.builder import GraphBuilder, Value
from zonocuda.importers.errors import refuse, refuse_batch
from zonocuda.importers.lowering import broadcast, concat, expand, permute, reshape
from zonocuda.importers.lowering_piecewise import written

MAX_FACTORS = 1 << 22
"""Factors of all products of one operator. Bounds hold them for every symbol, or for every row of a pass: 16 MiB each
in float32."""


def multiply(builder: GraphBuilder, name: str, x: Value, y: Value, limit: float | None = None) -> Value:
    """x * y, elementwise; they broadcast against each other. ``limit``: see :class:`zonocuda.graph.Bilinear`."""
    if x.node == y.node:
        refuse("the square of what depends on the input is not supported")
    if builder.batched and len(x.shape) != len(y.shape):
        refuse_batch(f"factors of features {x.shape} and {y.shape} would broadcast over the batch dimension")
    shape = broadcast(x.shape, y.shape)

    def write() -> Value:
        left, right = (expand(builder, f"{name}/{side}", v, shape) for side, v in (("left", x), ("right", y)))
        return _product(builder, name, left, right, Bilinear(1, limit), shape)

    return written(builder, Multiply(), [x, y], write)


def matmul(builder: GraphBuilder, name: str, x: Value, y: Value) -> Value:
    """x @ y of two values, as NumPy defines it."""
    ranks = [builder.full_rank(v) for v in (x, y)]
    if min(ranks) < 2:
        refuse("a product of two tensors that depend on the input needs matrices")
    if builder.batched and (min(ranks) < 3 or ranks[0] != ranks[1]):
        refuse_batch(f"a product of features {x.shape} and {y.shape} would mix, or broadcast over, the batch dimension")
    (rows, inner), (other, columns) = x.shape[-2:], y.shape[-2:]
    if inner != other:
        refuse(f"features {x.shape} and {y.shape} do not fit a product of matrices")
    stack = broadcast(x.shape[:-2], y.shape[:-2])

    def write() -> Value:
        rank = builder.full_rank(y)
        transposed = permute(builder, f"{name}/transposed", y, (*range(rank - 2), rank - 1, rank - 2))
        shape = (*stack, rows, columns, inner)
        left = reshape(builder, f"{name}/rows", x, (*x.shape[:-2], rows, 1, inner))
        right = reshape(builder, f"{name}/columns", transposed, (*y.shape[:-2], 1, columns, inner))
        left, right = (expand(builder, f"{name}/{side}", v, shape) for side, v in (("left", left), ("right", right)))
        return _product(builder, name, left, right, Bilinear(inner), shape[:-1])

    return written(builder, MatrixProduct(), [x, y], write)


def _product(builder: GraphBuilder, name: str, x: Value, y: Value, op: Bilinear, shape: Shape) -> Value:
    """Products of elements, or sums of those of neighbouring ones, in a shape."""
    count = math.prod(x.shape)
    if 2 * count > MAX_FACTORS:
        refuse(f"it would be of more than {MAX_FACTORS} factors: {count} products")
    sides = zip(("first", "second"), (x, y), strict=True)
    flat: Sequence[Value] = [reshape(builder, f"{name}/{side}", v, (count,)) for side, v in sides]
    factors = concat(builder, f"{name}/factors", flat, 0)
    if len(shape) == 1:
        return builder.emit(name, op, factors)
    return reshape(builder, name, builder.emit(f"{name}/product", op, factors), shape)
