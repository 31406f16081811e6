"""Gradients of dual bounds in the slopes: through the reference, on whole networks, and from either side of a kink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import networks
from tests.data import data_root
from tests.verifier.graphs import NETWORKS, rand, random_box, sample_box
from zonocuda.bounds.dual.dual_pass import flatten_rows
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import Slopes, initial_slopes
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope, use_backend
from zonocuda.graph import Graph
from zonocuda.importers import from_module, load_network
from zonocuda.kink import KINK_RULES, KinkRule
from zonocuda.relaxations import use_kink
from zonocuda.tighten.ascent import Ascent, ascend

EXAMPLES = Path(__file__).parents[2] / "examples" / "networks"
Leaves = dict[str, Slopes]


def example(name: str) -> Callable[[], Graph]:
    """A network of the examples."""
    return lambda: load_network(EXAMPLES / f"{name}.onnx").graph


def vnncomp(folder: str, pattern: str) -> Callable[[], Graph]:
    """A network of ZONOCUDA_TEST_DATA."""

    def load() -> Graph:
        (path,) = (data_root() / "vnncomp" / folder / "onnx").glob(pattern)
        return load_network(path).graph

    return load


REAL: dict[str, tuple[Callable[[], Graph], float]] = {
    "example fc": (example("fc"), 0.05),
    "example conv": (example("conv"), 0.05),
    "example residual": (example("residual"), 0.05),
    "rtai2019 fc5": (lambda: from_module(networks.rtai2019("fc5"), (1, 28, 28)), 0.05),
    "oval21 base": (vnncomp("oval21_base_wide", "*base*"), 0.01),
    "cifar10_resnet_4b": (vnncomp("cifar10_resnet_4b", "*"), 0.004),
}


def problem(graph: Graph, box: Bounds, inputs: dict[str, Bounds], rows: int = 3) -> RowProblem:
    """Random rows at the network's output."""
    outputs = graph.output_shape[0]
    zeros = torch.zeros(rows, box[0][0].numel(), dtype=torch.float64)
    members = tuple((r,) for r in range(rows))
    made = Rows(rand(rows, outputs, seed=70), zeros, rand(rows, seed=71), (1,) * rows, members, ("",) * rows)
    return RowProblem(output_rows(graph, made, len(box[0])), box, inputs)


def random_leaves(inputs: dict[str, Bounds], rows: int = 3) -> Leaves:
    """Slopes for every row and both signs, in the order of the pass."""
    generator = torch.Generator().manual_seed(72)

    def draw(like: Tensor) -> Tensor:
        shape = (like.shape[0], rows, like[0].numel())
        return torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()

    return {name: Slopes(draw(low), draw(low)) for name, (low, _) in inputs.items()}


def tensors(leaves: Leaves) -> list[Tensor]:
    """All of them."""
    return [t for s in leaves.values() for t in (s.negative, s.nonnegative) if t is not None]


@pytest.mark.parametrize("name", REAL)
def test_gradients_in_every_slope_are_autograds_through_the_reference(name: str) -> None:
    load, radius = REAL[name]
    graph = load().to(torch.float64)
    center = torch.rand(1, *graph.input_shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    box = center - radius, center + radius
    with torch.no_grad():
        inputs = dict(sweep(graph, Zonotope.from_box(*box)).intermediate)
    results = []
    for backend in ("native", "reference"):
        leaves = random_leaves(inputs)
        with use_backend(backend):  # type: ignore[arg-type]
            lower, _ = problem(graph, box, inputs).bound(lambda node, s=leaves: s[node.name])  # type: ignore[misc]
            results.append((lower.detach(), *torch.autograd.grad(lower.sum(), tensors(leaves))))
    assert max(float(t.abs().max()) for t in results[0][1:]) > 1e-3
    for native, reference in zip(*results, strict=True):
        assert (native - reference).abs().max() <= 1e-8 * max(float(reference.abs().max()), 1e-12)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("kink", "side"), [("left", -1), ("right", 1)])
def test_on_the_kink_the_rules_left_and_right_give_the_one_sided_derivatives(
    kind: str, kink: KinkRule, side: int
) -> None:
    """One slope at a time sits at u / (u - l), all others are random."""
    graph = NETWORKS[kind](4)
    box = random_box(graph, width=0.5, seed=11)
    inputs = dict(sweep(graph, Zonotope.from_box(*box)).intermediate)
    h = 1e-6
    moved = 0
    for relu, bounds in inputs.items():
        low, high = (flatten_rows(b)[0] for b in bounds)
        for n in ((low < 0) & (high > 0)).nonzero().flatten().tolist()[:3]:
            leaves = random_leaves(inputs)
            slope = leaves[relu].negative
            assert slope is not None
            with torch.no_grad():
                slope[:, :, n] = high[n] / (high[n] - low[n])

            def bound(leaves: Leaves = leaves) -> Tensor:
                with use_kink(kink):
                    return problem(graph, box, inputs).bound(lambda node: leaves[node.name])[0]

            before = bound()
            gradient = torch.autograd.grad(before.sum(), slope)[0][0, :, n]
            with torch.no_grad():
                slope[:, :, n] += side * h
                difference = (bound() - before)[0] / (side * h)
            assert bool(((difference - gradient).abs() <= 1e-6 * (1 + gradient.abs())).all())
            moved += int((gradient != 0).sum())
    assert moved > 0


def test_from_an_adaptive_start_with_the_negative_side_tied_the_rule_has_no_effect() -> None:
    """And with both sides free and on the kink it has: the test could fail."""
    graph = NETWORKS["residual"](5)
    box = random_box(graph, width=0.5, seed=12)
    inputs = dict(sweep(graph, Zonotope.from_box(*box)).intermediate)
    for start, signs, same in (("adaptive", "nonnegative", True), ("minimum_area", "both", False)):
        begin = {name: slopes.flat() for name, slopes in initial_slopes(graph, inputs, start).items()}  # type: ignore[arg-type]
        found = [
            ascend(problem(graph, box, inputs), Ascent(iterations=5, signs=signs, kink=kink), begin).lower  # type: ignore[arg-type]
            for kink in KINK_RULES
        ]
        assert all(torch.equal(lower, found[0]) for lower in found) == same


@pytest.mark.parametrize("kind", NETWORKS)
def test_no_point_that_gradient_descent_finds_lies_below_an_optimised_bound(kind: str) -> None:
    graph = NETWORKS[kind](5)
    box = random_box(graph, width=0.5, seed=12)
    inputs = dict(sweep(graph, Zonotope.from_box(*box)).intermediate)
    weight, constant = rand(3, graph.output_shape[0], seed=70), rand(3, seed=71)
    start = {name: slopes.flat() for name, slopes in initial_slopes(graph, inputs, "adaptive").items()}
    lower = ascend(problem(graph, box, inputs), Ascent(iterations=40), start).lower[0]
    for r in range(3):
        x = sample_box(box[0][0], box[1][0], 64, seed=r).requires_grad_()
        least = torch.inf
        for _ in range(60):
            value = graph(x) @ weight[r] + constant[r]
            least = min(least, float(value.detach().min()))
            (gradient,) = torch.autograd.grad(value.sum(), x)
            with torch.no_grad():
                x -= 0.05 * (box[1] - box[0]) * gradient.sign()
                x.copy_(torch.minimum(torch.maximum(x, box[0]), box[1]))
        assert lower[r] <= least + 1e-11
