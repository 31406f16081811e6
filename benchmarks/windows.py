"""Windowed generators for the benchmarks of the ops on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.conftest import FLOAT, generator_bytes


@dataclass(frozen=True)
class WindowSizes:
    """Patches ``[1, symbols, channels, window, window]`` on a map ``[1, channels, side, side]``.

    Patches take an eighth of the bytes of other benchmarks' generators, since the reference, and some ops, make dense
    ones of them, which are many times larger.
    """

    channels: int
    window: int
    side: int

    def symbols(self, device: torch.device) -> int:
        """How many patches that makes."""
        return max(1, generator_bytes(device) // 8 // (FLOAT * self.channels * self.window**2))

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
