"""Which implementation of the ops the domains run on: the native one, or the reference."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import Literal

Backend = Literal["auto", "native", "reference"]

_MODULES = {"native": "zonocuda.ops", "reference": "zonocuda.reference"}
_current: ContextVar[str] = ContextVar("zonocuda_backend", default="native")


def kernels() -> ModuleType:
    """The module whose ``concretize``, ``relu``, ... are in use: ``zonocuda.ops`` or ``zonocuda.reference``.

    Raises:
        ImportError: the native ops are in use and not built; never falls back to the reference.
    """
    return _module(_current.get())


@cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(_MODULES[name])


def current_backend() -> str:
    """``native`` or ``reference``."""
    return _current.get()


def has_cuda_kernels() -> bool:
    """Whether the native ops were built with CUDA."""
    return importlib.import_module("zonocuda.ops").build_info()["cuda"] is not None


@contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Run everything inside on one implementation; ``auto`` is the native one.

    Raises:
        ValueError: an unknown name.

    Examples:
        >>> with use_backend('reference'):
        ...     Zonotope.from_ball(torch.zeros(1, 2), 1.0).relu().bounds()[1]
        tensor([[1.0000, 1.0000]])
    """
    name = "native" if backend == "auto" else backend
    if name not in _MODULES:
        raise ValueError(f"backend must be auto, native or reference, got {backend!r}")
    token = _current.set(name)
    try:
        yield
    finally:
        _current.reset(token)
