"""Slopes of products and smooth functions: their shapes, that they begin another search, and how fast they learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zonocuda.domains import Zonotope
from zonocuda.graph import Bilinear
from zonocuda.importers import from_module
from zonocuda.relaxations import Rule
from zonocuda.relaxations.smooth import SmoothRule
from zonocuda.tighten.ascent import Ascent
from zonocuda.verifier import optimize_bounds


class Gated(nn.Module):
    """A product of two features of three numbers, behind a layer of sigmoids."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(2, 6), nn.Linear(2, 6), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = (torch.sigmoid(self.first(x)) * self.second(x)).reshape(-1, 2, 3).sum(1)
        out: Tensor = self.last(torch.tanh(3 * y))
        return out


def test_slopes_have_the_features_that_their_activation_reads_and_begin_another_search() -> None:
    torch.manual_seed(0)
    graph = from_module(Gated().eval().requires_grad_(False), (2,))
    ball = Zonotope.from_ball(torch.tensor([[0.3, -0.2]]), 0.4)
    rows = torch.cat([torch.eye(2), -torch.eye(2)])
    found = optimize_bounds(graph, ball, rows, ascent=Ascent(iterations=20))
    for name, slopes in found.slopes.items():
        assert slopes.nonnegative is not None
        assert slopes.nonnegative.shape == (1, 4, *graph[graph[name].inputs[0]].shape)
    assert any(isinstance(graph[name].op, Bilinear) for name in found.slopes)
    again = optimize_bounds(graph, ball, rows, ascent=Ascent(iterations=0), start=found.slopes)
    assert bool((again.lower >= found.lower - 1e-5).all())
    assert not bool(torch.equal(again.lower, optimize_bounds(graph, ball, rows, ascent=Ascent(iterations=0)).lower))


def test_slopes_of_smooth_functions_learn_faster_with_less_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    layers = [nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 3)]
    graph = from_module(nn.Sequential(*layers).eval().requires_grad_(False), (4,))
    ball = Zonotope.from_ball(torch.zeros(1, 4), 0.8)
    rows = torch.cat([torch.eye(3), -torch.eye(3)])

    def gained(steps: int) -> float:
        return float(optimize_bounds(graph, ball, rows, ascent=Ascent(iterations=steps)).lower.sum())

    plain, own = gained(0), gained(20)
    monkeypatch.setattr(SmoothRule, "gait", Rule.gait)
    assert own - plain > 1.02 * (gained(20) - plain) > 0
