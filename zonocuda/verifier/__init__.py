"""Bounds and verdicts."""

from zonocuda.verifier.bounds import NetworkBounds, compute_bounds
from zonocuda.verifier.decide import verify
from zonocuda.verifier.falsify import Counterexample
from zonocuda.verifier.forward import LayerStats
from zonocuda.verifier.planner import Step
from zonocuda.verifier.result import Ran, RowBound, Verdict, VerifyResult

__all__ = [
    "Counterexample",
    "LayerStats",
    "NetworkBounds",
    "Ran",
    "RowBound",
    "Step",
    "Verdict",
    "VerifyResult",
    "compute_bounds",
    "verify",
]
