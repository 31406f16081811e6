"""Windowed generators for the benchmarks of the ops on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.conftest import FLOAT, GENERATOR_BYTES


@dataclass(frozen=True)
class WindowSizes:
    """Patches ``[1, symbols, channels, window, window]`` on a map ``[1, channels, side, side]``.

    Patches take GENERATOR_BYTES in float32 on a GPU and an eighth of that on a CPU, where the reference, which makes
    dense generators, would not end otherwise.
    """

    channels: int
    window: int
    side: int

    def symbols(self, device: torch.device) -> int:
        """How many patches that makes."""
        size = GENERATOR_BYTES if device.type == "cuda" else GENERATOR_BYTES // 8
        return max(1, size // (FLOAT * self.channels * self.window**2))

    def patches(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Patches and corners: windows around positions of the map in order, as a convolution leaves them."""
        count = self.symbols(device)
        patches = torch.rand(1, count, self.channels, self.window, self.window, device=device) - 0.5
        position = torch.arange(count, device=device) * self.side**2 // count
        middle = torch.stack([position // self.side, position % self.side], dim=1)
        return patches, middle - self.window // 2

    def numbers(self, device: torch.device) -> tuple[int, int]:
        """Numbers in the patches and in a map."""
        return self.symbols(device) * self.channels * self.window**2, self.channels * self.side**2

    def name(self, device: torch.device) -> str:
        """For a table."""
        return f"{self.symbols(device)}x{self.channels}x{self.window}x{self.window} on {self.side}x{self.side}"


WINDOWS = (WindowSizes(32, 3, 16), WindowSizes(32, 5, 16))
