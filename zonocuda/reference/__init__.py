"""The oracle: every native op in plain torch, in any dtype, differentiated by autograd.

Its functions have the names and signatures of :mod:`zonocuda.ops`, which this package never imports.
"""

from zonocuda.reference.concretize import concretize
from zonocuda.reference.diagonal_conv import diagonal_conv
from zonocuda.reference.diagonal_linear import diagonal_linear
from zonocuda.reference.dual_lines import DualLinesOutput, dual_lines
from zonocuda.reference.dual_relu import DualReluOutput, dual_relu
from zonocuda.reference.dual_split import DualSplitOutput, dual_split
from zonocuda.reference.elementary import elementary
from zonocuda.reference.error_block import error_block
from zonocuda.reference.im2col import col2im, im2col
from zonocuda.reference.nonsmooth_max import nonsmooth_max
from zonocuda.reference.nonsmooth_max_pool2d import nonsmooth_max_pool2d
from zonocuda.reference.nonsmooth_maximum import nonsmooth_maximum
from zonocuda.reference.nonsmooth_relu import nonsmooth_relu
from zonocuda.reference.relu import ReluOutput, relu, relu_
from zonocuda.reference.relu_relaxation import Relaxation, relu_relaxation
from zonocuda.reference.scale import scale, scale_
from zonocuda.reference.window_dense import window_dense
from zonocuda.reference.window_radius import window_radius
from zonocuda.reference.window_scale import window_scale, window_scale_

__all__ = [
    "DualLinesOutput",
    "DualReluOutput",
    "DualSplitOutput",
    "Relaxation",
    "ReluOutput",
    "col2im",
    "concretize",
    "diagonal_conv",
    "diagonal_linear",
    "dual_lines",
    "dual_relu",
    "dual_split",
    "elementary",
    "error_block",
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
