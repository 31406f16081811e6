"""Abstract domains: zonotopes with structured generators."""

from zonocuda.domains import memory
from zonocuda.domains.backend import Backend, current_backend, has_cuda_kernels, kernels, use_backend
from zonocuda.domains.blocks import Block
from zonocuda.domains.dense import Dense
from zonocuda.domains.diagonal import Diagonal
from zonocuda.domains.hosted import Hosted
from zonocuda.domains.symbols import Symbols
from zonocuda.domains.windowed import Windowed
from zonocuda.domains.zonotope import Zonotope

__all__ = [
    "Backend",
    "Block",
    "Dense",
    "Diagonal",
    "Hosted",
    "Symbols",
    "Windowed",
    "Zonotope",
    "current_backend",
    "has_cuda_kernels",
    "kernels",
    "memory",
    "use_backend",
]
