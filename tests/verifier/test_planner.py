"""Which way a sweep goes, and what it does where memory is short: bounds stay bounds."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.verifier.graphs import NETWORKS, Builder, random_box, sample_box, vertices
from zonocuda.bounds.forward.sweep import Means, Sweep, sweep
from zonocuda.bounds.interval import unsettled
from zonocuda.bounds.plan import forecast as forecast_module
from zonocuda.bounds.plan.budget import free_memory, memory_budget
from zonocuda.bounds.plan.planner import Direction
from zonocuda.domains import Symbols, Zonotope
from zonocuda.graph import Add, Graph, Relu, interpret
from zonocuda.kink import KinkRule
from zonocuda.relaxations.relu import ReluRule
from zonocuda.verifier import compute_bounds

SEEDS = range(3)
CASES = [*itertools.product(sorted(NETWORKS), SEEDS)]
GENEROUS = 2**30


@pytest.fixture(autouse=True)
def small_networks_are_worth_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zonocuda.bounds.plan.planner.WORTH_ASKING", 0)


def box_of(graph: Graph, seed: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return random_box(graph, batch=batch, seed=seed)


def swept(
    graph: Graph, box: tuple[torch.Tensor, torch.Tensor], direction: Direction, budget: int | None = GENEROUS
) -> Sweep:
    with torch.no_grad():
        return sweep(graph, Zonotope.from_box(*box), Means(direction, budget))


def check_encloses(graph: Graph, box: tuple[torch.Tensor, torch.Tensor], result: Sweep) -> None:
    """Every sampled value of every ReLU's input, and of the output, lies within the bounds; of a box with few open
    coordinates all vertices are among the samples."""
    for element in range(len(box[0])):
        lower, upper = box[0][element], box[1][element]
        points = torch.cat([sample_box(lower, upper, 200), vertices(lower, upper)])
        seen: dict[str, torch.Tensor] = {}

        def record(node, values, seen=seen):  # type: ignore[no-untyped-def]
            if isinstance(node.op, Relu):
                seen[node.name] = values[0]
            return node.op.apply(*values)

        outputs = interpret(graph, points, record)
        for name, (lower, upper) in [*result.intermediate.items(), ("", result.bounds)]:
            values = outputs if name == "" else seen[name]
            slack = 1e-12 * (1 + values.abs())
            assert bool((values >= lower[element] - slack).all()), name
            assert bool((values <= upper[element] + slack).all()), name


@pytest.mark.parametrize(("name", "seed"), CASES)
@pytest.mark.parametrize("direction", ["dual", "auto"])
def test_the_dual_settles_the_same_neurons_and_bounds_them_as_tightly(
    name: str, seed: int, direction: Direction
) -> None:
    graph = NETWORKS[name](seed)
    box = box_of(graph, seed)
    forward, other = swept(graph, box, "forward"), swept(graph, box, direction)
    check_encloses(graph, box, other)
    assert list(forward.intermediate) == list(other.intermediate)
    for relu, (lower, upper) in forward.intermediate.items():
        low, high = other.intermediate[relu]
        open_here, open_there = (lower < 0) & (upper > 0), (low < 0) & (high > 0)
        if not torch.equal(open_here, open_there):  # an interval settled more: from here on the bounds may differ
            assert bool((open_here | ~open_there).all())
            return
        for zonotopes, ours in ((lower, low), (upper, high)):
            torch.testing.assert_close(ours[open_here], zonotopes[open_here], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_dual_carries_no_generators_behind_the_first_relu(name: str) -> None:
    graph = NETWORKS[name](0)
    result = swept(graph, box_of(graph, 0), "dual")
    assert result.output is None
    assert [layer.direction for layer in result.stats] == ["forward", *["dual"] * (len(graph.relus) - 1)]
    assert all(not layer.symbols for layer in result.stats[1:])
    (step,) = [step for step in result.plan if step.direction == "dual"]
    assert (step.name, step.actions) == (graph.relus[0].name, ("asked for",))


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_compute_bounds_bounds_the_output_in_every_direction(name: str, seed: int) -> None:
    graph = NETWORKS[name](seed)
    box = box_of(graph, seed)
    zonotope = Zonotope.from_box(*box)
    forward = compute_bounds(graph, zonotope)
    for direction in ("dual", "auto"):
        with torch.no_grad():
            other = compute_bounds(graph, zonotope, direction=direction)  # type: ignore[arg-type]
        for element in range(len(box[0])):
            outputs = graph(sample_box(box[0][element], box[1][element], 300))
            assert bool((outputs >= other.lower[element] - 1e-10).all())
            assert bool((outputs <= other.upper[element] + 1e-10).all())
        settled = [
            [((low >= 0) | (high <= 0)) for low, high in result.intermediate.values()] for result in (forward, other)
        ]
        if all(torch.equal(a, b) for a, b in zip(*settled, strict=True)):
            torch.testing.assert_close(other.lower, forward.lower, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(other.upper, forward.upper, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "seed"), CASES)
@pytest.mark.parametrize("budget", [1, 1000, 4000, 16000, 64000])
def test_bounds_hold_under_any_budget(name: str, seed: int, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_module, "SCRATCH_BYTES", 0)
    graph = NETWORKS[name](seed)
    box = box_of(graph, seed)
    for direction in ("forward", "auto"):
        check_encloses(graph, box, swept(graph, box, direction, budget))  # type: ignore[arg-type]


def test_a_small_budget_is_kept_and_its_measures_are_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_module, "SCRATCH_BYTES", 0)
    graph = NETWORKS["residual"](0)
    box = box_of(graph, 0)
    free = swept(graph, box, "forward")
    assert not any(step.actions for step in free.plan)
    needed = max(step.bytes for step in free.plan)
    tight = swept(graph, box, "forward", needed // 2)
    assert all(step.bytes <= needed // 2 for step in tight.plan)
    assert any("box" in step.actions or "merged" in " ".join(step.actions) for step in tight.plan)
    (change,) = [step for step in swept(graph, box, "auto", needed // 2).plan if step.direction == "dual"]
    assert "budget" in change.actions[0] or "GFLOP" in change.actions[0]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_parts_change_nothing_but_the_order_of_sums(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_module, "SCRATCH_BYTES", 0)
    graph = NETWORKS[name](1)
    box = box_of(graph, 1)
    whole = swept(graph, box, "forward")
    budget = 2 * max(step.bytes for step in whole.plan)
    monkeypatch.setattr("zonocuda.bounds.plan.planner.PARTS", 1000)
    cut = swept(graph, box, "forward", budget)
    assert any("parts" in " ".join(step.actions) for step in cut.plan)
    assert not any("merged" in " ".join(step.actions) or "box" in step.actions for step in cut.plan)
    for relu, bounds in whole.intermediate.items():
        for a, b in zip(bounds, cut.intermediate[relu], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_zonotope_that_is_no_box_goes_forward_or_says_so() -> None:
    graph = NETWORKS["fc"](0)
    given = Zonotope.from_generators(torch.zeros(1, 4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)[None])
    with pytest.raises(ValueError, match="direction='dual' needs a box"):
        sweep(graph, given, Means("dual"))
    assert sweep(graph, given, Means("auto")).output is not None


def test_what_is_no_direction_or_no_budget_is_refused() -> None:
    graph = NETWORKS["fc"](0)
    zonotope = Zonotope.from_box(*box_of(graph, 0))
    with pytest.raises(ValueError, match="direction must be auto, forward or dual"):
        sweep(graph, zonotope, Means("backward"))  # type: ignore[arg-type]
    for budget in (0, -5):
        with pytest.raises(ValueError, match="memory_budget must be a positive number of bytes"):
            sweep(graph, zonotope, Means(memory_budget=budget))


def test_the_planner_prefers_what_costs_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many inputs and hardly an unstable neuron: the dual; few inputs and every neuron unstable: the zonotope.

    Where the rest takes no time at all, it does not ask.
    """
    wide = Builder(400, seed=0)
    wide(wide.linear(400, 50))
    wide(Relu())
    wide(wide.linear(50, 50))
    wide(Relu())
    wide(wide.linear(50, 2))
    point = torch.randn(1, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert swept(wide.graph(), (point - 1e-4, point + 1e-4), "auto").output is None
    monkeypatch.setattr("zonocuda.bounds.plan.planner.WORTH_ASKING", 1e12)
    assert swept(wide.graph(), (point - 1e-4, point + 1e-4), "auto").output is not None
    monkeypatch.setattr("zonocuda.bounds.plan.planner.WORTH_ASKING", 0)
    deep = Builder(2, seed=0)
    deep(deep.linear(2, 40))
    for _ in range(4):
        deep(Relu())
        deep(deep.linear(40, 40))
    big = torch.full((1, 2), 10.0, dtype=torch.float64)
    assert swept(deep.graph(), (-big, big), "auto").output is not None


def test_a_branch_that_was_cut_still_cancels_with_one_that_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """x - x through two branches, one of which was cut into parts, is exactly zero."""
    monkeypatch.setattr(forecast_module, "SCRATCH_BYTES", 0)
    monkeypatch.setattr("zonocuda.bounds.plan.planner.PARTS", 1000)
    b = Builder(6, seed=3)
    layer = b.linear(6, 6)
    first, second = b(layer, "x"), b(layer, "x")
    b(Add(-1), first, second)
    graph = b.graph()
    result = swept(graph, random_box(graph), "forward", 20_000)
    assert result.output is not None
    assert any("parts" in " ".join(step.actions) for step in result.plan)
    assert float(result.output.radius().abs().max()) == 0.0


def test_the_parts_of_symbols_are_the_same_for_everyone() -> None:
    group = Symbols(10)
    assert group.cut(4) is group.cut(3)
    assert [(part.offset, part.count) for part in group.cut(1)] == [(0, 4), (4, 4), (8, 2)]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_noise_of_what_was_cut_is_noise_of_the_input(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The symbols of the caller's zonotope were cut: values of the parts are values of the group."""
    monkeypatch.setattr(forecast_module, "SCRATCH_BYTES", 0)
    monkeypatch.setattr("zonocuda.bounds.plan.planner.PARTS", 1000)
    graph = NETWORKS[name](1)
    zonotope = Zonotope.from_box(*box_of(graph, 1))
    needed = max(step.bytes for step in swept(graph, box_of(graph, 1), "forward").plan)
    with torch.no_grad():
        output = sweep(graph, zonotope, Means(memory_budget=2 * needed)).output
    assert output is not None
    noise = output.noise(3)
    (block,) = zonotope.blocks
    assert block.symbols.parts is not None
    values = torch.cat([noise[part] for part in block.symbols.parts], -1)
    assert torch.equal(zonotope.at(noise), zonotope.at({block.symbols: values}))


@pytest.mark.parametrize("name", ["fc", "pooling", "residual"])  # where intervals settle nothing more
@pytest.mark.parametrize("kink", ["left", "right", "even"])
def test_the_kink_is_the_same_in_both_directions(name: str, kink: KinkRule) -> None:
    graph = NETWORKS[name](0)
    box = box_of(graph, 0)
    forward, dual = swept(graph, box, "forward"), swept(graph, box, "dual")
    assert all(
        torch.equal(unsettled(graph[relu], *a), unsettled(graph[relu], *dual.intermediate[relu]))
        for relu, a in forward.intermediate.items()
    )
    gradients = []
    for direction in ("forward", "dual"):
        slopes = {n: ReluRule().initial(low, high).requires_grad_() for n, (low, high) in forward.intermediate.items()}
        result = compute_bounds(
            graph,
            Zonotope.from_box(*box),
            slopes=slopes,
            kink=kink,
            direction=direction,
        )
        gradients.append(torch.autograd.grad(result.lower.sum(), list(slopes.values())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_budget_is_kept_where_gradients_are_enabled_and_nobody_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_module, "SCRATCH_BYTES", 0)
    graph = NETWORKS["residual"](0)
    zonotope = Zonotope.from_box(*box_of(graph, 0))
    assert torch.is_grad_enabled()
    result = compute_bounds(graph, zonotope, memory_budget=1000)
    assert any("box" in step.actions for step in result.plan)
    assert torch.is_grad_enabled()
    assert compute_bounds(graph, Zonotope(zonotope.center.requires_grad_(), zonotope.blocks)).lower.requires_grad


def test_the_step_of_a_box_says_what_it_takes() -> None:
    graph = NETWORKS["residual"](0)
    boxes = [step for step in swept(graph, box_of(graph, 0), "forward", 1).plan if "box" in step.actions]
    assert boxes
    assert all(step.bytes > 0 for step in boxes)


def test_what_torch_keeps_of_a_gpu_for_its_next_tensors_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"mem_get_info": (100, 1000), "memory_reserved": 70, "memory_allocated": 30}  # 40 bytes are kept
    for name, answer in known.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, answer=answer: answer)
    assert free_memory(torch.device("cuda")) == 140
    assert memory_budget(None, torch.device("cuda")) == 84  # 0.6 of it
