"""Networks of whole numbers, with slopes of 1/2: every number of their sweeps is a dyadic fraction that float64 holds
exactly, so that sweeps in any order, and their gradients, agree bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.verifier.graphs import Builder
from zonocuda.domains import Diagonal, Zonotope
from zonocuda.graph import Conv, Graph, Linear, ScaleShift
from zonocuda.windows import Pair


class WholeBuilder(Builder):
    """A graph under construction with weights from -2 to 2."""

    def random(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Whole numbers from -2 to 2, whatever the scale."""
        return torch.randint(-2, 3, shape, generator=self.generator).double()

    def convolution(
        self,
        outputs: int,
        kernel: Pair = (3, 3),
        stride: Pair = (1, 1),
        padding: tuple[Pair, Pair] = ((1, 1), (1, 1)),
        dilation: Pair = (1, 1),
        groups: int = 1,
        source: str | None = None,
    ) -> str:
        """Appends any convolution of a node, by default of the last one."""
        name = source or self.nodes[-1].name
        weight = self.random(outputs, self.shape(name)[0] // groups, *kernel)
        return self(Conv(weight, self.random(outputs), stride, padding, dilation, groups), name)

    def dense(self, outputs: int, source: str | None = None) -> str:
        """Appends a linear layer on the last dimension of a node."""
        name = source or self.nodes[-1].name
        return self(Linear(self.random(outputs, self.shape(name)[-1]), self.random(outputs)), name)

    def factor(self, *shape: int, source: str | None = None) -> str:
        """Appends a scale and a shift of that shape."""
        return self(ScaleShift(self.random(*shape), self.random(*shape)), source or self.nodes[-1].name)


def halves(graph: Graph) -> dict[str, Tensor]:
    """A slope of 1/2 for every ReLU."""
    return {node.name: torch.full((), 0.5, dtype=torch.float64) for node in graph.relus}


def whole_input(graph: Graph, batch: int = 2, seed: int = 0, high: int = 2) -> Zonotope:
    """Centers and radii of whole numbers; a quarter of the radii are zero, some in every element of the batch."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, *shape: int) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=generator).double()

    radius = draw(0, batch, *graph.input_shape) * (draw(-high, *graph.input_shape) != 0)
    return Zonotope(draw(-high, batch, *graph.input_shape), (Diagonal.of(radius, "input"),))
