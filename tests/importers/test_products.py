"""Products of two values that depend on the input: from files and modules, compared with what executes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.importers.modules import Apply
from tests.importers.onnx_models import Case, floats, op, save
from tests.verifier.exact import evaluate, exactly
from zonocuda import Zonotope, compute_bounds
from zonocuda.graph import Bilinear, Concat, Gather, Graph, Node, interpret
from zonocuda.importers import NetworkMismatchError, UnsupportedNetworkError, from_module, load_network, load_onnx
from zonocuda.importers.check import check_against_onnxruntime
from zonocuda.importers.lowering_products import MAX_FACTORS

FILES = {
    "mul": Case([op("Relu", "x", "r"), op("Mul", "x r")], [1, 3], (3,)),
    "mul that broadcasts both": Case(
        [
            op("ReduceMean", "x", "m", axes=[2], keepdims=1),
            op("ReduceMean", "x", "n", axes=[1], keepdims=1),
            op("Mul", "m n"),
        ],
        [1, 3, 4],
        (3, 4),
    ),
    "mul of maps": Case([op("Neg", "x", "n"), op("Mul", "n x")], [1, 2, 3, 3], (2, 3, 3)),
    "matmul": Case(
        [op("Transpose", "x", "t", perm=[0, 2, 1]), op("MatMul", "x t")],
        [1, 3, 4],
        (3, 3),
    ),
    "matmul of stacks": Case(
        [op("MatMul", "x w", "a"), op("Transpose", "x", "t", perm=[0, 1, 3, 2]), op("MatMul", "t a")],
        [1, 2, 3, 4],
        (2, 4, 5),
        {"w": floats(4, 5)},
    ),
    "matmul that broadcasts": Case(
        [
            op("ReduceMean", "x", "m", axes=[1], keepdims=1),
            op("Transpose", "x", "t", perm=[0, 1, 3, 2]),
            op("MatMul", "m t"),
        ],
        [1, 2, 3, 4],
        (2, 3, 3),
    ),
    "without a batch": Case([op("Transpose", "x", "t", perm=[1, 0]), op("MatMul", "x t")], [2, 3], (2, 2)),
}


class Scores(nn.Module):
    """Two heads of x Q (x K)^T."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(4, 6), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k = (layer(x).unflatten(2, (2, 3)).transpose(1, 2) for layer in (self.q, self.k))
        return q @ k.transpose(2, 3)


class Gated(nn.Module):
    """relu(W x) * (V x)."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Linear(4, 5), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.w(x)) * self.v(x)


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "scores": (Scores, (3, 4)),
    "gated": (Gated, (4,)),
    "bmm": (lambda: Apply(lambda x: torch.bmm(x, x.transpose(1, 2))), (2, 3)),
    "mul that broadcasts": (lambda: Apply(lambda x: x.mean(1, keepdim=True) * x), (3, 4)),
    "baddbmm": (lambda: Apply(lambda x: torch.baddbmm(x, x.transpose(1, 2), x, alpha=0.5, beta=2.0)), (3, 3)),
}


def by_nodes(graph: Graph, x: Tensor) -> Tensor:
    """What the nodes compute, whatever they are parts of."""
    return interpret(graph, x, lambda node, values: node.op.execute(*values))


@pytest.mark.parametrize("name", FILES)
def test_a_file_s_nodes_compute_what_onnx_runtime_does(name: str, tmp_path: Path) -> None:
    """In rationals, and beside ONNX Runtime, node by node."""
    path = save(FILES[name].model(), tmp_path)
    network = load_network(path)
    assert any(isinstance(node.op, Bilinear) for node in network.graph.nodes)
    ones = torch.ones(network.graph.input_shape)
    network.check(-ones, ones)
    graph = load_onnx(path).to(torch.float64)
    x = torch.randn(1, *graph.input_shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    exact = torch.tensor([float(v) for v in evaluate(graph, exactly(x))], dtype=torch.float64)
    torch.testing.assert_close(graph(x).flatten(), exact, rtol=1e-13, atol=1e-13)


def test_a_wrong_product_is_told_from_onnx_runtime_s(tmp_path: Path) -> None:
    """One factor's columns in another order."""
    network = load_network(save(FILES["matmul"].model(), tmp_path))
    wrong = []
    for node in network.graph.nodes:
        if isinstance(node.op, Concat):
            count = node.shape[0] // 2
            wrong.append(Node("swap", Gather(0, (1, 0, *range(2, count))), node.inputs[1:], (count,), node.dtype))
            node = replace(node, inputs=(node.inputs[0], "swap"))
        wrong.append(node)
    ones = torch.ones(network.graph.input_shape)
    with pytest.raises(NetworkMismatchError):
        check_against_onnxruntime(Graph(tuple(wrong), network.graph.output), network.runtime, -ones, ones)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_s_graph_is_the_module_and_so_are_its_nodes(name: str) -> None:
    torch.manual_seed(3)
    build, shape = MODULES[name]
    model = build().eval()
    graph = from_module(model, shape)
    assert any(isinstance(node.op, Bilinear) for node in graph.nodes)
    x = torch.randn(5, *shape)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), model(x))
        wide = graph.to(torch.float64)
        torch.testing.assert_close(by_nodes(wide, x.double()), wide(x.double()), rtol=1e-12, atol=1e-12)
        low, high = x - 0.1, x + 0.1
        for direction in ("forward", "dual"):
            bounds = compute_bounds(graph, Zonotope.from_box(low, high), direction=direction)  # type: ignore[arg-type]
            for _ in range(50):
                y = model(low + (high - low) * torch.rand_like(x))
                assert bool(((y >= bounds.lower - 1e-5) & (y <= bounds.upper + 1e-5)).all())


def test_more_factors_than_bounds_can_hold_are_refused() -> None:
    with pytest.raises(UnsupportedNetworkError, match=f"more than {MAX_FACTORS} factors"):
        from_module(Apply(lambda x: x.unsqueeze(2) @ torch.relu(x).unsqueeze(1)), (2048,))
