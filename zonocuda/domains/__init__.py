"""Abstract domains: zonotopes with structured generators, and the relaxation of ReLU."""

from zonocuda.domains.backend import Backend, current_backend, has_cuda_kernels, use_backend
from zonocuda.domains.blocks import Block, Dense, Diagonal, Symbols
from zonocuda.domains.relaxation import ReluRelaxation, SlopeRule
from zonocuda.domains.zonotope import Zonotope

__all__ = [
    "Backend",
    "Block",
    "Dense",
    "Diagonal",
    "ReluRelaxation",
    "SlopeRule",
    "Symbols",
    "Zonotope",
    "current_backend",
    "has_cuda_kernels",
    "use_backend",
]
