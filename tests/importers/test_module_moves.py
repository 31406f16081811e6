"""What torch does without computing, or by sums of products with constants, as graphs that compute the same.

``from_module`` compares every graph with its module, node by node and as a whole; here sampled points must lie within
bounds of it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.importers.modules import Apply, weight
from zonocuda import Spec, Zonotope, compute_bounds, verify
from zonocuda.importers import from_module
from zonocuda.verifier import Verdict

W, STACK, ROW = weight(5, 4).detach(), weight(3, 4, 5).detach(), weight(4).detach()
MASK = torch.tensor([True, False, True, False])


def written(change: Callable[[Tensor, Tensor], object]) -> Callable[[Tensor], Tensor]:
    """2 x after something was written to it."""

    def function(x: Tensor) -> Tensor:
        h = x * 2
        change(h, x)
        return h

    return function


def _set(h: Tensor, key: Any, value: Any) -> None:
    h[key] = value


def square(x: Tensor) -> Tensor:
    return x.reshape(-1, 2, 2)


def maps(x: Tensor) -> Tensor:
    return x.reshape(-1, 1, 2, 2)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "einsum": lambda x: torch.einsum("bi,oi->bo", x, W),
    "einsum without an arrow": lambda x: torch.einsum("bi,oi", x, W),
    "einsum of one tensor": lambda x: torch.einsum("bij->bj", square(x)),
    "einsum with groups": lambda x: torch.einsum("bi,hio->bho", x, STACK),
    "einsum elementwise": lambda x: torch.einsum("bi,i->bi", x, ROW),
    "einsum with kept labels": lambda x: torch.einsum("bhi,hio->bho", x.reshape(-1, 2, 2), STACK[:2, :2]),
    "bmm": lambda x: torch.bmm(square(x), W[:3, :2].t().expand(len(x), 2, 3)),
    "bmm from the left": lambda x: torch.bmm(W[:3, :2].expand(len(x), 3, 2), square(x)),
    "baddbmm": lambda x: torch.baddbmm(ROW[:3], square(x), W[:3, :2].t().expand(len(x), 2, 3), beta=0.5, alpha=2),
    "a stack of matrices": lambda x: x.reshape(-1, 1, 1, 4) @ STACK,
    "tensordot": lambda x: torch.tensordot(x, W, dims=([1], [1])),
    "inner": lambda x: torch.inner(x, W),
    "stack": lambda x: torch.stack([x, 2 * x, ROW.expand(len(x), 4)], 1),
    "hstack": lambda x: torch.hstack([x, x]),
    "dstack": lambda x: torch.dstack([x, x]),
    "column_stack": lambda x: torch.column_stack([x, x[:, 0]]),
    "unbind": lambda x: x.unbind(1)[2][:, None],
    "repeat": lambda x: x.repeat(1, 2),
    "repeat of more dimensions": lambda x: square(x).repeat(1, 2, 3),
    "tile": lambda x: torch.tile(x, (1, 3)),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "flip": lambda x: square(x).flip(1, 2),
    "roll": lambda x: x.roll(1, 1),
    "rot90": lambda x: torch.rot90(square(x), 1, (1, 2)),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.reshape(-1, 4, 1, 1), 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(maps(x), 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x.reshape(-1, 4, 1, 1), 2),
    "lerp": lambda x: torch.lerp(x, 2 * x, 0.3),
    "lerp to a constant": lambda x: torch.lerp(x, ROW, ROW.abs()),
    "lerp from a constant": lambda x: torch.lerp(ROW.expand(len(x), 4), x, 0.7),
    "addcmul": lambda x: torch.addcmul(ROW, x, W[0], value=0.5),
    "addcmul of constants": lambda x: torch.addcmul(x, W[0], W[1], value=0.1),
    "addcdiv": lambda x: torch.addcdiv(x, x, ROW, value=3),
    "cumsum": lambda x: x.cumsum(1),
    "diff": lambda x: x.diff(n=2),
    "a boolean mask": lambda x: x[:, MASK],
    "masked_fill": lambda x: x.masked_fill(MASK, 1.5),
    "where": lambda x: torch.where(MASK, x, 2 - x),
    "where with a number": lambda x: torch.where(MASK, x, 0.25),
    "where from a constant": lambda x: x.where(MASK, ROW),
    "an assigned number": written(lambda h, x: _set(h, (slice(None), 0), 0)),
    "an assigned slice": written(lambda h, x: _set(h, (slice(None), slice(1, 3)), x[:, :2])),
    "an assigned list": written(lambda h, x: _set(h, (slice(None), torch.tensor([0, 2])), 1.5)),
    "an assigned mask": written(lambda h, x: _set(h, (slice(None), MASK), -1.0)),
    "zeros that are filled": lambda x: torch.slice_scatter(torch.zeros(len(x), 6), x, 1, 1, 5),
    "ones_like": lambda x: x + torch.ones_like(x),
    "new_zeros": lambda x: torch.cat([x.new_zeros(len(x), 1), x], 1),
    "full_like": lambda x: x * torch.full_like(x, 3.0),
    "type_as": lambda x: x + ROW.double().type_as(x),
    "cat with a constant": lambda x: torch.cat([ROW.expand(len(x), 4), x, torch.ones(len(x), 2)], 1),
    "two indices": lambda x: square(x)[:, [0, 1], [1, 0]],
    "gather": lambda x: x.gather(1, torch.tensor([[3, 0]]).expand(len(x), 2)),
    "index_fill": lambda x: x.index_fill(1, torch.tensor([0, 1]), 3.0),
    "scatter": lambda x: torch.zeros(len(x), 6).scatter(1, torch.tensor([[0, 2, 3, 5]]).expand(len(x), 4), x),
    "tril": lambda x: square(x).tril(),
    "diagonal": lambda x: square(x).diagonal(dim1=1, dim2=2),
    "diag_embed": torch.diag_embed,
    "unfold": lambda x: x.unfold(1, 2, 1),
    "patches": lambda x: F.unfold(maps(x), 2, padding=1),
    "fold": lambda x: F.fold(x.reshape(-1, 4, 1), (2, 2), 2),
    "folded patches": lambda x: F.fold(F.unfold(maps(x), 2, padding=1), (2, 2), 2, padding=1),
    "reflection": lambda x: F.pad(x.reshape(-1, 1, 4), (2, 1), mode="reflect"),
    "replication": lambda x: F.pad(maps(x), (2, 1, 1, 0), mode="replicate"),
    "circular padding": lambda x: F.pad(x.reshape(-1, 1, 4), (1, 1), mode="circular"),
    "nearest": lambda x: F.interpolate(maps(x), scale_factor=2),
    "nearest by size": lambda x: F.interpolate(maps(x), size=(3, 5)),
    "nearest-exact": lambda x: F.interpolate(maps(x), size=(3, 5), mode="nearest-exact"),
    "bilinear": lambda x: F.interpolate(maps(x), scale_factor=2, mode="bilinear"),
    "bilinear between corners": lambda x: F.interpolate(maps(x), size=(3, 5), mode="bilinear", align_corners=True),
    "linear by an odd factor": lambda x: F.interpolate(x.reshape(-1, 1, 4), scale_factor=2.3, mode="linear"),
    "trilinear": lambda x: F.interpolate(x.reshape(-1, 1, 2, 2, 1), scale_factor=3, mode="trilinear"),
    "bicubic": lambda x: F.interpolate(maps(x), scale_factor=1.5, mode="bicubic"),
    "area": lambda x: F.interpolate(x.reshape(-1, 1, 4), size=3, mode="area"),
    "uneven adaptive pooling": lambda x: F.adaptive_avg_pool1d(x.reshape(-1, 1, 4), 3),
}


class Between(nn.Module):
    """Functions of what a layer computes, side by side, and a layer behind them."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.functions = [FUNCTIONS[name] for name in names]
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(self.joined(torch.zeros(2, 4)).shape[1], 2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)

    def joined(self, x: Tensor) -> Tensor:
        return torch.cat([function(x).flatten(1) for function in self.functions], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.joined(torch.relu(self.first(x))))


GROUPS = [list(FUNCTIONS)[first : first + 8] for first in range(0, len(FUNCTIONS), 8)]
"""Tracing takes longest: eight functions at once."""


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
def test_functions_between_layers_import_and_their_bounds_hold_all_samples(names: Sequence[str]) -> None:
    model = Between(names)
    graph = from_module(model, (4,)).to(torch.float64)
    bounds = compute_bounds(graph, Zonotope.from_ball(torch.zeros(1, 4, dtype=torch.float64), eps=1.0))
    x = 2 * torch.rand(300, 4, generator=torch.Generator().manual_seed(2)) - 1
    y = model(x)
    assert bool(((y >= bounds.lower - 1e-4) & (y <= bounds.upper + 1e-4)).all())
    exact = graph(x.double())
    assert bool(((exact >= bounds.lower) & (exact <= bounds.upper)).all())
    assert (exact - y).abs().max() < 1e-3


def test_a_repeated_input_in_front_of_a_linear_layer_is_bounded_whole() -> None:
    """Both copies count: the layer's weights on them add up."""
    layer = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2, 3, 4, 1, 2, 3, 4]]))
    for repeated in (lambda x: x.repeat(1, 2), lambda x: torch.tile(x, (1, 2)), lambda x: torch.hstack([x, x])):
        model = nn.Sequential(Apply(repeated), layer)
        bounds = compute_bounds(model, Zonotope.from_ball(torch.zeros(1, 4), eps=1.0))
        assert -20.001 < float(bounds.lower) <= -20
        assert 20 <= float(bounds.upper) < 20.001
        assert verify(model, Spec.linear([-1.0] * 4, [1.0] * 4, [1.0], 19.9)).verdict is Verdict.FALSIFIED


def test_an_output_that_does_not_depend_on_the_input_is_its_constant() -> None:
    graph = from_module(Apply(lambda x: torch.ones(len(x), 3) * 0.1), (2,))
    assert torch.equal(graph.to(torch.float64)(torch.rand(1, 2).double()), torch.full((1, 3), 0.1).double())


def test_constants_of_the_batch_are_those_of_a_single_input() -> None:
    """The sum over the batch is 1 for the single inputs that a graph is about, whatever batch was traced."""

    class Counts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x - 100 * torch.ones(len(x), 1).sum(0))

    graph = from_module(Counts(), (2,))
    assert torch.equal(graph(torch.tensor([[101.0, 150.0]])), torch.tensor([[1.0, 50.0]]))


def test_constants_that_are_moved_keep_their_gradients_and_follow_their_module() -> None:
    row = nn.Parameter(torch.tensor([1.0, 2.0]))
    model = Apply(lambda x, row: torch.cat([row.expand(len(x), 2), x], 1).roll(1, 1), row=row)
    graph = from_module(model, (2,))
    graph(torch.zeros(1, 2)).sum().backward()
    assert row.grad is not None
    assert torch.equal(row.grad, torch.ones(2))
    with torch.no_grad():
        row.fill_(7.0)
        assert torch.equal(graph(torch.zeros(1, 2)), torch.tensor([[0.0, 7.0, 7.0, 0.0]]))
