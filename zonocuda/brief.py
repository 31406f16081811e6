"""Short representations of values that hold tensors: shapes and dtypes instead of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

MOST = 4
"""Entries of a tuple, list or mapping that are shown."""
FEW = 10
"""Numbers of a tensor that are shown themselves."""


def brief(value: object) -> str:
    """A value in a line: a tensor by its dtype and shape, a long sequence or mapping by its first entries."""
    match value:
        case Tensor():
            return _tensor(value)
        case tuple() | list():
            inner = ", ".join([brief(entry) for entry in value[:MOST]] + _rest(len(value)))
            comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
            return f"({inner}{comma})" if isinstance(value, tuple) else f"[{inner}]"
        case Mapping():
            inner = ", ".join([f"{key!r}: {brief(value[key])}" for key in list(value)[:MOST]] + _rest(len(value)))
            return f"{{{inner}}}"
    return repr(value)


def _rest(count: int) -> list[str]:
    return [f"... {count - MOST} more"] if count > MOST else []


def _tensor(x: Tensor) -> str:
    if 0 < x.numel() <= FEW and x.device.type == "cpu" and not isinstance(x, torch._subclasses.FakeTensor):
        numbers = [f"{value:.4g}" for value in x.detach().flatten().tolist()]
        return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}({', '.join(numbers)})"
    place = "" if x.device.type == "cpu" else f" on {x.device}"
    return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}{place}"


def brief_repr(self: Any) -> str:
    """``__repr__`` of a dataclass, each field :func:`brief`."""
    assert is_dataclass(self)
    shown = ", ".join(f"{entry.name}={brief(getattr(self, entry.name))}" for entry in fields(self) if entry.repr)
    return f"{type(self).__name__}({shown})"
