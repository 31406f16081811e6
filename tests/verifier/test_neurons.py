"""Bounds of chosen neurons by the dual pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.verifier.graphs import NETWORKS, random_box, random_slopes, sample_box
from zonocuda.bounds.dual.neurons import EarlyEnd, Relaxed, neuron_bounds
from zonocuda.bounds.forward.sweep import Sweep, sweep
from zonocuda.bounds.interval import Bounds
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, interpret

EACH_NETWORK = pytest.mark.parametrize("kind", NETWORKS)
ROUNDING = 1e-11  # of values of size 1 to 10, in float64


def forward(graph: Graph, box: Bounds, slopes: dict[str, Tensor] | None = None) -> Sweep:
    """The forward sweep with the bounds of every node."""
    return sweep(graph, Zonotope.from_box(*box), slopes=slopes, all_layers=True)


def flat(bounds: Bounds) -> Bounds:
    """``[B, *features]`` as ``[B, N]``."""
    return bounds[0].flatten(1), bounds[1].flatten(1)


@EACH_NETWORK
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("own_slopes", [False, True], ids=["minimum_area", "given_slopes"])
def test_bounds_of_every_node_equal_the_forward_sweep(kind: str, batch: int, own_slopes: bool) -> None:
    graph = NETWORKS[kind](1)
    box = random_box(graph, batch, seed=5)
    slopes = random_slopes(graph, batch) if own_slopes else None
    result = forward(graph, box, slopes)
    assert any(bool(((low < 0) & (high > 0)).any()) for low, high in result.intermediate.values())
    for node in graph.nodes:
        expected = flat(result.layers[node.name])
        index = torch.arange(expected[0].shape[1]).flip(0)
        actual = neuron_bounds(Relaxed(graph, box, result.intermediate, slopes), node.name, index)
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, other[:, index], rtol=ROUNDING, atol=ROUNDING)


@EACH_NETWORK
@pytest.mark.parametrize("rows_per_pass", [1, 2, 1000])
def test_the_size_of_a_pass_changes_nothing_but_rounding(kind: str, rows_per_pass: int) -> None:
    graph = NETWORKS[kind](2)
    box = random_box(graph, 2, seed=7)
    inputs = forward(graph, box).intermediate
    index = torch.tensor([0, 2, 1, 2])
    whole = neuron_bounds(Relaxed(graph, box, inputs), graph.output, index)
    parts = neuron_bounds(Relaxed(graph, box, inputs), graph.output, index, rows_per_pass=rows_per_pass)
    torch.testing.assert_close(parts, whole, rtol=ROUNDING, atol=ROUNDING)


@EACH_NETWORK
@pytest.mark.parametrize("batch", [1, 2])
def test_known_bounds_decide_signs_and_loosen_nothing(kind: str, batch: int) -> None:
    graph = NETWORKS[kind](3)
    box = random_box(graph, batch, width=0.2, seed=11)
    inputs = forward(graph, box).intermediate
    for relu in graph.relus:
        name = relu.inputs[0]
        width = graph[name].shape[0] if len(graph[name].shape) == 1 else inputs[relu.name][0].flatten(1).shape[1]
        index = torch.arange(width)
        plain = neuron_bounds(Relaxed(graph, box, inputs), name, index)
        early = neuron_bounds(Relaxed(graph, box, inputs), name, index, early=EarlyEnd())
        open_ = ((early[0] < 0) & (early[1] > 0)).any(0)
        assert bool((early[0][:, open_] >= plain[0][:, open_] - ROUNDING).all())
        assert bool((early[1][:, open_] <= plain[1][:, open_] + ROUNDING).all())
        assert bool((((early[0] >= 0) | (early[1] <= 0)).all(0) | open_).all())
        undecided = ((plain[0] < 0) & (plain[1] > 0)).any(0)
        assert not bool(
            (open_ & ~undecided & ~((plain[0].abs() < ROUNDING) | (plain[1].abs() < ROUNDING)).any(0)).any()
        )


@EACH_NETWORK
@pytest.mark.parametrize("early", [None, EarlyEnd()], ids=["whole", "early_end"])
def test_bounds_enclose_every_sampled_value(kind: str, early: EarlyEnd | None) -> None:
    graph = NETWORKS[kind](4)
    lower, upper = random_box(graph, 1, seed=13)
    inputs = forward(graph, (lower, upper)).intermediate
    points = sample_box(lower[0], upper[0], 300, seed=1)
    values: dict[str, Tensor] = {}
    interpret(graph, points, lambda node, x: node.op.apply(*x), lambda node, y: values.update({node.name: y}))
    for node in graph.nodes:
        y = values[node.name].flatten(1)
        low, high = neuron_bounds(
            Relaxed(graph, (lower, upper), inputs), node.name, torch.arange(y.shape[1]), early=early
        )
        assert bool((y >= low - ROUNDING).all())
        assert bool((y <= high + ROUNDING).all())


def test_rows_that_are_decided_leave_the_pass() -> None:
    graph = NETWORKS["fc"](0)
    box = random_box(graph, 1, width=1e-6, seed=3)
    inputs = forward(graph, box).intermediate
    visited: list[str] = []
    last = graph.relus[-1].inputs[0]
    neuron_bounds(
        Relaxed(graph, box, inputs),
        last,
        torch.arange(3),
        early=EarlyEnd(),
        on_node=lambda node: visited.append(node.name),
    )
    assert visited[-1] == graph.relus[0].name, "on a tiny box every sign is known at the first ReLU that is reached"
    visited.clear()
    neuron_bounds(Relaxed(graph, box, inputs), last, torch.arange(3), on_node=lambda node: visited.append(node.name))
    assert visited[-1] == graph.nodes[0].name


def test_given_values_of_a_node_are_used_where_they_are_tighter() -> None:
    graph = NETWORKS["fc"](0)
    box = random_box(graph, 1, width=2.0, seed=3)
    inputs = forward(graph, box).intermediate
    first, last = graph.relus[0], graph.relus[-1].inputs[0]
    point = torch.zeros(1, *first.shape, dtype=torch.float64)
    low, high = neuron_bounds(
        Relaxed(graph, box, inputs), last, torch.arange(6), early=EarlyEnd({first.name: (point, point)})
    )
    op = graph[last].op
    expected = op.apply(point)
    torch.testing.assert_close(low, expected, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(high, expected, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("early", [None, EarlyEnd()], ids=["whole", "early_end"])
def test_a_nan_in_the_box_is_never_a_sign(early: EarlyEnd | None) -> None:
    graph = NETWORKS["fc"](0)
    box = random_box(graph, 1, seed=3)
    nan = torch.full_like(box[0], torch.nan)
    inputs = {name: (torch.full_like(b[0], torch.nan),) * 2 for name, b in forward(graph, box).intermediate.items()}
    low, high = neuron_bounds(Relaxed(graph, (nan, nan), inputs), graph.output, torch.arange(3), early=early)
    assert bool((low.isnan() & high.isnan()).all())


def test_no_neurons_and_no_batch_give_empty_bounds() -> None:
    graph = NETWORKS["residual"](0)
    box = random_box(graph, 2, seed=3)
    inputs = forward(graph, box).intermediate
    for part, index in ((box, torch.arange(0)), ((box[0][:0], box[1][:0]), torch.arange(3))):
        low, high = neuron_bounds(Relaxed(graph, part, inputs), graph.output, index)
        assert low.shape == high.shape == (len(part[0]), len(index))


def test_a_relu_without_bounds_is_an_error() -> None:
    graph = NETWORKS["fc"](0)
    box = random_box(graph, 1, seed=3)
    with pytest.raises(KeyError, match=graph.relus[-1].name):
        neuron_bounds(Relaxed(graph, box, {}), graph.output, torch.arange(3))
