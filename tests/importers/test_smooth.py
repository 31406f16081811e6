"""Smooth functions from modules and files: what their graphs compute, their constants, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from flint import arb, ctx
from torch import nn

from tests.importers.modules import Apply
from tests.importers.onnx_models import Case, one, op, save
from tests.importers.smooth_models import SMOOTH, SMOOTH_MODULES
from zonocuda.graph import Elementary, Graph, ScaleShift
from zonocuda.importers import UnsupportedNetworkError, from_module, load_onnx


def functions(graph: Graph) -> list[str]:
    return [node.op.function for node in graph.nodes if isinstance(node.op, Elementary)]


WIDE = ("tanh", "gelu", "selu", "celu, alpha", "softplus, beta", "gelu as five calls")
EACH_MODULE = [*((name, torch.float32) for name in SMOOTH_MODULES), *((name, torch.float64) for name in WIDE)]


@pytest.mark.parametrize(("name", "dtype"), EACH_MODULE, ids=str)
def test_a_module_s_graph_computes_what_the_module_does(name: str, dtype: torch.dtype) -> None:
    build, function = SMOOTH_MODULES[name]
    torch.manual_seed(4)
    layer = build()
    if dtype == torch.float64 and isinstance(layer, nn.Softplus):
        layer = nn.Softplus(layer.beta, 40.0)
    model = nn.Sequential(nn.Linear(7, 7), layer).eval().to(dtype)
    graph = from_module(model, (7,))
    assert functions(graph)[-1] == function
    x = 3 * torch.randn(64, 7, generator=torch.Generator().manual_seed(2), dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(graph.to(torch.float64)(x.double()), model(x).double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in SMOOTH if "product" in name or "five" in name])
def test_what_exporters_write_with_several_nodes_is_one_function(name: str, tmp_path: Path) -> None:
    assert len(functions(load_onnx(save(SMOOTH[name].model(), tmp_path)))) == 1


def test_gelu_of_several_nodes_has_the_file_s_own_constants(tmp_path: Path) -> None:
    """x / c, c = float32(1.41), is no GELU; the graph computes it all the same, up to the roundings that it counts."""
    c, half = np.float32(1.41), np.float32(0.5)
    nodes = [op("Div", "x c", "d"), op("Erf", "d", "e"), op("Add", "e i", "a"), op("Mul", "x a", "m"), op("Mul", "m h")]
    constants = {"c": c.reshape(()), "i": np.float32(1).reshape(()), "h": half.reshape(())}
    graph = load_onnx(save(Case(nodes, [1, 3], (3,), constants).model(), tmp_path))
    before = ctx.prec
    ctx.prec = 200
    try:
        inner, bent, outer = graph.nodes[1:4]
        assert isinstance(inner.op, ScaleShift)
        assert isinstance(outer.op, ScaleShift)
        assert functions(graph) == ["gelu"]
        held = [arb(float(t)) for t in (inner.op.scale, outer.op.scale)]  # type: ignore[arg-type]
        wide = arb(2).sqrt() / arb(float(c))
        exact = [wide, 2 / wide]
        for own, true, node in zip(held, exact, (inner, outer), strict=True):
            assert isinstance(node.op, ScaleShift)
            assert abs(own - true) <= node.op.roundings * abs(own) * arb(2) ** -53
            assert node.op.roundings < 40
        assert bent.inputs == (inner.name,)
    finally:
        ctx.prec = before


def test_a_gelu_whose_constants_would_underflow_stays_a_product() -> None:
    """2e-160 / (1e150 sqrt 2) is subnormal: float64 has it with an error that no count of roundings covers."""
    layer = Apply(lambda x: (x * 1e-160) * (1.0 + torch.erf(x * 1e150)))
    assert functions(from_module(nn.Sequential(nn.Linear(1, 1), layer).double(), (1,))) == ["erf"]


def test_attributes_are_float32_numbers(tmp_path: Path) -> None:
    graph = load_onnx(save(one("Elu", [1, 3], (3,), alpha=0.3).model(), tmp_path))
    assert graph.nodes[1].op.parameter == float(np.float32(0.3)) != 0.3  # type: ignore[attr-defined]
    graph = load_onnx(save(one("Selu", [1, 3], (3,)).model(), tmp_path))
    assert graph.nodes[1].op.parameter == float(np.float32(1.6732631921768188))  # type: ignore[attr-defined]
    assert float(graph.nodes[2].op.scale) == float(np.float32(1.0507010221481323))  # type: ignore[attr-defined]


_ALMOST_TWO = [op("Add", "two bit", "e"), op("Pow", "x e")]
_TWO_AND_A_BIT = {"two": np.float32(2).reshape(()), "bit": np.float32(1e-17).reshape(())}

REFUSED = {
    "a rounded exponent": (Case(_ALMOST_TWO, [1, 3], (3,), _TWO_AND_A_BIT), "its input 1 is computed with rounding"),
    "an exponent of higher rank": (
        one("Pow", [1, 3], (3,), np.float32(2).reshape((1, 1, 1))),
        "an exponent of more dimensions than what it is the exponent of",
    ),
    "negative alpha": (one("Elu", [1, 3], (3,), alpha=-0.5), "its alpha must be positive, got -0.5"),
    "no alpha": (one("Celu", [1, 3], (3,), alpha=0.0), "its alpha must be positive, got 0"),
    "odd power": (one("Pow", [1, 3], (3,), np.float32(2.5).reshape(())), "an exponent of 2.5 is not supported"),
    "powers": (one("Pow", [1, 3], (3,), np.float32([2, 3, 4])), "its input 1 must be a single number"),
    "exponent": (Case([op("Pow", "x x")], [1, 3], (3,)), "an exponent that depends on the network's input"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_such_function_is_refused(name: str, tmp_path: Path) -> None:
    case, message = REFUSED[name]
    with pytest.raises(UnsupportedNetworkError, match=message):
        load_onnx(save(case.model(), tmp_path))


MODULES_REFUSED = {
    "a jump": (nn.Softplus(1.0, 5.0), "it jumps at its threshold of 5"),
    "a negative beta": (nn.Softplus(-1.0), "its beta must be positive"),
    "a power of an exponent": (Apply(lambda x: x**x), "is not supported"),
}


@pytest.mark.parametrize("name", MODULES_REFUSED)
def test_modules_that_are_no_such_function_are_refused(name: str) -> None:
    model, message = MODULES_REFUSED[name]
    with pytest.raises(UnsupportedNetworkError, match=message):
        from_module(model.eval(), (3,))


@pytest.mark.parametrize("exponent", [float("inf"), float("nan"), 1e300])
def test_an_exponent_that_is_no_integer_is_named(exponent: float) -> None:
    with pytest.raises(UnsupportedNetworkError, match=f"an exponent of {re.escape(f'{exponent:g}')} is not supported"):
        from_module(Apply(lambda x: x**exponent).eval(), (3,))


def test_a_softplus_that_is_the_identity_is_refused() -> None:
    with pytest.raises(UnsupportedNetworkError, match="it jumps at its threshold of -1000"):
        from_module(nn.Softplus(1.0, -1000.0).eval(), (3,))
