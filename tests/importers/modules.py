"""Small modules for the tests of the importer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

SEED = 7


class Apply(nn.Module):
    """A function of x, and of constants that are buffers or parameters of the module."""

    def __init__(self, function: Callable[..., Any], **tensors: Tensor) -> None:
        super().__init__()
        self.function = function
        self.names = tuple(tensors)
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *(getattr(self, name) for name in self.names))


def weight(*shape: int) -> nn.Parameter:
    """A parameter of fixed random numbers."""
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(SEED)))
