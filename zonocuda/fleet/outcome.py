"""What a worker sends back of an instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """Plain values.

    Attributes:
        error: why the instance could not be run; the rest is empty then.
        net_sha256, spec_sha256: digests of what was read.
        verdict, reason, meaning, margin, phases, splits: as :class:`~zonocuda.fleet.record.Record` has them.
        loading: seconds that reading the files took.
        seconds: what the verification took.
        document: the whole result, JSON.
        counterexample: as VNN-COMP writes it; empty where there is none.
        certificate: as ``verify --certificate`` writes it; empty where there is none.
    """

    net_sha256: str
    spec_sha256: str
    error: str = ""
    verdict: str = ""
    reason: str = ""
    meaning: str = ""
    margin: float | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    splits: Sequence[Mapping[str, Any]] = ()
    loading: float = 0.0
    seconds: float = 0.0
    document: str = ""
    counterexample: str = ""
    certificate: bytes = b""
