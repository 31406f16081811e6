"""A counterexample of executed arithmetic, and what real arithmetic has against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from zonocuda.bounds.deadline import TimeoutReached
from zonocuda.host_memory import is_out_of_memory
from zonocuda.prove.stages import RegionProof
from zonocuda.specs import Region

if TYPE_CHECKING:
    from zonocuda.verifier.verification import Verification


def contrast(run: Verification, position: int, region: Region) -> str:
    """What real arithmetic has against a counterexample of executed arithmetic: a proof, where there is one.

    Only a point that float64 does not call unsafe, or outside the exact box, can owe to rounding alone; for others
    none is tried.
    """
    found = run.counterexample
    assert found is not None
    if run.execution is not None:
        return ""
    graph, x = run.subject.graph.to(torch.float64, "cpu"), found.x.double()
    flat = x.flatten()
    inside = bool(((flat >= region.box.lower) & (flat <= region.box.upper)).all())
    if inside and region.is_unsafe(flat.tolist(), graph(x.unsqueeze(0)).flatten().tolist()):
        return ""
    proof = RegionProof(region, run.dtypes, run.arithmetic, run.course)
    try:
        proof.begin(is_last=True)
    except (TimeoutReached, MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, TimeoutReached) and not is_out_of_memory(error):
            raise
        return ""  # the counterexample stands
    run.margins += proof.margins(position)
    if not proof.proven:
        return ""
    return "; of rounding alone: over the reals, on the enclosing box, the property is proven"
