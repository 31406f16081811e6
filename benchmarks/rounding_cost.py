"""What it costs to count rounding in a verdict, in time and in margin, and how many verdicts float32 alone settles.

    python -m benchmarks.rounding_cost [--count 3] [--sets mnist_fc ...]

Needs ZONOCUDA_TEST_DATA. For the first instances of every set that others proved: forward sweep, plain dual passes and
the ladder of effort ``standard`` (the search for counterexamples is left out) in float64, with and without counting,
in turn, the faster of two runs each; and with counting in float32. One line a set:

    time      of the proofs with counting, and its excess over that without
    margin    the largest |difference| of a row's bound with and without counting, over the bound's size
    float64, float32     how many properties each proves, counting
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tests import networks
from tests.data import data_root
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph
from zonocuda.importers import from_module, load_network
from zonocuda.precision import full_precision, summed_products
from zonocuda.specs import Region, Spec, load_vnnlib
from zonocuda.verifier.dual_pass import proceed
from zonocuda.verifier.forward import sweep
from zonocuda.verifier.forward_error import ForwardErrors
from zonocuda.verifier.interval import outward
from zonocuda.verifier.prove import LADDERS, Prover
from zonocuda.verifier.rounding import Rounding
from zonocuda.verifier.rows import Rows

SETS = (
    "acasxu",
    "mnist_fc",
    "collins_rul_cnn",
    "marabou_cifar10_small_medium",
    "reach_prob_density",
    "oval21_base_wide",
    "cifar10_resnet_4b",
    "sri_resnet_a",
)


@dataclass(frozen=True)
class Proof:
    """Seconds, whether everything was proven, and the bounds of the rows of all regions."""

    seconds: float
    proven: bool
    bounds: torch.Tensor


def prove(network: Graph, graph: Graph, regions: tuple[Region, ...], counted: bool) -> Proof:
    """The proofs of :func:`zonocuda.verify`, on ``graph``, which is ``network`` in the dtype to compute in."""
    dtype = next(v.dtype for node in graph.nodes for v in vars(node.op).values() if isinstance(v, torch.Tensor))
    begin = time.perf_counter()
    rounding = Rounding.of(network, graph, dtype) if counted else None
    found, proven = [], True
    with torch.no_grad(), full_precision(), summed_products():
        for region in regions:
            shape = (1, *graph.input_shape)
            low, high = (
                outward(b.reshape(shape), dtype, up) for b, up in ((region.box.lower, False), (region.box.upper, True))
            )
            rows = Rows.of(region, low.numel(), rows_of(graph), low)
            zonotope = Zonotope.from_box(low, high)
            result = sweep(graph, zonotope, direction="auto", rounding=rounding)
            forward = None
            if result.output is not None:
                if rounding is None:
                    forward = rows.image(zonotope, result.output).bounds()[0].squeeze(0)
                else:
                    assert result.errors is not None
                    forward = ForwardErrors(rounding).rows(rows, zonotope, result.output, result.errors).squeeze(0)
            prover = Prover(graph, rows, (low, high), result.inputs, forward, "envelope", proceed, rounding)
            if forward is None or not all(rows.refuted(forward)):
                prover.plain()
                for rung in LADDERS["standard"]:
                    if prover.proven or not prover.climb(rung):
                        break
            found.append(prover.bounds.double())
            proven = proven and prover.proven
    return Proof(time.perf_counter() - begin, proven, torch.cat(found))


def rows_of(graph: Graph) -> int:
    """Outputs of a network."""
    return int(torch.tensor(graph.output_shape).prod())


def instances(name: str, count: int) -> Iterator[tuple[Graph, Spec]]:
    """Of a VNN-COMP set, the first that others proved."""
    folder = data_root() / "vnncomp" / name
    with (folder / "instances.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["truth"].startswith("unsat")]
    step = max(1, len(rows) // count)
    for row in rows[::step][:count]:
        yield load_network(folder / row["onnx"]).graph, load_vnnlib(folder / row["vnnlib"])


def images(name: str, count: int) -> Iterator[tuple[Graph, Spec]]:
    """Robustness of the first test images of a network of tests.networks that it classifies rightly."""
    kind, radius = {"wong_kolter": (networks.wong_kolter, 0.1), "eran": (networks.eran, 0.01)}[name]
    chosen = "mnist" if name == "wong_kolter" else "mnist_5_100_flattened"
    graph = from_module(kind(chosen), (1, 28, 28))
    pixels, labels = networks.images("mnist")
    right = graph(pixels).argmax(1) == labels
    for x, label in list(zip(pixels[right], labels[right].tolist(), strict=True))[:count]:
        yield graph, Spec.robust(x, radius, label)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=[*SETS, "wong_kolter", "eran"])
    arguments = parser.parse_args()
    print(f"{'set':30} {'n':>3} {'time':>9} {'excess':>8} {'margin':>9} {'float64':>8} {'float32':>8} {'its time':>9}")
    for name in arguments.sets:
        cases = list((images if name in ("wong_kolter", "eran") else instances)(name, arguments.count))
        seconds, margin, proven = [0.0, 0.0, 0.0], 0.0, [0, 0]
        for network, spec in cases:
            wide, narrow = network.to(torch.float64), network.to(torch.float32)
            regions = tuple(region for region in spec.regions if not region.box.is_empty)
            runs = [[prove(network, wide, regions, counted) for counted in (False, True)] for _ in range(2)]
            plain, counting = (min((run[i] for run in runs), key=lambda p: p.seconds) for i in range(2))
            single = prove(network, narrow, regions, True)
            for i, proof in enumerate((plain, counting, single)):
                seconds[i] += proof.seconds
            difference = ((plain.bounds - counting.bounds).abs() / plain.bounds.abs()).nan_to_num(0.0)
            margin = max(margin, float(difference.max()))
            proven[0] += counting.proven
            proven[1] += single.proven
        excess = 100 * (seconds[1] / seconds[0] - 1)
        print(
            f"{name:30} {len(cases):3} {seconds[1]:7.2f} s {excess:6.1f} % {100 * margin:7.1e} % {proven[0]:8}"
            f" {proven[1]:8} {seconds[2]:7.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
