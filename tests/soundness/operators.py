"""Kinds of operators: those that there are, and those that networks have."""

from __future__ import annotations

from collections.abc import Iterable

from zonocuda import graph as ops
from zonocuda.graph import Graph, whole

_NO_KIND = {"Op", "Affine", "Elementwise", "Rearrangement", "Graph", "Node", "Part"}
"""Classes that no operator of a network is."""
_ELSEWHERE = {"Assumed", "Bilinear", "Elementary"}
"""Smooth functions, what is stated of them, and products, which tests/relaxations, test_assumed, test_smooth_networks
and test_transformers attack."""

_PRODUCTS = {
    "Divide",
    "LogSumExp",
    "MaskedSoftmax",
    "MatrixProduct",
    "Multiply",
    "Softmax",
    "Standardise",
}
"""Operators that are written with products and smooth functions: see ``_ELSEWHERE``."""


def kinds_to_attack() -> set[str]:
    """All that there are, but for those that other tests attack."""
    return {name for name in ops.__all__ if isinstance(getattr(ops, name), type)} - _NO_KIND - _ELSEWHERE


def kinds_of(graphs: Iterable[Graph]) -> set[str]:
    """Those of some networks."""
    return {type(node.op).__name__ for graph in graphs for node in graph.nodes}


def wholes_to_attack() -> set[str]:
    """Operators that are written with several nodes, but for those that other tests attack."""
    found = {
        name for name, value in vars(whole).items() if isinstance(value, type) and value.__module__ == whole.__name__
    }
    return found - _PRODUCTS


def wholes_of(graphs: Iterable[Graph]) -> set[str]:
    """Those of some networks."""
    parts = (node.part for graph in graphs for node in graph.nodes if node.part is not None)
    return {type(part.whole).__name__ for part in parts if part.whole is not None}
