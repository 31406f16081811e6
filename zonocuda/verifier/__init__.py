"""Bounds and verdicts."""

from zonocuda.verifier.bounds import NetworkBounds, compute_bounds
from zonocuda.verifier.decide import verify
from zonocuda.verifier.falsify import Counterexample
from zonocuda.verifier.forward import LayerStats
from zonocuda.verifier.joint import margin
from zonocuda.verifier.optimize import Ascent
from zonocuda.verifier.optimize_bounds import OptimizedBounds, optimize_bounds, slopes_of
from zonocuda.verifier.planner import Step
from zonocuda.verifier.result import Ran, RowBound, Verdict, VerifyResult

__all__ = [
    "Ascent",
    "Counterexample",
    "LayerStats",
    "NetworkBounds",
    "OptimizedBounds",
    "Ran",
    "RowBound",
    "Step",
    "Verdict",
    "VerifyResult",
    "compute_bounds",
    "margin",
    "optimize_bounds",
    "slopes_of",
    "verify",
]
