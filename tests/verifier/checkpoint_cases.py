"""Problems whose searches take a second or less, in many batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.verifier.graphs import constraint, fc, random_box, sample_box, spec
from zonocuda.graph import Graph
from zonocuda.prove import boxes
from zonocuda.specs import Spec
from zonocuda.verifier import checkpoint, neuron_search


def above(graph: Graph, spare: float, width: float, seed: int) -> Spec:
    """Safe: on a random box the first output is more than what it is at all points seen, less some."""
    low, high = (end.flatten() for end in random_box(graph, width=width, seed=seed))
    least = float(graph(sample_box(low, high, 4000))[:, 0].min())
    return spec(low, high, [[constraint({0: 1.0}, spare - least)]], graph.output_shape[0])


def few_inputs(spare: float = 0.05) -> tuple[Graph, Spec]:
    """A box to split."""
    graph = fc(2, (5, 16, 16, 16, 1))
    return graph, above(graph, spare, 4.0, 2)


def neurons(spare: float = 0.02) -> tuple[Graph, Spec]:
    """Neurons to split."""
    graph = fc(3, (4, 12, 12, 12, 2))
    return graph, above(graph, spare, 1.0, 3)


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "input": (few_inputs, {"split": "input"}),
    "neuron": (neurons, {"split": "neuron"}),
    "lemmas": (neurons, {"split": "neuron"}),
}


@contextmanager
def small_batches(name: str, interval: float = 0.0) -> Iterator[None]:
    """Inside, batches are of few parts, checkpoints come after each, and ``lemmas`` begin at once."""
    changed: list[tuple[Any, str, Any]] = [
        (boxes, "BATCH", 4),
        (neuron_search, "BATCH", 8),
        (checkpoint, "INTERVAL", interval),
        (checkpoint, "SHARE", 0.0),
    ]
    if name == "lemmas":
        changed += [(neuron_search, "FIRST", 2), (neuron_search, "LATER", 2)]
    before = [(module, key, getattr(module, key)) for module, key, _ in changed]
    try:
        for module, key, value in changed:
            setattr(module, key, value)
        yield
    finally:
        for module, key, value in before:
            setattr(module, key, value)
