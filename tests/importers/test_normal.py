"""Quotients, softmax, norms and attention: from files and modules, compared with what executes them, and enclosed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.importers.modules import Apply
from tests.importers.onnx_models import Case, floats, one, op, save
from zonocuda import Zonotope, compute_bounds
from zonocuda.graph import Bilinear, Elementary, Graph, ScaleShift, interpret
from zonocuda.importers import UnsupportedNetworkError, from_module, load_network
from zonocuda.verifier.model import Subject

EPS = np.float32(1e-5).reshape(())
EXPONENT = np.float32(2).reshape(())

FILES = {
    "softmax": one("Softmax", [1, 3, 4], (3, 4), axis=-1),
    "softmax of another axis": one("Softmax", [1, 3, 4], (3, 4), axis=1),
    "softmax of all from an axis on": one("Softmax", [1, 3, 4], (3, 4), opset=11, axis=1),
    "log softmax": one("LogSoftmax", [1, 5], (5,), axis=1),
    "softmax as exp, sum and quotient": Case(
        [op("Exp", "x", "e"), op("ReduceSum", "e a", "s", keepdims=1), op("Div", "e s")],
        [1, 3, 4],
        (3, 4),
        {"a": np.array([2])},
    ),
    "softmax less the largest": Case(
        [
            op("ReduceMax", "x", "m", axes=[2], keepdims=1),
            op("Sub", "x m", "d"),
            op("Exp", "d", "e"),
            op("ReduceSum", "e a", "s", keepdims=1),
            op("Div", "e s"),
        ],
        [1, 3, 4],
        (3, 4),
        {"a": np.array([2])},
    ),
    "log of a sum of exps": one("ReduceLogSumExp", [1, 3, 4], (3,), axes=[2], keepdims=0),
    "log of a sum of exps over two axes": one("ReduceLogSumExp", [1, 3, 4, 2], (1, 4, 1), axes=[1, 3], keepdims=1),
    "layer norm": Case(
        [op("LayerNormalization", "x w b", axis=-1)], [1, 3, 4], (3, 4), {"w": floats(4), "b": floats(4, seed=1)}, 17
    ),
    "layer norm over two axes": Case(
        [op("LayerNormalization", "x w", axis=1, epsilon=0.01)], [1, 3, 4], (3, 4), {"w": floats(3, 4)}, 17
    ),
    "layer norm as seven nodes": Case(
        [
            op("ReduceMean", "x", "m", axes=[2], keepdims=1),
            op("Sub", "x m", "d"),
            op("Pow", "d two", "q"),
            op("ReduceMean", "q", "v", axes=[2], keepdims=1),
            op("Add", "v eps", "ve"),
            op("Sqrt", "ve", "r"),
            op("Div", "d r", "n"),
            op("Mul", "n w", "nw"),
            op("Add", "nw b"),
        ],
        [1, 3, 4],
        (3, 4),
        {"two": EXPONENT, "eps": EPS, "w": floats(4), "b": floats(4, seed=1)},
    ),
    "attention": Case(
        [
            *(op("MatMul", f"x w{side}", side) for side in "qkv"),
            op("Transpose", "k", "t", perm=[0, 2, 1]),
            op("MatMul", "q t", "s"),
            op("Div", "s root", "z"),
            op("Softmax", "z", "p", axis=-1),
            op("MatMul", "p v"),
        ],
        [1, 3, 4],
        (3, 4),
        {"root": np.float32(2).reshape(()), **{f"w{side}": floats(4, 4, seed=i) for i, side in enumerate("qkv")}},
    ),
    "instance norm": Case(
        [op("InstanceNormalization", "x w b")], [1, 2, 3, 3], (2, 3, 3), {"w": floats(2), "b": floats(2, seed=1)}
    ),
    "a constant over a branch": Case([op("Exp", "x", "e"), op("Div", "c e")], [1, 3], (3,), {"c": floats(3)}),
    "a branch over a branch": Case(
        [op("Exp", "x", "e"), op("Add", "e one", "p"), op("Div", "x p")],
        [1, 3],
        (3,),
        {"one": np.float32(1).reshape(())},
    ),
}


class Gated(nn.Module):
    """Attention with a mask, and a gated linear unit with an RMS norm."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm, self.gate = nn.Linear(4, 12), nn.RMSNorm(4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(2, (2, 2)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return F.glu(self.gate(y), 2)


class Mask(nn.Module):
    """Attention with given masks."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, x, x, attn_mask=self.mask)[0]
        return out


def _of(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Apply(function)


LATER = torch.ones(3, 3, dtype=torch.bool).triu(1)
MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "softmax": (lambda: nn.Softmax(2), (2, 3)),
    "log softmax": (lambda: nn.LogSoftmax(1), (4,)),
    "logsumexp": (_of(lambda x: torch.logsumexp(x, (1, 2))), (2, 3)),
    "softmax by hand": (_of(lambda x: x.exp() / x.exp().sum(1, keepdim=True)), (4,)),
    "quotient": (_of(lambda x: (x + 1) / (x.exp() + 1)), (3,)),
    "constant over": (_of(lambda x: 1 / (x.square() + 1)), (3,)),
    "layer norm": (lambda: nn.LayerNorm(5), (3, 5)),
    "layer norm of a map": (lambda: nn.LayerNorm((2, 3), elementwise_affine=False), (4, 2, 3)),
    "rms norm": (lambda: nn.RMSNorm(5, eps=1e-3), (3, 5)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (4, 3)),
    "instance norm": (lambda: nn.InstanceNorm2d(2, affine=True), (2, 3, 3)),
    "attention": (lambda: nn.MultiheadAttention(4, 2, batch_first=True), (3, 4)),
    "attention, a mask of truth values": (lambda: Mask(LATER), (3, 4)),
    "attention, a mask that is added": (lambda: Mask(torch.zeros(3, 3).masked_fill(LATER, -torch.inf) + 0.1), (3, 4)),
    "causal attention and a gate": (Gated, (3, 4)),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(4, 2, 6, 0.0, "gelu", batch_first=True), (3, 4)),
}


class Alone(nn.Module):
    """x as query, key and value of an attention."""

    def __init__(self, inner: nn.MultiheadAttention) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x, x, x, need_weights=False)[0]
        return out


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(3)
    make, shape = MODULES[name]
    model = make().eval()
    return (Alone(model) if isinstance(model, nn.MultiheadAttention) else model), shape


def by_nodes(graph: Graph, x: Tensor) -> Tensor:
    """What the nodes compute, whatever they are parts of."""
    return interpret(graph, x, lambda node, values: node.op.execute(*values))


def check_bounds(graph: Graph, function: Callable[[Tensor], Tensor], x: Tensor, width: float) -> None:
    """Both directions enclose a float64 function at random points and at corners; narrower for narrower boxes."""
    low, high = x - width, x + width
    points = torch.cat([torch.rand(200, *x.shape[1:]), torch.randint(0, 2, (200, *x.shape[1:]))]).double()
    y = function(low.double() + (high - low).double() * points)
    wide = graph.to(torch.float64)
    for direction in ("forward", "dual"):
        bounds = compute_bounds(wide, Zonotope.from_box(low.double(), high.double()), direction=direction)  # type: ignore[arg-type]
        assert bool(((y >= bounds.lower - 1e-6) & (y <= bounds.upper + 1e-6)).all()), direction
        spread = (y.amax(0) - y.amin(0)).mean()
        assert float((bounds.upper - bounds.lower).mean()) <= 6 * float(spread) + 1e-6, direction


@pytest.mark.parametrize("name", FILES)
def test_a_file_s_nodes_compute_what_onnx_runtime_does(name: str, tmp_path: Path) -> None:
    network = load_network(save(FILES[name].model(), tmp_path))
    graph = network.graph
    assert any(isinstance(node.op, Elementary) for node in graph.nodes)
    ones = torch.ones(graph.input_shape)
    network.check(-ones, ones)
    wide, x = graph.to(torch.float64), torch.randn(1, *graph.input_shape)
    torch.testing.assert_close(by_nodes(wide, x.double()), wide(x.double()), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(graph.to(torch.float32)(x), network.runtime(x), rtol=1e-4, atol=1e-5)
    check_bounds(graph, wide, x, 0.01)


@pytest.mark.parametrize("name", ["softmax as exp, sum and quotient", "softmax less the largest"])
def test_a_softmax_of_several_nodes_is_one_of_differences(name: str, tmp_path: Path) -> None:
    """No product is left: 1 / sum e^(x_j - x_i)."""
    graph = load_network(save(FILES[name].model(), tmp_path)).graph
    assert not any(isinstance(node.op, Bilinear) for node in graph.nodes)
    assert [node.op.function for node in graph.nodes if isinstance(node.op, Elementary)] == ["exp", "reciprocal"]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_s_graph_is_the_module_and_its_bounds_enclose_it(name: str) -> None:
    model, shape = build(name)
    graph = from_module(model, shape)
    x = torch.randn(1, *shape)
    with torch.no_grad():
        torch.testing.assert_close(graph.to(torch.float32)(x), model(x), rtol=1e-4, atol=1e-5)
        wide = graph.to(torch.float64)
        torch.testing.assert_close(by_nodes(wide, x.double()), wide(x.double()), rtol=1e-9, atol=1e-9)
        check_bounds(graph, model.double(), x, 0.01)


def test_torch_s_own_attention_is_there_again_after_an_import() -> None:
    own = nn.MultiheadAttention.forward
    model, shape = build("attention")
    from_module(model, shape)
    assert nn.MultiheadAttention.forward is own
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_module_with_attention_is_compared_with_itself() -> None:
    """Not with the attention that stands in for its own while it is traced."""
    model, shape = build("encoder layer")
    Subject.of(model, shape).agree(torch.randn(shape))


@pytest.mark.parametrize(
    ("make", "shape", "reason"),
    [
        (_of(lambda x: x.softmax(0)), (3,), "batch dimension"),
        (lambda: nn.LayerNorm(4, eps=0.0), (4,), "epsilon must be positive"),
        (_of(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)), (3, 4), "drops out"),
        (_of(lambda x: F.scaled_dot_product_attention(x, x, x, x @ x.transpose(1, 2))), (3, 4), "must be constant"),
        (lambda: Mask(torch.ones(3, 3, dtype=torch.bool)), (3, 4), "leaves nothing"),
        (_of(lambda x: x.softmax(1)), (4096,), "more than"),
    ],
)
def test_what_is_not_supported_is_refused(make: Callable[[], nn.Module], shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(UnsupportedNetworkError, match=reason):
        from_module(make().eval(), shape)


def test_a_scale_of_attention_encloses_it_as_a_double_and_as_float32() -> None:
    model = Apply(lambda x: F.scaled_dot_product_attention(x, x, x, scale=0.3)).eval()
    scaled = from_module(model, (3, 4))["scaled_dot_product_attention/scaled"].op
    assert isinstance(scaled, ScaleShift)
    assert scaled.scale is not None
    held, doubt = float(scaled.scale), float(scaled.doubt["scale"])
    assert held - doubt <= 0.3 <= held + doubt
    assert held - doubt <= float(np.float32(0.3)) <= held + doubt
