"""What values look like at a prompt: a line or two, whatever they hold."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zonocuda
from zonocuda.brief import brief


def test_a_tensor_is_shown_by_dtype_and_shape_and_a_small_one_with_its_numbers() -> None:
    assert brief(torch.zeros(3, 200, dtype=torch.float64)) == "float64[3, 200]"
    assert brief(torch.tensor([[0.5, 2.0]])) == "float32[1, 2](0.5, 2)"
    assert brief(torch.zeros(0, 4)) == "float32[0, 4]"
    assert brief(torch.zeros(2, device="meta")) == "float32[2] on meta"


def test_a_long_sequence_is_shown_by_its_first_entries() -> None:
    assert brief((1,)) == "(1,)"
    assert brief(list(range(9))) == "[0, 1, 2, 3, ... 5 more]"
    assert brief({name: torch.zeros(50) for name in "abcdef"}).endswith("'d': float32[50], ... 2 more}")


@pytest.fixture(scope="module")
def values() -> dict[str, object]:
    """What a user meets, of a network with 784 inputs."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10)).eval()
    x = torch.rand(1, 28, 28)
    ball = zonocuda.Zonotope.from_ball(x.unsqueeze(0), 0.01)
    graph = zonocuda.from_module(model, (1, 28, 28))
    spec = zonocuda.Spec.robust(x, 1e-4, label=int(model(x.unsqueeze(0)).argmax()))
    bounds = zonocuda.compute_bounds(graph, ball, layers="all")
    best = zonocuda.optimize_bounds(graph, ball, torch.eye(10)[:2])
    result = zonocuda.verify(graph, spec, certificate=True, split="none")
    return {
        "zonotope": ball,
        "graph": graph,
        "node": graph.nodes[2],
        "spec": spec,
        "bounds": bounds,
        "output": bounds.output,
        "best": best,
        "slopes": best.slopes["relu"],
        "result": result,
        "certificate": result.certificate,
    }


@pytest.mark.parametrize(
    "name", ["zonotope", "graph", "node", "spec", "bounds", "output", "best", "slopes", "result", "certificate"]
)
def test_what_a_user_meets_is_shown_in_a_line_or_two(values: dict[str, object], name: str) -> None:
    text = repr(values[name])
    assert type(values[name]).__name__ in text
    assert len(text) < 400, text
    assert "\n" not in text
    assert "tensor(" not in text
