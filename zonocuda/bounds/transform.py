"""The image of zonotopes under a node that is affine in its inputs, and who owns the memory of the result."""

from __future__ import annotations

from collections.abc import Sequence

from zonocuda.domains import Zonotope
from zonocuda.domains.geometry import Convolution
from zonocuda.graph import (
    Add,
    Affine,
    AveragePool,
    Cast,
    Concat,
    Conv,
    Gather,
    Linear,
    Node,
    Op,
    Pad,
    Reduce,
    Reshape,
    ScaleShift,
    Transpose,
)
from zonocuda.relaxations import RULES


def transform(node: Node, values: Sequence[Zonotope], in_place: bool = False) -> Zonotope:
    """The zonotope of an affine node's value; ``in_place``: the memory of the generators of
    ``values`` is free for it.

    Raises:
        ValueError: an image of another feature shape than the node declares.
        NotImplementedError: a node that is not affine.
    """
    image = _image(node, values, in_place)
    if image.features != node.shape:
        raise ValueError(
            f"sweep: node {node.name!r} declares the shape {list(node.shape)} and has {list(image.features)}"
        )
    return image


def _image(node: Node, values: Sequence[Zonotope], in_place: bool) -> Zonotope:
    op, x = node.op, values[0]
    match op:
        case Linear():
            return x.linear(op.weight, op.bias, consume=in_place)
        case Conv(stride=(sy, sx), padding=(rows, columns), dilation=(dy, dx)):
            return x.conv2d(op.weight, op.bias, (sy, sx), (rows, columns), (dy, dx), op.groups, consume=in_place)
        case AveragePool(kernel=(ky, kx), stride=(sy, sx)) if len(x.features) == 3:
            return x.avg_pool2d((ky, kx), (sy, sx), consume=in_place)
        case ScaleShift():
            return x.scale_shift(op.scale, op.shift, in_place=in_place)
        case Reshape():
            return x.reshape(*op.shape)
        case Cast():
            return x
        case Transpose():
            return x.permute(*op.permutation)
        case Pad():
            return x.pad(op.pads, op.value)
        case Gather():
            return x.select(op.dim, op.index)
        case Reduce():
            return x.reduce(op.dims, op.mean, op.keepdim, consume=in_place)
        case Affine():
            return x.affine(op.apply, op.linear, consume=in_place)
        case Add():
            return x.add(values[1], op.sign, in_place=in_place)
        case Concat():
            return Zonotope.cat(values, op.dim)
    raise NotImplementedError(f"sweep: node {node.name!r} (op {op.kind}) has no zonotope transformer")


def geometry(op: Conv) -> Convolution:
    """The geometry of a 2-d convolution."""
    (ky, kx), (sy, sx), (rows, columns), (dy, dx) = op.weight.shape[2:], op.stride, op.padding, op.dilation
    return Convolution((ky, kx), (sy, sx), (rows, columns), (dy, dx), op.groups)


def allocates(op: Op) -> bool:
    """Whether :func:`transform`, where it is not told to work in place, stores the image's generators apart from its
    inputs', whose memory is then free after their last use.

    The others may return what they were given: the image's memory is then that of its inputs.

    Raises:
        NotImplementedError: an operator whose image nothing is known about.
    """
    match op:
        case ScaleShift():
            return op.scale is not None
        case Cast() | Reshape() | Transpose() | Pad() | Gather() | Add() | Concat():
            return False
        case Affine():
            return True
    if type(op) in RULES:
        return True
    raise NotImplementedError(f"sweep: op {op.kind} has no zonotope transformer")
