"""Bounds and verdicts."""

from zonocuda.bounds.forward.seen import LayerStats
from zonocuda.bounds.plan.planner import Step
from zonocuda.prove.row_bound import RowBound
from zonocuda.tighten.ascent import Ascent
from zonocuda.tighten.joint import margin
from zonocuda.verifier.bounds import NetworkBounds, compute_bounds
from zonocuda.verifier.decide import verify
from zonocuda.verifier.falsify import Counterexample
from zonocuda.verifier.optimize_bounds import OptimizedBounds, optimize_bounds, slopes_of
from zonocuda.verifier.result import Ran, Verdict, VerifyResult

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
