"""The least value of linear forms over a set of inputs, and bounds over zonotopes that are no boxes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.verifier.graphs import NETWORKS, rand, random_box
from zonocuda import Zonotope, optimize_bounds
from zonocuda.bounds.dual.dual_pass import flatten_rows
from zonocuda.bounds.dual.input_set import InputSet, extremes
from zonocuda.bounds.dual.slopes import initial_slopes
from zonocuda.bounds.dual.window_rows import window_extremes
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.domains import Dense, Diagonal, Symbols, Windowed
from zonocuda.graph import Graph
from zonocuda.tighten.refine import refine
from zonocuda.verifier import Ascent

FEATURES = {"vector": (6,), "map": (2, 3, 4)}
EACH_NETWORK = pytest.mark.parametrize("kind", NETWORKS)


def diagonal(center: Tensor) -> Diagonal:
    """On every second feature."""
    count = (center[0].numel() + 1) // 2
    return Diagonal(Symbols(count), 0.3 * rand(len(center), count, seed=2), torch.arange(count) * 2)


def dense(center: Tensor) -> Dense:
    """Five generators."""
    return Dense(Symbols(5), 0.2 * rand(len(center), 5, *center.shape[1:], seed=3))


def windowed(center: Tensor) -> Windowed:
    """Windows of 2 x 2 all over the map, some of them over its border."""
    channels, height, width = center.shape[1:]
    corners = torch.tensor([[y, x] for y in range(-1, height) for x in range(-1, width)])
    patches = 0.2 * rand(len(center), len(corners), channels, 2, 2, seed=4)
    return Windowed(Symbols(len(corners)), patches, corners, (height, width)).masked()


BLOCKS: dict[str, tuple[Callable[[Tensor], Dense | Diagonal | Windowed], ...]] = {
    "diagonal": (diagonal,),
    "dense": (dense,),
    "windowed": (windowed,),
    "all": (diagonal, windowed, dense),
    "none": (),
}


def zonotope(shape: tuple[int, ...], kinds: str, batch: int = 2) -> Zonotope:
    """Some blocks around a random center."""
    center = rand(batch, *shape, seed=1)
    makers = [make for make in BLOCKS[kinds] if make is not windowed or len(shape) == 3]
    return Zonotope(center, tuple(make(center) for make in makers))


@pytest.mark.parametrize("shape", FEATURES.values(), ids=FEATURES)
@pytest.mark.parametrize("kinds", BLOCKS)
def test_the_least_value_is_that_of_the_best_vertex_of_the_symbols(shape: tuple[int, ...], kinds: str) -> None:
    """Found by brute force: the image of the row is an interval whose radius sums the magnitudes."""
    z = zonotope(shape, kinds)
    rows = rand(2, 7, *shape, seed=5)
    expected = (rows * z.center.unsqueeze(1)).flatten(2).sum(2)
    for block in z.blocks:
        generators = block.dense(shape)
        expected -= torch.einsum("brn,bkn->brk", rows.flatten(2), generators.flatten(2)).abs().sum(2)
    found = InputSet.of(z).least(flatten_rows(rows.flatten(0, 1)).reshape(2, 7, -1))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", FEATURES.values(), ids=FEATURES)
def test_a_box_in_any_representation_has_the_same_least_values_and_gradients(shape: tuple[int, ...]) -> None:
    lower = rand(2, *shape, seed=6)
    upper = lower + rand(2, *shape, seed=7).abs()
    box = Zonotope.from_box(lower, upper)
    matrix = box.blocks[0].dense(shape)
    as_dense = Zonotope.from_generators(box.center, matrix)
    half = matrix.shape[1] // 2
    split = Zonotope(
        box.center, (Dense(Symbols(half), matrix[:, :half]), Dense(Symbols(matrix.shape[1] - half), matrix[:, half:]))
    )
    values, gradients = [], []
    weights = rand(2, 5, seed=8)
    for inputs in ((lower, upper), box, as_dense, split):
        rows = rand(2, 5, lower[0].numel(), seed=9).requires_grad_()
        least = InputSet.of(inputs).least(rows)
        values.append(least.detach())
        gradients.append(torch.autograd.grad((least * weights).sum(), rows)[0])
    for value, gradient in zip(values[1:], gradients[1:], strict=True):
        torch.testing.assert_close(value, values[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kinds", BLOCKS)
def test_gradients_of_the_least_value_are_those_of_differences(kinds: str) -> None:
    least = InputSet.of(zonotope((2, 3, 4), kinds)).least
    assert torch.autograd.gradcheck(least, rand(2, 3, 24, seed=10).requires_grad_())


def test_gradients_over_a_box_reach_its_ends_too() -> None:
    lower = rand(2, 6, seed=13)
    leaves = rand(2, 3, 6, seed=10), lower, lower + rand(2, 6, seed=14).abs()
    assert torch.autograd.gradcheck(
        lambda rows, low, high: InputSet.of((low, high)).least(rows), tuple(t.requires_grad_() for t in leaves)
    )


def test_extremes_are_the_least_values_of_both_signs() -> None:
    lower, upper = rand(2, 6, seed=11), rand(2, 6, seed=11) + 0.5
    rows = rand(2, 4, 6, seed=12)
    low, high = extremes(rows, (lower, upper))
    inputs = InputSet.of((lower, upper))
    torch.testing.assert_close(low, inputs.least(rows), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(high, -inputs.least(-rows), rtol=1e-13, atol=1e-13)


def test_extremes_of_large_bounds_do_not_overflow() -> None:
    """l + u does; (l + u) / 2 v did as an infinite lower bound of a form whose value is negative."""
    y = torch.tensor([1.8e38, -1.0e38]).reshape(1, 2)
    rows = torch.tensor([[[0.5, 1.0]]])
    low, high = extremes(rows, (y, y))
    patches, corners = rows.reshape(1, 1, 2, 1, 1), torch.zeros(1, 2, dtype=torch.int64)
    image = y.reshape(1, 2, 1, 1)
    window_low, window_high = window_extremes(Windowed(Symbols(1), patches, corners, (1, 1)), (image, image))
    for bound in (low, high, window_low, window_high):
        torch.testing.assert_close(bound, torch.tensor([[-1.0e37]]))


@pytest.mark.parametrize("place", ["row", "lower", "upper"])
def test_a_nan_is_never_lost(place: str) -> None:
    lower, upper, rows = rand(1, 4, seed=13), rand(1, 4, seed=13) + 1, rand(1, 3, 4, seed=14)
    rows[0, :, 1] = 0
    nan = {"row": rows[0, :, 1], "lower": lower[0, 1:2], "upper": upper[0, 1:2]}[place]
    nan.fill_(torch.nan)
    assert bool(InputSet.of((lower, upper)).least(rows).isnan().all())


# ---- networks --------------------------------------------------------------------------------------------------------


def correlated(graph: Graph, seed: int) -> Zonotope:
    """Inputs around a point that move together in four directions, and a little on their own."""
    center = rand(2, *graph.input_shape, seed=seed)
    together = 0.2 * rand(2, 4, *graph.input_shape, seed=seed + 1)
    return Zonotope(center, (Dense(Symbols(4), together), diagonal(0.1 * center)))


def both_sides(outputs: int) -> Tensor:
    """Rows for the lower bound of every output, then for the upper one."""
    return torch.cat([torch.eye(outputs, dtype=torch.float64), -torch.eye(outputs, dtype=torch.float64)])


@EACH_NETWORK
@pytest.mark.parametrize("intermediate", [None, 0, 3])
def test_bounds_over_a_zonotope_enclose_its_points_and_beat_those_over_its_box(
    kind: str, intermediate: int | None
) -> None:
    graph = NETWORKS[kind](1)
    z = correlated(graph, 20)
    ascent = Ascent(iterations=15)
    found = optimize_bounds(graph, z, both_sides(3), intermediate=intermediate, ascent=ascent)
    box = optimize_bounds(
        graph, Zonotope.from_box(*z.bounds()), both_sides(3), intermediate=intermediate, ascent=ascent
    )
    assert found.lower.sum() > box.lower.sum()
    points = z.sample(600, torch.Generator().manual_seed(0))
    for element in range(2):
        y = graph(points[:, element])
        assert bool((y >= found.lower[element, :3] - 1e-11).all())
        assert bool((y <= -found.lower[element, 3:] + 1e-11).all())


@EACH_NETWORK
def test_without_steps_the_dual_over_a_zonotope_is_the_forward_zonotope(kind: str) -> None:
    """With minimum-area slopes of the same bounds, up to rounding."""
    graph = NETWORKS[kind](2)
    z = correlated(graph, 30)
    swept = sweep(graph, z)
    assert swept.output is not None
    start = initial_slopes(graph, swept.intermediate, "minimum_area")
    found = optimize_bounds(graph, z, both_sides(3), intermediate=None, ascent=Ascent(iterations=0), start=start)
    low, high = swept.output.bounds()
    torch.testing.assert_close(found.lower, torch.cat([low, -high], 1), rtol=1e-11, atol=1e-11)


@EACH_NETWORK
def test_a_box_written_as_a_matrix_is_refined_like_the_box(kind: str) -> None:
    graph = NETWORKS[kind](3)
    box = random_box(graph, 2, width=0.5, seed=40)
    z = Zonotope.from_box(*box)
    matrix = Zonotope.from_generators(z.center, z.blocks[0].dense(z.features))
    inputs = dict(sweep(graph, z).intermediate)
    expected, found = (refine(graph, one, inputs, Ascent(iterations=0)).intermediate for one in (box, matrix))
    for name, bounds in expected.items():
        for a, b in zip(bounds, found[name], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
