"""Slopes that learn: sound, as good as a linear program, and never worse than where they began."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from tests.verifier import programs
from tests.verifier.graphs import NETWORKS, fc, rand, random_box, sample_box
from zonocuda.bounds.dual.problem import RowProblem, dual_bound, output_rows
from zonocuda.bounds.dual.slopes import STARTS, Slopes, initial_slopes
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope, use_backend
from zonocuda.graph import Graph
from zonocuda.kink import KINK_RULES, KinkRule
from zonocuda.relaxations import Start, use_kink
from zonocuda.tighten.ascent import Ascended, Ascent, ascend

EACH_NETWORK = pytest.mark.parametrize("kind", NETWORKS)
LONG = Ascent(iterations=300, rate=0.2, decay=0.98, patience=300)


def rows_of(graph: Graph, count: int = 4, seed: int = 0) -> Rows:
    """Random rows over the outputs; the last one reads the input too."""
    outputs, inputs = graph.output_shape[0], math.prod(graph.input_shape)
    output = rand(count, outputs, seed=seed + 50)
    input_ = torch.zeros(count, inputs, dtype=torch.float64)
    input_[-1] = 0.1 * rand(inputs, seed=seed + 51)
    members = tuple((r,) for r in range(count))
    return Rows(output, input_, rand(count, seed=seed + 52), (1,) * count, members, ("",) * count)


def problem(graph: Graph, rows: Rows, box: Bounds, inputs: dict[str, Bounds]) -> RowProblem:
    """The rows at the network's output."""
    return RowProblem(output_rows(graph, rows, box[0].shape[0]), box, inputs)


def start(graph: Graph, inputs: dict[str, Bounds], rule: Start = "adaptive") -> dict[str, Slopes]:
    """Slopes to begin with, in the order of the pass."""
    return {name: slopes.flat() for name, slopes in initial_slopes(graph, inputs, rule).items()}


def setting(kind: str, seed: int, batch: int = 1, width: float = 0.5) -> tuple[Graph, Rows, Bounds, dict[str, Bounds]]:
    """A network, rows, a box, and the forward bounds of its ReLUs."""
    graph = NETWORKS[kind](seed)
    box = random_box(graph, batch, width=width, seed=seed + 3)
    return graph, rows_of(graph, seed=seed), box, dict(sweep(graph, Zonotope.from_box(*box)).intermediate)


@EACH_NETWORK
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("signs", ["nonnegative", "both"])
def test_optimised_bounds_lie_between_their_start_and_every_sampled_row(kind: str, batch: int, signs: str) -> None:
    graph, rows, box, inputs = setting(kind, 1, batch)
    ascent = Ascent(iterations=15, signs=signs)  # type: ignore[arg-type]
    improved = False
    for rule in STARTS:
        plain = dual_bound(graph, rows, box, inputs, initial_slopes(graph, inputs, rule)).lower
        found = ascend(problem(graph, rows, box, inputs), ascent, start(graph, inputs, rule)).lower
        assert bool((found >= plain - 1e-12).all())
        improved |= bool((found > plain + 1e-6).any())
        for element in range(batch):
            x = sample_box(box[0][element], box[1][element], 500, seed=element)
            values = rows.values(x, graph(x))
            assert bool((found[element] <= values.amin(0) + 1e-11).all())
    assert improved or signs == "both"


@pytest.mark.parametrize("kind", ["fc", "conv", "residual", "pooling"])
def test_with_bounds_of_the_relaxations_the_optimum_is_that_of_the_triangle_program(kind: str) -> None:
    graph, rows, box, inputs = setting(kind, 2, width=0.3)
    rows = dataclasses.replace(rows, input=torch.zeros_like(rows.input))
    found = ascend(problem(graph, rows, box, inputs), LONG, start(graph, inputs)).lower[0] - rows.constant
    for r in range(rows.count):
        program = programs.minimum(graph, box, inputs, rows.output[r])
        assert found[r] <= program + 1e-7
        assert found[r] >= program - 2e-3 * (1 + abs(program)), f"row {r}: {found[r]} against {program}"


@pytest.mark.parametrize("kind", ["fc", "residual", "concat"])
@pytest.mark.parametrize("signs", ["nonnegative", "both"])
def test_no_optimised_bound_exceeds_the_exact_minimum(kind: str, signs: str) -> None:
    graph, rows, box, inputs = setting(kind, 3, width=0.4)
    rows = dataclasses.replace(rows, input=torch.zeros_like(rows.input))
    ascent = dataclasses.replace(LONG, iterations=60, signs=signs)  # type: ignore[arg-type]
    found = ascend(problem(graph, rows, box, inputs), ascent, start(graph, inputs)).lower[0] - rows.constant
    for r in range(rows.count):
        exact = programs.minimum(graph, box, inputs, rows.output[r], exact=True)
        assert found[r] <= exact + 1e-6 * (1 + abs(exact))


@EACH_NETWORK
@pytest.mark.parametrize("kink", KINK_RULES)
def test_gradients_are_autograds_through_the_reference(kind: str, kink: KinkRule) -> None:
    graph, rows, box, inputs = setting(kind, 1, batch=2)
    generator = torch.Generator().manual_seed(9)
    tied = {
        name: (high / (high - low)).flatten(1).unsqueeze(1).nan_to_num(0.5).clamp(0, 1)
        for name, (low, high) in ((n, (_flat(b[0]), _flat(b[1]))) for n, b in inputs.items())
    }
    found = []
    for backend in ("native", "reference"):
        generator.manual_seed(9)
        leaves = {
            name: Slopes(
                t.expand(-1, rows.count, -1).clone().requires_grad_(),
                torch.rand(2, rows.count, t.shape[2], generator=generator, dtype=t.dtype).requires_grad_(),
            )
            for name, t in tied.items()
        }
        with use_backend(backend):  # type: ignore[arg-type]
            with use_kink(kink):
                lower, _ = problem(graph, rows, box, inputs).bound(lambda node, s=leaves: s[node.name])
            tensors = [t for s in leaves.values() for t in (s.negative, s.nonnegative) if t is not None]
            found.append((lower, *torch.autograd.grad(lower.sum(), tensors, allow_unused=True, materialize_grads=True)))
    assert any(bool(t.any()) for t in found[0][1:])
    for native, reference in zip(*found, strict=True):
        torch.testing.assert_close(native, reference, rtol=1e-8, atol=1e-10)


def _flat(t: Tensor) -> Tensor:
    return (t.permute(0, 2, 3, 1) if t.dim() == 4 else t).flatten(1)


def test_the_best_bound_is_kept_however_wild_the_steps() -> None:
    graph, rows, box, inputs = setting("residual", 5)
    plain = dual_bound(graph, rows, box, inputs, initial_slopes(graph, inputs, "adaptive")).lower
    wild = Ascent(iterations=12, rate=1.0, decay=1.0, patience=100)
    result = ascend(problem(graph, rows, box, inputs), wild, start(graph, inputs))
    assert bool((result.lower >= plain).all())
    totals = [step.total for step in result.history]
    assert len(totals) == 13
    assert totals == sorted(totals)


def test_the_same_problem_gives_the_same_bounds() -> None:
    graph, rows, box, inputs = setting("conv", 6)
    results = [ascend(problem(graph, rows, box, inputs), Ascent(), start(graph, inputs)).lower for _ in range(2)]
    assert torch.equal(*results)


@EACH_NETWORK
def test_the_slopes_found_give_the_bounds_found_and_begin_the_next_search(kind: str) -> None:
    graph, rows, box, inputs = setting(kind, 7, batch=2)
    first = ascend(problem(graph, rows, box, inputs), Ascent(iterations=10), start(graph, inputs), wants_slopes=True)
    slopes = {name: s.shaped(graph[name].shape) for name, s in first.slopes.items()}
    again = dual_bound(graph, rows, box, inputs, slopes)
    torch.testing.assert_close(again.lower, first.lower, rtol=1e-12, atol=1e-12)
    assert first.weight is not None
    warm = ascend(problem(graph, rows, box, inputs), Ascent(iterations=0), first.slopes)
    torch.testing.assert_close(warm.lower, first.lower, rtol=1e-12, atol=1e-12)


def _leaving(kind: str, wanted: Tensor) -> Ascended:
    graph, rows, box, inputs = setting(kind, 8)

    def finished(best: Tensor) -> Tensor:
        return (best > wanted).all(0)

    return ascend(problem(graph, rows, box, inputs), LONG, start(graph, inputs), finished=finished)


@pytest.mark.parametrize("kind", ["fc", "conv"])
def test_rows_that_are_proven_leave_and_the_others_go_on(kind: str) -> None:
    whole = _leaving(kind, torch.full((4,), torch.inf))
    assert all(step.rows == 4 for step in whole.history)
    wanted = torch.tensor([-torch.inf, torch.inf, -torch.inf, torch.inf])
    part = _leaving(kind, wanted)
    assert [step.rows for step in part.history[:2]] == [4, 2]
    torch.testing.assert_close(part.lower[:, 1::2], whole.lower[:, 1::2], rtol=1e-9, atol=1e-9)
    assert len(_leaving(kind, torch.full((4,), -torch.inf)).history) == 1


def test_patience_seconds_and_iterations_end_the_search() -> None:
    graph, rows, box, inputs = setting("fc", 9)

    def steps(**options: float) -> int:
        return len(ascend(problem(graph, rows, box, inputs), Ascent(**options), start(graph, inputs)).history)  # type: ignore[arg-type]

    assert steps(iterations=7, patience=100) == 8
    assert steps(iterations=50, seconds=0.0) == 1
    assert steps(iterations=50, patience=3, tolerance=1e9) == 4
    assert steps(iterations=0) == 1


def test_a_network_without_crossing_neurons_needs_no_steps() -> None:
    graph, rows, box, inputs = setting("fc", 10, width=1e-9)
    result = ascend(problem(graph, rows, box, inputs), Ascent(), start(graph, inputs))
    assert len(result.history) == 1
    point = rows.values(box[0], graph(box[0]))
    torch.testing.assert_close(result.lower, point, rtol=1e-6, atol=1e-6)


def test_nan_bounds_are_never_improved_into_a_number() -> None:
    graph = fc(0)
    rows, box = rows_of(graph), random_box(graph)
    inputs = {n.name: (torch.full((1, *n.shape), torch.nan).double(),) * 2 for n in graph.relus}
    result = ascend(problem(graph, rows, box, inputs), Ascent(iterations=3), start(graph, inputs, "minimum_area"))
    assert bool(result.lower.isnan().all())
