"""Whole verifications on a device that is none: no step mixes its tensors with the host's, and verdicts do not differ.

A GPU refuses to compute with tensors of both; here :mod:`benchmarks.pretended_device` does. What is computed is the
CPU's arithmetic: this says nothing about kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zonocuda
from benchmarks.pretended_device import DEVICE, PretendedDevice
from zonocuda import Spec, VerifyResult
from zonocuda.tighten.ascent import Ascent
from zonocuda.verifier import decide


class Pooled(nn.Module):
    """A convolution, a pool, and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.pool, self.last = nn.MaxPool2d(2), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.first(x)))
        return self.last((x + torch.relu(self.second(x))).flatten(1))


def layers(inputs: int, width: int, depth: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Hidden layers of one width, and three outputs."""
    widths = [inputs, *[width] * depth]
    hidden = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), activation())]
    return nn.Sequential(*hidden, nn.Linear(width, 3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "wide": (lambda: layers(12, 16, 3), (12,), 0.3),
    "narrow": (lambda: layers(3, 24, 2), (3,), 0.5),
    "tanh": (lambda: layers(2, 6, 2, nn.Tanh), (2,), 1.0),
    "gelu": (lambda: layers(2, 6, 1, nn.GELU), (2,), 1.0),
    "pooled": (Pooled, (1, 8, 8), 0.1),
}

RUNS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "bounds": ("wide", 1.5, {"split": "none"}),
    "forward": ("pooled", 1.5, {"direction": "forward", "split": "none"}),
    "boxes": ("narrow", 0.4, {"split": "input"}),
    "boxes with a certificate": ("narrow", 0.4, {"split": "input", "certificate": True}),
    "signs": ("pooled", 0.86, {"split": "neuron", "certificate": True, "dtype": torch.float32}),
    "boxes of s-shaped functions": ("tanh", 0.4, {"split": "input"}),
    "boxes of gated functions": ("gelu", 0.4, {"split": "input"}),
    "executed in float32": ("narrow", 0.4, {"semantics": "float32"}),
    "executed in float64": ("narrow", 0.4, {"semantics": "float64", "split": "input"}),
}
"""A network, how far the specification lies between its samples and a first bound, and options."""


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Callable[..., VerifyResult]:
    """:func:`zonocuda.verify` on the pretended device."""

    def verify(*args: Any, **options: Any) -> VerifyResult:
        with monkeypatch.context() as patch, PretendedDevice() as device:
            patch.setattr(decide, "resolve_device", lambda _: DEVICE)
            result = zonocuda.verify(*args, **options)
            assert device.launches["mm"] + device.launches["bmm"] > 0
        return result

    return verify


def problem(name: str, share: float) -> tuple[nn.Module, Spec]:
    """A network, a box, and y_0 - y_1 <= b: b lies above the largest sample by a share of what a first bound lacks."""
    make, shape, radius = NETWORKS[name]
    network = make().eval()
    x = torch.rand(shape)
    matrix = torch.tensor([[-1.0, 1.0, 0.0]])
    with torch.no_grad():
        values = network(x + radius * (2 * torch.rand(2000, *shape) - 1)) @ matrix[0]
    box = zonocuda.Zonotope.from_box((x - radius)[None], (x + radius)[None])
    first = zonocuda.optimize_bounds(network, box, matrix, ascent=Ascent(iterations=0))
    least, bound = float(values.min()), float(first.lower.min())
    return network, Spec.linear(x - radius, x + radius, -matrix, torch.tensor([-least + share * (least - bound)]))


@pytest.mark.parametrize("name", RUNS)
def test_a_verification_keeps_to_its_device(name: str, pretended: Callable[..., VerifyResult]) -> None:
    which, share, options = RUNS[name]
    network, spec = problem(which, share)
    host = zonocuda.verify(network, spec, device="cpu", timeout=60, **options)
    device = pretended(network, spec, timeout=60, **options)
    assert host.verified
    assert device.verdict == host.verdict
    assert bool(host.splits) == bool(device.splits) == (options.get("split") != "none")


def test_many_regions_keep_to_their_device(pretended: Callable[..., VerifyResult]) -> None:
    network, spec = problem("narrow", 1.5)
    many = replace(spec, regions=spec.regions * 20)
    assert pretended(network, many, timeout=60).verified
