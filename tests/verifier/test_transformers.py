"""Softmax, norms and attention in networks: proven bounds against ball arithmetic, and verdicts."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import onnx
import pytest
import torch

pytest.importorskip("flint", reason="python-flint is not installed")

from flint import arb
from torch import Tensor, nn

import zonocuda
from tests.relaxations.functions import Case
from tests.relaxations.ways import claims, property_of
from tests.verifier.exact import affine_map
from tests.verifier.graphs import sample_box
from zonocuda.graph import Add, Affine, Bilinear, Concat, Elementary, Graph, Node, Relu, interpret
from zonocuda.importers import from_module, load_network
from zonocuda.precision import summed_products
from zonocuda.verifier import Verdict, verify

Balls = list[arb]


class Block(nn.Module):
    """Attention and a feed-forward layer, with norms before them and sums around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        out: Tensor = x + self.feed(self.second(x))
        return out


class Transformer(nn.Module):
    """A block over an embedded sequence, and a classifier of its mean."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Linear(2, width), Block(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(self.embed(x)).mean(1))
        return out


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "softmax": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Softmax(1)), (3,)),
    "log softmax": (lambda: nn.Sequential(nn.Linear(3, 4), nn.LogSoftmax(1)), (3,)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), (3,)),
    "rms norm": (lambda: nn.Sequential(nn.RMSNorm(4), nn.Linear(4, 2)), (4,)),
    "group norm": (lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Flatten()), (4, 2)),
    "transformer": (Transformer, (3, 2)),
}
WIDTHS = [(w, d) for w in (0.05, 3.0) for d in (torch.float32, torch.float64)]
WIDTHS += [(0.0, torch.float32), (2.0**-20, torch.float64), (1e6, torch.float32)]


@cache
def graph_of(name: str) -> Graph:
    torch.manual_seed(1)
    build, shape = MODULES[name]
    graph = from_module(build().eval(), shape).to(torch.float64).current()
    with torch.no_grad():
        return Graph(graph.nodes, graph.output)


def ball(x: Fraction) -> arb:
    return arb(x.numerator) / arb(x.denominator)


@cache
def affine_balls(graph: Graph, node: Node) -> tuple[list[dict[int, arb]], Balls]:
    """A, by rows, and b of an affine node."""
    assert isinstance(node.op, Affine)
    matrix, offset = affine_map(node.op, graph[node.inputs[0]].shape)
    return [{j: ball(c) for j, c in row.items()} for row in matrix], [ball(b) for b in offset]


def run_in_balls(graph: Graph, x: Tensor) -> tuple[dict[str, Balls], Balls]:
    """Balls around every node's value, by name, and around the output."""
    seen: dict[str, Balls] = {}

    def step(node: Node, values: tuple[Balls, ...]) -> Balls:
        op = node.op
        if isinstance(op, Affine):
            matrix, offset = affine_balls(graph, node)
            return [sum((c * values[0][j] for j, c in row.items()), b) for row, b in zip(matrix, offset, strict=True)]
        if isinstance(op, Add):
            return [a + op.sign * b for a, b in zip(*values, strict=True)]
        if isinstance(op, Concat):
            assert len(graph[node.inputs[0]].shape) == 1
            return [v for part in values for v in part]
        if isinstance(op, Bilinear):
            half, terms = len(values[0]) // 2, op.terms
            products = [a * b for a, b in zip(values[0][:half], values[0][half:], strict=True)]
            return [sum(products[i : i + terms], arb(0)) for i in range(0, half, terms)]
        if isinstance(op, Relu):
            return [v.max(arb(0)) for v in values[0]]
        assert isinstance(op, Elementary)
        case = Case(op.function, op.parameter)
        return [case.of_ball(v) for v in values[0]]

    inputs = [arb(v) for v in x.flatten().tolist()]
    output = interpret(graph, inputs, step, lambda node, value: seen.update({node.name: value}))
    return seen, output


EACH = list(itertools.product(list(MODULES)[:-1], WIDTHS))
ONE_BLOCK = [("transformer", (2.0**-20, torch.float32)), ("transformer", (0.05, torch.float64))]


@pytest.mark.parametrize(("name", "case"), [*EACH, *ONE_BLOCK], ids=str)
def test_every_proven_bound_holds_in_balls(name: str, case: tuple[float, torch.dtype]) -> None:
    """Bounds of wide boxes may be infinite, or no numbers; what is a number holds."""
    width, dtype = case
    graph = graph_of(name)
    center = torch.randn(1, *graph.input_shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    low, high = center.to(dtype), (center + width).to(dtype)
    points = [low[0], high[0], *sample_box(low, high, 2, seed=1)[:2].reshape(2, *low[0].shape)]
    runs = [run_in_balls(graph, point) for point in (points[:2] if name == "transformer" else points)]
    with torch.no_grad(), summed_products():
        for what, inputs, bound in claims(graph, dtype, (low, high)):
            assert width > 0.1 or bool(bound.isfinite().all()), what
            for seen, y in runs:
                for node, (below, above) in inputs.items():
                    exact = seen[graph[node].inputs[0]]
                    for v, a, b in zip(exact, below.flatten().tolist(), above.flatten().tolist(), strict=True):
                        assert not arb(a) > v, f"{what}: {node}"
                        assert not arb(b) < v, f"{what}: {node}"
                for value, claim in zip([*y, *(-v for v in y)], bound.flatten().tolist(), strict=True):
                    assert not arb(claim) > value, what


@pytest.mark.parametrize("name", ["layer norm", "transformer"])
def test_what_holds_is_verified_and_a_planted_violation_never_is(name: str) -> None:
    graph = graph_of(name)
    center = torch.randn(1, *graph.input_shape, generator=torch.Generator().manual_seed(2)).double()
    box = (center.float() - 0.02).double(), (center.float() + 0.02).double()
    corners = itertools.islice(itertools.product((0.0, 1.0), repeat=center.numel()), 64)
    ends = torch.tensor(list(corners), dtype=torch.float64).reshape(-1, *graph.input_shape)
    least = float(graph(box[0] + (box[1] - box[0]) * ends)[:, 0].min().detach())
    lower = float(zonocuda.compute_bounds(graph, zonocuda.Zonotope.from_box(*box)).lower[0, 0])
    assert verify(graph, property_of(graph, box, lower - 1e-3), split="none").verdict is Verdict.VERIFIED
    planted = verify(graph, property_of(graph, box, least + 1e-4), timeout=5)
    assert planted.verdict in (Verdict.FALSIFIED, Verdict.UNKNOWN)


def test_an_execution_is_refused() -> None:
    graph = graph_of("softmax")
    box = torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    with pytest.raises(
        ValueError, match="is a part of what the network computes with other operators, of which nothing can be stated"
    ):
        verify(graph, property_of(graph, box, -1.0), semantics="float32")


def test_a_divisor_that_may_be_zero_bounds_nothing() -> None:
    class Over(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x[:, :1] + 3) / x[:, 1:]

    graph = from_module(Over(), (2,)).to(torch.float64)
    box = torch.tensor([[0.0, -0.5]]).double(), torch.tensor([[1.0, 0.5]]).double()
    for direction in ("forward", "dual"):
        bounds = zonocuda.compute_bounds(graph, zonocuda.Zonotope.from_box(*box), direction=direction)  # type: ignore[arg-type]
        assert not bool(bounds.lower.isfinite().any())
    assert verify(graph, property_of(graph, box, -1e30), timeout=5).verdict is not Verdict.VERIFIED


def test_a_file_that_torch_writes_is_the_module_and_has_its_bounds() -> None:
    """Its attention moves the batch and merges it with the heads; its GELU is five nodes."""
    torch.manual_seed(1)
    module, content = Transformer().eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.randn(1, 3, 2),), content, dynamo=False, opset_version=17)
    network = load_network(onnx.load_from_string(content.getvalue()))
    shape = network.graph.input_shape
    network.check(-torch.ones(shape), torch.ones(shape))
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(2))
    found = zonocuda.compute_bounds(network.graph, zonocuda.Zonotope.from_box(x - 0.02, x + 0.02))
    x = x.reshape(1, 3, 2)
    own = zonocuda.compute_bounds(from_module(module, (3, 2)), zonocuda.Zonotope.from_box(x - 0.02, x + 0.02))
    for one, other in ((found.lower, own.lower), (found.upper, own.upper)):
        torch.testing.assert_close(one.reshape(other.shape), other, rtol=1e-2, atol=1e-3)
