"""Networks as graphs of operators; knows nothing of zonotopes."""

from zonocuda.graph.bilinear import Bilinear
from zonocuda.graph.elementwise import ENTRIES, Elementary, Elementwise, Step
from zonocuda.graph.graph import Graph, Node, Part, interpret, prune
from zonocuda.graph.magnitude import absolute, constants, divisor, fan_in, fan_out
from zonocuda.graph.ops import (
    HOPELESS,
    Add,
    Affine,
    Cast,
    Concat,
    Expand,
    Gather,
    Input,
    Linear,
    Op,
    Pad,
    Rearrangement,
    Reduce,
    Relu,
    Reshape,
    ScaleShift,
    Transpose,
)
from zonocuda.graph.windowed_ops import AveragePool, Conv, ConvTranspose

__all__ = [
    "ENTRIES",
    "HOPELESS",
    "Add",
    "Affine",
    "AveragePool",
    "Bilinear",
    "Cast",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Elementary",
    "Elementwise",
    "Expand",
    "Gather",
    "Graph",
    "Input",
    "Linear",
    "Node",
    "Op",
    "Pad",
    "Part",
    "Rearrangement",
    "Reduce",
    "Relu",
    "Reshape",
    "ScaleShift",
    "Step",
    "Transpose",
    "absolute",
    "constants",
    "divisor",
    "fan_in",
    "fan_out",
    "interpret",
    "prune",
]
