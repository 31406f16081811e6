"""Verdicts in the words and files of VNN-COMP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zonocuda.verifier import VerifyResult

WORDS: Mapping[str, str] = {
    "verified": "unsat",
    "falsified": "sat",
    "unknown": "unknown",
    "timeout": "timeout",
    "error": "error",
}


def results_text(result: VerifyResult) -> str:
    """The verdict in VNN-COMP's words, and for ``sat`` the counterexample: float32 values, printed exactly."""
    text = WORDS[result.verdict] + "\n"
    if result.counterexample is not None:
        point = [("X", result.counterexample.x), ("Y", result.counterexample.y)]
        values = [f"({name}_{i} {v!r})" for name, t in point for i, v in enumerate(t.flatten().tolist())]
        text += "(" + "\n".join(values) + ")\n"
    return text
