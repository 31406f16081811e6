"""How many proofs about random networks with steps a check confirms.

    python -m tests.check.step_networks [--count 200] [--first 0] [--semantics real|float32|float64]

Networks are those of :mod:`tests.soundness.random_networks`, with steps in place of some of their ReLUs, boxes of any
width, and the property that the first output exceeds a number a little below the proven bound of it.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass, replace

import torch

from tests.soundness.random_networks import STEPS, RandomNetwork
from tests.verifier.graphs import constraint, spec
from zonocuda.checker import check
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Staircase
from zonocuda.importers import UnsupportedNetworkError
from zonocuda.specs import Spec
from zonocuda.verifier import Verdict, compute_bounds, verify

SHARES = (1e-9, 1e-6, 1e-3, 0.1)
"""How far below the bound, as a share of its distance from the value in the middle of the box."""


def stepped(seed: int) -> Graph:
    """A random network with steps in place of at least one ReLU."""
    rng = random.Random(f"steps {seed}")
    graph = RandomNetwork(seed, 24).graph()
    relus = [node.name for node in graph.relus if node.part is None]
    steps = {name: rng.choice(STEPS) for name in relus if rng.random() < 0.6} or {
        name: rng.choice(STEPS) for name in relus[:1]
    }
    nodes = (replace(n, op=Staircase(steps[n.name])) if n.name in steps else n for n in graph.nodes)
    return Graph(tuple(nodes), graph.output)


def property_of(graph: Graph, seed: int) -> Spec | None:
    """See the module; None where nothing finite bounds the output."""
    rng = random.Random(f"box {seed}")
    center = torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(seed)).double()
    radius = 10.0 ** rng.uniform(-3, 0.5)
    lower, upper = (center - radius)[None], (center + radius)[None]
    with torch.no_grad():
        bound = float(compute_bounds(graph, Zonotope.from_box(lower, upper)).lower.flatten()[0])
        middle = float(graph(center[None]).flatten()[0])
    threshold = bound - abs(middle - bound) * rng.choice(SHARES)
    if not abs(threshold) < float("inf"):
        return None
    outputs = int(torch.tensor(graph.output_shape).prod())
    return spec(lower.flatten(), upper.flatten(), [[constraint({0: 1.0}, -threshold)]], outputs)


@dataclass
class Count:
    """What became of the networks."""

    verified: int = 0
    confirmed: int = 0
    without: int = 0
    open: tuple[tuple[int, str], ...] = ()


def count(seeds: range, semantics: str = "real") -> Count:
    """Proofs, those that a check confirms, and those without a certificate."""
    found = Count()
    for seed in seeds:
        graph = stepped(seed)
        if not any(isinstance(node.op, Staircase) for node in graph.nodes):
            continue
        property_ = property_of(graph, seed)
        if property_ is None:
            continue
        try:
            result = verify(graph, property_, semantics=semantics, certificate=True, split="none", dtype="float64")
        except UnsupportedNetworkError:
            continue
        if result.verdict is not Verdict.VERIFIED or result.certificate is None:
            continue
        found.verified += 1
        if result.certificate.reason:
            found.without += 1
            found.open += ((seed, result.certificate.reason),)
            continue
        answer = check(result, graph, property_)
        found.confirmed += answer.confirmed
        if not answer.confirmed:
            found.open += ((seed, answer.reason),)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--semantics", choices=["real", "float32", "float64"], default="real")
    options = parser.parse_args()
    found = count(range(options.first, options.first + options.count), options.semantics)
    for seed, reason in found.open:
        print(f"network {seed}: {reason}")
    print(f"{found.confirmed} of {found.verified} proofs confirmed, {found.without} without a certificate")


if __name__ == "__main__":
    main()
