"""Inputs that are legal and meant to mislead: none of them may end in a wrong verdict."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Input, Linear, Node, Reduce, Relu, Transpose
from zonocuda.importers import NetworkMismatchError, load_network
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, compute_bounds, verify

TINY = Fraction(1, 10**326)  # below every float64


def scaled_identity(factor: float) -> Graph:
    """y = factor * x, of one feature."""
    weight = torch.full((1, 1), factor, dtype=torch.float64)
    return Graph((Node("x", Input(), (), (1,)), Node("y", Linear(weight), ("x",), (1,))), "y")


def spec_of(*rows: LinearConstraint) -> Spec:
    """One input in [-1, 1], one output, the conjunction of ``rows``."""
    box = Box.exact([Fraction(-1)], [Fraction(1)])
    return Spec(1, 1, (Region(box, (rows,)),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [TINY, Fraction(1, 10**46), Fraction(10**300), Fraction(10**400)])
def test_a_row_in_tiny_or_huge_units_gets_the_verdict_of_the_same_row_in_ordinary_units(
    size: Fraction, dtype: torch.dtype
) -> None:
    unsafe = LinearConstraint({0: size}, {}, size * 500)  # y <= -500 is reached at x = -1 of y = 1000 x
    assert verify(scaled_identity(1000.0), spec_of(unsafe), dtype=dtype).verdict is Verdict.FALSIFIED
    safe = LinearConstraint({0: size}, {}, size * 1500)
    assert verify(scaled_identity(1000.0), spec_of(safe), dtype=dtype).verdict is Verdict.VERIFIED


def test_a_row_whose_coefficients_no_unit_fits_is_never_refuted() -> None:
    row = LinearConstraint({0: Fraction(1)}, {0: Fraction(1, 10**340)}, Fraction(5))
    rows = Rows.of(spec_of(row).regions[0], 1, 1, torch.zeros((), dtype=torch.float64))
    assert bool(rows.constant.isnan().all())
    assert rows.refuted(torch.tensor([torch.nan])) == [False]
    assert verify(scaled_identity(1.0), spec_of(row)).verdict is Verdict.UNKNOWN


def test_a_graph_that_declares_wrong_shapes_is_refused() -> None:
    nodes = (
        Node("x", Input(), (), (2, 3)),
        Node("t", Transpose((1, 0)), ("x",), (2, 3)),
    )
    with pytest.raises(ValueError, match=r"node 't' declares the shape \[2, 3\] and has \[3, 2\]"):
        compute_bounds(Graph(nodes, "t"), Zonotope.from_ball(torch.zeros(1, 2, 3), 0.1))


def test_a_value_without_features_goes_through_a_relu() -> None:
    nodes = (
        Node("x", Input(), (), (3,)),
        Node("s", Reduce((0,), mean=False, keepdim=False), ("x",), ()),
        Node("r", Relu(), ("s",), ()),
    )
    bounds = compute_bounds(Graph(nodes, "r"), Zonotope.from_ball(torch.zeros(1, 3), 1.0))
    assert bounds.upper.item() >= 3.0
    spec = Spec(3, 1, (Region(Box.exact([Fraction(-1)] * 3, [Fraction(1)] * 3), ()),))
    assert verify(Graph(nodes, "r"), spec).verdict is Verdict.VERIFIED


def test_a_module_that_computes_something_else_on_the_box_is_found_out() -> None:
    class Sneaky(nn.Module):
        """The identity near the origin, zero far from it; the export sees the identity."""

        def forward(self, x: Tensor) -> Tensor:
            if not torch.compiler.is_exporting() and float(x.abs().max()) > 50:
                return x * 0
            return x * 1.0

    row = LinearConstraint({0: Fraction(1)}, {}, Fraction(-50))  # unsafe: y <= 50
    spec = Spec(1, 1, (Region(Box.exact([Fraction(99)], [Fraction(101)]), ((row,),)),))
    with pytest.raises(NetworkMismatchError):
        verify(Sneaky().eval(), spec, input_shape=(1,))


def test_bounds_of_an_imported_network_are_checked_on_their_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_network(Path(__file__).parents[2] / "examples" / "networks" / "fc.onnx")
    seen: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(type(network), "check", lambda self, lower, upper: seen.append((lower, upper)))
    center = torch.full((1, *network.graph.input_shape), 0.5)
    compute_bounds(network, Zonotope.from_ball(center, 0.01))
    assert len(seen) == 1
    assert bool((seen[0][0] < seen[0][1]).all())


def test_a_robust_specification_encloses_the_ball_exactly() -> None:
    x, eps = torch.tensor([0.7, 0.1]), 0.1
    box = Spec.robust(x, eps, 0, outputs=2, clip=None).regions[0].box
    for value, low, high in zip(x.tolist(), box.lower.tolist(), box.upper.tolist(), strict=True):
        assert Fraction(low) <= Fraction(value) - Fraction(eps)
        assert Fraction(high) >= Fraction(value) + Fraction(eps)


def test_a_robust_specification_outside_the_range_of_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match="lies outside the range"):
        Spec.robust(torch.tensor([2.0]), 0.1, 0, outputs=2)
