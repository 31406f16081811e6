"""Kinds of operators: those that there are, and those that networks have."""

from __future__ import annotations

from collections.abc import Iterable

from zonocuda import graph as ops
from zonocuda.graph import Graph

_NO_KIND = {"Op", "Affine", "Elementwise", "Rearrangement", "Graph", "Node", "Part"}
"""Classes that no operator of a network is."""
_ELSEWHERE = {"Assumed", "Bilinear", "Elementary"}
"""Smooth functions, what is stated of them, and products, which tests/relaxations, test_assumed, test_smooth_networks
and test_transformers attack."""


def kinds_to_attack() -> set[str]:
    """All that there are, but for those that other tests attack."""
    return {name for name in ops.__all__ if isinstance(getattr(ops, name), type)} - _NO_KIND - _ELSEWHERE


def kinds_of(graphs: Iterable[Graph]) -> set[str]:
    """Those of some networks."""
    return {type(node.op).__name__ for graph in graphs for node in graph.nodes}
