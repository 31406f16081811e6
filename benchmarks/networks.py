"""Networks and boxes around images, for the benchmarks of whole sweeps."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tests import networks as bare
from zonocuda.graph import Graph, Linear, Node
from zonocuda.importers import from_module, load_network

EXAMPLES = Path(__file__).parents[1] / "examples" / "networks"
RGB = tuple[float, float, float]
ZERO: RGB = (0.0, 0.0, 0.0)
ONE: RGB = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Problem:
    """A network, what it expects of pixels, and the radius of the boxes in pixels of [0, 1].

    ``load`` answers the graph; the network takes (pixel - mean) / std. ``needs_data``: it lies in ZONOCUDA_TEST_DATA.
    """

    name: str
    load: Callable[[], Graph]
    radius: float
    mean: RGB = ZERO
    std: RGB = ONE
    needs_data: bool = True

    def box(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of the network's input, float32, for an image ``[C, H, W]``."""
        mean, std = (
            torch.tensor(v[: len(image)], dtype=torch.float64).reshape(-1, 1, 1) for v in (self.mean, self.std)
        )
        pixels = image.double()
        low, high = (pixels - self.radius).clamp(0, 1), (pixels + self.radius).clamp(0, 1)
        return ((low - mean) / std).float(), ((high - mean) / std).float()

    def images(self, count: int, graph: Graph) -> tuple[Tensor, Tensor]:
        """The first test images with their labels; where there are none, random ones with the network's own answers."""
        if self.needs_data:
            pixels, labels = bare.images("cifar10")
            return pixels[:count], labels[:count]
        pixels = torch.rand(count, *graph.input_shape, generator=torch.Generator().manual_seed(0))
        return pixels, graph(pixels).flatten(1).argmax(1)


def _onnx(folder: str, pattern: str) -> Callable[[], Graph]:
    def load() -> Graph:
        (path,) = (bare.data_root() / "vnncomp" / folder / "onnx").glob(pattern)
        return load_network(path).graph

    return load


def _example(name: str) -> Callable[[], Graph]:
    return lambda: load_network(EXAMPLES / f"{name}.onnx").graph


_RESNET_STD, _SRI_STD = (0.2471, 0.2435, 0.2616), (0.2023, 0.1994, 0.2010)
_CIFAR_MEAN, _OVAL_MEAN, _OVAL_STD = (0.4914, 0.4822, 0.4465), (0.485, 0.456, 0.406), (0.225, 0.225, 0.225)
PROBLEMS = (
    Problem("cifar10_resnet_4b", _onnx("cifar10_resnet_4b", "*"), 1 / 255, _CIFAR_MEAN, _RESNET_STD),
    Problem("sri_resnet_a", _onnx("sri_resnet_a", "*"), 1 / 255, _CIFAR_MEAN, _SRI_STD),
    Problem("oval21 base", _onnx("oval21_base_wide", "*base*"), 2 / 255, _OVAL_MEAN, _OVAL_STD),
    Problem("oval21 wide", _onnx("oval21_base_wide", "*wide*"), 2 / 255, _OVAL_MEAN, _OVAL_STD),
    Problem(
        "wong_kolter cifar", lambda: from_module(bare.wong_kolter("cifar_small_8px"), (3, 32, 32)), 8 / 255
    ),  # it normalises itself
    *(Problem(f"example {name}", _example(name), 0.05, needs_data=False) for name in ("fc", "conv", "residual")),
)


def has_data() -> bool:
    """Whether the networks outside the repository are there."""
    return "ZONOCUDA_TEST_DATA" in os.environ


def margins(graph: Graph, label: int) -> Graph:
    """The network followed by its margins: y_label - y_j for every other class j."""
    (classes,) = graph.output_shape
    rows = torch.zeros(classes - 1, classes)
    others = torch.tensor([j for j in range(classes) if j != label])
    rows[:, label] = 1
    rows[torch.arange(classes - 1), others] = -1
    node = Node("margins", Linear(rows, None), (graph.output,), (classes - 1,))
    return replace(graph, nodes=(*graph.nodes, node), output=node.name)


def cases(problem: Problem, count: int) -> Sequence[tuple[Graph, Tensor, Tensor]]:
    """For each image: the network's margins, and the box ``[C, H, W]`` around it."""
    graph = problem.load().to(torch.float32)
    pixels, labels = problem.images(count, graph)
    return [(margins(graph, int(label)), *problem.box(image)) for image, label in zip(pixels, labels, strict=True)]
