"""zonocuda: neural network verification with zonotopes, on C++/CUDA torch ops.

``verify`` decides properties, ``compute_bounds`` encloses a network's values, ``optimize_bounds``
makes bounds tighter by slopes that learn, ``run`` verifies many instances, ``Zonotope`` and ``Spec`` describe inputs
and properties; ``check`` proves a verdict again (it needs python-flint); :mod:`zonocuda.ops` are the native ops alone.
Names, and the modules ``ops``, ``reference``, ``nonsmooth``, ``specs`` and others, are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from zonocuda.version import __version__

if TYPE_CHECKING:
    from zonocuda import checker as checker
    from zonocuda import domains as domains
    from zonocuda import fleet as fleet
    from zonocuda import graph as graph
    from zonocuda import importers as importers
    from zonocuda import nonsmooth as nonsmooth
    from zonocuda import ops as ops
    from zonocuda import reference as reference
    from zonocuda import specs as specs
    from zonocuda import verifier as verifier
    from zonocuda.checker import check as check
    from zonocuda.domains import Zonotope, use_backend
    from zonocuda.fleet import run
    from zonocuda.importers import from_module, load_network, load_onnx
    from zonocuda.ranks import Ranks
    from zonocuda.specs import Spec, load_vnnlib
    from zonocuda.verifier import NetworkBounds, Verdict, VerifyResult, compute_bounds, verify
    from zonocuda.verifier.optimize_bounds import OptimizedBounds, optimize_bounds

_HOMES = {
    "NetworkBounds": "zonocuda.verifier",
    "OptimizedBounds": "zonocuda.verifier",
    "Ranks": "zonocuda.ranks",
    "Spec": "zonocuda.specs",
    "Verdict": "zonocuda.verifier",
    "VerifyResult": "zonocuda.verifier",
    "Zonotope": "zonocuda.domains",
    "check": "zonocuda.checker",
    "compute_bounds": "zonocuda.verifier",
    "from_module": "zonocuda.importers",
    "load_network": "zonocuda.importers",
    "load_onnx": "zonocuda.importers",
    "load_vnnlib": "zonocuda.specs",
    "optimize_bounds": "zonocuda.verifier",
    "run": "zonocuda.fleet",
    "use_backend": "zonocuda.domains",
    "verify": "zonocuda.verifier",
}

_MODULES = (
    "checker",
    "domains",
    "fleet",
    "graph",
    "importers",
    "nonsmooth",
    "ops",
    "reference",
    "specs",
    "verifier",
)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"zonocuda.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'zonocuda' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})


__all__ = [
    "NetworkBounds",
    "OptimizedBounds",
    "Ranks",
    "Spec",
    "Verdict",
    "VerifyResult",
    "Zonotope",
    "__version__",
    "compute_bounds",
    "from_module",
    "load_network",
    "load_onnx",
    "load_vnnlib",
    "optimize_bounds",
    "run",
    "use_backend",
    "verify",
]
