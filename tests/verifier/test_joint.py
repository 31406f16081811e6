"""``optimize_bounds(mode="forward")``: slopes of a sweep, optimised together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.networks import PROBLEMS
from tests import networks
from tests.peak import peak_growth
from tests.thorough import few
from tests.verifier.graphs import NETWORKS, fc, rand, random_box, sample_box
from tests.verifier.programs import minimum
from tests.verifier.test_adjoint import EXAMPLES
from zonocuda import Zonotope, compute_bounds, optimize_bounds
from zonocuda.bounds.dual.slopes import Slopes
from zonocuda.graph import Graph
from zonocuda.importers import load_network
from zonocuda.kink import KINK_RULES, KinkRule
from zonocuda.specs import load_vnnlib
from zonocuda.tighten.joint import margin
from zonocuda.verifier import Ascent, slopes_of

MIB = 2**20
EACH_NETWORK = pytest.mark.parametrize("kind", NETWORKS)
SHORT = Ascent(iterations=10, rate=0.1)


def both_sides(outputs: int) -> Tensor:
    """Rows for the lower bound of every output, then for the upper one."""
    return torch.cat([torch.eye(outputs, dtype=torch.float64), -torch.eye(outputs, dtype=torch.float64)])


def width(output: Zonotope) -> Tensor:
    """The sum of the widths of the outputs."""
    return 2 * output.radius().flatten(1).sum(1)


def climbed(graph: Graph, row: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The smallest value of ``row . y`` that projected descent along signs of gradients finds from 30 starts."""
    x = sample_box(low, high, 30, seed=1)
    best = torch.full((), torch.inf, dtype=x.dtype)
    for step in range(25):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            values = graph(x).flatten(1) @ row
        best = torch.minimum(best, values.detach().amin())
        (gradient,) = torch.autograd.grad(values.sum(), x)
        x = torch.clamp(x.detach() - (high - low) * 0.3 * 0.9**step * gradient.sign(), low, high)
    return best


# ---- soundness -------------------------------------------------------------------------------------------------------


@EACH_NETWORK
@pytest.mark.parametrize("loss", ["margin", "width"])
def test_bounds_enclose_samples_and_what_descent_finds(kind: str, loss: str) -> None:
    graph = NETWORKS[kind](1)
    low, high = random_box(graph, 2, width=0.4, seed=5)
    of = None if loss == "margin" else width
    found = optimize_bounds(graph, Zonotope.from_box(low, high), both_sides(3), mode="forward", loss=of, ascent=SHORT)
    for element in range(2):
        y = graph(sample_box(low[element], high[element], 400, seed=element))
        assert bool((y >= found.lower[element, :3] - 1e-11).all())
        assert bool((y <= -found.lower[element, 3:] + 1e-11).all())
        for row, bound in zip(both_sides(3), found.lower[element], strict=True):
            assert climbed(graph, row, low[element], high[element]) >= bound - 1e-11
    x = torch.stack([sample_box(low[e], high[e], 200) for e in range(2)])
    for name, (lower, upper) in found.intermediate.items():
        source = graph[name].inputs[0]
        before = Graph(tuple(n for n in graph.nodes[: [n.name for n in graph.nodes].index(name)]), source)
        for element in range(2):
            values = before(x[element])
            assert bool(((values >= lower[element] - 1e-11) & (values <= upper[element] + 1e-11)).all())


@pytest.mark.parametrize("seed", range(4))
def test_bounds_are_never_tighter_than_the_exact_optimum(seed: int) -> None:
    graph = (fc if seed % 2 else NETWORKS["residual"])(seed)
    box = random_box(graph, width=0.7, seed=seed)
    rows = both_sides(3)
    found = optimize_bounds(
        graph, Zonotope.from_box(*box), rows, mode="forward", ascent=Ascent(iterations=40, rate=0.1)
    )
    for row, bound in zip(rows, found.lower[0], strict=True):
        assert float(bound) <= minimum(graph, box, dict(found.intermediate), row, exact=True) + 1e-9


@EACH_NETWORK
def test_any_zonotope_may_be_the_input(kind: str) -> None:
    graph = NETWORKS[kind](2)
    zonotope = Zonotope.from_generators(
        rand(2, *graph.input_shape, seed=1), 0.15 * rand(2, 5, *graph.input_shape, seed=2)
    )
    plain = compute_bounds(graph, zonotope)
    found = optimize_bounds(graph, zonotope, both_sides(3), mode="forward", loss=width, ascent=SHORT)
    points = zonotope.sample(300)
    for element in range(2):
        y = graph(points[:, element])
        assert bool((y >= found.lower[element, :3] - 1e-11).all())
        assert bool((y <= -found.lower[element, 3:] + 1e-11).all())
    assert bool((found.lower >= torch.cat([plain.lower, -plain.upper], 1) - 1e-12).all())


# ---- what it finds ---------------------------------------------------------------------------------------------------


@EACH_NETWORK
@pytest.mark.parametrize("seed", few(1, [1, 2]))
def test_the_margin_of_the_minimum_area_zonotope_improves(kind: str, seed: int) -> None:
    graph = NETWORKS[kind](seed)
    zonotope = Zonotope.from_box(*random_box(graph, width=0.5, seed=seed))
    rows = rand(4, 3, seed=seed)
    plain, found = (
        optimize_bounds(graph, zonotope, rows, mode="forward", ascent=Ascent(iterations=n, rate=0.1)) for n in (0, 20)
    )
    output = compute_bounds(graph, zonotope).output
    assert output is not None
    torch.testing.assert_close(plain.lower, output.linear(rows).bounds()[0], rtol=0, atol=1e-12)
    if any(bool(((low < 0) & (high > 0)).any()) for low, high in plain.intermediate.values()):
        assert found.lower.amin() > plain.lower.amin() + 1e-6
    assert bool((found.lower >= plain.lower - 1e-12).all())
    totals = [step.total for step in found.history]
    assert totals == sorted(totals)
    assert set(found.seconds) == {"sweep", "backward"}


@pytest.mark.parametrize("name", ["fc", "conv", "residual"])
def test_the_margin_of_every_example_improves(name: str) -> None:
    graph = load_network(EXAMPLES / "networks" / f"{name}.onnx").graph
    for file in few(1, sorted((EXAMPLES / "specs").glob(f"{name}_*_0.[12]*.vnnlib"))):
        box = load_vnnlib(file).regions[0].box
        low, high = (t.float().reshape(1, *graph.input_shape) for t in (box.lower, box.upper))
        label = int(graph((low + high) / 2).argmax())
        rows = torch.eye(10)[label] - torch.eye(10)[torch.arange(10) != label]
        zonotope = Zonotope.from_box(low, high)
        plain, found = (
            optimize_bounds(graph, zonotope, rows, mode="forward", ascent=a).lower.amin()
            for a in (Ascent(iterations=0), Ascent(iterations=15, rate=0.1))
        )
        assert found > plain, file.name


@pytest.mark.parametrize("kink", KINK_RULES)
def test_every_kink_rule_improves_the_width(kink: KinkRule) -> None:
    graph = NETWORKS["residual"](2)
    zonotope = Zonotope.from_box(*random_box(graph, 2, width=0.6, seed=3))
    before, after = (
        optimize_bounds(
            graph,
            zonotope,
            both_sides(3),
            mode="forward",
            loss=width,
            ascent=Ascent(iterations=n, rate=0.05, kink=kink),
        ).lower.sum()
        for n in (0, 15)
    )
    assert after > before + 1e-3


def test_elements_of_a_batch_are_optimised_as_if_alone() -> None:
    graph = NETWORKS["conv"](1)
    low, high = random_box(graph, 3, width=0.4, seed=5)
    rows = both_sides(3)
    together = optimize_bounds(graph, Zonotope.from_box(low, high), rows, mode="forward", ascent=SHORT)
    again = optimize_bounds(graph, Zonotope.from_box(low, high), rows, mode="forward", ascent=SHORT)
    assert torch.equal(together.lower, again.lower)
    assert all(torch.equal(s, again.state()[name]) for name, s in together.state().items())
    for i in range(3):
        alone = optimize_bounds(
            graph, Zonotope.from_box(low[i : i + 1], high[i : i + 1]), rows, mode="forward", ascent=SHORT
        )
        torch.testing.assert_close(together.lower[i], alone.lower[0], rtol=1e-6, atol=1e-8)


def test_slopes_survive_a_file_and_begin_a_search_for_a_neighbour(tmp_path: Path) -> None:
    gains = []
    for seed in range(3):
        graph = fc(seed, (5, 14, 14, 3))
        low, high = random_box(graph, width=0.6, seed=seed)
        rows, none = both_sides(3)[:1], Ascent(iterations=0)
        found = optimize_bounds(graph, Zonotope.from_box(low, high), rows, mode="forward")
        torch.save(found.state(), tmp_path / "slopes.pt")
        start = slopes_of(torch.load(tmp_path / "slopes.pt", weights_only=True))
        again = optimize_bounds(graph, Zonotope.from_box(low, high), rows, mode="forward", ascent=none, start=start)
        torch.testing.assert_close(again.lower, found.lower, rtol=1e-12, atol=1e-12)
        near = Zonotope.from_box(low + 0.02, high + 0.02)
        cold = optimize_bounds(graph, near, rows, mode="forward", ascent=none)
        warm = optimize_bounds(graph, near, rows, mode="forward", ascent=none, start=start)
        gains.append(float((warm.lower - cold.lower).sum()))
        assert bool((graph(sample_box(low[0] + 0.02, high[0] + 0.02, 300))[:, 0] >= warm.lower[0, 0] - 1e-11).all())
    assert sum(gains) > 0


def test_the_search_ends_when_every_row_exceeds_the_target() -> None:
    graph = fc(1, (5, 14, 14, 3))
    zonotope = Zonotope.from_box(*random_box(graph, width=0.6, seed=1))
    rows = both_sides(3)[:1]
    whole = optimize_bounds(graph, zonotope, rows, mode="forward")
    first, last = whole.history[0].total, whole.history[-1].total
    part = optimize_bounds(graph, zonotope, rows, mode="forward", target=(first + last) / 2)
    assert part.history[-1].rows == 0
    assert len(part.history) < len(whole.history)
    assert float(part.lower) > (first + last) / 2


def test_the_seconds_end_the_search() -> None:
    graph = fc(1, (5, 14, 14, 3))
    zonotope = Zonotope.from_box(*random_box(graph, width=0.6, seed=1))
    found = optimize_bounds(graph, zonotope, both_sides(3), mode="forward", ascent=Ascent(seconds=0.0))
    assert len(found.history) == 1


def test_both_backends_agree() -> None:
    graph = NETWORKS["residual"](2)
    zonotope = Zonotope.from_box(*random_box(graph, width=0.4))
    native, reference = (
        optimize_bounds(graph, zonotope, both_sides(3), mode="forward", ascent=SHORT, backend=b).lower  # type: ignore[arg-type]
        for b in ("native", "reference")
    )
    torch.testing.assert_close(native, reference, rtol=1e-6, atol=1e-6)


def test_a_module_is_bounded_in_float32_with_one_number_as_loss() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 2)).eval()
    zonotope = Zonotope.from_ball(torch.zeros(2, 4), 0.7)
    rows = torch.tensor([[1.0, -1.0]])
    found = optimize_bounds(module, zonotope, rows, mode="forward", loss=lambda z: margin(rows)(z).sum())
    assert found.lower.dtype == torch.float32
    assert not found.lower.requires_grad
    output = compute_bounds(module, zonotope).output
    assert output is not None
    assert bool((found.lower > output.linear(rows).bounds()[0]).all())


def test_a_nan_is_never_a_bound() -> None:
    graph = fc(0)
    graph.nodes[1].op.weight[0, 0] = torch.nan
    found = optimize_bounds(
        graph, Zonotope.from_box(*random_box(graph)), both_sides(3), mode="forward", ascent=Ascent(iterations=2)
    )
    assert not bool((found.lower > -torch.inf).any())


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused() -> None:
    graph = fc(0)
    zonotope = Zonotope.from_box(*random_box(graph, 2))
    rows = both_sides(3)
    with pytest.raises(ValueError, match=r"one for each of 2 batch elements, got \[3\]"):
        optimize_bounds(graph, zonotope, rows, mode="forward", loss=lambda z: z.center.sum(0))
    with pytest.raises(ValueError, match="a loss needs mode='forward'"):
        optimize_bounds(graph, zonotope, rows, loss=width)
    adaptive = {"relu2": Slopes(None, torch.zeros(2, 1, 8, dtype=torch.float64))}
    with pytest.raises(ValueError, match=r"start\['relu2'\] has others; pass Slopes\(slope\)"):
        optimize_bounds(graph, zonotope, rows, mode="forward", start=adaptive)
    with pytest.raises(ValueError, match="slopes were given for"):
        optimize_bounds(graph, zonotope, rows, mode="forward", start={"linear1": Slopes(torch.zeros(2, 1, 8))})
    with pytest.raises(ValueError, match="kink must be one of"):
        optimize_bounds(graph, zonotope, rows, mode="forward", ascent=Ascent(kink="up"))  # type: ignore[arg-type]


def test_a_budget_that_the_generators_exceed_is_refused() -> None:
    graph = fc(0, (40, 60, 60, 3))
    zonotope = Zonotope.from_box(*random_box(graph, 64, width=0.4))
    with pytest.raises(ValueError, match=r"do not fit the memory budget \(64 MiB\); raise memory_budget, or use mode="):
        optimize_bounds(graph, zonotope, both_sides(3), mode="forward", memory_budget=64 * MIB)


# ---- memory ----------------------------------------------------------------------------------------------------------

_PROGRAM = """
import json, sys, torch
from zonocuda import Zonotope
from tests.peak import peak_growth
from tests.verifier.graphs import Builder
from zonocuda.graph import Add, Relu
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.tighten.joint import margin, slope_gradients, sweep_to

def network(side, channels):
    b = Builder(3, side, side)
    b(b.conv(3, channels, stride=2))
    for _ in range(8):
        b(Relu())
        b(b.conv(channels, channels, pad=1))
    skip = b(Relu())
    b(Add(), b(b.conv(channels, channels, pad=1), skip), skip)
    b(Relu())
    b(b.conv(channels, 4, kernel=3, stride=2))
    return b.graph().to(torch.float32)

def run(side, channels, what, budget):
    graph = network(side, channels)
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    zonotope = Zonotope.from_box(x - 1e-4, x + 1e-4)
    loss = margin(torch.eye(torch.Size(graph.output_shape).numel())[:3])
    slopes = {n.name: torch.full((1, *n.shape), 0.5) for n in graph.relus}
    if what == "autograd":
        for slope in slopes.values():
            slope.requires_grad_()
        loss(sweep(graph, zonotope, slopes=slopes).output).sum().backward()
        return None
    point = sweep_to(graph, zonotope, slopes)
    if what == "sweep":
        return None
    return peak_growth(lambda: slope_gradients(graph, point, loss, memory_budget=budget))[1]

what, budget = sys.argv[1], int(sys.argv[2])
run(16, 4, what, 2**30)
inner, measured = peak_growth(lambda: run(30, 24, what, budget))
print(json.dumps(dict(measured=measured, adjoint=inner)))
"""


def measured(what: str, budget: int = 2**30) -> dict[str, int]:
    """Peak growth of a fresh process's memory, in bytes."""
    if sys.platform != "linux":
        pytest.skip("anonymous memory is read from /proc, which Linux alone has")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, what, str(budget)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    report: dict[str, int] = json.loads(done.stdout)
    return report


@pytest.mark.slow
def test_the_backward_pass_needs_a_fraction_of_what_autograd_stores_and_keeps_to_its_budget() -> None:
    sweep, adjoint, autograd = (measured(what) for what in ("sweep", "adjoint", "autograd"))
    assert sweep["measured"] > 100 * MIB
    assert adjoint["measured"] <= 1.1 * sweep["measured"] + 16 * MIB, "more than the sweep alone"
    assert adjoint["measured"] < autograd["measured"] / 4
    assert adjoint["adjoint"] <= 100 * MIB
    tight = measured("adjoint", 16 * MIB)["adjoint"]
    assert tight <= 24 * MIB
    assert tight < adjoint["adjoint"]


# ---- real networks ---------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", few(1, ["cifar10_resnet_4b", "sri_resnet_a", "oval21 base"]))
def test_a_real_network_improves_within_the_memory_budget(name: str) -> None:
    problem = next(p for p in PROBLEMS if p.name == name)
    graph = problem.load()
    low, high = (b.unsqueeze(0) for b in problem.box(networks.images("cifar10")[0][1]))
    label = int(graph((low + high) / 2).argmax())
    rows = torch.eye(10)[label] - torch.eye(10)[torch.arange(10) != label]
    zonotope = Zonotope.from_box(low, high)
    found, growth = peak_growth(
        lambda: optimize_bounds(
            graph, zonotope, rows, mode="forward", ascent=Ascent(iterations=10, rate=0.01), memory_budget=4 * 2**30
        )
    )
    assert growth < 4 * 2**30
    assert (
        found.lower.amin()
        > optimize_bounds(graph, zonotope, rows, mode="forward", ascent=Ascent(iterations=0)).lower.amin()
    )
    y = graph(sample_box(low[0], high[0], 64))
    assert bool((y @ rows.T >= found.lower - 1e-4 * found.lower.abs()).all())
