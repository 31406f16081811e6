"""The native ops: C++ and CUDA behind the torch dispatcher, each with its own hand-written backward.

Every function here has a twin of the same name and signature in :mod:`zonocuda.reference`. A name that ends in ``_``
writes into its first arguments, as torch's own do, and has no derivative.
"""

from zonocuda.ops.concretize import concretize
from zonocuda.ops.diagonal_conv import diagonal_conv
from zonocuda.ops.diagonal_linear import diagonal_linear
from zonocuda.ops.dual_lines import DualLinesOutput, dual_lines
from zonocuda.ops.dual_relu import DualReluOutput, dual_relu
from zonocuda.ops.dual_split import DualSplitOutput, dual_split
from zonocuda.ops.elementary import elementary
from zonocuda.ops.error_block import error_block
from zonocuda.ops.errors import ArgumentError
from zonocuda.ops.im2col import col2im, im2col
from zonocuda.ops.library import build_info, cpu_capability, has_cuda_stream
from zonocuda.ops.nonsmooth_max import nonsmooth_max
from zonocuda.ops.nonsmooth_max_pool2d import nonsmooth_max_pool2d
from zonocuda.ops.nonsmooth_maximum import nonsmooth_maximum
from zonocuda.ops.nonsmooth_relu import nonsmooth_relu
from zonocuda.ops.relu import ReluOutput, relu, relu_
from zonocuda.ops.relu_relaxation import Relaxation, relu_relaxation
from zonocuda.ops.scale import scale, scale_
from zonocuda.ops.window_dense import window_dense
from zonocuda.ops.window_radius import window_radius
from zonocuda.ops.window_scale import window_scale, window_scale_

__all__ = [
    "ArgumentError",
    "DualLinesOutput",
    "DualReluOutput",
    "DualSplitOutput",
    "Relaxation",
    "ReluOutput",
    "build_info",
    "col2im",
    "concretize",
    "cpu_capability",
    "diagonal_conv",
    "diagonal_linear",
    "dual_lines",
    "dual_relu",
    "dual_split",
    "elementary",
    "error_block",
    "has_cuda_stream",
    "im2col",
    "nonsmooth_max",
    "nonsmooth_max_pool2d",
    "nonsmooth_maximum",
    "nonsmooth_relu",
    "relu",
    "relu_",
    "relu_relaxation",
    "scale",
    "scale_",
    "window_dense",
    "window_radius",
    "window_scale",
    "window_scale_",
]
