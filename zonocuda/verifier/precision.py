"""Reduced-precision products, which no bound survives, switched off while bounds are computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, float32 products and convolutions are float32: no TF32 (cuDNN's default for convolutions), no bfloat16
    (oneDNN's fast modes), no autocast.
    """
    cudnn, onednn = torch.backends.cudnn, torch.backends.mkldnn.conv  # type: ignore[attr-defined]
    before = torch.get_float32_matmul_precision(), onednn.fp32_precision
    torch.set_float32_matmul_precision("highest")
    onednn.fp32_precision = "ieee"
    try:
        with ExitStack() as stack:
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            stack.enter_context(
                cudnn.flags(
                    cudnn.enabled, cudnn.benchmark, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=False
                )
            )
            yield
    finally:
        onednn.fp32_precision = before[1]
        torch.set_float32_matmul_precision(before[0])
