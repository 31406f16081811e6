"""``optimize_bounds``, the entrance for users of modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.verifier import programs
from tests.verifier.graphs import NETWORKS, fc, rand, random_box, sample_box
from zonocuda import Zonotope, compute_bounds, optimize_bounds
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.verifier import Ascent, slopes_of

EACH_NETWORK = pytest.mark.parametrize("kind", NETWORKS)
WIDE = (5, 14, 14, 3)


def both_sides(outputs: int) -> Tensor:
    """Rows for the lower bound of every output, then for the upper one."""
    return torch.cat([torch.eye(outputs, dtype=torch.float64), -torch.eye(outputs, dtype=torch.float64)])


@EACH_NETWORK
@pytest.mark.parametrize("intermediate", [None, 0, 3])
def test_bounds_enclose_samples_and_are_no_looser_than_the_sweep(kind: str, intermediate: int | None) -> None:
    graph = NETWORKS[kind](1)
    box = random_box(graph, 2, width=0.4, seed=5)
    z = Zonotope.from_box(*box)
    plain = compute_bounds(graph, z)
    found = optimize_bounds(graph, z, both_sides(3), intermediate=intermediate, ascent=Ascent(iterations=10))
    width = (-found.lower[:, 3:] - found.lower[:, :3]).sum()
    assert width <= (plain.upper - plain.lower).sum() + 1e-9
    for element in range(2):
        y = graph(sample_box(box[0][element], box[1][element], 400, seed=element))
        assert bool((y >= found.lower[element, :3] - 1e-11).all())
        assert bool((y <= -found.lower[element, 3:] + 1e-11).all())
    totals = [step.total for step in found.history]
    assert totals == sorted(totals)
    assert set(found.seconds) == {"sweep", "refine", "ascend"}
    assert set(found.intermediate) == {node.name for node in graph.relus}


@pytest.mark.parametrize("kind", ["fc", "residual", "concat"])
def test_no_bound_exceeds_the_exact_minimum(kind: str) -> None:
    """Of a mixed-integer program; both the intermediate bounds and the rows are optimised."""
    graph = NETWORKS[kind](4)
    box = random_box(graph, width=0.5, seed=6)
    inputs = dict(sweep(graph, Zonotope.from_box(*box)).intermediate)
    found = optimize_bounds(
        graph, Zonotope.from_box(*box), both_sides(3), intermediate=20, ascent=Ascent(iterations=60)
    ).lower[0]
    for bound, row in zip(found, both_sides(3), strict=True):
        exact = programs.minimum(graph, box, inputs, row, exact=True)
        assert bound <= exact + 1e-6 * (1 + abs(exact))


def test_each_stage_pays_somewhere() -> None:
    totals = []
    for seed in range(3):
        graph = fc(seed, WIDE)
        z = Zonotope.from_box(*random_box(graph, width=0.7, seed=seed))
        stages = [(None, 0), (None, 15), (0, 15), (6, 15)]
        totals.append(
            [
                float(optimize_bounds(graph, z, both_sides(3), intermediate=i, ascent=Ascent(iterations=n)).lower.sum())
                for i, n in stages
            ]
        )
    assert all(best >= first for first, *_, best in totals)
    for stage in range(3):
        assert any(t[stage + 1] > t[stage] + 1e-4 for t in totals), f"stage {stage}"


def test_slopes_survive_a_file_and_begin_a_search_for_a_neighbour(tmp_path: Path) -> None:
    gains = []
    for seed in range(4):
        graph = fc(seed, WIDE)
        low, high = random_box(graph, width=0.6, seed=seed)
        found = optimize_bounds(graph, Zonotope.from_box(low, high), both_sides(3), ascent=Ascent(iterations=25))
        torch.save(found.state(), tmp_path / "slopes.pt")
        start = slopes_of(torch.load(tmp_path / "slopes.pt", weights_only=True))
        none = Ascent(iterations=0)
        again = optimize_bounds(graph, Zonotope.from_box(low, high), both_sides(3), ascent=none, start=start)
        torch.testing.assert_close(again.lower, found.lower, rtol=1e-12, atol=1e-12)
        near = Zonotope.from_box(low + 0.02, high + 0.02)
        cold = optimize_bounds(graph, near, both_sides(3), ascent=none)
        warm = optimize_bounds(graph, near, both_sides(3), ascent=none, start=start)
        gains.append(float((warm.lower - cold.lower).sum()))
        y = graph(sample_box(low[0] + 0.02, high[0] + 0.02, 300))
        assert bool((y >= warm.lower[0, :3] - 1e-11).all())
    assert sum(gains) > 0


def test_slopes_of_stable_neurons_are_those_to_begin_with() -> None:
    graph = fc(0, WIDE)
    found = optimize_bounds(graph, Zonotope.from_box(*random_box(graph, width=0.4)), both_sides(3))
    stable = 0
    for name, slopes in found.slopes.items():
        low, high = found.intermediate[name]
        assert slopes.nonnegative is not None
        assert slopes.nonnegative.shape == (1, 6, *low.shape[1:])
        active, dead = low >= 0, high <= 0
        stable += int(active.sum() + dead.sum())
        assert bool((slopes.nonnegative[active.unsqueeze(1).expand_as(slopes.nonnegative)] == 1).all())
        assert bool((slopes.nonnegative[dead.unsqueeze(1).expand_as(slopes.nonnegative)] == 0).all())
    assert stable > 0


def test_rows_above_the_target_leave() -> None:
    graph = fc(1, WIDE)
    z = Zonotope.from_box(*random_box(graph, width=0.6, seed=1))
    ascent = Ascent(iterations=30, patience=30)
    whole = optimize_bounds(graph, z, both_sides(3), ascent=ascent)
    middle = float(whole.lower.median())
    part = optimize_bounds(graph, z, both_sides(3), ascent=ascent, target=middle)
    assert part.history[-1].rows < 6
    assert torch.equal(part.lower > middle, whole.lower > middle)


def test_a_module_is_bounded_in_float32() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 2)).eval()
    z = Zonotope.from_ball(torch.zeros(1, 4), 0.7)
    objective = torch.tensor([[1.0, -1.0]])
    found = optimize_bounds(module, z, objective)
    assert found.lower.dtype == torch.float32
    assert not found.lower.requires_grad
    with torch.no_grad():
        y = module(z.sample(500).squeeze(1))
    assert bool(((y @ objective.T) >= found.lower - 1e-5).all())
    assert found.lower > compute_bounds(module, z).lower[0, 0] - compute_bounds(module, z).upper[0, 1]


def test_both_backends_agree() -> None:
    graph = NETWORKS["residual"](2)
    z = Zonotope.from_box(*random_box(graph, width=0.4))
    native, reference = (
        optimize_bounds(graph, z, both_sides(3), intermediate=2, backend=b).lower  # type: ignore[arg-type]
        for b in ("native", "reference")
    )
    torch.testing.assert_close(native, reference, rtol=1e-6, atol=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    graph = fc(0)
    z = Zonotope.from_box(*random_box(graph))
    with pytest.raises(ValueError, match=r"the objective the shape \[2, 4\]; the network needs \[4\] and \[rows, 3\]"):
        optimize_bounds(graph, z, rand(2, 4, seed=0))
    with pytest.raises(ValueError, match="mode must be one of dual, forward, got 'sideways'"):
        optimize_bounds(graph, z, rand(2, 3, seed=0), mode="sideways")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'relu1' is no key of a state"):
        slopes_of({"relu1": rand(1, seed=0)})
