"""Arithmetic that no rounding bound survives, switched off or refused, as it is set at the time of the call."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from zonocuda.convolution import convolve, convolve_transpose


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


def _legacy_cudnn() -> bool | None:
    """cuDNN's older setting, in the same way."""
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:
        return None


class ArithmeticChangedError(RuntimeError):
    """Somebody switched torch to an arithmetic that a proof under way does not account for."""


@dataclass
class _Switch:
    """A process-wide setting of torch that several threads may need off at the same time.

    The first that enters switches it off, the last that leaves restores what it found: else one proof's end would
    expose another.
    """

    switch_off: Callable[[], Callable[[], None]]
    """Gives what restores the setting."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    inside: int = 0
    restore: Callable[[], None] = lambda: None

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside, the setting is off, unless code that is not ours switches it on again."""
        with self.lock:
            restore = self.switch_off()
            if not self.inside:
                self.restore = restore
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    self.restore()


def _products_off() -> Callable[[], None]:
    before = [setting.fp32_precision for setting in _settings()]
    legacy, legacy_cudnn = _legacy(), _legacy_cudnn()

    def restore() -> None:
        if legacy is not None:
            torch.set_float32_matmul_precision(legacy)
        if legacy_cudnn is not None:
            torch.backends.cudnn.allow_tf32 = legacy_cudnn
        for setting, value in zip(_settings(), before, strict=True):
            setting.fp32_precision = value

    try:
        torch.set_float32_matmul_precision("highest")  # cuBLAS refuses to run where this and the settings disagree
        torch.backends.cudnn.allow_tf32 = False  # and torch.export, where this one does
        for setting in _settings():
            setting.fp32_precision = "ieee"
        if not _products_are_off():
            raise RuntimeError("full_precision: torch did not switch off reduced-precision products")
    except BaseException:
        restore()
        raise
    return restore


def _products_are_off() -> bool:
    return all(setting.fp32_precision == "ieee" for setting in _settings())


def _transforms_off() -> Callable[[], None]:
    backends: Any = torch.backends
    before = backends.cudnn.enabled, backends.mkldnn.enabled
    (pack,) = backends.nnpack.set_flags(False)
    backends.cudnn.enabled = backends.mkldnn.enabled = False

    def restore() -> None:
        backends.cudnn.enabled, backends.mkldnn.enabled = before
        backends.nnpack.set_flags(pack)

    return restore


def _transforms_are_off() -> bool:
    backends: Any = torch.backends
    (pack,) = backends.nnpack.set_flags(False)
    return not (backends.cudnn.enabled or backends.mkldnn.enabled or pack)


_PRODUCTS, _TRANSFORMS = _Switch(_products_off), _Switch(_transforms_off)


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, float32 products and convolutions are float32: no TF32 (cuDNN's default for convolutions), no bfloat16
    (oneDNN's fast modes), no autocast.

    Raises:
        RuntimeError: torch does not accept the setting.
    """
    with _PRODUCTS.off(), plain_torch():
        yield


@contextmanager
def plain_torch() -> Iterator[None]:
    """Inside, what a caller may have set for itself is not set: autocast, inference mode, a default device.

    A network means what it computes in the types that it names, and whoever works on it names devices; code of a module
    is called inside :func:`callers_device`.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        default = torch.get_default_device()
        if default.type != "cpu":
            stack.callback(_CALLERS_DEVICE.reset, _CALLERS_DEVICE.set(default))
            stack.enter_context(torch.device("cpu"))
        yield


@contextmanager
def callers_device() -> Iterator[None]:
    """Inside :func:`plain_torch`, the default device that its caller had set, for code that is the caller's."""
    device = _CALLERS_DEVICE.get()
    if device is None:
        yield
    else:
        with torch.device(device):
            yield


@contextmanager
def summed_products() -> Iterator[None]:
    """Inside, convolutions are sums of products: im2col (or col2im) and a matrix product; on CUDA, those of
    :mod:`zonocuda.convolution` have one for many images.

    The libraries that may pick Winograd's, FFT or other transforms, whose error depends on norms and not on the terms
    of the sum, stay out: cuDNN, oneDNN and NNPACK. torch's own transform, of depthwise 3x3 convolutions in float32 in
    builds for ARM and RISC-V, has no switch: :func:`check_arithmetic` looks for it.

    Raises:
        ArithmeticChangedError: one of the libraries was switched on in the meantime.
    """
    with _TRANSFORMS.off():
        yield
        if not _transforms_are_off():
            raise ArithmeticChangedError(f"convolutions by cuDNN, oneDNN or NNPACK {_CHANGED}")


@cache
def sums_terms(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether convolutions add the products of their window and nothing else.

    A large number whose weight is zero changes nothing in such a sum; a transform adds it to its neighbours, which are
    lost. Asked once in a process of 3x3 convolutions, depthwise and dense, and of their transposes, along both axes.
    """
    large = 1.0 / torch.finfo(dtype).eps ** 2
    with torch.no_grad(), summed_products():
        for groups in (16, 1):
            for axis in (2, 3):
                weight = torch.ones(16, 16 // groups, 3, 3, dtype=dtype, device=device)
                x = torch.ones(1, 16, 18, 18, dtype=dtype, device=device)
                weight.select(axis, 2).zero_()
                x.select(axis, 9).fill_(large)
                one, none = (1, 1), (0, 0)
                images = [convolve(x, weight, None, one, one, one, groups), F.conv2d(x, weight, None, 1, 1, 1, groups)]
                spread = [
                    convolve_transpose(x, weight, one, one, none, groups, one),
                    F.conv_transpose2d(x, weight, None, 1, 1, 0, groups),
                ]
                # Output j of the first reads inputs j - 1 and j; of the second, j and j + 1.
                near = [t.select(axis, j) for t in images for j in (8, 11)]
                near += [t.select(axis, j) for t in spread for j in (7, 10)]
                if any(bool((t[..., 1:-1] != 6 * 16 / groups).any()) for t in near):
                    return False
    return True


def check_arithmetic(device: torch.device) -> None:
    """Refuses what a proof cannot account for, and torch does not switch off.

    Raises:
        ValueError: subnormal numbers are flushed to zero, on this thread or another that torch computes on; cuBLAS was
            told to emulate the products of a dtype; or convolutions are no sums of products.
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
        if not sums_terms(device, dtype):
            raise ValueError(
                f"torch's convolutions of {dtype} on this machine transform their terms, which proofs do not account "
                "for; use another build of torch"
            )
    if device.type == "cuda":
        wanted = [name for name in _EMULATION if os.environ.get(name, "0") not in ("", "0")]
        if wanted:
            raise ValueError(
                f"{', '.join(wanted)} makes cuBLAS emulate products, which proofs do not account for; unset it"
            )


def confirm_arithmetic(device: torch.device) -> None:
    """Inside :func:`full_precision`, at the end of a proof: the arithmetic is what it was at the begin.

    Flushing belongs to a thread, and the threads that torch computes on inherit it: nobody else can change it for a
    proof under way, but what the proof itself calls could (a model's code, a progress function).

    Raises:
        ArithmeticChangedError: products of less precision were switched on, or :func:`check_arithmetic` refuses.
    """
    if not _products_are_off():
        raise ArithmeticChangedError(f"products of less precision {_CHANGED}")
    try:
        check_arithmetic(device)
    except ValueError as error:
        raise ArithmeticChangedError(f"the arithmetic was changed while a proof was under way: {error}") from error


_CALLERS_DEVICE: ContextVar[torch.device | None] = ContextVar("callers_device", default=None)
_CHANGED = "were switched on by other code while a proof was under way; verify again without"
_EMULATION = ("CUBLAS_EMULATE_SINGLE_PRECISION", "CUBLAS_EMULATE_DOUBLE_PRECISION")
