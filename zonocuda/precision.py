"""Arithmetic that no rounding bound survives, switched off or refused, as it is set at the time of the call."""

from __future__ import annotations

import os
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


@contextmanager
def summed_products() -> Iterator[None]:
    """Inside, convolutions are sums of products: im2col (or col2im) and a matrix product.

    The libraries that may pick Winograd's, FFT or other transforms, whose error depends on norms and not on the terms
    of the sum, stay out: cuDNN, oneDNN and NNPACK.
    """
    backends: Any = torch.backends
    before = backends.cudnn.enabled, backends.mkldnn.enabled
    (pack,) = backends.nnpack.set_flags(False)
    try:
        backends.cudnn.enabled = backends.mkldnn.enabled = False
        yield
    finally:
        backends.cudnn.enabled, backends.mkldnn.enabled = before
        backends.nnpack.set_flags(pack)


def check_arithmetic(device: torch.device) -> None:
    """Refuses what a proof cannot account for, and torch does not switch off.

    Raises:
        ValueError: subnormal numbers are flushed to zero, on this thread or another that torch computes on; or cuBLAS
            was told to emulate the products of a dtype.
    """
    count = 2**15 * torch.get_num_threads()  # enough for torch to use all its threads
    for dtype in (torch.float32, torch.float64):
        numbers = torch.ones(count, dtype=dtype, device=device)
        numbers[::256] = torch.finfo(dtype).tiny
        if not bool((numbers / 2 > 0).all()):
            raise ValueError(
                "subnormal numbers are flushed to zero; call torch.set_flush_denormal(False), and run in a process "
                "where it was never on"
            )
    if device.type == "cuda":
        wanted = [name for name in _EMULATION if os.environ.get(name, "0") not in ("", "0")]
        if wanted:
            raise ValueError(
                f"{', '.join(wanted)} makes cuBLAS emulate products, which proofs do not account for; unset it"
            )


_EMULATION = ("CUBLAS_EMULATE_SINGLE_PRECISION", "CUBLAS_EMULATE_DOUBLE_PRECISION")
