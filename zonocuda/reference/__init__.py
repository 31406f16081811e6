"""The oracle: every native op in plain torch, in any dtype, differentiated by autograd.

Its functions have the names and signatures of :mod:`zonocuda.ops`, which this package never imports.
"""

from zonocuda.reference.concretize import concretize
from zonocuda.reference.diagonal_linear import diagonal_linear
from zonocuda.reference.error_block import error_block
from zonocuda.reference.relu import ReluOutput, relu
from zonocuda.reference.relu_relaxation import Relaxation, relu_relaxation
from zonocuda.reference.scale import scale

__all__ = [
    "Relaxation",
    "ReluOutput",
    "concretize",
    "diagonal_linear",
    "error_block",
    "relu",
    "relu_relaxation",
    "scale",
]
