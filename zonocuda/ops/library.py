"""Loads the native ops, and the small things that every op's wrapper needs."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from zonocuda.in_place import refuse_gradients
from zonocuda.ops.errors import ArgumentError, argument_error

try:
    import zonocuda._C as _C
except ImportError as error:
    raise ImportError(
        f"the native ops of zonocuda are not built for this Python and torch ({error}); "
        "run 'pip install --no-build-isolation .' in the source folder"
    ) from error

NATIVE = torch.ops.zonocuda
LIBRARY = torch.library.Library("zonocuda", "IMPL")  # its registrations last as long as it does


def build_info() -> dict[str, str | None]:
    """Facts about the build of the native ops: flags, compiler, torch, cuda, cuda_architectures.

    Examples:
        >>> "cuda" in build_info()
        True
    """
    info: dict[str, str | None] = _C.build_info()
    return info


def cpu_capability() -> str:
    """The instruction set that the CPU kernels use on this machine.

    Examples:
        >>> isinstance(cpu_capability(), str)
        True
    """
    return _C.cpu_capability()


def has_cuda_stream() -> bool:
    """Whether the CUDA kernels can ask the installed torch for its stream: true wherever torch has CUDA.

    Examples:
        >>> has_cuda_stream() or torch.version.cuda is None
        True
    """
    return _C.has_cuda_stream()


def check_tensors(op: str, tensor: Tensor, *others: Tensor, optional: tuple[Tensor | None, ...] = ()) -> None:
    """Refuses what no kernel could take: other things than tensors, tensors on several devices or with gaps that are
    not stored, CUDA tensors in a build without CUDA, and tangents of forward-mode differentiation.

    Raises:
        TypeError: no tensor.
        ArgumentError: another device or layout.
        RuntimeError: a tangent.
    """
    given = (tensor, *others, *(t for t in optional if t is not None))
    for t in given:
        if not isinstance(t, Tensor):
            raise TypeError(f"{op}: works on tensors, got {type(t).__name__}")
        if t.device != tensor.device:
            raise ArgumentError(f"{op}: all tensors must be on one device, got {tensor.device} and {t.device}")
        if t.layout is not torch.strided:
            raise ArgumentError(f"{op}: tensors must be dense, got one of layout {t.layout}")
    if forward_ad._current_level >= 0:
        for t in given:
            if forward_ad.unpack_dual(t).tangent is not None:
                raise RuntimeError(f"{op}: forward-mode differentiation is not supported; the reference backend has it")
    if tensor.is_cuda and build_info()["cuda"] is None:
        raise ArgumentError(
            f"{op}: zonocuda was built without CUDA; rebuild it with "
            "'ZONOCUDA_CUDA=1 pip install --no-build-isolation --force-reinstall --no-deps .' or use CPU tensors"
        )


def call(op: str, *args: Any) -> Any:
    """The native op of that name, without torch's layer for derivatives where none are recorded: it is written in
    Python and takes longer than all the rest of a small call.

    Raises:
        ArgumentError: what the kernel's own checks refuse.
    """
    overload = getattr(NATIVE, op).default
    if torch.compiler.is_compiling():
        return overload(*args)
    try:
        if _is_recorded(args):
            return overload(*args)
        with torch._C._AutoDispatchBelowAutograd():
            return overload(*args)
    except RuntimeError as error:
        raise argument_error(error) or error from None


def call_in_place(op: str, written: int, *args: Any) -> Any:
    """:func:`call` for an op that writes into its first ``written`` arguments; see :func:`register_in_place`."""
    if torch.compiler.is_compiling():
        return getattr(NATIVE, op).default(*args)
    if _is_transformed():
        raise RuntimeError(f"{op}: works in place, which torch.func and vmap do not have; use {op.removesuffix('_')}")
    tensors = [a for a in args if isinstance(a, Tensor)]
    refuse_gradients(op, *tensors)
    try:
        with torch._C._AutoDispatchBelowAutograd():
            result = getattr(NATIVE, op).default(*args)
    except RuntimeError as error:
        raise argument_error(error) or error from None
    for t in tensors[:written]:
        if not t.is_inference():
            torch.autograd.graph.increment_version(t)
    return result


def _is_recorded(args: tuple[Any, ...]) -> bool:
    """Whether a call has a derivative that is recorded, or a transform of torch.func may record one."""
    if _is_transformed():
        return True
    return torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args)


def _is_transformed() -> bool:
    return torch._C._are_functorch_transforms_active()


def neurons(t: Tensor) -> Tensor:
    """``[B, *features]`` as contiguous ``[B, N]``."""
    return (t if t.dim() == 2 else t.reshape(t.shape[0], prod(t.shape[1:]))).contiguous()


def rows(t: Tensor) -> Tensor:
    """``[B, K, *features]`` as contiguous ``[B, K, N]``."""
    return (t if t.dim() == 3 else t.reshape(t.shape[0], t.shape[1], prod(t.shape[2:]))).contiguous()


def shaped(t: Tensor, shape: torch.Size) -> Tensor:
    """``t`` in another shape; itself where that is its own."""
    return t if t.shape == shape else t.reshape(shape)


def is_channels_last(t: Tensor) -> bool:
    """Whether ``t`` is an image batch ``[N, C, H, W]`` stored as ``[N, H, W, C]``, and not contiguous as well."""
    if t.dim() != 4 or t.is_contiguous():
        return False
    try:
        return t.is_contiguous(memory_format=torch.channels_last)
    except RuntimeError:  # torch does not tell inside a vmap
        if not _is_transformed():
            raise
        return False


def dense_layout(t: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """``t`` contiguous, as a view where its elements lie in one block, and what turns a result of that shape back."""
    if is_channels_last(t):
        return t.permute(0, 2, 3, 1), lambda result: result.permute(0, 3, 1, 2)
    return t.contiguous(), lambda result: result


def check_shapes(op: str, center: Tensor, generators: Tensor, name: str = "center") -> None:
    """Checks that ``generators`` is ``[B, K, *features]`` for a ``center`` (in errors: ``name``) of ``[B, *features]``.

    Raises:
        ArgumentError: naming the op and both shapes.
    """
    expected = (center.shape[:1], center.shape[1:])
    if center.dim() < 1 or generators.dim() < 2 or expected != (generators.shape[:1], generators.shape[2:]):
        raise ArgumentError(
            f"{op}: generators must have shape [batch, symbols, *features] for a {name} of shape "
            f"{list(center.shape)}, got {list(generators.shape)}"
        )


def broadcast_neurons(op: str, name: str, t: Tensor, like: Tensor) -> Tensor:
    """``t``, broadcast to the shape ``[B, *features]`` of ``like``, as contiguous ``[B, N]``.

    Raises:
        ArgumentError: naming the op, the argument and both shapes.
    """
    if like.dim() < 1:
        raise ArgumentError(f"{op}: tensors must have shape [batch, *features], got {list(like.shape)}")
    try:
        return neurons(t if t.shape == like.shape else t.expand(like.shape))
    except RuntimeError:
        raise ArgumentError(f"{op}: {name} must broadcast to shape {list(like.shape)}, got {list(t.shape)}") from None


def in_place(op: str, name: str, t: Tensor) -> Tensor:
    """``t`` itself, which the op writes into: a contiguous copy would not do.

    Raises:
        ArgumentError: naming the op and the argument.
    """
    if not t.is_contiguous():
        raise ArgumentError(f"{op}: {name} is written in place and must be contiguous, got strides {list(t.stride())}")
    return t


def register_in_place(name: str, written: int) -> None:
    """Makes the op ``name``, which writes into its first ``written`` arguments, behave as torch's in-place ops do.

    It refuses arguments that require grad, and moves the versions of what it writes, so that a backward pass that saved
    one of them says so.
    """
    op = getattr(NATIVE, name).default

    def kernel(keyset: Any, *args: Any) -> Any:
        refuse_gradients(name, *(a for a in args if isinstance(a, Tensor)))
        with torch._C._AutoDispatchBelowAutograd():
            result = op.redispatch(keyset & torch._C._after_autograd_keyset, *args)
        for t in args[:written]:
            torch.autograd.graph.increment_version(t)
        return result

    LIBRARY.impl(name, kernel, "Autograd", with_keyset=True)
