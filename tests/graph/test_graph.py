"""The graph's validation, its traversal, and its conversion."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn

from zonocuda.graph import Add, Graph, Input, Linear, Node, Relu, Reshape, ScaleShift, interpret, prune
from zonocuda.graph.ops import Op, Shape


def node(name: str, op: Op, *inputs: str, shape: Shape = (2,)) -> Node:
    return Node(name, op, inputs, shape)


def residual() -> Graph:
    """x -> linear -> relu -> add (with x) -> half."""
    torch.manual_seed(0)
    nodes = (
        node("x", Input()),
        node("linear", Linear(torch.randn(2, 2), torch.randn(2)), "x"),
        node("relu", Relu(), "linear"),
        node("sum", Add(), "relu", "x"),
        node("half", ScaleShift(torch.tensor([0.5]), None), "sum"),
    )
    return Graph(nodes, "half")


def test_a_graph_computes_its_nodes_in_order() -> None:
    graph = residual()
    linear = graph["linear"].op
    assert isinstance(linear, Linear)
    assert linear.bias is not None
    x = torch.randn(5, 2)
    expected = 0.5 * (torch.relu(x @ linear.weight.T + linear.bias) + x)
    torch.testing.assert_close(graph(x), expected)
    assert (graph.input_shape, graph.output_shape) == ((2,), (2,))
    assert [relu.name for relu in graph.relus] == ["relu"]


@pytest.mark.parametrize(
    ("nodes", "output", "message"),
    [
        ((), "x", "not a node"),
        ((node("x", Input()),), "y", "not a node"),
        ((node("r", Relu()), node("x", Input())), "r", "must be the Input"),
        ((node("x", Input()), node("y", Input())), "y", "must be the Input"),
        ((node("x", Input()), node("r", Relu(), "z")), "r", "not before it"),
        ((node("x", Input()), node("a", Relu(), "b"), node("b", Relu(), "x")), "a", "not before it"),
        ((node("x", Input()), node("x", Relu(), "x")), "x", "duplicate name"),
    ],
    ids=["empty", "unknown output", "input last", "two inputs", "unknown input", "wrong order", "duplicate"],
)
def test_a_malformed_graph_is_refused(nodes: tuple[Node, ...], output: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Graph(nodes, output)


def test_an_unknown_node_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        residual()["nothing"]


class Tracked:
    """A value that can be referred to weakly."""


def test_values_are_forgotten_after_their_last_use() -> None:
    alive: dict[str, weakref.ref[Tracked]] = {}
    living_at: dict[str, set[str]] = {}

    def transform(current: Node, inputs: tuple[Tracked, ...]) -> Tracked:
        living_at[current.name] = living()
        return Tracked()

    def observe(current: Node, value: Tracked) -> None:
        alive[current.name] = weakref.ref(value)

    def living() -> set[str]:
        return {name for name, reference in alive.items() if reference() is not None} - {"x"}  # x is the caller's

    result = interpret(residual(), Tracked(), transform, observe)
    assert living_at == {"linear": set(), "relu": {"linear"}, "sum": {"relu"}, "half": {"sum"}}
    assert living() == {"half"}
    assert alive["half"]() is result


def test_a_node_that_reads_one_value_twice_gets_it_twice() -> None:
    graph = Graph((node("x", Input()), node("twice", Add(), "x", "x")), "twice")
    assert graph(torch.tensor([[1.0, 2.0]])).tolist() == [[2.0, 4.0]]


def test_an_output_that_is_also_read_inside_survives() -> None:
    nodes = (node("x", Input()), node("a", Relu(), "x"), node("b", Relu(), "a"))
    assert Graph(nodes, "a")(torch.tensor([[-1.0, 2.0]])).tolist() == [[0.0, 2.0]]


def test_the_input_can_be_the_output() -> None:
    x = torch.randn(1, 2)
    assert Graph((node("x", Input()),), "x")(x) is x


def test_prune_keeps_what_the_output_needs_and_the_input() -> None:
    nodes = (node("x", Input()), node("dead", Relu(), "x"), node("r", Relu(), "x"), node("after", Relu(), "r"))
    assert [kept.name for kept in prune(nodes, "r")] == ["x", "r"]
    assert [kept.name for kept in prune(nodes, "x")] == ["x"]


def test_conversion_changes_every_float_tensor_and_keeps_gradients() -> None:
    weight = nn.Parameter(torch.randn(3, 2))
    index = (node("x", Input()), node("y", Linear(weight, torch.zeros(3)), "x", shape=(3,)))
    graph = Graph((*index, node("z", Reshape((3, 1)), "y", shape=(3, 1))), "z")
    wide = graph.to(torch.float64)
    linear = wide["y"].op
    assert isinstance(linear, Linear)
    assert isinstance(linear.bias, Tensor)
    assert linear.weight.dtype == linear.bias.dtype == torch.float64
    wide(torch.ones(1, 2, dtype=torch.float64)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 1.0]] * 3
    same = graph.to(torch.float32)["y"].op
    assert isinstance(same, Linear)
    assert same.weight is weight
