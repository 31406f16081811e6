"""Modules and functions of every piecewise linear operator."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.importers.modules import Apply

CONDITION = torch.tensor([[True, False, True], [False, False, True]])
SOME_INFINITE = torch.tensor([-torch.inf, 0.2, -torch.inf])


def _of(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Apply(function)


def _prelu(count: int) -> nn.Module:
    layer = nn.PReLU(count)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-0.3, 1.2, count) if count > 1 else torch.tensor([0.3]))
    return layer


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "max pool 1d": (lambda: nn.MaxPool1d(3, 2, 1), (2, 8)),
    "max pool 2d": (lambda: nn.MaxPool2d(2), (2, 4, 5)),
    "max pool 2d, all arguments": (lambda: nn.MaxPool2d((3, 2), (2, 1), (1, 0), (1, 2), ceil_mode=True), (2, 6, 7)),
    "max pool 2d, ceil mode leaves a window out": (lambda: nn.MaxPool2d(2, 3, 1, ceil_mode=True), (1, 5, 5)),
    "max pool 3d": (lambda: nn.MaxPool3d(2, 1, 1), (1, 2, 3, 2)),
    "max pool with indices that nobody reads": (_of(lambda x: F.max_pool2d(x, 2, return_indices=True)[0]), (1, 4, 4)),
    "adaptive max pool 1d, uneven": (lambda: nn.AdaptiveMaxPool1d(3), (2, 7)),
    "adaptive max pool 2d": (lambda: nn.AdaptiveMaxPool2d((2, 3)), (2, 4, 5)),
    "adaptive max pool 3d": (lambda: nn.AdaptiveMaxPool3d(1), (1, 2, 3, 2)),
    "leaky relu": (lambda: nn.LeakyReLU(), (3,)),
    "leaky relu, slope": (lambda: nn.LeakyReLU(1.5, inplace=True), (3,)),
    "rrelu": (nn.RReLU, (3,)),
    "prelu": (lambda: _prelu(1), (3, 4)),
    "prelu by channel": (lambda: _prelu(3), (3, 4)),
    "prelu of a vector": (lambda: _prelu(4), (4,)),
    "relu6": (nn.ReLU6, (3,)),
    "hardtanh": (lambda: nn.Hardtanh(-0.3, 0.4), (3,)),
    "hardsigmoid": (nn.Hardsigmoid, (3,)),
    "threshold": (lambda: nn.Threshold(0.1, 0.1), (3,)),
    "abs": (_of(torch.abs), (3,)),
    "clamp": (_of(lambda x: x.clamp(-0.1, 0.7)), (3,)),
    "clamp from below": (_of(lambda x: x.clamp(min=0.1)), (3,)),
    "clip from above": (_of(lambda x: torch.clip(x, max=0.1)), (3,)),
    "clamp_min, clamp_max": (_of(lambda x: torch.clamp_max(torch.clamp_min(x, -1), 0.5)), (3,)),
    "clamp by tensors": (_of(lambda x: x.clamp(torch.tensor([-1.0, 0, 0.3]), torch.tensor(0.5))), (3,)),
    "clamp, some limits infinite": (_of(lambda x: x.clamp(SOME_INFINITE, torch.full((3,), torch.inf))), (3,)),
    "clamp to nothing": (_of(lambda x: x.clamp(-torch.inf, torch.inf) + x), (3,)),
    "maximum": (_of(lambda x: torch.maximum(x, x.sum(1, keepdim=True))), (3,)),
    "maximum with a constant": (_of(lambda x: torch.max(torch.tensor([0.1, -0.2, 0.3]), x)), (3,)),
    "minimum": (_of(lambda x: torch.minimum(x[:, :1], -x)), (3, 2)),
    "minimum with a constant": (_of(lambda x: torch.min(x, torch.tensor([[0.1], [0.2]]))), (1, 3)),
    "amax": (_of(lambda x: x.amax((1, 2))), (3, 5)),
    "amin, kept": (_of(lambda x: x.amin(-1, keepdim=True)), (3, 4)),
    "max of a dimension": (_of(lambda x: x.max(dim=1).values), (3, 4)),
    "min of a dimension": (_of(lambda x: x.min(dim=-1, keepdim=True)[0]), (3, 4)),
    "where": (_of(lambda x: torch.where(CONDITION, x, torch.tensor([[0.3], [-0.7]]))), (2, 3)),
    "where, a number": (_of(lambda x: torch.where(CONDITION, 0.1, x)), (2, 3)),
    "where, of two branches": (_of(lambda x: torch.where(CONDITION[:, :1], x, -x)), (2, 3)),
    "a network": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 2, 2), nn.LeakyReLU(0.1),
            nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2, 3), nn.Hardtanh(),
        ),
        (1, 6, 6),
    ),
}  # fmt: skip
