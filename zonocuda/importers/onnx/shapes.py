"""ONNX operators that move values without computing: reshapes, permutations, selections, padding."""

from __future__ import annotations

import math

import numpy as np

from zonocuda.importers import lowering
from zonocuda.importers.builder import Value
from zonocuda.importers.constants.enclosure import Numbers
from zonocuda.importers.errors import refuse, refuse_batch
from zonocuda.importers.onnx.node import Constant, OnnxNode

_OPEN_END = 2**31 - 1


def flatten(node: OnnxNode) -> Value:
    """Two dimensions: the product of those before ``axis``, and that of the rest."""
    x = node.value(0)
    shape = node.full_shape(x)
    axis = node.attribute("axis")
    if not -len(shape) <= axis <= len(shape):
        refuse(f"axis {axis} does not exist in shape {shape}")
    axis = axis + len(shape) if axis < 0 else axis
    return node.reshaped(x, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def reshape(node: OnnxNode) -> Value:
    """A constant target shape, in which 0 keeps an extent and one -1 is inferred."""
    x = node.value(0)
    old, target = node.full_shape(x), node.ints(1)
    if node.attribute("allowzero") and 0 in target:
        refuse("its result would be empty")
    if any(extent == 0 and position >= len(old) for position, extent in enumerate(target)):
        refuse(f"target shape {target} keeps an extent that shape {old} does not have")
    shape = [old[position] if extent == 0 else extent for position, extent in enumerate(target)]
    if shape.count(-1) > 1 or any(extent < -1 for extent in shape):
        refuse(f"target shape {target} is invalid")
    if -1 in shape:
        rest = math.prod(extent for extent in shape if extent != -1)
        if math.prod(old) % rest:
            refuse(f"shape {old} does not reshape to {target}")
        shape[shape.index(-1)] = math.prod(old) // rest
    return node.reshaped(x, shape)


def transpose(node: OnnxNode) -> Value:
    """Permutation; without one, the dimensions are reversed."""
    x = node.value(0)
    permutation = node.attribute("perm") or list(reversed(range(node.rank(x))))
    return lowering.permute(node.builder, node.name, x, permutation)


def squeeze(node: OnnxNode) -> Value:
    """Removal of dimensions of extent 1."""
    x = node.value(0)
    axes = node.axes(1)
    if axes is None:
        if node.builder.batched:
            refuse_batch("without axes it removes the batch dimension")
        axes = [axis for axis, extent in enumerate(x.shape) if extent == 1]
    dims = lowering.feature_dims(node.builder, axes, node.rank(x))
    if any(x.shape[dim] != 1 for dim in dims):
        refuse(f"axes {axes} of shape {node.full_shape(x)} do not all have extent 1")
    kept = tuple(extent for dim, extent in enumerate(x.shape) if dim not in dims)
    return lowering.reshape(node.builder, node.name, x, kept)


def unsqueeze(node: OnnxNode) -> Value:
    """Insertion of dimensions of extent 1, at positions of the result."""
    x = node.value(0)
    axes = node.axes(1)
    if axes is None:
        refuse("it has no axes")
    dims = lowering.feature_dims(node.builder, axes, node.rank(x) + len(axes))
    rest = iter(x.shape)
    shape = tuple(1 if dim in dims else next(rest) for dim in range(len(x.shape) + len(dims)))
    return lowering.reshape(node.builder, node.name, x, shape)


def slice_(node: OnnxNode) -> Value:
    """Ranges along some axes; ends beyond the extent are clamped, negative positions count from the end."""
    x = node.value(0)
    if node.opset < 10:
        starts, ends = node.attribute("starts"), node.attribute("ends")
        axes, steps = node.attribute("axes"), None
    else:
        starts, ends = node.ints(1), node.ints(2)
        axes = node.ints(3) if node.has(3) else None
        steps = node.ints(4) if node.has(4) else None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        refuse(f"starts {starts}, ends {ends}, axes {axes} and steps {steps} do not fit")
    rank = node.rank(x)
    ranges = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        whole = start == 0 and step == 1 and end >= _OPEN_END
        if whole and -rank <= axis < rank:
            continue
        dim = node.dim(axis, x)
        if dim in ranges:
            refuse(f"axes {list(axes)} name one dimension twice")
        ranges[dim] = list(range(*slice(start, end, step).indices(x.shape[dim])))
    for count, (dim, index) in enumerate(ranges.items(), start=1):
        name = node.name if count == len(ranges) else f"{node.name}/{dim}"
        x = lowering.select(node.builder, name, x, dim, index)
    return x


def split(node: OnnxNode) -> tuple[Value, ...]:
    """Consecutive parts along one axis."""
    x = node.value(0)
    dim = node.dim(node.attribute("axis"), x)
    sizes = node.attribute("split")
    if node.has(1):
        sizes = node.ints(1)
    parts = node.attribute("num_outputs")
    if sizes is None:
        count = len(node.outputs) if parts is None else parts
        size = -(-x.shape[dim] // count)
        if parts is None and size * count != x.shape[dim]:
            refuse(f"extent {x.shape[dim]} does not split into {count} equal parts")
        sizes = [size] * (count - 1) + [x.shape[dim] - size * (count - 1)]
    if any(size < 1 for size in sizes) or sum(sizes) != x.shape[dim] or len(sizes) != len(node.outputs):
        refuse(f"parts of sizes {list(sizes)} do not fit extent {x.shape[dim]} and {len(node.outputs)} outputs")
    results, begin = [], 0
    for output, size in zip(node.outputs, sizes, strict=True):
        if len(node.outputs) == 1:
            output = node.name
        results.append(lowering.select(node.builder, output, x, dim, list(range(begin, begin + size))))
        begin += size
    return tuple(results)


def concat(node: OnnxNode) -> Value:
    """Concatenation of tensors, some of which may be constant."""
    first = next(node.value(i) for i in range(node.arity) if node.is_value(i))
    dim = node.dim(node.attribute("axis"), first)
    parts: list[Value | Numbers] = []
    for position in range(node.arity):
        if node.is_value(position):
            parts.append(node.value(position))
            continue
        tensor = node.numbers(position)
        if tensor.dim() != node.rank(first):
            refuse(f"its input {position}, of shape {tuple(tensor.shape)}, does not fit")
        parts.append(tensor.reshape(lowering.feature_shape(node.builder, tuple(tensor.shape))))
    return lowering.concat_with_constants(node.builder, node.name, parts, dim)


def pad(node: OnnxNode) -> Value:
    """Constant padding."""
    x = node.value(0)
    mode = node.attribute("mode")
    if mode != "constant":
        refuse(f"mode {mode!r} is not supported; supported: 'constant'")
    if node.opset < 11:
        amounts, value = list(node.attribute("pads")), node.attribute("value")
    else:
        amounts, value = node.ints(1), node.scalar(2) if node.has(2) else 0.0
    rank = node.rank(x)
    axes = node.ints(3) if node.has(3) else list(range(rank))
    if len(amounts) != 2 * len(axes):
        refuse(f"pads {amounts} do not fit {len(axes)} axes")
    pads = [(0, 0)] * len(x.shape)
    for axis, begin, end in zip(axes, amounts[: len(axes)], amounts[len(axes) :], strict=True):
        if begin or end:
            dim = node.dim(axis, x)
            if pads[dim] != (0, 0):
                refuse(f"axes {axes} name one dimension twice")
            pads[dim] = (begin, end)
    return lowering.pad(node.builder, node.name, x, tuple(pads), float(value))


def gather(node: OnnxNode) -> Value:
    """Selection by a constant index of any rank along one axis; a scalar index drops the axis."""
    x = node.value(0)
    dim = node.dim(node.attribute("axis"), x)
    index = node.constant(1)
    if not np.issubdtype(index.dtype, np.integer):
        refuse("its input 1 must hold integers")
    extent = x.shape[dim]
    positions = [int(i) + extent if i < 0 else int(i) for i in index.reshape(-1)]
    shape = (*x.shape[:dim], *index.shape, *x.shape[dim + 1 :])
    name = node.name if index.ndim == 1 else f"{node.name}/select"
    return lowering.reshape(
        node.builder, node.name, lowering.select(node.builder, name, x, dim, positions), tuple(shape)
    )


def expand(node: OnnxNode) -> Value:
    """Broadcast against a constant shape."""
    x = node.value(0)
    old, target = node.full_shape(x), node.ints(1)
    if len(target) > len(old) and node.builder.batched:
        refuse_batch(f"shape {target} adds dimensions to shape {old}")
    old = (1,) * (len(target) - len(old)) + old
    target = [1] * (len(old) - len(target)) + target
    if any(m < 1 or (n != m and 1 not in (n, m)) for n, m in zip(old, target, strict=True)):
        refuse(f"shape {old} does not expand to {target}")
    shape = lowering.feature_shape(node.builder, [max(n, m) for n, m in zip(old, target, strict=True)])
    return lowering.expand(node.builder, node.name, x, shape)


def shape(node: OnnxNode) -> Constant:
    """The shape with batch 1, a constant."""
    found = node.full_shape(node.value(0))
    start, end = node.attribute("start"), node.attribute("end")
    return np.array(found[slice(start, end)], dtype=np.int64)
