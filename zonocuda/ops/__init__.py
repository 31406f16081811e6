"""The native ops: C++ and CUDA behind the torch dispatcher, each with its own hand-written backward.

Every function here has a twin of the same name and signature in :mod:`zonocuda.reference`.
"""

from zonocuda.ops.concretize import concretize
from zonocuda.ops.diagonal_conv import diagonal_conv
from zonocuda.ops.diagonal_linear import diagonal_linear
from zonocuda.ops.error_block import error_block
from zonocuda.ops.library import build_info, cpu_capability
from zonocuda.ops.nonsmooth_max import nonsmooth_max
from zonocuda.ops.nonsmooth_max_pool2d import nonsmooth_max_pool2d
from zonocuda.ops.nonsmooth_maximum import nonsmooth_maximum
from zonocuda.ops.nonsmooth_relu import nonsmooth_relu
from zonocuda.ops.relu import ReluOutput, relu
from zonocuda.ops.relu_relaxation import Relaxation, relu_relaxation
from zonocuda.ops.scale import scale
from zonocuda.ops.window_dense import window_dense
from zonocuda.ops.window_radius import window_radius
from zonocuda.ops.window_scale import window_scale

__all__ = [
    "Relaxation",
    "ReluOutput",
    "build_info",
    "concretize",
    "cpu_capability",
    "diagonal_conv",
    "diagonal_linear",
    "error_block",
    "nonsmooth_max",
    "nonsmooth_max_pool2d",
    "nonsmooth_maximum",
    "nonsmooth_relu",
    "relu",
    "relu_relaxation",
    "scale",
    "window_dense",
    "window_radius",
    "window_scale",
]
