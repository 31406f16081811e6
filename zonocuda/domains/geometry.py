"""The geometry of 2-d convolutions: which outputs an input, or a window of inputs, reaches."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from zonocuda.windows import Pair


@dataclass(frozen=True)
class Convolution:
    """Everything of a 2-d convolution but its weights.

    Attributes:
        kernel: rows and columns of the kernel.
        stride, dilation: at least 1 on each axis.
        padding: (begin, end) zeros on each axis.
        groups: divides the channels of input and output.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def begin(self) -> Pair:
        """Padding before the first row and column."""
        return self.padding[0][0], self.padding[1][0]

    @property
    def extent(self) -> Pair:
        """Rows and columns that the dilated kernel covers."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    def output_size(self, size: Pair) -> Pair:
        """Rows and columns of the output for a map of ``size``."""
        rows, columns = (
            (n + begin + end - extent) // s + 1
            for n, (begin, end), extent, s in zip(size, self.padding, self.extent, self.stride, strict=True)
        )
        return rows, columns

    def is_product(self, size: Pair) -> bool:
        """Whether a map of ``size`` has no more positions than the kernel: a matrix product is no more work then."""
        return self.groups == 1 and prod(size) <= prod(self.kernel)

    def first_output(self) -> Pair:
        """Where the window of outputs begins, relative to floor((corner + padding) / stride) of the input's window.

        An output i sees the padded positions [stride i, stride i + extent); the first that sees position q = stride
        place + phase is place + ceil((phase - extent + 1) / stride), at least place - floor((extent - 1) / stride).
        """
        rows, columns = (-((extent - 1) // s) for extent, s in zip(self.extent, self.stride, strict=True))
        return rows, columns

    def output_window(self, window: Pair) -> Pair:
        """Rows and columns of the window of outputs that a window of inputs reaches, whatever its phase.

        The last output that sees the window begins at or before its last position, which is at most place + floor((n +
        stride - 2) / stride) for n positions.
        """
        rows, columns = (
            (n + s - 2) // s - first + 1 for n, s, first in zip(window, self.stride, self.first_output(), strict=True)
        )
        return rows, columns

    def padded_window(self, window: Pair) -> Pair:
        """Rows and columns of the inputs that a window of outputs sees, zeros where there is no patch."""
        rows, columns = (s * (n - 1) + extent for n, s, extent in zip(window, self.stride, self.extent, strict=True))
        return rows, columns

    def around(self) -> list[int]:
        """For ``torch.nn.functional.pad``, under stride 1: the zeros around a window of inputs with which its image
        is all outputs that it reaches."""
        (rows, columns) = self.extent
        return [columns - 1, columns - 1, rows - 1, rows - 1]

    @staticmethod
    def pooling(kernel: Pair, stride: Pair, channels: int) -> Convolution:
        """The geometry of an average pooling: one group for each channel."""
        return Convolution(kernel, stride, groups=channels)


def pair(value: int | Pair) -> Pair:
    """One number for both axes, or one for each."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def pads_of(padding: int | Pair | tuple[Pair, Pair]) -> tuple[Pair, Pair]:
    """(begin, end) on each axis."""
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    return pair(rows), pair(columns)
