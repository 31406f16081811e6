"""What a caller gives as numbers, as a tensor."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def as_tensor(value: Any, caller: str) -> Tensor:
    """A tensor itself; an array or nested lists of floats as one of their own type.

    Raises:
        TypeError: what holds no floats.
    """
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, device=_device())
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{caller}: needs a tensor of floats, got {type(value).__name__}") from error
    if not tensor.is_floating_point():
        raise TypeError(f"{caller}: needs floats, got {tensor.dtype}")
    if tensor.layout is not torch.strided:
        raise TypeError(f"{caller}: needs a dense tensor, got one of layout {tensor.layout}")
    return tensor


def box(lower: Any, upper: Any) -> tuple[Tensor, Tensor]:
    """The bounds of ``Zonotope.from_box``.

    Raises:
        ValueError, TypeError: see there.
    """
    lower, upper = as_tensor(lower, "from_box"), as_tensor(upper, "from_box")
    if not lower.dim():
        raise ValueError("from_box: bounds must have shape [B, *features], got []")
    if lower.shape != upper.shape:
        raise ValueError(f"from_box: lower {list(lower.shape)} and upper {list(upper.shape)} differ in shape")
    if not bool((lower <= upper).all()) or not bool((lower.isfinite() & upper.isfinite()).all()):
        raise ValueError("from_box: bounds must be finite, with lower <= upper")
    return lower, upper


def ball(x: Any, eps: Any, clip: Any) -> tuple[Tensor, Tensor]:
    """The bounds of ``Zonotope.from_ball``.

    Raises:
        ValueError, TypeError: see there.
    """
    center = as_tensor(x, "from_ball")
    if center.is_meta:
        raise TypeError("from_ball: needs numbers, and a tensor on the device meta holds none")
    is_number = isinstance(eps, int | float) and not isinstance(eps, bool)
    radius = eps if is_number else as_tensor(eps, "from_ball")
    if not is_number and not _spreads(radius.shape, center.shape):
        raise ValueError(f"from_ball: eps of shape {list(radius.shape)} does not fit x of shape {list(center.shape)}")
    lower, upper = center - radius, center + radius
    if clip is None:
        return lower, upper
    if isinstance(clip, str) or not hasattr(clip, "__len__") or len(clip) != 2:
        raise ValueError(f"from_ball: clip must be a range (low, high), got {clip}")
    try:
        low, high = (float(end) for end in clip)
    except (TypeError, ValueError):
        low, high = math.inf, -math.inf
    if not low <= high:
        raise ValueError(f"from_ball: clip must be a range (low, high), got {clip}")
    if bool(((lower > high) | (upper < low)).any()):
        raise ValueError(f"from_ball: a ball lies outside the range {clip}")
    return lower.clamp(low, high), upper.clamp(low, high)


def check_generators(center: Any, generators: Any) -> None:
    """Raises TypeError unless both are tensors, and ValueError unless they are ``[B, *features]`` and ``[B, K,
    *features]``."""
    for t in (center, generators):
        if not isinstance(t, Tensor):
            raise TypeError(f"from_generators: needs tensors, got {type(t).__name__}")
    if generators.dim() < 2 or (center.shape[:1], center.shape[1:]) != (generators.shape[:1], generators.shape[2:]):
        raise ValueError(
            f"from_generators: generators must have shape [batch, symbols, *features] for a center of shape "
            f"{list(center.shape)}, got {list(generators.shape)}"
        )


def _spreads(shape: torch.Size, to: torch.Size) -> bool:
    """Whether one shape broadcasts to another."""
    last = to[len(to) - len(shape) :]
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape, last, strict=True))


def _device() -> torch.device:
    """Where numbers without a device go: where the caller's default says, if that is somewhere."""
    default = torch.get_default_device()
    return torch.device("cpu") if default.type == "meta" else default
