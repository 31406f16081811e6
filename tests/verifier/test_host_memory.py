"""Where generators exceed a device's memory they move behind it: the same bounds, and a plan that says so."""

from __future__ import annotations

import pytest
import torch

from tests.devices import use_device
from tests.verifier.graphs import NETWORKS, Builder, random_box
from tests.verifier.test_planner import check_encloses, swept
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Relu
from zonocuda.verifier import forecast as forecast_module
from zonocuda.verifier import planner as planner_module
from zonocuda.verifier.forward import Sweep, sweep
from zonocuda.verifier.planner import Direction

HOST = 2**30


@pytest.fixture(autouse=True)
def no_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_module, "SCRATCH_BYTES", 0)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU as a device with other memory behind it."""
    monkeypatch.setattr(planner_module, "host_budget", lambda device: HOST)


def actions(result: Sweep) -> list[str]:
    return [action for step in result.plan for action in step.actions]


def most(result: Sweep) -> int:
    return max(step.bytes for step in result.plan)


def case(name: str) -> tuple[Graph, tuple[torch.Tensor, torch.Tensor]]:
    graph = NETWORKS[name](1)
    return graph, random_box(graph, batch=2, seed=1)


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("direction", ["forward", "auto"])
@pytest.mark.usefixtures("host")
def test_the_host_comes_before_the_dual_and_merging_and_changes_no_bound(
    name: str, direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner_module, "PARTS", 1)
    monkeypatch.setattr(planner_module, "WORTH_ASKING", torch.inf)
    graph, box = case(name)
    free = swept(graph, box, "forward")
    assert "to host memory" not in actions(free)
    tight = swept(graph, box, direction, most(free) // 2)
    first = next(action for action in actions(tight) if "parts" not in action)
    assert first == "to host memory"
    check_encloses(graph, box, tight)
    if not any("merged" in action or action == "box" for action in actions(tight)) and tight.output is not None:
        assert most(tight) < most(free)
        for relu, bounds in free.inputs.items():
            for a, b in zip(bounds, tight.inputs[relu], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("host")
def test_deep_networks_need_less_of_the_device_than_their_generators_take() -> None:
    graph, box = case("residual")
    free = swept(graph, box, "forward")
    tight = swept(graph, box, "forward", most(free) // 2)
    assert actions(tight).count("to host memory") == 1
    assert not any("merged" in action or action == "box" for action in actions(tight))
    assert most(tight) <= most(free) // 2
    assert any(stats.symbols.get("hosted") for stats in tight.stats)
    for relu, bounds in free.inputs.items():
        for a, b in zip(bounds, tight.inputs[relu], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for a, b in zip(free.bounds, tight.bounds, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_without_memory_behind_the_device_nothing_moves() -> None:
    graph, box = case("residual")
    budget = most(swept(graph, box, "forward")) // 2
    assert "to host memory" not in actions(swept(graph, box, "forward", budget))


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("budget", [1, 1000, 4000, 16000, 64000])
@pytest.mark.parametrize("behind", [1, 3000, HOST])
def test_bounds_hold_whatever_the_device_and_its_host_can_hold(
    name: str, budget: int, behind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner_module, "host_budget", lambda device: behind)
    graph, box = case(name)
    directions: tuple[Direction, ...] = ("forward", "auto")
    for direction in directions:
        check_encloses(graph, box, swept(graph, box, direction, budget))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("budget", [100, 1000])
def test_generators_that_the_caller_owns_are_neither_moved_nor_overwritten(budget: int) -> None:
    graph, (lower, upper) = case("residual")
    box = Zonotope.from_box(lower, upper)
    given = Zonotope.from_generators(box.center, box.blocks[0].dense(box.features))
    before = given.blocks[0].dense(given.features).clone()
    with torch.no_grad():
        result = sweep(graph, given, memory_budget=budget)
    assert "to host memory" in actions(result)
    assert torch.equal(given.blocks[0].dense(given.features), before)
    check_encloses(graph, (lower, upper), result)


@pytest.mark.gpu
def test_peak_memory_of_a_gpu_stays_within_the_plan() -> None:
    """A sweep whose generators exceed the budget, against torch's own count of allocated bytes."""
    device = use_device("cuda")
    b = Builder(3, 64, 64)
    b(b.conv(3, 64, stride=2))
    for _ in range(3):
        b(Relu())
        b(b.conv(64, 64, kernel=5, pad=2))
    graph = b.graph().to(torch.float32, device)
    x = torch.rand(1, 3, 64, 64, device=device)
    with torch.no_grad():
        for budget in (2**40, 2**31):
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            result = sweep(graph, Zonotope.from_box(x - 1e-3, x + 1e-3), memory_budget=budget)
            peak = torch.cuda.max_memory_allocated(device) - before
            assert peak <= 1.1 * most(result)
            assert most(result) <= budget
            assert ("to host memory" in actions(result)) == (budget == 2**31)
