"""Drawings: a polygon that is the zonotope's projection, and clear words where none can be drawn."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

import zonocuda
from zonocuda.domains import Zonotope
from zonocuda.domains.plot import polygon


def image(kind: str) -> Zonotope:
    """Two zonotopes of six features, with blocks of each kind."""
    center = torch.rand(2, 1, 2, 3, dtype=torch.float64) - 0.5
    z = Zonotope.from_ball(center, 0.3)
    if kind == "box":
        return z
    if kind == "windowed":
        return z.conv2d(torch.randn(1, 1, 2, 2, dtype=torch.float64), padding=((0, 1), (0, 1))).relu()
    z = z.reshape(6).linear(torch.randn(6, 6, dtype=torch.float64)).relu()
    return z if kind == "relu" else z.linear(torch.tensor([[1.0, 2.0] + [0.0] * 4] * 6, dtype=torch.float64))


@pytest.mark.parametrize("dims", [(0, 1), (4, 2), (-1, 0), (3, 3)])
@pytest.mark.parametrize("kind", ["box", "windowed", "relu", "segment"])
def test_the_polygon_has_the_zonotopes_support_in_every_direction_and_is_convex(
    kind: str, dims: tuple[int, int]
) -> None:
    z = image(kind)
    angles = torch.linspace(0, 2 * torch.pi, 100, dtype=torch.float64)
    directions = torch.stack([angles.cos(), angles.sin()])
    for index in (0, 1):
        corners = polygon(z, dims, index)
        dense = [block.dense(z.features)[index].flatten(1)[:, list(dims)] for block in z.blocks]
        center = z.center[index].flatten()[list(dims)]
        support = center @ directions + (torch.cat(dense) @ directions).abs().sum(0)
        torch.testing.assert_close((corners @ directions).amax(0), support, rtol=0, atol=1e-12)
        edges = torch.roll(corners, -1, 0) - corners
        turned = torch.roll(edges, -1, 0)
        assert bool((edges[:, 0] * turned[:, 1] - edges[:, 1] * turned[:, 0] >= -1e-12).all())


def test_a_point_is_one_corner() -> None:
    point = torch.tensor([[1.0, 2.0]])
    assert polygon(Zonotope.from_box(point, point)).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("dims", [(0,), (0, 6), (-7, 0), (0, 1, 2), (0.5, 1)])
def test_places_that_are_not_there_are_refused(dims: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="dims must be two of the 6 flattened features"):
        polygon(image("box"), dims)
    with pytest.raises(ValueError, match="index 2 is not in a batch of 2"):
        polygon(image("box"), index=2)


def test_a_zonotope_that_is_not_finite_is_refused() -> None:
    center = torch.tensor([[0.0, torch.inf]])
    with pytest.raises(ValueError, match="not finite"):
        polygon(Zonotope.from_generators(center, torch.ones(1, 1, 2)))


def test_drawings_are_on_matplotlibs_axes() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed").use("Agg")
    from matplotlib import pyplot

    z = image("relu")
    axes = z.plot(dims=(2, 5), facecolor="none")
    (drawn,) = axes.patches
    corners = torch.from_numpy(drawn.get_xy())
    torch.testing.assert_close(corners[:-1], polygon(z, (2, 5)), rtol=0, atol=0)  # the last one closes it
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("feature 2", "feature 5")
    assert z.plot(index=1, axes=axes) is axes
    assert len(axes.patches) == 2
    model = torch.nn.Linear(4, 3)
    bounds = zonocuda.compute_bounds(model, Zonotope.from_ball(torch.rand(1, 4), 0.1))
    axes = bounds.plot()
    segments = torch.tensor([line[:, 1].tolist() for line in axes.collections[0].get_segments()])
    expected: Tensor = torch.stack([bounds.lower[0], bounds.upper[0]], 1).detach()
    torch.testing.assert_close(segments, expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="index 1 is not in a batch of 1"):
        bounds.plot(index=1)
    pyplot.close("all")


def test_a_history_is_drawn_as_the_smallest_bound_against_time() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed").use("Agg")
    from matplotlib import pyplot

    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    for mode in ("dual", "forward"):
        found = zonocuda.optimize_bounds(model, Zonotope.from_ball(torch.rand(2, 4), 0.3), torch.eye(3), mode=mode)
        assert found.history[-1].worst == found.lower.min().item()
        assert found.history[-1].total == pytest.approx(found.lower.sum().item())
        axes = found.history.plot(linewidth=3)
        drawn = axes.lines[0]
        assert drawn.get_xdata().tolist() == [step.seconds for step in found.history]
        assert drawn.get_ydata().tolist() == [step.worst for step in found.history]
        assert (axes.get_xlabel(), axes.get_ylabel(), drawn.get_linewidth()) == ("seconds", "margin", 3)
    pyplot.close("all")


def test_without_matplotlib_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"plots need matplotlib: pip install 'zonocuda\[plot\]'"):
        image("box").plot()
