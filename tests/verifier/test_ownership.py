"""A sweep that works in recycled memory gives the numbers of one that does not, and leaves what others hold alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.thorough import pairs
from tests.verifier.graphs import NETWORKS, as_dense, random_box
from tests.verifier.naive import gamma, generators, propagate, rounding
from tests.verifier.whole import WholeBuilder, halves, whole_input
from zonocuda.bounds.forward.sweep import Means, Sweep, sweep
from zonocuda.bounds.plan.ownership import Ownership
from zonocuda.domains import Dense, Zonotope, memory, use_backend, windowed
from zonocuda.graph import Add, AveragePool, Concat, Expand, Gather, Graph, Node, Pad, Reduce, Relu, Reshape, Transpose
from zonocuda.graph import ScaleShift as Scale


def check(graph: Graph, start: Zonotope, backend: str = "native") -> None:
    """Bounds, center and generators of the sweep in place are those of the definition, bit for bit."""
    expected = propagate(graph, generators(start), halves(graph))
    kept = [tensor.clone() for block in start.blocks for tensor in block.tensors]
    with use_backend(backend), torch.no_grad():
        found = sweep(graph, start, slopes=halves(graph))
        got = generators(found.output)
        again = sweep(graph, start, slopes=halves(graph))
    assert torch.equal(got.center, expected.center)
    assert got.groups.keys() == expected.groups.keys()
    for name, rows in expected.groups.items():
        assert torch.equal(got.groups[name], rows), name
    for ours, theirs in zip(found.output.bounds(), expected.bounds(), strict=True):
        assert torch.equal(ours, theirs)
    for name, bounds in found.intermediate.items():
        assert torch.equal(torch.stack(bounds), torch.stack(again.intermediate[name]))
    tensors = [tensor for block in start.blocks for tensor in block.tensors]
    assert all(torch.equal(a, b) for a, b in zip(tensors, kept, strict=True))


# ---- a value and another one in the same memory ----------------------------------------------------------------------


def _disjoint_sum(b: WholeBuilder, value: str) -> str:
    """A sum with a constant: all of its generators are those of the value."""
    return b(Add(), value, b(Scale(torch.zeros(b.shape(value), dtype=torch.float64), None), value))


ALIASES: dict[str, Callable[[WholeBuilder, str], str]] = {
    "reshape": lambda b, value: b(Reshape(b.shape(value)[::-1]), value),
    "transpose": lambda b, value: b(Transpose((1, 2, 0)), value),
    "pad": lambda b, value: b(Pad(((0, 0), (1, 0), (0, 2))), value),
    "crop": lambda b, value: b(Pad(((0, 0), (-1, 0), (0, 0))), value),
    "pad by nothing": lambda b, value: b(Pad(((0, 0), (0, 0), (0, 0))), value),
    "gather everything": lambda b, value: b(Gather(0, tuple(range(b.shape(value)[0]))), value),
    "gather": lambda b, value: b(Gather(0, (1, 0)), value),
    "shift": lambda b, value: b(Scale(None, b.random(b.shape(value)[0], 1, 1)), value),
    "scale": lambda b, value: b.factor(b.shape(value)[0], 1, 1, source=value),
    "concatenation": lambda b, value: b(Concat(0), value, "x"),
    "concatenation of one": lambda b, value: b(Concat(0), value),
    "sum": _disjoint_sum,
    "a reshape of a reshape": lambda b, value: b(Reshape(b.shape(value)), b(Reshape(b.shape(value)[::-1]), value)),
    "expand": lambda b, value: b(Expand(b.shape(value)), value),
}

USES: dict[str, Callable[[WholeBuilder, str], str]] = {
    "relu": lambda b, value: b(Relu(), value),
    "conv": lambda b, value: b.convolution(2, source=value),
    "linear": lambda b, value: b.dense(3, value),
    "scale": lambda b, value: b.factor(*b.shape(value), source=value),
    "scale per channel": lambda b, value: b.factor(b.shape(value)[0], 1, 1, source=value),
    "pool": lambda b, value: b(AveragePool((2, 2), (2, 2)), value),
    "reduce": lambda b, value: b(Reduce((1, 2), False, False), value),
    "reshape and relu": lambda b, value: b(Relu(), b(Reshape((1, *b.shape(value))), value)),
    "difference": lambda b, value: b(Add(-1), b.convolution(b.shape(value)[0], source="x"), value),
    "minuend": lambda b, value: b(Add(-1), value, b.convolution(b.shape(value)[0], source="x")),
    "concatenation": lambda b, value: b(Relu(), b(Concat(0), value, "x")),
}


def _aliased(alias: str, use: str, start: str, alias_first: bool) -> Graph:
    """A value in the memory of another one, which is used for the last time while the first still lives."""
    b = WholeBuilder(2, 3, 4, seed=len(alias) + 31 * len(use))
    value = b.convolution(2)
    if start == "relu":
        value = b(Relu(), value)
    makers = [lambda: ALIASES[alias](b, value), lambda: USES[use](b, value)]
    first, second = (make() for make in (makers if alias_first else makers[::-1]))
    more = b.convolution(3, source="x")  # new memory, where it was released too early
    tail = b(Relu(), b.convolution(3, source=more))
    flat = [b.flat(name) for name in (first, second, tail)]
    b(Concat(0), *flat)
    b.dense(5)
    return b.graph()


@pairs(alias=ALIASES, use=USES, start=["conv", "relu"], alias_first=[True, False], share=[-1.0, 1e9])
def test_what_lies_in_the_same_memory_as_a_live_value_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch, alias: str, use: str, start: str, alias_first: bool, share: float
) -> None:
    monkeypatch.setattr(windowed, "DENSE_SHARE", share)  # all dense, all windows
    graph = _aliased(alias, use, start, alias_first)
    check(graph, whole_input(graph, batch=1))


def test_an_alias_of_the_output_does_not_change_it() -> None:
    b = WholeBuilder(6)
    value = b.dense(5)
    out = b(Reshape((5, 1)), value)
    b(Relu(), value)  # not used by the output
    graph = Graph(tuple(b.nodes), out)
    check(graph, whole_input(graph))


# ---- what belongs to the caller --------------------------------------------------------------------------------------


def caller_networks() -> dict[str, Graph]:
    """Networks that begin with something that works in place, or in the memory of its input."""
    graphs = {}
    for name in ("relu", "scale", "pool", "conv", "difference"):
        b = WholeBuilder(2, 6, 6, seed=3)
        USES[name](b, "x")
        graphs[name] = b.graph()
    for name, add in ALIASES.items():
        b = WholeBuilder(2, 6, 6, seed=4)
        b(Relu(), add(b, "x"))
        b.flat()
        b.dense(3)
        graphs[f"{name} and relu"] = b.graph()
    b = WholeBuilder(2, 6, 6)
    b.dense(2, b.flat("x"))
    graphs["flatten and linear"] = b.graph()
    return graphs


@pytest.mark.parametrize("kind", ["diagonal", "dense", "windowed"])
@pytest.mark.parametrize("name", caller_networks())
def test_the_zonotope_of_the_caller_is_left_as_it_was(name: str, kind: str) -> None:
    graph = caller_networks()[name]
    start = whole_input(graph)
    if kind == "dense":
        start = as_dense(start)
    if kind == "windowed":
        start = Zonotope(start.center, (start.blocks[0].windowed((2, 6, 6)),))
    check(graph, start)


def test_generators_of_the_caller_need_not_be_contiguous() -> None:
    b = WholeBuilder(3, 4)
    b(Relu())
    b(Relu(), b(Transpose((1, 0))))
    b.dense(2)
    graph = b.graph()
    rows = torch.randint(-2, 3, (2, 4, 3, 5)).double().transpose(1, 3)
    assert not rows.is_contiguous()
    start = Zonotope.from_generators(torch.zeros(2, 3, 4, dtype=torch.float64), rows)
    check(graph, start)


def test_the_output_outlives_the_pool_and_later_sweeps() -> None:
    for name in ("residual", "concat", "pooling", "everything"):
        graph = NETWORKS[name](5)
        with torch.no_grad():
            found = sweep(graph, Zonotope.from_box(*random_box(graph, 2)), all_layers=True)
            kept = _everything(found)
            for seed in range(3):
                sweep(graph, Zonotope.from_box(*random_box(graph, 2, seed=seed)))
            torch.full((10**6,), torch.nan)  # whatever is free is written over
        assert all(torch.equal(a, b) for a, b in zip(_everything(found), kept, strict=True))


def _everything(found: Sweep) -> list[Tensor]:
    """Copies of all numbers of a sweep."""
    pairs = [*found.intermediate.values(), *found.layers.values(), found.output.bounds()]
    return [t.clone() for t in (found.output.center, *generators(found.output).groups.values(), *sum(pairs, ()))]


def test_two_sweeps_of_one_zonotope_share_its_symbols_and_no_memory() -> None:
    b = WholeBuilder(2, 8, 8)
    b(Relu(), b.convolution(3))
    b.convolution(2)
    graph = b.graph()
    start = whole_input(graph)
    with torch.no_grad():
        one, two = (sweep(graph, start, slopes=halves(graph)).output for _ in range(2))
    difference = generators(one - two)
    assert not bool(difference.groups["input"].any())
    addresses = [[t.data_ptr() for block in z.blocks for t in block.tensors if t.numel()] for z in (one, two)]
    assert not set(addresses[0]) & set(addresses[1])


# ---- in every mode ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_sweep_in_place_gives_the_numbers_of_one_that_records_gradients(name: str, backend: str) -> None:
    """To rounding, as products of other shapes add their terms in another order."""
    for seed in range(2):
        graph = NETWORKS[name](seed)
        start = Zonotope.from_box(*random_box(graph, 2, seed=seed))
        with use_backend(backend):
            with torch.enable_grad():
                found = sweep(graph, start, all_layers=True)
            recorded = found.output
            with torch.no_grad():
                owned = sweep(graph, start).output
            with torch.inference_mode():
                inference = sweep(graph, start).output
        error = rounding(graph, found.layers, recorded.symbols)[graph.output]
        slack = 2 * (error + gamma(recorded.symbols + 2) * (recorded.center.abs() + recorded.radius()))
        for other in (owned, inference):
            for a, b in zip(other.bounds(), recorded.bounds(), strict=True):
                assert bool(((a - b).abs() <= slack).all())


def test_nothing_is_overwritten_while_gradients_are_recorded() -> None:
    b = WholeBuilder(4)
    b(Relu(), b.dense(4))
    ownership = Ownership(b.graph(), enabled=False)
    assert not any(ownership.may_overwrite(node) for node in b.nodes[1:])


def _answers(b: WholeBuilder, output: str | None = None) -> dict[str, bool]:
    graph = b.graph() if output is None else Graph(tuple(b.nodes), output)
    ownership = Ownership(graph, enabled=True)
    return {node.name: ownership.may_overwrite(node) for node in graph.nodes[1:]}


def test_a_chain_works_in_the_memory_of_its_first_layer() -> None:
    b = WholeBuilder(2, 4, 4)
    names = [b.convolution(2), b(Relu()), b.factor(2, 1, 1), b.flat(), b(Relu()), b.dense(3)]
    assert _answers(b) == dict(zip(names, [False, True, True, True, True, True], strict=True))


def test_a_residual_block_overwrites_at_the_last_use_only() -> None:
    b = WholeBuilder(2, 4, 4)
    start = b(Relu(), b.convolution(2))
    scaled = b.factor(2, 1, 1, source=start)  # beside its input, which is needed again
    inner = b.convolution(2)
    total = b(Add(), start, inner)
    answers = _answers(b)
    assert [answers[name] for name in (scaled, inner, total)] == [False, True, True]


def test_a_value_that_one_node_reads_twice_is_not_overwritten_there() -> None:
    b = WholeBuilder(4)
    value = b.dense(4)
    total = b(Add(-1), value, value)
    after = b(Relu())
    answers = _answers(b)
    assert not answers[total]
    assert not answers[after]  # it may be the value's own memory
    graph = b.graph()
    check(graph, whole_input(graph))


def test_the_output_is_never_overwritten() -> None:
    b = WholeBuilder(4)
    out = b.dense(4)
    after = b(Relu())
    assert not _answers(b, out)[after]


def test_stopping_a_sweep_gives_its_memory_back_and_hurts_nothing() -> None:
    b = WholeBuilder(2, 8, 8)
    b(Relu(), b.convolution(3))
    stop = b.convolution(3)
    b(Relu())
    graph = b.graph()
    start = as_dense(whole_input(graph))

    def interrupt(node: Node) -> None:
        if node.name == stop:
            raise TimeoutError

    with torch.no_grad(), pytest.raises(TimeoutError):
        sweep(graph, start, Means(on_node=interrupt))
    before = torch.ones(4)
    assert memory.empty((4,), before).untyped_storage().nbytes() == 16  # no pool is left behind
    check(graph, start)


def test_the_memory_of_dead_values_serves_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    take = memory.Pool.take

    def count(self: memory.Pool, size: int, like: Tensor) -> Tensor:
        buffer = take(self, size, like)
        taken.append(buffer.untyped_storage().data_ptr())
        return buffer

    monkeypatch.setattr(memory.Pool, "take", count)
    b = WholeBuilder(40)
    for _ in range(6):
        b.dense(40)
    start = as_dense(whole_input(b.graph()))
    assert isinstance(start.blocks[0], Dense)
    with torch.no_grad():
        sweep(b.graph(), start)
    assert len(taken) == 6
    assert len(set(taken)) == 2  # one to read, one to write
