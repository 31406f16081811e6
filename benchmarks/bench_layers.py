"""One layer of each kind on a zonotope, by the domain's own transformers, on native and reference kernels.

Every layer reads and writes generators; dense ones take the bytes of other benchmarks. A row's bytes are what those of
the input and output hold, its operations what the layer's products need on the blocks that are there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from benchmarks.conftest import FLOAT, Measure, generator_bytes
from benchmarks.table import Cost
from zonocuda.domains import Zonotope, use_backend

SIDE, CHANNELS, KERNEL = 16, 16, 3
WIDTH = 1024  # of linear layers


@dataclass(frozen=True)
class Layer:
    """A zonotope, a transformer, and the operations of its products for each number that it writes."""

    name: str
    start: Callable[[torch.device], Zonotope]
    apply: Callable[[Zonotope], Zonotope]
    operations: int


def dense(device: torch.device, *features: int) -> Zonotope:
    """Dense generators; about half of the neurons cross zero."""
    numbers = int(torch.tensor(features).prod())
    symbols = generator_bytes(device) // (FLOAT * numbers)
    generators = torch.rand(1, symbols, *features, device=device) - 0.5
    return Zonotope.from_generators(symbols * (torch.rand(1, *features, device=device) - 0.5), generators)


def box(device: torch.device, *features: int) -> Zonotope:
    """One symbol for each neuron."""
    x = torch.rand(1, *features, device=device)
    return Zonotope.from_box(x - 0.1, x + 0.1)


def weights(*shape: int) -> Tensor:
    """The same for every call."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.5


def conv(z: Zonotope, stride: int = 1) -> Zonotope:
    """A convolution that keeps the channels."""
    return z.conv2d(weights(CHANNELS, CHANNELS, KERNEL, KERNEL).to(z.center.device), None, stride, KERNEL // 2)


def image(device: torch.device) -> Zonotope:
    """One symbol for each neuron of a map."""
    return box(device, CHANNELS, SIDE, SIDE)


CONV_OPERATIONS = 2 * CHANNELS * KERNEL**2
LAYERS = (
    Layer("linear, dense", lambda d: dense(d, WIDTH), lambda z: z.linear(weights(WIDTH, WIDTH).to(d_of(z))), 2 * WIDTH),
    Layer("linear, diagonal", lambda d: box(d, WIDTH), lambda z: z.linear(weights(WIDTH, WIDTH).to(d_of(z))), 1),
    Layer("conv, dense", lambda d: dense(d, CHANNELS, SIDE, SIDE), conv, CONV_OPERATIONS),
    Layer("conv, diagonal", image, conv, 1),
    Layer("conv, windowed", lambda d: conv(image(d)), conv, CONV_OPERATIONS),
    Layer("conv stride 2, windowed", lambda d: conv(image(d)), lambda z: conv(z, 2), CONV_OPERATIONS),
    Layer("relu, dense", lambda d: dense(d, WIDTH), lambda z: z.relu(), 4),
    Layer("relu, windowed", lambda d: conv(image(d)), lambda z: z.relu(), 4),
    Layer("add, windowed", lambda d: conv(image(d)), lambda z: z + z, 1),
)


def d_of(z: Zonotope) -> torch.device:
    """The device of a zonotope."""
    return z.center.device


def bytes_of(z: Zonotope) -> int:
    """Of all blocks."""
    return sum(tensor.nbytes for block in z.blocks for tensor in block.tensors)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def bench_layer(measure_once: Measure, layer: Layer, device: torch.device) -> None:
    """Without gradients, into new memory, as the sweep does where it may not overwrite."""
    name = "native" if measure_once.backend.__name__ == "zonocuda.ops" else "reference"
    with torch.no_grad(), use_backend("native" if name == "native" else "reference"):
        z = layer.start(device)
        after = layer.apply(z)
        written = bytes_of(after)
        cost = Cost(bytes_of(z) + written, layer.operations * written // FLOAT)
        kinds = "+".join(block.kind for block in z.blocks)
        shape = f"{z.symbols} symbols ({kinds}) of {'x'.join(map(str, z.features))}"
        measure_once.run(f"layer {layer.name}", shape, lambda: layer.apply(z), cost)
