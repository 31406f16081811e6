"""What runs ask of a device, counted on one that is none: how often the host waits for it, and how much it launches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.host_path import Runs
from benchmarks.networks import PROBLEMS, cases
from benchmarks.pretended_device import DEVICE, PretendedDevice
from tests.data import data_root
from zonocuda import compute_bounds, optimize_bounds
from zonocuda.bounds.forward.sweep import Means, sweep
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.domains import Dense, Symbols, Zonotope, memory
from zonocuda.graph import Graph
from zonocuda.importers import from_module
from zonocuda.tighten.ascent import Ascent
from zonocuda.tighten.refine import refine

SIDE = 16
SIZED, NUMBER, COPY = "size", "number", "copy between host and device"


class Residual(nn.Module):
    """Two residual blocks, one with stride 2 and a convolution in its shortcut, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.down, self.after = nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.shortcut = nn.Conv2d(4, 8, 1, stride=2)
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.hidden, self.last = nn.Linear(8 * (SIDE // 2) ** 2, 20), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.after(torch.relu(self.down(x))) + self.shortcut(x))
        x = torch.relu(self.second(torch.relu(self.first(x))) + x)
        return self.last(torch.relu(self.hidden(x.flatten(1))))


RELUS, SUMS = 6, 2


@pytest.fixture(scope="module")
def problem() -> tuple[Graph, Tensor, Tensor]:
    """The network and a box in which many of its neurons are unstable."""
    torch.manual_seed(0)
    graph = from_module(Residual(), (3, SIDE, SIDE)).current()
    assert len(graph.relus) == RELUS
    x = torch.rand(1, 3, SIDE, SIDE)
    return graph, x - 0.02, x + 0.02


@pytest.fixture(scope="module")
def runs(problem: tuple[Graph, Tensor, Tensor]) -> Runs:
    """Of that network on that box."""
    return Runs(*problem)


# ---- how often the host waits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("proof", [False, True])
def test_a_forward_sweep_waits_once_for_each_relu_twice_for_a_sum_of_windows_and_once_for_its_statistics(
    runs: Runs, proof: bool
) -> None:
    waits = runs.sweep(proof=proof).waits
    assert waits[SIZED] == RELUS  # how many symbols are new
    assert waits[COPY] <= 1 + 2 * SUMS
    assert waits.keys() == {SIZED, COPY}


def test_a_sweep_by_dual_passes_waits_once_for_each_relu_of_each_pass(runs: Runs) -> None:
    waits = runs.sweep("dual").waits
    assert waits[SIZED] <= RELUS  # which neurons are open
    assert waits[NUMBER] <= RELUS * (RELUS - 1) // 2  # how many rows of a pass go on, a pass for each ReLU
    assert waits[COPY] <= 1 + 2  # the statistics, and the first layer's sum of windows
    assert waits.keys() <= {SIZED, NUMBER, COPY}


def test_a_dual_pass_of_the_outputs_never_waits(runs: Runs) -> None:
    assert not runs.dual().waits


def test_a_dual_pass_that_counts_rounding_waits_once_for_the_open_neurons_of_all_layers(runs: Runs) -> None:
    assert runs.dual(proof=True).waits == {COPY: 1}


def test_a_step_of_ascent_waits_once(runs: Runs) -> None:
    assert runs.ascent_step().waits == {COPY: 1}


def test_a_refinement_waits_twice_for_each_relu_and_once_a_step(problem: tuple[Graph, Tensor, Tensor]) -> None:
    graph, lower, upper = problem
    steps = 2
    with PretendedDevice() as device:
        graph, box = graph.to(torch.float32, DEVICE), (lower.to(DEVICE), upper.to(DEVICE))
        with torch.no_grad():
            inputs = sweep(graph, Zonotope.from_box(*box), Means(memory_budget=2**36)).intermediate
        device.clear()
        refine(graph, box, inputs, Ascent(iterations=steps), rounding=Rounding.of(graph, graph, torch.float32))
    open_ = RELUS * (RELUS + 1) // 2  # of each ReLU, and of those before it once for each pass
    assert device.waits[SIZED] <= open_ + 2  # and which neurons are dead, in linear layers
    assert device.waits[COPY] <= (steps + 1) * RELUS + 2 * RELUS
    assert device.waits[NUMBER] == 0


# ---- how much it launches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "most"),
    [
        (lambda runs: runs.sweep(), 460),
        (lambda runs: runs.sweep(proof=True), 1180),
        (lambda runs: runs.dual(), 120),
        (lambda runs: runs.dual(proof=True), 540),
        (lambda runs: runs.ascent_step(), 205),
    ],
    ids=["sweep", "sweep, rounding counted", "dual", "dual, rounding counted", "ascent"],
)
def test_launches_stay_within_their_number(runs: Runs, run: Callable[[Runs], object], most: int) -> None:
    count = run(runs)
    assert count.launches <= most, count  # type: ignore[attr-defined]


@pytest.mark.data
@pytest.mark.parametrize(("name", "waits", "launches"), [("cifar10_resnet_4b", 13, 850), ("sri_resnet_a", 13, 850)])
def test_the_sweep_of_a_real_network_stays_within_its_numbers(name: str, waits: int, launches: int) -> None:
    data_root()
    (chosen,) = (p for p in PROBLEMS if p.name == name)
    ((graph, lower, upper),) = cases(chosen, 1)
    count = Runs(graph, lower.unsqueeze(0), upper.unsqueeze(0)).sweep()
    assert sum(count.waits.values()) <= waits, count
    assert count.launches <= launches, count


# ---- the way that is taken on a device -------------------------------------------------------------------------------


def test_bounds_on_the_device_are_those_of_the_cpu(problem: tuple[Graph, Tensor, Tensor]) -> None:
    graph, lower, upper = problem
    graph, lower, upper = graph.to(torch.float64), lower.double(), upper.double()
    objective = torch.eye(5, dtype=torch.float64)
    ascent = Ascent(iterations=2)
    zonotope = Zonotope.from_box(lower, upper)
    expected = [
        compute_bounds(graph, zonotope).lower,
        compute_bounds(graph, zonotope, direction="dual").lower,
        *(optimize_bounds(graph, zonotope, objective, mode=mode, ascent=ascent).lower for mode in ("dual", "forward")),
    ]
    with PretendedDevice():
        there, aim = graph.to(torch.float64, DEVICE), objective.to(DEVICE)
        zonotope = Zonotope.from_box(lower.to(DEVICE), upper.to(DEVICE))
        plan = {"memory_budget": 2**36}
        found = [
            compute_bounds(there, zonotope, **plan).lower.cpu(),
            compute_bounds(there, zonotope, direction="dual", **plan).lower.cpu(),
            optimize_bounds(there, zonotope, aim, mode="dual", ascent=ascent, **plan).lower.cpu(),
            optimize_bounds(there, zonotope, aim, mode="forward", ascent=ascent, **plan).lower.cpu(),
        ]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_only_piece_on_a_device_is_the_result_itself() -> None:
    with PretendedDevice() as device, torch.no_grad():
        rows = torch.ones(2, 3, 4, device=DEVICE)
        device.clear()
        doubled = memory.filled((2, 3, 4), rows, lambda run: 2 * rows[:, run])
        assert dict(device.launches) == {"mul": 1}
        assert doubled.cpu().tolist() == torch.full((2, 3, 4), 2.0).tolist()


def test_a_piece_in_the_memory_of_its_rows_is_copied() -> None:
    with PretendedDevice(), torch.no_grad():
        block = Dense(Symbols(3), torch.ones(1, 3, 4, device=DEVICE))
        same = block.map_rows(lambda x: x[:, :])
        same.generators.mul_(2)
        assert block.generators.cpu().tolist() == torch.ones(1, 3, 4).tolist()


# ---- the device that is none -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda x: bool((x > 0).any()), NUMBER),
        (lambda x: float(x.sum()), NUMBER),
        (lambda x: x[0, 0].item(), NUMBER),
        (lambda x: torch.equal(x, x), NUMBER),
        (lambda x: (x > 0).nonzero(), SIZED),
        (lambda x: x[x > 0], SIZED),
        (lambda x: x.masked_select(x > 0), SIZED),
        (lambda x: torch.where(x > 0), SIZED),
        (lambda x: x.unique(), SIZED),
        (lambda x: x.cpu(), COPY),
        (lambda x: x.tolist(), COPY),
        (lambda x: x.new_tensor([1.0, 2.0]), COPY),
        (lambda x: torch.tensor([1.0], device=x.device), COPY),
        (lambda x: torch.ones(3).to(x.device), COPY),
        (lambda x: x.copy_(torch.zeros(2, 3)), COPY),
    ],
)
def test_the_device_counts_what_a_host_waits_for(ask: Callable[[Tensor], object], what: str) -> None:
    with PretendedDevice() as device:
        x = torch.ones(2, 3, device=DEVICE)
        device.clear()
        ask(x)
    assert dict(device.waits) == {what: 1}


def test_the_device_waits_for_nothing_where_only_kernels_are_launched() -> None:
    with PretendedDevice() as device:
        x = torch.ones(2, 3, device=DEVICE)
        device.clear()
        y = (x.reshape(3, 2) + 1).mul_(2).sum(0)
        assert not device.waits
        assert dict(device.launches) == {"add": 1, "mul_": 1, "sum": 1}
        assert device.calls["view"] == 1
        assert y.cpu().tolist() == [12.0, 12.0]


def test_tensors_of_both_devices_do_not_meet() -> None:
    with PretendedDevice():
        x = torch.ones(3, device=DEVICE)
        with pytest.raises(RuntimeError, match="to be on the same device"):
            x + torch.ones(3)
        assert (x + torch.tensor(2.0)).cpu().tolist() == [3.0, 3.0, 3.0]  # one number may


def test_derivatives_on_the_device_are_those_of_the_cpu() -> None:
    def gradient(device: torch.device) -> Tensor:
        w = torch.arange(6, dtype=torch.float64, device=device).reshape(2, 3).requires_grad_()
        (result,) = torch.autograd.grad((w.square() @ w.T).relu().sum(), w)
        return result.cpu()

    with PretendedDevice():
        assert torch.equal(gradient(DEVICE), gradient(torch.device("cpu")))
