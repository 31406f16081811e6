"""Bounds of every activation's input by reduced zonotopes: the symbols of the input, and one error for each neuron.

A zonotope gains a symbol for every unstable neuron, and with a batch of boxes for every neuron that is unstable in one
of them. Here the new symbols of an activation are merged at once into an error e with |x - (c + sum_k eps_k G_k)| <= e,
which the layers behind multiply by |W|; it is the e that counts rounding in a sweep
(:mod:`zonocuda.bounds.rounding.forward_error`) and grows by mu at an activation. The cost of a box is that of its input
symbols, however many neurons are unstable. Intervals go along: where e has grown, they are sometimes the better bounds,
and both are intersected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.forward_error import Error, ForwardErrors
from zonocuda.bounds.transform import transform
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Node, interpret
from zonocuda.relaxations import has_rule, rule_of


@dataclass(frozen=True, eq=False)
class _Value:
    """A node's zonotope, its error, and its intervals."""

    zonotope: Zonotope
    error: Error
    bounds: Bounds


def reduced_bounds(
    graph: Graph, box: Bounds, rounding: Rounding, known: Mapping[str, Bounds] | None = None
) -> dict[str, Bounds]:
    """Proven bounds ``[B, *features]`` of the input of every activation, by name, for inputs in a box.

    Args:
        graph: the network.
        box: lower and upper ``[B, *input features]``.
        rounding: its arithmetic.
        known: bounds that hold on the box, to intersect with.
    """
    errors = ForwardErrors(rounding)
    found: dict[str, Bounds] = {}
    given = known or {}

    def step(node: Node, values: tuple[_Value, ...]) -> _Value:
        first = values[0]
        symbols = sum(value.zonotope.symbols for value in values)
        if not has_rule(node):
            image = transform(node, [value.zonotope for value in values])
            error = errors.image(node, [value.error for value in values], symbols)
            return _Value(image, error, errors.interval(node, [value.bounds for value in values]))
        bounds, error = errors.bounds(first.zonotope, first.error)
        for lower, upper in (first.bounds, given.get(node.name, first.bounds)):
            bounds = torch.fmax(bounds[0], lower), torch.fmin(bounds[1], upper)
        found[node.name] = bounds
        rule = rule_of(node)
        slope, middle, radius = band = rule.band(*bounds, None)
        grown = errors.activation(node, error, bounds, None, symbols, band)
        image = rule.scaled(first.zonotope, slope)
        image = replace(image, center=image.center + middle)
        return _Value(image, errors.merged_offset(grown, radius), rule.range(*bounds))

    start = Zonotope.from_box(*box)
    interpret(graph, _Value(start, errors.of_box(start), box), step)
    return found
