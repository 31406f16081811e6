"""The windows of a convolution as one matrix for all images."""

from __future__ import annotations

import pytest
import torch

from benchmarks.conftest import FLOAT, Measure, generator_bytes
from benchmarks.table import Cost


@pytest.mark.parametrize(("channels", "side", "stride"), [(16, 16, 1), (32, 8, 1), (16, 16, 2)])
def bench_im2col(measure: Measure, channels: int, side: int, stride: int, device: torch.device) -> None:
    """Forward reads the images and writes the columns of a 3x3 kernel; backward reads columns and writes images."""
    outputs = (side // stride) ** 2
    images = max(1, generator_bytes(device) // (FLOAT * channels * 9 * outputs))
    numbers, columns = images * channels * side**2, images * channels * 9 * outputs
    measure(
        "im2col",
        {
            "x": torch.rand(images, channels, side, side, device=device) - 0.5,
            "kernel": (3, 3),
            "stride": (stride, stride),
            "padding": (1, 1),
            "dilation": (1, 1),
            "output_size": (side // stride, side // stride),
        },
        f"{images}x{channels}x{side}x{side}, 3x3 stride {stride}",
        forward=Cost(FLOAT * (numbers + columns), 0),
        backward=Cost(FLOAT * (numbers + columns), columns),
    )
