"""What the in-place ops, native and reference, have in common."""

from __future__ import annotations

import torch
from torch import Tensor


def refuse_gradients(op: str, *tensors: Tensor | None) -> None:
    """Refuses tensors that require grad while gradients are recorded: an in-place op has no derivative.

    Raises:
        RuntimeError: naming the op with a derivative.
    """
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        raise RuntimeError(
            f"{op}: works in place and has no derivative, and an argument requires grad; call it under "
            f"torch.no_grad(), or use {op.removesuffix('_')}"
        )
