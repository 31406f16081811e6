"""What a caller gives as numbers, as a tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def as_tensor(value: Any, caller: str) -> Tensor:
    """A tensor itself; an array or nested lists of floats as one of their own type.

    Raises:
        TypeError: what holds no floats.
    """
    try:
        tensor = torch.as_tensor(value)
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{caller}: needs a tensor of floats, got {type(value).__name__}") from error
    if not tensor.is_floating_point():
        raise TypeError(f"{caller}: needs floats, got {tensor.dtype}")
    return tensor
