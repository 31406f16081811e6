"""Where generators exceed a device's memory they move behind it: the same bounds, and a plan that says so."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from tests.devices import use_device
from tests.peak import Meter
from tests.thorough import pairs
from tests.verifier.graphs import NETWORKS, Builder, random_box
from tests.verifier.test_planner import check_encloses, swept
from zonocuda.bounds.forward.sweep import Means, Sweep, sweep
from zonocuda.bounds.plan import forecast as forecast_module
from zonocuda.bounds.plan import planner as planner_module
from zonocuda.bounds.plan.planner import Direction
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.domains import Dense, Hosted, Symbols, Zonotope, memory
from zonocuda.graph import Add, AveragePool, Concat, Graph, Relu, ScaleShift

HOST = 2**30
CHUNK = 2**13
SCRATCH = 16 * CHUNK
"""As many chunks as :mod:`zonocuda.bounds.plan.forecast` sets aside."""

Box = tuple[torch.Tensor, torch.Tensor]


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


def reduced(result: Sweep) -> bool:
    """Whether the budget changed bounds."""
    return any("merged" in action or action == "box" for action in actions(result)) or result.output is None


def same_bounds(a: Sweep, b: Sweep) -> None:
    assert list(a.intermediate) == list(b.intermediate)
    for one, other in zip([*a.intermediate.values(), a.bounds], [*b.intermediate.values(), b.bounds], strict=True):
        for x, y in zip(one, other, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


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
    if not reduced(tight):
        assert most(tight) < most(free)
        same_bounds(free, tight)


@pytest.mark.usefixtures("host")
def test_deep_networks_need_less_of_the_device_than_their_generators_take() -> None:
    graph, box = case("residual")
    free = swept(graph, box, "forward")
    tight = swept(graph, box, "forward", most(free) // 2)
    assert actions(tight).count("to host memory") == 1
    assert not reduced(tight)
    assert most(tight) <= most(free) // 2
    assert any(stats.symbols.get("hosted") for stats in tight.stats)
    same_bounds(free, tight)


def test_without_memory_behind_the_device_nothing_moves() -> None:
    graph, box = case("residual")
    budget = most(swept(graph, box, "forward")) // 2
    assert "to host memory" not in actions(swept(graph, box, "forward", budget))


@pairs(name=sorted(NETWORKS), budget=[1, 1000, 4000, 16000, 64000], behind=[1, 3000, HOST])
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
        result = sweep(graph, given, Means(memory_budget=budget))
    assert "to host memory" in actions(result)
    assert torch.equal(given.blocks[0].dense(given.features), before)
    check_encloses(graph, (lower, upper), result)


def convolutions(pre_activation: bool = False) -> tuple[Graph, Box]:
    """Convolutions of 4 channels on 8x8 with ReLUs between; where ``pre_activation`` is true, every two of them with a
    connection from before the ReLU to behind the convolution."""
    b = Builder(2, 8, 8, seed=1)
    last = b(b.conv(2, 4))
    for _ in range(3):
        b(Relu())
        image = b(b.conv(4, 4))
        last = b(Add(), image, last) if pre_activation else image
    b(Relu())
    b.flat()
    b(b.linear(256, 3))
    graph = b.graph()
    return graph, random_box(graph, batch=2, seed=1)


def largest_value(result: Sweep) -> int:
    """Bytes of the generators of the largest input of a ReLU if they were dense."""
    symbols = ((layer, sum(n for kind, n in layer.symbols.items() if kind != "diagonal")) for layer in result.stats)
    return max(8 * layer.neurons * count for layer, count in symbols)


def metered(graph: Graph, zonotope: Zonotope, budget: int, direction: Direction = "forward") -> tuple[Sweep, Meter]:
    with torch.no_grad(), Meter() as meter:
        result = sweep(graph, zonotope, Means(direction, budget))
    return result, meter


@pytest.mark.usefixtures("host")
def test_parts_cost_no_rounding() -> None:
    """Cutting symbols changes no number: where rounding is counted, it is not charged as merging is."""
    graph, box = convolutions()
    graph, box = graph.to(torch.float32, "cpu"), (box[0].float(), box[1].float())
    zonotope, rounding = Zonotope.from_box(*box), Rounding.of(graph, graph, torch.float32)
    with torch.no_grad():
        free = sweep(graph, zonotope, Means(memory_budget=HOST), rounding=rounding)
        result = sweep(graph, zonotope, Means(memory_budget=most(free) // 3), rounding=rounding)
    assert any("parts" in action for action in actions(result))
    assert not reduced(result)
    assert free.errors is not None
    assert result.errors is not None
    torch.testing.assert_close(result.errors[1].error, free.errors[1].error, rtol=1e-3, atol=0)


def behind(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    monkeypatch.setattr(planner_module, "host_budget", lambda device: budget)


@pytest.mark.parametrize("share", [2, 4, 8])
def test_layers_take_the_place_of_their_inputs_in_host_memory(share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host needs room for the largest value of a chain, and a part: not for two values."""
    graph, box = convolutions()
    free = swept(graph, box, "forward")
    host = int(1.15 * largest_value(free))
    behind(monkeypatch, host)
    result, meter = metered(graph, Zonotope.from_box(*box), most(free) // share)
    assert "to host memory" in actions(result)
    assert not reduced(result)
    assert 0 < meter.host <= max(step.host_bytes for step in result.plan) <= host
    same_bounds(free, result)


@pytest.mark.parametrize("direction", ["forward", "auto"])
@pytest.mark.parametrize("room", [2.0, 1.5, 1.0, 0.7, 0.4, 0.1])
def test_a_relu_whose_input_is_needed_again_keeps_the_hosts_budget(
    direction: Direction, room: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner_module, "WORTH_ASKING", torch.inf)
    graph, box = convolutions(pre_activation=True)
    free = swept(graph, box, "forward")
    host = int(room * largest_value(free))
    behind(monkeypatch, host)
    moved = False
    for share in (2, 4, 8):
        result, meter = metered(graph, Zonotope.from_box(*box), most(free) // share, direction)
        assert meter.host <= max(step.host_bytes for step in result.plan) <= host
        check_encloses(graph, box, result)
        moved |= "to host memory" in actions(result)
        if direction == "auto":
            assert not any("merged" in action or action == "box" for action in actions(result))
    assert moved or room <= 0.1


@pytest.mark.parametrize("hosted", [True, False])
def test_generators_that_the_caller_owns_do_not_count(hosted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were there when the free memory was measured; here the budgets have room for less than they take."""
    monkeypatch.setattr(planner_module, "PARTS", 2)
    b = Builder(40, seed=0)
    for outputs in (40, 30, 20):
        b(b.linear(b.shape()[0], outputs))
        b(Relu())
    graph = b.graph()
    center = torch.zeros(1, 40, dtype=torch.float64)
    block = Dense(Symbols(1000), b.random(1, 1000, 40, scale=0.01))
    free, meter = metered(graph, Zonotope(center, (block,)), HOST)
    images = meter.device  # of two layers at a time
    behind(monkeypatch, 500)
    result, meter = metered(
        graph, Zonotope(center, (Hosted.store(block) if hosted else block,)), images + 1000 * 40 * 8
    )
    assert not actions(result)
    assert meter.host == 0
    same_bounds(free, result)
    (first, *_) = [step.bytes for step in free.plan]
    assert first == 1000 * 40 * 8


def test_parts_that_are_too_large_for_a_later_layer_are_cut_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same errors go two ways: the second cuts them for its small image, the first makes a large one of them."""
    monkeypatch.setitem(memory.CHUNK_BYTES, "cpu", CHUNK)
    behind(monkeypatch, HOST)
    b = Builder(2, 8, 8, seed=1)
    b(b.conv(2, 4))
    relu = b(Relu())
    narrow = b(b.conv(4, 1, kernel=1, pad=0), relu)
    other = b(b.conv(4, 4, kernel=1, pad=0), relu)
    wide = b(b.conv(1, 16, kernel=5, pad=2), narrow)
    b(Add(), *(b(b.linear(b.shape(flat)[0], 3), flat) for flat in (b.flat(wide), b.flat(other))))
    graph = b.graph()
    box = random_box(graph, batch=2, seed=1)
    free = swept(graph, box, "forward")
    budget = 2**16
    result, meter = metered(graph, Zonotope.from_box(*box), budget)
    steps = {step.name: step for step in result.plan}
    assert not reduced(result)
    assert not any("parts" in action for action in steps[narrow].actions)
    assert any("parts" in action for action in steps[other].actions)
    assert all(step.bytes <= budget for step in result.plan)
    assert meter.device <= budget + SCRATCH
    same_bounds(free, result)


def random_convolutions(seed: int) -> Graph:
    """Two to six random layers on maps of 8x8, with branches that read one value twice, and a linear layer."""
    rng = random.Random(seed)
    b = Builder(2, 8, 8, seed=seed % 2**32)
    b(b.conv(2, rng.choice((2, 4)), *rng.choice(((1, 1, 0), (3, 1, 1)))))
    names = [b.nodes[-1].name]
    for _ in range(rng.randint(2, 6)):
        last, (channels, side, _) = names[-1], b.shape()
        peers = [name for name in names[:-1] if b.shape(name) == b.shape()]
        match rng.choice(("relu", "relu", "conv", "conv", "add", "subtract", "block", "pool", "scale", "concat")):
            case "relu":
                b(Relu())
            case "conv":
                kernel = rng.choice((1, 3, 5))
                b(b.conv(channels, rng.choice((2, 4, 6)), kernel, rng.choice((1, 1, 2)), kernel // 2))
            case "add" if peers:
                b(Add(), last, rng.choice(peers))
            case "subtract" if peers:
                b(Add(-1), last, rng.choice(peers))
            case "block":
                b(Relu())
                b(Add(), b(b.conv(channels, channels)), last)
            case "pool" if side >= 4:
                b(AveragePool((2, 2), (2, 2)))
            case "scale":
                b(ScaleShift(b.random(channels, 1, 1), b.random(channels, 1, 1)))
            case "concat" if channels <= 4:
                b(Concat(0), last, rng.choice([*peers, last]))
        names.append(b.nodes[-1].name)
    b(Relu())
    b.flat()
    b(b.linear(b.shape()[0], 3))
    return b.graph()


def few_open(box: Box, seed: int) -> Box:
    """The box with six open coordinates, the same in every element of the batch."""
    open_ = torch.zeros(box[0][0].numel(), dtype=torch.bool)
    open_[torch.randperm(len(open_), generator=torch.Generator().manual_seed(seed))[:6]] = True
    center, keep = (box[0] + box[1]) / 2, open_.reshape(box[0].shape[1:])
    return torch.where(keep, box[0], center), torch.where(keep, box[1], center)


shares = st.sampled_from((1.0, 0.7, 0.5, 0.3, 0.15, 0.05))


@hypothesis_seed(20250311)
@settings(max_examples=30, deadline=None, database=None)
@given(
    st.integers(0, 2**32),
    shares,
    st.one_of(st.just(0.0), st.just(1e6), st.floats(0.02, 1.5)),
    st.sampled_from(("forward", "forward", "auto")),
    st.booleans(),
)
def test_random_networks_keep_any_budget_and_their_bounds_hold(
    seed: int, share: float, room: float, direction: Direction, few: bool
) -> None:
    graph = random_convolutions(seed)
    box = random_box(graph, batch=1 + seed % 2, seed=seed % 1000)
    box = few_open(box, seed % 1000) if few else box
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(memory.CHUNK_BYTES, "cpu", CHUNK)
        point, bare = metered(graph, Zonotope.from_box(box[0], box[0]), HOST)
        free, _ = metered(graph, Zonotope.from_box(*box), HOST)
        budget, host = int(share * most(free)), int(room * most(free))
        behind(patch, host)
        result, meter = metered(graph, Zonotope.from_box(*box), budget, direction)
    assert point.output is not None
    check_encloses(graph, box, result)
    assert all(step.bytes <= budget or "box" in step.actions for step in result.plan)
    assert meter.host <= max(step.host_bytes for step in result.plan) <= host
    if result.output is not None:  # dual passes hold rows
        assert meter.device <= 1.1 * most(result) + SCRATCH + bare.device
    if result.output is not None and not reduced(result):
        same_bounds(free, result)


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
            result = sweep(graph, Zonotope.from_box(x - 1e-3, x + 1e-3), Means(memory_budget=budget))
            peak = torch.cuda.max_memory_allocated(device) - before
            assert peak <= 1.1 * most(result)
            assert most(result) <= budget
            assert ("to host memory" in actions(result)) == (budget == 2**31)
