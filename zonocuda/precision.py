"""Reduced-precision products, which no bound survives, switched off while bounds are computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


def _settings() -> list[Any]:
    """Every place where torch keeps how float32 products are computed, on the CPU (oneDNN) and on CUDA."""
    backends: Any = torch.backends
    return [
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.rnn,
    ]


def _legacy() -> str | None:
    """torch's older setting; None where it and the newer ones contradict each other, so that torch will not tell."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, float32 products and convolutions are float32: no TF32 (cuDNN's default for convolutions), no bfloat16
    (oneDNN's fast modes), no autocast.

    Raises:
        RuntimeError: torch does not accept the setting.
    """
    before = [setting.fp32_precision for setting in _settings()]
    legacy = _legacy()
    with ExitStack() as stack:
        try:
            torch.set_float32_matmul_precision("highest")  # cuBLAS refuses to run where this and the settings disagree
            for setting in _settings():
                setting.fp32_precision = "ieee"
            if any(setting.fp32_precision != "ieee" for setting in _settings()):
                raise RuntimeError("full_precision: torch did not switch off reduced-precision products")
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            yield
        finally:
            if legacy is not None:
                torch.set_float32_matmul_precision(legacy)
            for setting, value in zip(_settings(), before, strict=True):
                setting.fp32_precision = value
