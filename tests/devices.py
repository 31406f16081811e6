"""The devices that tests and benchmarks run on, and why one of them is skipped."""

from __future__ import annotations

import pytest
import torch

DEVICES = (pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=pytest.mark.gpu))


def native_build() -> dict[str, str | None] | None:
    """Facts about the build of the native ops, None where they are not built."""
    try:
        from zonocuda.ops import build_info
    except ImportError:
        return None
    return build_info()


def missing_device(device: str) -> str | None:
    """Why nothing can run on ``device`` here, or None where it can."""
    if device != "cuda":
        return None
    build = native_build()
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if build is None or build["cuda"] is None:
        return "zonocuda was built without CUDA"
    return None


def use_device(device: str) -> torch.device:
    """``device`` as a torch.device; skips the test, saying why, where nothing can run on it."""
    reason = missing_device(device)
    if reason is not None:
        pytest.skip(reason)
    return torch.device(device)
