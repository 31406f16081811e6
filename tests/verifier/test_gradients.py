"""Gradients of a whole network's bounds: native ops against autograd through the reference, and against differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from tests.verifier.graphs import conv, fc, rand, random_slopes, residual
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Node
from zonocuda.verifier import compute_bounds

NETWORKS = {"fc": fc, "conv": conv, "residual": residual}
Leaves = dict[str, Tensor]


def with_weights(graph: Graph, leaves: Mapping[str, Tensor]) -> Graph:
    """The graph with the weights and biases among the leaves in place of its own."""

    def replaced(node: Node) -> Node:
        own = {f: leaves[f"{node.name}.{f}"] for f in ("weight", "bias") if f"{node.name}.{f}" in leaves}
        return dataclasses.replace(node, op=dataclasses.replace(node.op, **own))

    return Graph(tuple(replaced(node) for node in graph.nodes), graph.output)


def leaves_of(graph: Graph, free_slopes: bool) -> Leaves:
    """The input's center and generators, the weights and biases, and a slope for every neuron."""
    leaves = {"center": rand(2, *graph.input_shape, seed=1), "generators": 0.1 * rand(2, 4, *graph.input_shape, seed=2)}
    for node in graph.nodes:
        for f in ("weight", "bias"):
            if getattr(node.op, f, None) is not None:
                leaves[f"{node.name}.{f}"] = getattr(node.op, f)
    if free_slopes:
        leaves |= random_slopes(graph, 2, seed=3)
    return {name: leaf.detach().clone().requires_grad_() for name, leaf in leaves.items()}


def loss(graph: Graph, leaves: Leaves, backend: str) -> Tensor:
    """A fixed linear function of the output's bounds."""
    relus = {node.name for node in graph.relus}
    slopes = {name: leaf for name, leaf in leaves.items() if name in relus}
    z = Zonotope.from_generators(leaves["center"], leaves["generators"])
    result = compute_bounds(with_weights(graph, leaves), z, slopes=slopes, backend=backend)  # type: ignore[arg-type]
    return (result.lower * rand(2, 3, seed=4)).sum() + (result.upper * rand(2, 3, seed=5)).sum()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("slopes", ["free", "tied"])
def test_native_gradients_equal_autograd_through_the_reference(name: str, slopes: str) -> None:
    graph = NETWORKS[name](1)
    gradients = []
    for backend in ("native", "reference"):
        leaves = leaves_of(graph, slopes == "free")
        gradients.append(torch.autograd.grad(loss(graph, leaves, backend), list(leaves.values())))
    for leaf, native, reference in zip(leaves, *gradients, strict=True):
        largest = reference.abs().max()
        assert largest > 1e-3, f"{leaf}: no gradient to compare"
        assert (native - reference).abs().max() <= 1e-10 * largest, leaf


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("slopes", ["free", "tied"])
def test_native_gradients_equal_central_differences(name: str, slopes: str) -> None:
    """Along a random direction in all leaves at once; the loss is piecewise smooth, no kink lies within the step."""
    graph = NETWORKS[name](1)
    leaves = leaves_of(graph, slopes == "free")
    gradients = torch.autograd.grad(loss(graph, leaves, "native"), list(leaves.values()))
    direction = {leaf: rand(*t.shape, seed=i + 10) for i, (leaf, t) in enumerate(leaves.items())}
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction.values(), strict=True))
    h = 1e-6
    with torch.no_grad():
        ahead, behind = (
            float(loss(graph, {leaf: t + s * direction[leaf] for leaf, t in leaves.items()}, "native")) for s in (h, -h)
        )
    assert abs((ahead - behind) / (2 * h) - slope) <= 1e-6 * (1 + abs(slope))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_along_the_slopes_gradient_tightens_the_bound(name: str) -> None:
    graph = NETWORKS[name](1)
    leaves = leaves_of(graph, free_slopes=True)
    relus = [node.name for node in graph.relus]
    z = Zonotope.from_generators(leaves["center"].detach(), leaves["generators"].detach())

    def width(slopes: Mapping[str, Tensor]) -> Tensor:
        result = compute_bounds(graph, z, slopes=slopes)
        return (result.upper - result.lower).sum()

    before = width({relu: leaves[relu] for relu in relus})
    gradients = torch.autograd.grad(before, [leaves[relu] for relu in relus])
    stepped = {r: (leaves[r] - 1e-3 * g).clamp(0, 1).detach() for r, g in zip(relus, gradients, strict=True)}
    assert width(stepped) < before
