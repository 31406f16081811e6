"""The image of a ReLU is charged where it is made, although other rows may cancel it at the ReLU's input."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import DualPass
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.domains import kernels
from zonocuda.graph import Graph, Input, Linear, Node, Relu

BOUNDS = torch.tensor([[-1.0]]), torch.tensor([[2.0]])
GRAPH = Graph(
    (
        Node("x", Input(), (), (1,)),
        Node("a", Linear(torch.ones(1, 1)), ("x",), (1,)),
        Node("r", Relu(), ("a",), (1,)),
    ),
    "r",
)
ROW = torch.tensor([[1 / 3]])
SLOPE = Fraction(float(torch.tensor(2.0) / torch.tensor(3.0)))


def start() -> DualPass:
    """One row 1/3 at the ReLU, in float32."""
    flow = DualPass(GRAPH, 1, 1, BOUNDS[0], Ledger(Rounding.of(GRAPH, GRAPH, torch.float32), BOUNDS, {"r": BOUNDS}))
    flow.send("r", ROW)
    return flow


def image_of(flow: DualPass, v: Tensor) -> Tensor:
    """The image of the row, its offset noted."""
    image, low, _ = kernels().dual_relu(v.reshape(1, 1, 1), *BOUNDS)
    rows: Tensor = image.reshape(1, 1)
    flow.add(low)
    flow.tally.activation(GRAPH["r"], rows, flow.measure(rows), low)
    return rows


def error_of(image: Tensor) -> Fraction:
    """How far the image is from the row times the slope that made it, at the end of the bounds that is farthest."""
    return abs(Fraction(float(ROW)) * SLOPE - Fraction(float(image))) * 2


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_rows_that_are_sent_instead_of_the_image_do_not_lower_its_charge(share: float) -> None:
    flow, seen = start(), []

    def relu(node: Node, v: Tensor) -> Tensor:
        image = image_of(flow, v)
        seen.append(image)
        return image - share * image

    flow.run(relu)
    assert error_of(seen[0]) > 0
    assert Fraction(float(flow.tally.total())) >= error_of(seen[0])


def test_rows_that_wait_at_the_input_do_not_lower_the_charge_of_the_image() -> None:
    flow, seen = start(), []
    flow.send("a", -(ROW * (BOUNDS[1] / 3)))

    def relu(node: Node, v: Tensor) -> Tensor:
        seen.append(image_of(flow, v))
        return seen[0]

    flow.run(relu)
    assert float((seen[0] - ROW * (BOUNDS[1] / 3)).abs()) < 1e-7, "the rows cancel"
    assert Fraction(float(flow.tally.total())) >= error_of(seen[0])


def test_rows_that_arrive_behind_the_image_do_not_lower_its_charge() -> None:
    flow, seen = start(), []

    def relu(node: Node, v: Tensor) -> Tensor:
        seen.append(image_of(flow, v))
        return seen[0]

    def on_node(node: Node) -> None:
        if node.name == "a":
            flow.send("a", -seen[0])

    flow.run(relu, on_node)
    assert Fraction(float(flow.tally.total())) >= error_of(seen[0])


def test_the_image_alone_is_charged_once() -> None:
    flow = start()
    flow.run(lambda node, v: image_of(flow, v))
    ledger = flow.tally.ledger
    assert ledger is not None
    apart = [ledger.charge(GRAPH["a"], False)[0], ledger.activation(GRAPH["r"])[0]]
    weights, _ = ledger.charge(GRAPH["a"], True)
    assert weights is not None
    assert float(weights) <= sum(float(w) for w in apart if w is not None) * (1 + 1e-6)
    assert error_of(image_of(start(), ROW)) <= Fraction(float(flow.tally.total())) < 1e-6
