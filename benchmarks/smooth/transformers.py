"""Large transformers through one forward sweep: processor time, peak memory and widths, for a budget of memory.

    python -m benchmarks.smooth.transformers vit [--radius 0.00392] [--budget 6] [--direction auto]
    python -m benchmarks.smooth.transformers deep [--symbols 0 4000 2000 1000 500]

* ``vit``: 3 blocks, 48 wide, 3 heads, on 16 patches of 8x8 pixels of a random image 3x32x32, every pixel perturbed by
  1/255 unless said otherwise; batch normalisation in place of layer normalisation, as the networks of VNN-COMP's
  vit_2023 have it; random weights, seeded, and the statistics of random images.
* ``deep``: 12 blocks, 16 wide, 2 heads, on 4 patches of a digit, perturbed by 0.0001; random weights.

``--symbols`` runs with at most so many generators kept between blocks (0: all), the least merged; where the budget (in
GiB, of generators) is too small still, the planner merges more.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

from benchmarks.machine import device_name, peak_growth
from benchmarks.smooth.models import Transformer
from zonocuda.domains import Zonotope
from zonocuda.importers import from_module
from zonocuda.verifier import compute_bounds

GIB = 2**30


class Batch(nn.Module):
    """Batch normalisation of tokens ``[B, T, width]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return out


class Patches(nn.Module):
    """An image ``[B, C, H, H]`` as patches of ``side`` x ``side`` pixels, and a transformer."""

    def __init__(self, channels: int, height: int, side: int, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.shape = (channels, height // side, side)
        pixels, count = channels * side**2, (height // side) ** 2
        self.embed, self.place = nn.Linear(pixels, width), nn.Parameter(torch.randn(count, width) * 0.1)
        self.body = Transformer(width, heads, 2 * width, blocks, 10, plain=False)

    def forward(self, x: Tensor) -> Tensor:
        channels, count, side = self.shape
        tiles = x.reshape(-1, channels, count, side, count, side).permute(0, 2, 4, 1, 3, 5)
        out: Tensor = self.body(self.embed(tiles.reshape(-1, count**2, channels * side**2)) + self.place)
        return out


def build(name: str) -> tuple[nn.Module, tuple[int, ...], float]:
    """A network with random weights, the shape of its input, and a radius."""
    torch.manual_seed(0)
    if name == "vit":
        network = Patches(3, 32, 8, 48, 3, 3)
        for block in network.body.blocks:
            block.norms = nn.ModuleList([Batch(48), Batch(48)])
        network.body.norm = Batch(48)
        for _ in range(30):  # for the running mean and variance
            network(torch.rand(64, 3, 32, 32))
        return network.eval().requires_grad_(False), (3, 32, 32), 1 / 255
    return Patches(1, 8, 4, 16, 2, 12).eval().requires_grad_(False), (1, 8, 8), 1e-4


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=["vit", "deep"])
    parser.add_argument("--radius", type=float, help="instead of the network's own")
    parser.add_argument("--budget", type=float, default=6.0, help="GiB")
    parser.add_argument("--symbols", type=int, nargs="+", default=[0], help="one run for each")
    parser.add_argument("--direction", choices=["auto", "forward", "dual"], default="forward")
    options = parser.parse_args()
    module, shape, own = build(options.network)
    radius = own if options.radius is None else options.radius
    begin = time.process_time()
    graph = from_module(module, shape)
    print(f"{device_name(torch.device('cpu'))}; import {time.process_time() - begin:.1f} s; radius {radius:.6g}")
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1))
    zonotope = Zonotope.from_box(image - radius, image + radius)
    for symbols in options.symbols:
        begin, clock = time.process_time(), time.monotonic()
        means = {"direction": options.direction, "memory_budget": int(options.budget * GIB)}
        means["max_symbols"] = symbols or None
        bounds, peak = peak_growth(lambda means=means: compute_bounds(graph, zonotope, **means))
        seconds, wall = time.process_time() - begin, time.monotonic() - clock
        width = float((bounds.upper - bounds.lower).mean())
        merged = sum(any("merged" in action or action == "box" for action in step.actions) for step in bounds.plan)
        most = max(sum(layer.symbols.values()) for layer in bounds.stats)
        print(
            f"{symbols or 'all'} symbols kept: mean width {width:.6g}, {seconds:.1f} s of processor ({wall:.1f} s), "
            f"peak {peak / GIB:.3f} GiB, at most {most} at an activation, merged at {merged} nodes",
            flush=True,
        )


if __name__ == "__main__":
    main()
