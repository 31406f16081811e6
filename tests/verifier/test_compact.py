"""A network without its dead neurons is the same function on the box, with the same bounds."""

from __future__ import annotations

import pytest
import torch

from tests.verifier.graphs import NETWORKS, Builder, fc, random_box, sample_box
from zonocuda.bounds.dual.compact import Compact, compact
from zonocuda.bounds.dual.slopes import Slopes
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.bounds.interval import Bounds
from zonocuda.domains import Zonotope
from zonocuda.graph import Add, Graph, Relu

WIDE = (5, 30, 30, 30, 3)


def shortened(graph: Graph, seed: int, batch: int = 2, width: float = 0.2) -> tuple[Bounds, Compact]:
    """A box, and what is left of a network on it."""
    box = random_box(graph, batch, width=width, seed=seed)
    return box, compact(graph, sweep(graph, Zonotope.from_box(*box)).intermediate)


@pytest.mark.parametrize("kind", [*NETWORKS, "wide"])
@pytest.mark.parametrize("batch", [1, 2])
def test_on_the_box_nothing_changes(kind: str, batch: int) -> None:
    graph = fc(1, WIDE) if kind == "wide" else NETWORKS[kind](1)
    box, left = shortened(graph, 4, batch)
    for element in range(batch):
        x = sample_box(box[0][element], box[1][element], 200)
        torch.testing.assert_close(left.graph(x), graph(x), rtol=1e-12, atol=1e-12)
    for name, (low, high) in left.intermediate.items():
        assert low.shape[1:] == left.graph[name].shape
        index = left.kept.get(name)
        whole = left.whole[name]
        assert torch.equal(low, whole[0] if index is None else whole[0][:, index])
        assert torch.equal(high, whole[1] if index is None else whole[1][:, index])


def test_neurons_leave_that_are_dead_in_the_whole_batch_and_no_others() -> None:
    _, left = shortened(fc(2, WIDE), 5)
    assert set(left.kept) == {node.name for node in left.graph.relus}
    for name, index in left.kept.items():
        upper = left.whole[name][1]
        alive = (upper > 0).any(0)
        assert 0 < len(index) < len(alive)
        assert torch.equal(index, alive.nonzero().squeeze(1))


def dead_bounds(graph: Graph) -> dict[str, Bounds]:
    """Bounds with which every neuron is dead."""
    return {n.name: (-torch.ones(1, *n.shape).double(), -torch.ones(1, *n.shape).double()) for n in graph.relus}


def test_a_nan_is_not_dead_and_a_dead_layer_keeps_one_neuron() -> None:
    graph = fc(0)
    first, second = (node.name for node in graph.relus)
    inputs = {
        node.name: (-torch.ones(1, *node.shape).double(), -torch.ones(1, *node.shape).double()) for node in graph.relus
    }
    inputs[second][1][0, 2] = torch.nan
    left = compact(graph, inputs)
    assert left.kept[first].tolist() == [0]
    assert left.kept[second].tolist() == [2]
    assert left.graph(torch.zeros(1, 4).double()).shape == (1, 3)


def test_neurons_that_others_than_linear_layers_read_stay() -> None:
    b = Builder(4, seed=3)
    hidden = b(Relu(), b(b.linear(4, 4), "x"))
    b(Add(), hidden, "x")
    b(Relu())
    b(b.linear(4, 3))
    assert compact(b.graph(), dead_bounds(b.graph())).kept == {}


def test_bounds_and_slopes_find_back_to_their_places() -> None:
    _, left = shortened(fc(2, WIDE), 5)
    name, index = next(iter(left.kept.items()))
    low, high = left.intermediate[name]
    tighter = {**left.intermediate, name: (low + 0.5, high - 0.5)}
    wide = left.widen(tighter)
    assert torch.equal(wide[name][0][:, index], low + 0.5)
    dead = torch.ones(30, dtype=torch.bool)
    dead[index] = False
    assert torch.equal(wide[name][1][:, dead], left.whole[name][1][:, dead])
    other = next(n for n in left.kept if n != name)
    assert wide[other] is left.whole[other]

    start = {name: Slopes(None, torch.rand(2, 1, 30).double())}
    narrow = left.narrow_slopes(start)[name].nonnegative
    assert narrow is not None
    assert narrow.shape == (2, 1, len(index))
    back = left.widen_slopes({name: Slopes(None, narrow.expand(-1, 4, -1))}, start)[name].nonnegative
    assert back is not None
    assert torch.equal(back, start[name].nonnegative.expand(-1, 4, -1))  # type: ignore[union-attr]
    zero = left.widen_slopes({name: Slopes(None, narrow)}, {})[name].nonnegative
    assert zero is not None
    assert not bool(zero[:, :, dead].any())
