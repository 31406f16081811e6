"""Whose arithmetic a verdict is about: real numbers, or what a machine computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from zonocuda.bounds.rounding.executed import Execution
from zonocuda.graph import Elementary
from zonocuda.importers import UnsupportedNetworkError
from zonocuda.verifier.arguments import Semantics
from zonocuda.verifier.assumed import assuming
from zonocuda.verifier.model import Subject

EXECUTED = {"float32": torch.float32, "float64": torch.float64}


def executed(
    subject: Subject, semantics: Semantics, ulp: Mapping[str, float] | None = None
) -> tuple[Subject, Execution | None]:
    """The subject that replays counterexamples, and the execution that semantics ask about (None for real numbers).

    A network of float32 is replayed in float64, where that is asked, by its graph: the file's or module's own program
    computes in float32. ``ulp``: what the user states of functions (:mod:`zonocuda.verifier.assumed`).

    Raises:
        ValueError: the network computes in another precision, or something that no bound accounts for.
        UnsupportedNetworkError: an operator about whose rounding nothing is known.
    """
    dtype = EXECUTED.get(semantics)
    if dtype is None:
        return subject, None
    if subject.final is not None:
        raise ValueError(
            f"semantics {semantics!r}: the network ends in {subject.final.kind}, whose rounding no bound accounts for; "
            "use 'real'"
        )
    if dtype == torch.float32 and subject.dtype != dtype:
        raise ValueError(f"semantics {semantics!r}: the network computes in float64; use 'float64' or 'real'")
    if subject.graph.executed:
        if dtype != subject.dtype:
            raise ValueError(f"semantics {semantics!r}: the network computes constants in float32; use 'real'")
        subject = replace(subject, graph=subject.graph.as_executed())
    if dtype == torch.float64:
        if subject.dtype != dtype:
            graph = subject.graph.to(dtype, "cpu")
            subject = replace(subject, execute=lambda x: graph(x.to(dtype)), runs_on="graph", versions={}, dtype=dtype)
        subject = replace(subject, rounded_box=False)
    if wider := subject.graph.wider(dtype):
        raise ValueError(f"semantics {semantics!r}: node {wider!r} holds more digits; use 'float64' or 'real'")
    try:
        if any(isinstance(node.op, Elementary) for node in subject.graph.nodes):
            subject = replace(subject, graph=assuming(subject.graph, ulp or {}, dtype))
        return subject, Execution.of(subject.graph, dtype)
    except NotImplementedError as error:
        raise UnsupportedNetworkError(f"semantics {semantics!r}: {error}; use 'real'") from error
