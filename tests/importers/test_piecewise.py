"""Piecewise linear operators: what their nodes compute, what they are as a whole, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.importers.modules import Apply
from tests.importers.onnx_models import save
from tests.importers.piecewise_models import PIECEWISE
from tests.importers.piecewise_modules import MODULES, SOME_INFINITE
from tests.verifier.exact import evaluate, exactly
from zonocuda.graph import Gather, Graph, Relu, interpret
from zonocuda.importers import UnsupportedNetworkError, from_module, load_onnx


def by_nodes(graph: Graph, x: Tensor) -> Tensor:
    """What the nodes compute, whatever they are parts of."""
    return interpret(graph, x, lambda node, values: node.op.execute(*values))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_s_graph_is_the_module_and_so_are_its_nodes(name: str) -> None:
    torch.manual_seed(3)
    build, shape = MODULES[name]
    model = build().eval()
    graph = from_module(model, shape)
    assert any(isinstance(node.op, Relu) for node in graph.nodes) or name.startswith(("where", "clamp to"))
    x = torch.randn(5, *shape)
    with torch.no_grad():
        expected = model(x.clone())
        if name not in ("a network", "hardsigmoid"):
            assert torch.equal(graph(x), expected)  # limits, maxima and the like round nothing
        wide = graph.to(torch.float64)
        torch.testing.assert_close(by_nodes(wide, x.double()), wide(x.double()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PIECEWISE)
def test_a_file_s_nodes_compute_exactly_what_the_operators_do(name: str, tmp_path: object) -> None:
    """In rationals, up to what float64 cannot hold of derived constants; at float32 points, which no limit of that type
    cuts."""
    graph = load_onnx(save(PIECEWISE[name].model(), tmp_path)).to(torch.float64)  # type: ignore[arg-type]
    x = torch.randn(1, *graph.input_shape, generator=torch.Generator().manual_seed(5)).double()
    exact = torch.tensor([float(v) for v in evaluate(graph, exactly(x))], dtype=torch.float64)
    torch.testing.assert_close(graph(x).flatten(), exact, rtol=1e-13, atol=1e-13)


def test_windows_that_hang_over_are_slices_of_the_input_with_its_border_repeated() -> None:
    graph = from_module(nn.MaxPool2d(3, 2, 1), (2, 9, 9))
    for node in graph.nodes:
        if isinstance(node.op, Gather) and len(node.op.index) > 1:
            steps = {b - a for a, b in zip(node.op.index, node.op.index[1:], strict=False)}
            assert steps == {2}


def test_a_pool_of_pairs_takes_three_rectifiers_for_each_result() -> None:
    graph = from_module(nn.MaxPool2d(2), (1, 4, 4))
    assert sum(node.shape[1] * node.shape[2] for node in graph.relus) == 3 * 4


def test_the_parts_of_an_operator_survive_conversions_and_pickles() -> None:
    graph = from_module(nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(0.1), nn.Hardtanh()), (3,))
    x = torch.randn(4, 3)
    again = pickle.loads(pickle.dumps(graph))
    assert torch.equal(again(x), graph(x))
    assert [node.part is None for node in again.nodes] == [node.part is None for node in graph.nodes]
    assert len(graph.to(torch.float64).whole.nodes) == 4 < len(graph.nodes)


def test_slopes_that_are_parameters_are_followed_and_have_gradients() -> None:
    model = nn.PReLU(3)
    graph = from_module(model, (3, 2))
    x = torch.randn(4, 3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([0.3, -1.0, 2.0]))
    assert torch.equal(graph(x), model(x))
    by_nodes(graph.to(torch.float32), x).sum().backward()
    assert model.weight.grad is not None
    (expected,) = torch.autograd.grad(model(x).sum(), [model.weight])
    torch.testing.assert_close(model.weight.grad, expected)


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...], str]] = {
    "indices": (lambda x: F.max_pool2d(x, 2, return_indices=True)[1].float(), (1, 4, 4), "indices of maxima"),
    "indices of a dimension": (lambda x: x.max(dim=1)[1].float() + x[:, 0], (3,), "indices of maxima"),
    "a maximum of everything": (lambda x: x + x.max(), (3,), "aten.max.default"),
    "a threshold that jumps": (lambda x: F.threshold(x, 0.1, 20.0), (3,), "it jumps at its threshold"),
    "hard shrink": (F.hardshrink, (3,), "is not supported"),
    "a random slope": (lambda x: F.rrelu(x, training=True), (3,), "rrelu"),
    "a limit beyond all numbers": (lambda x: x.clamp(min=torch.inf), (3,), "leaves no number"),
    "a limit that is no number": (lambda x: x.clamp(min=torch.tensor(torch.nan)), (3,), "not a number"),
    "a condition that depends on the input": (lambda x: torch.where(x > 0, x, -x), (3,), "is not supported"),
    "limits of each batch element": (lambda x: torch.maximum(x, torch.ones(2, 3)), (3,), "batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_continuous_or_not_supported_is_refused(name: str) -> None:
    function, shape, message = REFUSED[name]
    with pytest.raises(UnsupportedNetworkError, match=message):
        from_module(Apply(function), shape)


def test_infinite_limits_are_none() -> None:
    plain = from_module(Apply(lambda x: x.clamp(SOME_INFINITE)), (3,))
    x = torch.tensor([[-1e30, -5.0, -2.0]], dtype=torch.float64)
    assert by_nodes(plain.to(torch.float64), x).tolist() == [[-1e30, pytest.approx(0.2), -2.0]]
