"""What the verifier asks of a device: calls, launches and waits, counted without one.

A run on a GPU is bound by its host where the kernels are short: every operation costs the host some microseconds, and
every number that it reads stops it until all that was launched before is done. Here every run is made once on a device
that is none (:mod:`benchmarks.pretended_device`). The counts depend on the network and the box alone, not on the
machine.

    python -m benchmarks.host_path                 the example network with residual blocks
    python -m benchmarks.host_path cifar10_resnet_4b sri_resnet_a
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.networks import PROBLEMS, cases
from benchmarks.pretended_device import DEVICE, PretendedDevice
from zonocuda.bounds.dual.dual_pass import DualPass
from zonocuda.bounds.dual.neurons import Relaxed, neuron_bounds, send_unit_rows
from zonocuda.bounds.dual.problem import RowProblem
from zonocuda.bounds.dual.slopes import initial_slopes
from zonocuda.bounds.forward.sweep import Means, Sweep, sweep
from zonocuda.bounds.plan.planner import Direction
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph
from zonocuda.precision import full_precision
from zonocuda.tighten.ascent import Ascent, ascend

BUDGET = 2**36
"""Of generators, in bytes: a GPU's, so that nothing is done another way for want of memory."""


@dataclass(frozen=True)
class Count:
    """What a run asked of the device: operations, those that launch a kernel, and waits by what they were for."""

    calls: int
    launches: int
    waits: Mapping[str, int]
    operations: Mapping[str, int]

    def less(self, other: Count) -> Count:
        """What this run asked beyond another one."""
        return Count(
            self.calls - other.calls,
            self.launches - other.launches,
            Counter(self.waits) - Counter(other.waits),
            Counter(self.operations) - Counter(other.operations),
        )


class Runs:
    """Runs of a network on a box ``[1, *input features]``, on the pretended device."""

    def __init__(self, graph: Graph, lower: Tensor, upper: Tensor) -> None:
        self.device = PretendedDevice()
        with self.device:
            self.graph = graph.to(lower.dtype, DEVICE)
            self.box = lower.to(DEVICE), upper.to(DEVICE)
            self.rounding = Rounding.of(self.graph, self.graph, lower.dtype)

    def _counted(self, run: Callable[[], object]) -> Count:
        with self.device, full_precision():
            self.device.clear()
            run()
            seen = self.device
            return Count(seen.calls.total(), seen.launches.total(), dict(seen.waits), dict(seen.calls))

    def _sweep(self, direction: Direction = "forward", proof: bool = False) -> Sweep:
        zonotope = Zonotope.from_box(*self.box)
        self.device.clear()
        rounding = self.rounding if proof else None
        with torch.no_grad():
            return sweep(self.graph, zonotope, Means(direction, BUDGET), rounding=rounding)

    def sweep(self, direction: Direction = "forward", proof: bool = False) -> Count:
        """The sweep; ``proof``: rounding is counted."""
        return self._counted(lambda: self._sweep(direction, proof))

    def dual(self, proof: bool = False) -> Count:
        """One dual pass of all outputs, for bounds of a sweep."""

        def run() -> None:
            inputs = self._sweep().intermediate
            index = torch.arange(self.graph.output_shape[0], device=DEVICE)
            self.device.clear()
            with torch.no_grad():
                ledger = Ledger(self.rounding, self.box, inputs) if proof else None
                neuron_bounds(Relaxed(self.graph, self.box, inputs, ledger=ledger), self.graph.output, index)

        return self._counted(run)

    def ascent_step(self) -> Count:
        """One step of the ascent of all outputs' slopes: what two steps ask beyond one."""
        return self._ascent(2).less(self._ascent(1))

    def _ascent(self, steps: int) -> Count:
        def run() -> None:
            inputs = self._sweep().intermediate
            index = torch.arange(self.graph.output_shape[0], device=DEVICE)
            flow = DualPass(self.graph, 1, len(index), self.box[0])
            with torch.no_grad():
                send_unit_rows(flow, self.graph[self.graph.output], index)
                problem = RowProblem(flow, self.box, inputs)
                start = {name: slopes.flat() for name, slopes in initial_slopes(self.graph, inputs, "adaptive").items()}
            self.device.clear()
            ascend(problem, Ascent(iterations=steps, patience=steps + 1), start)

        return self._counted(run)

    def all(self) -> dict[str, Count]:
        """Every run, by what it is."""
        return {
            "forward sweep": self.sweep(),
            "forward sweep, rounding counted": self.sweep(proof=True),
            "sweep by dual passes": self.sweep("dual"),
            "dual pass of the outputs": self.dual(),
            "dual pass of the outputs, rounding counted": self.dual(proof=True),
            "one step of ascent": self.ascent_step(),
        }


def lines(name: str, runs: Mapping[str, Count]) -> list[str]:
    """The rows of a table."""
    return [
        f"| {name} | {what} | {count.calls} | {count.launches} | {sum(count.waits.values())} | {_waits(count)} |"
        for what, count in runs.items()
    ]


def _waits(count: Count) -> str:
    return ", ".join(f"{n} {what}" for what, n in sorted(count.waits.items())) or "-"


def main() -> None:
    """Prints the table of some networks."""
    names = [problem.name for problem in PROBLEMS]
    parser = argparse.ArgumentParser(description="what runs of the verifier ask of a device, counted without one")
    parser.add_argument("network", nargs="*", default=["example residual"], help=", ".join(names))
    chosen = parser.parse_args().network
    unknown = set(chosen) - set(names)
    if unknown:
        parser.error(f"there is no network {sorted(unknown)}; networks: {', '.join(names)}")
    print("| network | run | calls | launches | waits | for |\n| --- | --- | --- | --- | --- | --- |")
    for problem in (p for p in PROBLEMS if p.name in chosen):
        ((graph, lower, upper),) = cases(problem, 1)
        runs = Runs(graph, lower.unsqueeze(0), upper.unsqueeze(0))
        print("\n".join(lines(problem.name, runs.all())), flush=True)


if __name__ == "__main__":
    main()
