"""What the benchmarks compare with, and how their results become tables."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import render, render_nonsmooth, scale_networks, split_image
from benchmarks.machine import peak_growth
from benchmarks.networks import PROBLEMS, cases, margins
from benchmarks.radius import radius_for, unstable_share
from benchmarks.yardstick import dense_sweep
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph
from zonocuda.importers import from_module

SIDE = 8
RESULTS = Path(render.__file__).parent / "results"
LITERATURE = RESULTS / "intel-xeon-processor-1-threads-nonsmooth-literature.json"
NONSMOOTH = [*sorted(set(RESULTS.glob("*-nonsmooth-*.json")) - {LITERATURE}), LITERATURE]


class Branches(nn.Module):
    """Two branches with a ReLU each, a difference, and a shortcut around a third one: every case of an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
        self.last = nn.Linear(2 * SIDE**2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x)) - torch.relu(self.second(x))
        y = torch.relu(self.third(y)) + y
        y = y - torch.relu(self.first(y))
        return self.last(y.flatten(1))


def branches() -> Graph:
    """With random weights."""
    torch.manual_seed(0)
    return from_module(Branches(), (2, SIDE, SIDE))


def assert_same_bounds(graph: Graph, lower: Tensor, upper: Tensor) -> None:
    """The yardstick's bounds are those of the forward sweep up to rounding."""
    with torch.no_grad():
        expected = sweep(graph, Zonotope.from_box(lower.unsqueeze(0), upper.unsqueeze(0)))
        actual = dense_sweep(graph, lower, upper)
    unstable = sum(layer.unstable for layer in expected.stats)
    assert unstable >= 5
    count = lower.numel() + unstable
    for ours, theirs in zip(actual, expected.bounds, strict=True):
        size = max(bound.abs().max().item() for bound in expected.bounds)
        torch.testing.assert_close(ours, theirs[0], rtol=0, atol=count * torch.finfo(torch.float32).eps * size)


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if not p.needs_data], ids=lambda problem: problem.name)
def test_the_yardstick_finds_the_bounds_of_the_forward_sweep(problem: Any) -> None:
    for graph, lower, upper in cases(problem, 2):
        assert_same_bounds(graph, lower, upper)


def test_the_yardstick_adds_branches_by_the_identity_of_their_symbols() -> None:
    x = torch.rand(2, SIDE, SIDE)
    assert_same_bounds(branches(), x - 0.2, x + 0.2)


def test_the_yardstick_leaves_its_box_alone() -> None:
    x = torch.rand(2, SIDE, SIDE)
    lower, upper = x - 0.2, x + 0.2
    before = lower.clone(), upper.clone()
    with torch.no_grad():
        dense_sweep(branches(), lower, upper)
    assert torch.equal(lower, before[0])
    assert torch.equal(upper, before[1])


def test_margins_are_differences_to_the_label() -> None:
    graph, x = branches(), torch.rand(4, 2, SIDE, SIDE)
    with torch.no_grad():
        logits, differences = graph(x), margins(graph, 1)(x)
    expected = torch.stack([logits[:, 1] - logits[:, 0], logits[:, 1] - logits[:, 2]], dim=1)
    torch.testing.assert_close(differences, expected)


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_radius_leaves_the_share_of_neurons_unstable(share: float) -> None:
    graph, image = branches(), torch.rand(2, SIDE, SIDE)
    radius = radius_for(graph, image, share, tolerance=0.2)
    box = Zonotope.from_box((image - radius).unsqueeze(0), (image + radius).unsqueeze(0))
    assert abs(unstable_share(sweep(graph, box)) - share) <= 0.2 * share


def test_peak_growth_sees_what_a_call_allocates_and_frees() -> None:
    size = 64 * 2**20
    result, growth = peak_growth(lambda: torch.ones(size // 4).sum().item())
    assert result == size // 4
    assert 0.9 * size < growth < 1.5 * size


@pytest.mark.slow
def test_the_large_networks_in_small_go_through_the_planner() -> None:
    torch.manual_seed(0)
    side, budget = 32, 2**28
    vgg = from_module(scale_networks.vgg16(side, divisor=16, hidden=256), (3, side, side))
    assert len(vgg.relus) == 15  # of VGG-16's 16 layers all but the last
    resnet = from_module(scale_networks.resnet34(((4, 1), (8, 1)), stem=4, classes=5), (3, side, side))
    assert len(resnet.relus) == 5
    image, mask = scale_networks.random_image(side), scale_networks.window_mask(side, 4)
    assert mask.sum() == 3 * 4 * 4
    for graph in (vgg, resnet):
        report = scale_networks.run(graph, (image - 0.01 * mask, image + 0.01 * mask), "auto", budget)
        assert report["neurons"] == sum(torch.Size(node.shape).numel() for node in graph.relus)
        lines = list(scale_networks.describe("network", {"radius": 0.01, **report}))
        assert re.search(r"peak \d+\.\d\d GiB, planned \d+\.\d\d GiB, budget 0.25 GiB", lines[1])
        assert len(lines) >= 2 + len(graph.relus)


def entry(group: str, subject: str, median: float, **info: Any) -> dict[str, Any]:
    """One benchmark as pytest-benchmark writes it."""
    facts = {"subject": subject, "device": "a machine", "torch": "2"}
    rates = {"copy_gigabytes_per_second": 10.0, "product_gigaoperations_per_second": 100.0}
    return {"group": group, "stats": {"median": median}, "extra_info": {**facts, **rates, **info}}


def measured(seconds: float, size: int, operations: int) -> dict[str, float]:
    """What such an entry knows of a call that moved ``size`` bytes."""
    return {
        "bytes": size,
        "operations": operations,
        "gigabytes_per_second": size / seconds / 1e9,
        "gigaoperations_per_second": operations / seconds / 1e9,
        "fraction_of_copy_bandwidth": size / seconds / 10e9,
        "fraction_of_product_rate": operations / seconds / 100e9,
        "fraction_of_floor": max(size / 10e9, operations / 100e9) / seconds,
    }


RESULT = {
    "datetime": "2030-01-02T03:04:05",
    "benchmarks": [
        entry("concretize forward, 1x2x3, cpu", "native", 0.1, **measured(0.1, 900_000_000, 10)),
        entry("concretize forward, 1x2x3, cpu", "reference", 0.4, **measured(0.4, 900_000_000, 10)),
        entry("relu forward, 1x2x3, cpu", "native", 0.1, **measured(0.1, 1_000_000_000, 10)),
        entry("relu forward+backward, 1x2x3, cpu", "native", 0.3, **measured(0.3, 2_000_000_000, 10)),
        entry("network a", "yardstick", 3.0),
        entry("network a", "forward", 1.5),
        entry("network a", "auto", 1.0),
    ],
}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_both_ways_through_a_relu_of_neuron_splitting_give_the_same(share: float) -> None:
    case = split_image.Case(6, 40, share)
    for search, op in zip(case.search(), case.op_and_spread(), strict=True):
        torch.testing.assert_close(search, op, rtol=1e-5, atol=1e-5)


def test_tables_are_written_between_their_marks_and_nothing_else_changes() -> None:
    first, second = "<!-- table: targets -->\nold\n<!-- end -->\n", "<!-- table: networks -->\n<!-- end -->\n"
    text = f"before\n{first}between 1 %\n{second}after\n"
    document = render.render(text, RESULT, "file.json")
    assert render.render(document, RESULT, "file.json") == document
    assert document.startswith("before\n<!-- table: targets -->\n| target |")
    assert "old" not in document
    assert "\n<!-- end -->\nbetween 1 %\n<!-- table: networks -->\n" in document
    assert "| concretize, of copy bandwidth | 80% | 90% | concretize forward, 1x2x3, cpu | met |" in document
    assert "| relu backward, of copy bandwidth | 60% | 50% | relu forward+backward, 1x2x3, cpu | missed |" in document
    assert "| networks, forward | 1.50x | 2.00x | network a | met |" in document
    assert "| networks, auto | 5.00x | 3.00x | network a | missed |" in document
    assert "| chain on 64x64, peak memory | 5.00x | - | - | not measured |" in document
    assert "| network a | forward | 1500.000 | - | - | - | - | 2.00x |" in document


def test_a_table_that_nobody_writes_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^render: there is no table 'speed'; tables: machine, targets"):
        render.render("<!-- table: speed -->\n<!-- end -->\n", RESULT, "file.json")


def test_the_document_on_performance_has_every_table_once() -> None:
    names = re.findall(r"<!-- table: ([\w ]+) -->", render.DOCUMENT.read_text(encoding="utf-8"))
    assert sorted(names) == sorted(render.TABLES)


def test_committed_results_name_their_machine_and_date() -> None:
    for path in (Path(render.__file__).parent / "results").glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert re.match(r"\d{4}-\d\d-\d\d", result["datetime"]), path.name
        assert set(result["machine_info"]) == {"processor", "system", "python"}, path.name


def test_the_tables_on_derivatives_at_ties_are_written_from_their_json() -> None:
    speeds = {
        "datetime": "2030-01-02T03:04:05",
        "benchmarks": [
            entry("concretize forward, 1x2x3, cpu", "native", 0.1, **measured(0.1, 900_000_000, 10)),
            *(
                entry(
                    f"nonsmooth max_pool2d 2x2, contiguous, first, {dtype}, cpu",
                    subject,
                    seconds,
                    device="a",
                    torch="b",
                )
                for dtype, ours in (("float32", 1.0), ("float16", 3.0))
                for subject, seconds in (("native", ours), ("torch", 2.0))
            ),
        ],
    }
    literature = render_nonsmooth.read(NONSMOOTH)[-1]
    made = render_nonsmooth.tables([("SPEED", speeds)], literature)
    assert "`SPEED`, a, torch b, 2030-01-02." in made["speed"]
    assert "| max_pool2d 2x2, contiguous, first | 0.50 | - | **1.50** | - |" in made["speed"]
    assert "concretize" not in made["speed"]
    for name, part in literature[1]["parts"].items():
        assert part["date"] in made[name]
        assert made[name].count("\n") > 3


def test_the_document_on_derivatives_at_ties_says_what_the_committed_json_says() -> None:
    text = render_nonsmooth.DOCUMENT.read_text(encoding="utf-8")
    names = re.findall(r"<!-- table: ([\w ]+) -->", text)
    assert sorted(names) == sorted(["speed", *render_nonsmooth.PARTS])
    *speeds, literature = render_nonsmooth.read(NONSMOOTH)
    made = render_nonsmooth.tables(speeds, literature)
    assert render.fill(text, {name: partial(made.__getitem__, name) for name in made}) == text
