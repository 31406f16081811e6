"""What it costs to count rounding in a verdict, in time and in margin, and how many verdicts float32 alone settles.

    python -m benchmarks.rounding_cost [--count 3] [--sets mnist_fc ...]

Needs ZONOCUDA_TEST_DATA. For the first instances of every set that others proved: :func:`zonocuda.verify` as users call
it, and its proofs alone (forward sweep, plain dual passes and the ladder of effort ``standard``) with and without
counting, in turn, the faster of two runs each, in the dtype that ``auto`` begins with. All times are the process's
seconds of CPU. One line a set:

    verdict   time of the verdicts, the search for counterexamples included
    counting  what counting adds to the proofs, over the time of the verdicts
    proofs    the same over the time of the proofs without it
    margin    the largest |difference| of a row's bound with and without counting, over the bound's size, in float64
    auto, float64, float32   how many properties each proves
    alone     how many of auto's proofs needed float32 only (where auto begins with it)
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch

from tests import networks
from tests.data import data_root
from zonocuda.bounds.dual.dual_pass import proceed
from zonocuda.bounds.forward.sweep import Means, sweep
from zonocuda.bounds.interval import outward
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.forward_error import ForwardErrors
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph
from zonocuda.importers import Network, from_module, load_network
from zonocuda.precision import full_precision, summed_products
from zonocuda.prove.prover import LADDERS, Prover
from zonocuda.specs import Region, Spec, load_vnnlib
from zonocuda.verifier import Verdict, verify
from zonocuda.verifier.arguments import resolve_dtypes

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


def prove(network: Graph, dtype: torch.dtype, regions: tuple[Region, ...], counted: bool) -> Proof:
    """The proofs of :func:`zonocuda.verify` in one dtype."""
    begin = time.process_time()
    graph = network.to(dtype)
    rounding = Rounding.of(network, graph, dtype) if counted else None
    found, proven = [], True
    with torch.no_grad(), full_precision(), summed_products():
        for region in regions:
            shape = (1, *graph.input_shape)
            low, high = (
                outward(b.reshape(shape), dtype, up) for b, up in ((region.box.lower, False), (region.box.upper, True))
            )
            rows = Rows.of(region, low.numel(), prod(graph.output_shape), low)
            zonotope = Zonotope.from_box(low, high)
            result = sweep(graph, zonotope, Means("auto"), rounding=rounding)
            forward = None
            if result.output is not None:
                if rounding is None:
                    forward = rows.image(zonotope, result.output).bounds()[0].squeeze(0)
                else:
                    assert result.errors is not None
                    forward = ForwardErrors(rounding).rows(rows, zonotope, result.output, result.errors).squeeze(0)
            prover = Prover(graph, rows, (low, high), result.intermediate, forward, proceed, rounding)
            if forward is None or not all(rows.refuted(forward)):
                prover.plain()
                for rung in LADDERS["standard"]:
                    if prover.proven or not prover.climb(rung):
                        break
            found.append(prover.bounds.double())
            proven = proven and prover.proven
    return Proof(time.process_time() - begin, proven, torch.cat(found))


def instances(name: str, count: int) -> Iterator[tuple[Network, Spec]]:
    """Of a VNN-COMP set, the first that others proved."""
    folder = data_root() / "vnncomp" / name
    with (folder / "instances.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["truth"].startswith("unsat")]
    step = max(1, len(rows) // count)
    for row in rows[::step][:count]:
        yield load_network(folder / row["onnx"]), load_vnnlib(folder / row["vnnlib"])


def images(name: str, count: int) -> Iterator[tuple[Graph, Spec]]:
    """Robustness of the first test images of a network of tests.networks that it classifies rightly."""
    kind, radius = {"wong_kolter": (networks.wong_kolter, 0.1), "eran": (networks.eran, 0.01)}[name]
    chosen = "mnist" if name == "wong_kolter" else "mnist_5_100_flattened"
    graph = from_module(kind(chosen), (1, 28, 28))
    pixels, labels = networks.images("mnist")
    right = graph(pixels).argmax(1) == labels
    for x, label in list(zip(pixels[right], labels[right].tolist(), strict=True))[:count]:
        yield graph, Spec.robust(x, radius, label)


class Tally:
    """The sums of one set's line."""

    def __init__(self) -> None:
        self.cases = self.alone = 0
        self.verdict = self.plain = self.counted = self.margin = 0.0
        self.proven = {"auto": 0, "float64": 0, "float32": 0}

    def add(self, model: Network | Graph, spec: Spec) -> None:
        """One property."""
        network = model.graph if isinstance(model, Network) else model
        regions = tuple(region for region in spec.regions if not region.box.is_empty)
        narrow, wide = torch.float32, torch.float64
        first = resolve_dtypes("auto", network)[0]
        begin = time.process_time()
        result = verify(model, spec)
        self.verdict += time.process_time() - begin
        runs = [[prove(network, first, regions, counted) for counted in (False, True)] for _ in range(2)]
        plain, counting = (min((run[i] for run in runs), key=lambda p: p.seconds) for i in range(2))
        other = prove(network, narrow if first is wide else wide, regions, True)
        exact = plain if first is wide else prove(network, wide, regions, False)
        single, double = (other, counting) if first is wide else (counting, other)
        difference = ((exact.bounds - double.bounds).abs() / exact.bounds.abs()).nan_to_num(0.0)
        self.cases += 1
        self.plain, self.counted = self.plain + plain.seconds, self.counted + counting.seconds
        self.margin = max(self.margin, float(difference.max()))
        is_proven = result.verdict is Verdict.VERIFIED
        for name, ok in (("auto", is_proven), ("float64", double.proven), ("float32", single.proven)):
            self.proven[name] += ok
        self.alone += is_proven and set(result.ran.settled) == {"float32"}

    def line(self) -> str:
        """As printed."""
        more = self.counted - self.plain
        counts = "".join(f"{n:9}" for n in (*self.proven.values(), self.alone))
        return (
            f"{self.cases:3} {self.verdict:8.2f} s {100 * more / self.verdict:7.1f} %"
            f" {100 * more / self.plain:7.1f} % {100 * self.margin:7.1e} %{counts}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=[*SETS, "wong_kolter", "eran"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    columns = "".join(f"{name:>9}" for name in ("auto", "float64", "float32", "alone"))
    print(f"{'set':30} {'n':>3} {'verdict':>10} {'counting':>9} {'proofs':>9} {'margin':>9}{columns}")
    for name in arguments.sets:
        tally = Tally()
        for model, spec in (images if name in ("wong_kolter", "eran") else instances)(name, arguments.count):
            if not tally.cases:
                verify(model, spec, effort="fast")  # loads what is loaded once
            tally.add(model, spec)
        print(f"{name:30} {tally.line()}", flush=True)


if __name__ == "__main__":
    main()
