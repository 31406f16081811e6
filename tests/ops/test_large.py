"""Outputs so large that the CPU kernels write them past the caches: the same bits as in pieces that are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zonocuda import ops

NATIVE = torch.ops.zonocuda
STREAMED = 32 * 2**20  # bytes, as csrc/cpu/tiles.h has it
PIECES = 5


def zonotope(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Center ``[1, N]`` and generators ``[1, 3, N]`` just above the limit; no row but the first begins at a line."""
    features = STREAMED // (3 * dtype.itemsize) + 3
    features += 1 - features % 2
    generators = torch.rand(1, 3, features, dtype=dtype) - 0.5
    assert generators.nbytes >= STREAMED
    assert generators[0, 1].data_ptr() % 64 != generators[0, 2].data_ptr() % 64
    return torch.rand(1, features, dtype=dtype) - 0.5, generators


def relu_backward(center: Tensor, generators: Tensor) -> Tensor:
    """The gradient of the generators through relu."""
    lower, upper = ops.concretize(center, generators)
    gradients = (center, generators.flip(1).contiguous(), lower)
    grads: tuple[Tensor, ...] = NATIVE._relu_backward(
        *gradients, center, generators, lower, upper, None, 0, 1e-6, False, True, False
    )
    return grads[1]


WRITERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "scale": lambda c, g: ops.scale(g, c),
    "relu": lambda c, g: ops.relu(c, g).generators,
    "relu_backward": relu_backward,
    "scale_backward": lambda c, g: NATIVE._scale_backward(g, g, c, True, True)[0],
    "concretize_backward": lambda c, g: NATIVE._concretize_backward(c, 2 * c, g)[1],
}


@pytest.mark.parametrize("op", WRITERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_large_generators_get_the_bits_of_small_ones(op: str, dtype: torch.dtype) -> None:
    center, generators = zonotope(dtype)
    whole = WRITERS[op](center, generators)
    assert whole.nbytes >= STREAMED
    for c, g, expected in zip(
        center.chunk(PIECES, 1), generators.chunk(PIECES, 2), whole.chunk(PIECES, 2), strict=True
    ):
        piece = WRITERS[op](c.contiguous(), g.contiguous())
        assert piece.nbytes < STREAMED
        assert torch.equal(piece, expected)
