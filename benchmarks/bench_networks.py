"""Whole sweeps of networks against the yardstick, a dense sweep in plain torch; float32, without gradients.

Every round is another image, and bounds its output margins. None comes twice: every image has another number of
symbols, for which torch compiles convolutions anew, and a second turn would find them. The networks and images of
ZONOCUDA_TEST_DATA, where it is set, and the examples.

Memory is what the C library gives a program that calls a sweep, so these run in a process of their own, before any
setting of that library was changed; the yardstick runs a second time, at the end, with memory that the library keeps,
which spares it the page faults of its large tensors.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import cycle

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.machine import Machine, is_memory_changed
from benchmarks.networks import PROBLEMS, Problem, cases, has_data
from benchmarks.table import Cost, facts
from benchmarks.yardstick import dense_sweep
from zonocuda.bounds.dual.neurons import Relaxed, neuron_bounds
from zonocuda.bounds.forward.sweep import Means, Sweep, sweep
from zonocuda.bounds.interval import interval, unsettled
from zonocuda.bounds.plan.forecast import Work, block_bytes, forecast
from zonocuda.bounds.plan.planner import Direction
from zonocuda.bounds.transform import transform
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Node, Relu, Reshape, interpret
from zonocuda.precision import full_precision

IMAGES = int(os.environ.get("ZONOCUDA_BENCH_IMAGES", "10"))
METHODS = ("yardstick", "forward", "auto", "yardstick, recycled memory")

Bounds = tuple[Tensor, Tensor]
Case = tuple[Graph, Tensor, Tensor]


def ours(case: Case, direction: Direction) -> tuple[Bounds, Sweep]:
    """Bounds of the margins ``[classes - 1]``; where the sweep ended in the dual, by dual passes for them too."""
    graph, lower, upper = case
    box = lower.unsqueeze(0), upper.unsqueeze(0)
    result = sweep(graph, Zonotope.from_box(*box), Means(direction))
    low, high = result.bounds
    if result.output is None:
        index = torch.arange(low.shape[1])
        low, high = neuron_bounds(Relaxed(graph, box, result.intermediate), graph.output, index)
    return (low[0], high[0]), result


def rounding(case: Case, bounds: Bounds, result: Sweep) -> Tensor:
    """How far rounding moves the bounds: gamma_n of their size, n the number of symbols that a bound sums up."""
    count = case[1].numel() + sum(layer.unstable for layer in result.stats)
    unit = torch.finfo(torch.float32).eps / 2
    return count * unit / (1 - count * unit) * (bounds[0].abs() + bounds[1].abs())


def check_tightness(problem: Problem, case: Case, direction: Direction) -> None:
    """That our bounds are at least as tight as the yardstick's, up to rounding."""
    expected = dense_sweep(*case)
    (low, high), result = ours(case, direction)
    allowed = rounding(case, expected, result)
    worst = torch.maximum(expected[0] - low, high - expected[1]) - allowed
    assert bool((worst <= 0).all()), f"{problem.name}, {direction}: margins are wider by {worst.max():.3g}"


def forward_cost(case: Case) -> Cost:
    """What the forward sweep must move and do: every node reads the generators of its inputs, and a ReLU reads its own
    twice, and writes those of its value; with the blocks that this project's maps make."""
    graph, lower, upper = case
    moved = operations = 0

    def image(node: Node, values: tuple[Zonotope, ...]) -> Zonotope:
        nonlocal moved, operations
        value = values[0].relu(origin=node.name) if isinstance(node.op, Relu) else transform(node, values)
        reads = 2 if isinstance(node.op, Relu) else 1
        if not isinstance(node.op, Reshape):
            moved += reads * sum(generator_bytes(z) for z in values) + generator_bytes(value)
            operations += sum(part.operations for part in forecast(node, values, in_place=False))
        return value

    interpret(graph, Zonotope.from_box(lower.unsqueeze(0), upper.unsqueeze(0)), image)
    return Cost(moved, operations)


def dual_operations(case: Case) -> dict[str, int]:
    """Additions and multiplications of a sweep by dual passes: with a row for every neuron whose sign intervals leave
    open (``dual_operations``), and for those alone that are unstable (``dual_operations_unstable``), if it were known
    beforehand which these are; the outputs' rows among both."""
    graph, lower, upper = case
    box = lower.unsqueeze(0), upper.unsqueeze(0)
    result, work = sweep(graph, Zonotope.from_box(*box)), Work(graph)
    ranges = {graph.nodes[0].name: box}
    of_open = of_unstable = work.until[graph.output] * len(result.bounds[0][0])
    for node in graph.nodes[1:]:
        inputs = [ranges[name] for name in node.inputs]
        if isinstance(node.op, Relu):
            known, each = result.intermediate[node.name], work.until[node.inputs[0]]
            of_open += each * int(unsettled(node, *inputs[0]).sum())
            of_unstable += each * int(unsettled(node, *known).sum())
            inputs = [known]
        ranges[node.name] = interval(node, inputs)
    return {"dual_operations": of_open, "dual_operations_unstable": of_unstable}


def generator_bytes(zonotope: Zonotope) -> int:
    """Of all blocks."""
    return sum(block_bytes(block) for block in zonotope.blocks)


def runner(method: str) -> Callable[[Graph, Tensor, Tensor], object]:
    """What is measured."""
    if method.startswith("yardstick"):
        return dense_sweep
    direction: Direction = "auto" if method == "auto" else "forward"
    return lambda graph, lower, upper: ours((graph, lower, upper), direction)


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[Case]]:
    """The problems' cases, once for all methods."""
    return {}


@pytest.fixture
def recycles(method: str) -> bool:
    """What the method wants."""
    if "recycled" not in method and is_memory_changed():
        pytest.skip("the C library's memory is no longer as a program begins: run benchmarks/bench_networks.py alone")
    return "recycled" in method


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("device", ["cpu"], indirect=True)
def bench_network(
    benchmark: BenchmarkFixture, machine: Machine, problem: Problem, method: str, loaded: dict[str, list[Case]]
) -> None:
    """One image a round; the first one is checked for tightness, and warms up."""
    if problem.needs_data and not has_data():
        pytest.skip("set ZONOCUDA_TEST_DATA to the folder of the real networks")
    if problem.name not in loaded:
        loaded.clear()  # the problems before this one are done
        loaded[problem.name] = list(cases(problem, IMAGES))
    images = loaded[problem.name]
    turns = cycle(images)
    benchmark.group = f"network {problem.name}, radius {problem.radius:.4f}"
    with torch.no_grad(), full_precision():
        if method.startswith("yardstick"):
            dense_sweep(*images[0])
        else:
            check_tightness(problem, images[0], "auto" if method == "auto" else "forward")
        benchmark.pedantic(runner(method), setup=lambda: (next(turns), {}), rounds=IMAGES, iterations=1)
    if benchmark.stats is not None:
        with torch.no_grad():
            cost = forward_cost(images[0]) if method == "forward" else None
            rows = dual_operations(images[0]) if method == "auto" else {}
        benchmark.extra_info.update(facts(machine, method, cost, benchmark.stats.stats.median), images=IMAGES, **rows)
