"""How many proofs about random networks with steps a check confirms.

    python -m tests.check.step_networks [--count 200] [--first 0] [--semantics real|float32|float64]

Networks are those of :mod:`tests.soundness.random_networks`, with steps in place of some of their ReLUs, boxes of any
width, and the property that the first output exceeds a number a little below the proven bound of it.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace

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


def outcome(seed: int, semantics: str = "real") -> str | None:
    """What becomes of a proof: empty where a check confirms it, else why not; None where there is no proof."""
    graph = stepped(seed)
    property_ = property_of(graph, seed) if any(isinstance(node.op, Staircase) for node in graph.nodes) else None
    if property_ is None:
        return None
    try:
        result = verify(graph, property_, semantics=semantics, certificate=True, split="none", dtype="float64")
    except UnsupportedNetworkError:
        return None
    if result.verdict is not Verdict.VERIFIED or result.certificate is None:
        return None
    if result.certificate.reason:
        return f"no certificate: {result.certificate.reason}"
    answer = check(result, graph, property_)
    return "" if answer.confirmed else answer.reason


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--semantics", choices=["real", "float32", "float64"], default="real")
    options = parser.parse_args()
    proofs = confirmed = 0
    for seed in range(options.first, options.first + options.count):
        found = outcome(seed, options.semantics)
        if found:
            print(f"network {seed}: {found}", flush=True)
        proofs += found is not None
        confirmed += found == ""
    print(f"{confirmed} of {proofs} proofs confirmed")


if __name__ == "__main__":
    main()
