"""Large networks through the planner: time, symbols, peak memory beside the plan's. Not part of ``make bench``.

    python -m benchmarks.scale_networks [vgg16 | resnet34] [--direction auto] [--budget 16] [--json FILE]

* ``vgg16``: shaped like VGG-16, with average pooling in place of max pooling, on 3x224x224; 8x8 pixels in the middle
  are perturbed, by 1/255.
* ``resnet34``: shaped like ResNet-34 with a stem of stride 2 and no pooling behind it, about 1M ReLU on 3x64x64; every
  pixel is perturbed, by a radius that bisection finds so that about 1 % of the neurons are unstable.

Both have random He weights, and batch norms are left out: they would be scales of the convolutions.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import commit_info, device_name, machine_info, peak_growth
from benchmarks.radius import radius_for, unstable_share
from zonocuda.bounds.forward.sweep import Means, Sweep, sweep
from zonocuda.bounds.plan.planner import Direction
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph
from zonocuda.importers import from_module

GIB = 2**30
PERTURBED = 8  # pixels of each side of the window
UNSTABLE = 0.01
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: pooling
RESNET34 = ((64, 3), (128, 4), (256, 6), (512, 3))  # channels and blocks of each stage


def he(conv: nn.Conv2d | nn.Linear) -> nn.Module:
    """The layer with He weights and no bias."""
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def vgg16(side: int, divisor: int = 1, layers: Sequence[int] = VGG16, hidden: int = 4096) -> nn.Module:
    """Convolutions, average poolings and three linear layers; every width is divided by ``divisor``."""
    modules: list[nn.Module] = []
    channels = 3
    for width in layers:
        if width == 0:
            modules.append(nn.AvgPool2d(2))
            side //= 2
        else:
            modules += [he(nn.Conv2d(channels, width // divisor, 3, padding=1)), nn.ReLU()]
            channels = width // divisor
    inputs, wide = channels * side**2, hidden // divisor
    modules += [nn.Flatten(), he(nn.Linear(inputs, wide)), nn.ReLU(), he(nn.Linear(wide, wide)), nn.ReLU()]
    return nn.Sequential(*modules, he(nn.Linear(wide, 1000 // divisor))).eval()


class Residual(nn.Module):
    """Two convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = he(nn.Conv2d(channels, outputs, 3, stride, padding=1))
        self.second = he(nn.Conv2d(outputs, outputs, 3, padding=1))
        changes = stride != 1 or channels != outputs
        self.shortcut = he(nn.Conv2d(channels, outputs, 1, stride)) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


def resnet34(stages: Sequence[tuple[int, int]] = RESNET34, stem: int = 64, classes: int = 1000) -> nn.Module:
    """A stem of 7x7 with stride 2, residual blocks in stages, all but the first with stride 2, the mean, and logits."""
    modules: list[nn.Module] = [he(nn.Conv2d(3, stem, 7, 2, padding=3)), nn.ReLU()]
    channels = stem
    for stage, (width, blocks) in enumerate(stages):
        for block in range(blocks):
            modules.append(Residual(channels, width, 2 if stage > 0 and block == 0 else 1))
            channels = width
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), he(nn.Linear(channels, classes))).eval()


def window_mask(side: int, count: int) -> Tensor:
    """1 on ``count`` x ``count`` pixels in the middle of ``[3, side, side]``."""
    mask = torch.zeros(3, side, side)
    first = (side - count) // 2
    mask[:, first : first + count, first : first + count] = 1
    return mask


def random_image(side: int) -> Tensor:
    """Pixels in [0, 1]."""
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(1))


def run(graph: Graph, box: tuple[Tensor, Tensor], direction: Direction, budget: int) -> dict[str, Any]:
    """One sweep: its time, peak memory, layers and plan."""
    start = time.perf_counter()

    def call() -> Sweep:
        with torch.no_grad():
            zonotope = Zonotope.from_box(box[0].unsqueeze(0), box[1].unsqueeze(0))
            return sweep(graph, zonotope, Means(direction, budget))

    result, peak = peak_growth(call)
    seconds = time.perf_counter() - start
    low, high = result.bounds
    assert bool((low <= high).all()), "no bounds"
    return {
        "seconds": seconds,
        "neurons": sum(layer.neurons for layer in result.stats),
        "unstable_share": unstable_share(result),
        "symbols": max((sum(layer.symbols.values()) for layer in result.stats), default=0),
        "budget_bytes": budget,
        "planned_bytes": max(step.bytes for step in result.plan),
        "peak_bytes": peak,
        "layers": [
            {"name": s.name, "neurons": s.neurons, "unstable": s.unstable, "symbols": dict(s.symbols)}
            | {"direction": s.direction, "dual_rows": s.dual_rows}
            for s in result.stats
        ],
        "plan": [
            {"name": s.name, "direction": s.direction, "bytes": s.bytes, "actions": list(s.actions)}
            for s in result.plan
        ],
    }


def describe(name: str, report: dict[str, Any]) -> Iterator[str]:
    """The report in lines."""
    yield (
        f"{name}: {report['seconds']:.1f} s, {report['neurons']} ReLU, {report['unstable_share']:.2%} unstable, "
        f"{report['symbols']} symbols, radius {report['radius']:.3g}"
    )
    yield (
        f"  peak {report['peak_bytes'] / GIB:.2f} GiB, planned {report['planned_bytes'] / GIB:.2f} GiB, "
        f"budget {report['budget_bytes'] / GIB:.2f} GiB"
    )
    for layer in report["layers"]:
        symbols = ", ".join(f"{count} {kind}" for kind, count in layer["symbols"].items()) or "-"
        yield (
            f"  {layer['name']}: {layer['unstable']} of {layer['neurons']} unstable, {layer['direction']}, "
            f"symbols {symbols}, {layer['dual_rows']} dual rows"
        )
    for step in report["plan"]:
        if step["actions"]:
            yield f"  plan at {step['name']}: {', '.join(step['actions'])}"


def problem(name: str) -> tuple[Graph, Tensor, Tensor]:
    """A network by name, an image, and the pixels that are perturbed."""
    torch.manual_seed(0)
    if name == "vgg16":
        side = 224
        return from_module(vgg16(side), (3, side, side)), random_image(side), window_mask(side, PERTURBED)
    side = 64
    return from_module(resnet34(), (3, side, side)), random_image(side), torch.ones(3, side, side)


def measure(name: str, direction: Direction, budget: int, given: float | None = None) -> dict[str, Any]:
    """Runs a network by name; ``given``: the radius, instead of the network's own."""
    graph, image, mask = problem(name)
    if name == "vgg16":
        radius = given or 1 / 255
    else:
        radius = given or radius_for(graph, image, UNSTABLE, direction=direction, memory_budget=budget)
    box = image - radius * mask, image + radius * mask
    return {"network": name, "device": device_name(torch.device("cpu")), "torch": torch.__version__} | {
        "radius": radius,
        "direction": direction,
        **run(graph, box, direction, budget),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=["vgg16", "resnet34"], default=["vgg16", "resnet34"])
    parser.add_argument("--direction", choices=["auto", "forward", "dual"], default="auto")
    parser.add_argument("--budget", type=float, default=16, help="GiB")
    parser.add_argument("--radius", type=float, help="instead of 1/255, or of searching the one for 1 %% unstable")
    parser.add_argument("--json", type=Path, help="a file for the reports")
    arguments = parser.parse_args()
    reports = []
    for name in arguments.networks:
        report = measure(name, arguments.direction, int(arguments.budget * GIB), arguments.radius)
        reports.append(report)
        print("\n".join(describe(name, report)), flush=True)
    if arguments.json:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        document = {"datetime": when, "machine_info": machine_info(), "commit_info": commit_info()}
        document["reports"] = reports
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
