"""Networks of one input in exact arithmetic: where on an interval they are smallest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

from tests.verifier.exact import affine_map, multiply
from zonocuda.graph import Affine, Graph, Input, Node, Relu

Line = tuple[Fraction, Fraction]
"""a x + b, for one neuron."""
Piece = tuple[Fraction, Fraction, list[Line]]
"""An interval, on which every neuron of a layer is a line."""


def pieces(graph: Graph, low: Fraction, high: Fraction) -> list[Piece]:
    """The output of a chain of layers with one input: its lines on every interval where no ReLU changes sign."""
    found: list[Piece] = [(low, high, [(Fraction(1), Fraction(0))])]
    for node in graph.nodes:
        if not isinstance(node.op, Input):
            found = [piece for before in found for piece in _image(graph, node, before)]
    return found


def smallest(graph: Graph, low: Fraction, high: Fraction, output: int = 0) -> tuple[Fraction, Fraction]:
    """Where an output is smallest, and how small it is there."""
    ends = []
    for first, last, lines in pieces(graph, low, high):
        a, b = lines[output]
        ends += [(x, a * x + b) for x in (first, last)]
    return min(ends, key=lambda end: end[1])


def _image(graph: Graph, node: Node, piece: Piece) -> Iterator[Piece]:
    low, high, lines = piece
    if isinstance(node.op, Affine):
        matrix, offset = affine_map(node.op, graph[node.inputs[0]].shape)
        slopes, shifts = (multiply(matrix, [line[i] for line in lines]) for i in (0, 1))
        yield low, high, [(a, b + c) for a, b, c in zip(slopes, shifts, offset, strict=True)]
        return
    assert isinstance(node.op, Relu)
    kinks = sorted({-b / a for a, b in lines if a and low < -b / a < high})
    ends = [low, *kinks, high]
    for first, last in itertools.pairwise(ends):
        middle = (first + last) / 2
        yield first, last, [(a, b) if a * middle + b > 0 else (Fraction(0), Fraction(0)) for a, b in lines]
