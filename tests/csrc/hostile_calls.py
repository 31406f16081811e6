"""Calls of every native op, private ones too, with shapes that fit and values that nobody meant: a program of its own.

    python hostile_calls.py LIBRARY SEED COUNT

loads a shared library with the ops, calls each of them COUNT times, and prints a digest of all outputs. An op may
refuse a call by a RuntimeError. Whatever else it does wrong is for the sanitizers that the library is built with to
find, and for the digest: it must not depend on what fresh memory holds. Imports torch alone, so that no other build is
loaded.
"""

from __future__ import annotations

import hashlib
import math
import random
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FLOATS = (0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e-45, -3e38, 0.5, -1.0, 2.0)
EDGES = tuple(sign * (1 << bit) + near for bit in (15, 31, 32, 62) for sign in (1, -1) for near in (-1, 0, 1))
INTEGERS = (*EDGES, (1 << 63) - 1, -(1 << 63), -1, 0, 1)
ENDS = 1 << 14  # numbers of a large output that enter the digest, on either side
KINKS = (0, 1, 2, 3, 4, 5, -1, 1 << 40)

Arguments = tuple[Any, ...]


class Draw:
    """Random arguments; every one may be hostile."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.dtype = torch.float32

    def size(self, largest: int = 5) -> int:
        """Of an axis; now and then beyond what a vector or a tile holds."""
        return self.random.choice((0, 1, 1, 2, 3, largest, self.random.randint(1, 40)))

    def number(self) -> float:
        """A weight, a tolerance."""
        return self.random.choice((*FLOATS, 1.0, 1.0))

    def flag(self) -> bool:
        """True or false."""
        return self.random.random() < 0.5

    def kink(self) -> int:
        """A rule on the kink, or none of them."""
        return self.random.choice(KINKS)

    def length(self, fits: int, hostile: float = 0.2) -> int:
        """A size that is not a tensor's: mostly one that fits."""
        return self.random.choice((*INTEGERS, 2, 7)) if self.random.random() < hostile else fits

    def floats(self, *size: int) -> Tensor:
        """Ordinary numbers with special ones among them."""
        x = torch.empty(size, dtype=self.dtype)
        flat = [self.random.choice(FLOATS) if self.flag() else self.random.gauss(0, 1) for _ in range(x.numel())]
        return torch.tensor(flat, dtype=torch.float64).to(self.dtype).reshape(size)

    def maybe(self, *size: int) -> Tensor | None:
        """Numbers, or nothing."""
        return self.floats(*size) if self.flag() else None

    def index(self, count: int, below: int, hostile: bool = True) -> Tensor:
        """Numbers in [0, below), mostly; where one is not, perhaps one that is by its lower 32 bits."""
        inside = [self.random.randrange(below) if below else 0 for _ in range(count)]
        wild = [self.random.choice((*INTEGERS, below, i + (1 << 32))) for i in inside]
        chosen = [w if hostile and self.random.random() < 0.1 else i for i, w in zip(inside, wild, strict=True)]
        return torch.tensor(chosen, dtype=torch.int64)

    def corners(self, count: int, size: int) -> Tensor:
        """Corners of windows: anything is allowed."""
        near = [self.random.choice((self.random.randint(-size - 3, size + 3), *INTEGERS)) for _ in range(2 * count)]
        return torch.tensor(near, dtype=torch.int64).reshape(count, 2)

    def word(self) -> int:
        """Any 32 bits."""
        return self.random.randint(-(1 << 31), (1 << 31) - 1)

    def words(self, *size: int) -> Tensor:
        """Bits: none, all, one, or any."""
        x = torch.empty(size, dtype=torch.int32)
        choices = (0, -1, 1, -(1 << 31))
        one = lambda: 1 << self.random.randrange(31)  # noqa: E731
        flat = [
            self.random.choice((*choices, one(), self.random.randint(-(1 << 31), (1 << 31) - 1)))
            for _ in range(x.numel())
        ]
        return torch.tensor(flat, dtype=torch.int32).reshape(size)


def concretize(d: Draw) -> Arguments:
    b, k, n = d.size(), d.size(), d.size()
    return d.floats(b, n), d.floats(b, k, n)


def concretize_backward(d: Draw) -> Arguments:
    b, k, n = d.size(), d.size(), d.size()
    return d.floats(b, n), d.floats(b, n), d.floats(b, k, n)


def relu_tensors(d: Draw) -> Arguments:
    b, k, n = d.size(), d.size(), d.size()
    bounds = (d.floats(b, n), d.floats(b, n)) if d.flag() else (None, None)
    return d.floats(b, n), d.floats(b, k, n), d.maybe(b, n), *bounds


def relu(d: Draw) -> Arguments:
    return *relu_tensors(d), d.kink(), d.number()


def relu_backward(d: Draw) -> Arguments:
    b, k, n = d.size(), d.size(), d.size()
    tensors = d.floats(b, n), d.floats(b, k, n), *(d.floats(b, n) for _ in range(2)), d.floats(b, k, n)
    bounds = d.floats(b, n), d.floats(b, n), d.maybe(b, n)
    return *tensors, *bounds, d.kink(), d.number(), d.flag(), d.flag(), d.flag()


def relu_relaxation(d: Draw) -> Arguments:
    b, n = d.size(), d.size()
    return d.floats(b, n), d.floats(b, n), d.maybe(b, n), d.kink(), d.number()


def relu_relaxation_backward(d: Draw) -> Arguments:
    b, n = d.size(), d.size()
    return *(d.floats(b, n) for _ in range(4)), d.maybe(b, n), d.kink(), d.number()


def dual_slopes(d: Draw, b: int, r: int, n: int) -> Arguments:
    counts = [d.random.choice((None, 1, r)) for _ in range(2)]
    return tuple(None if count is None else d.floats(b, count, n) for count in counts)


def dual_relu(d: Draw) -> Arguments:
    b, r, n = d.size(), d.size(), d.size(530)
    return d.floats(b, r, n), d.floats(b, n), d.floats(b, n), *dual_slopes(d, b, r, n), d.kink(), d.number()


def dual_relu_backward(d: Draw) -> Arguments:
    b, r, n = d.size(), d.size(), d.size(530)
    grads = d.floats(b, r, n), d.floats(b, r), d.floats(b, r)
    tensors = d.floats(b, r, n), d.floats(b, n), d.floats(b, n), *dual_slopes(d, b, r, n)
    return *grads, *tensors, d.kink(), d.number(), d.flag()


def lines(d: Draw, b: int, r: int, n: int) -> Arguments:
    counts = [d.random.choice((1, r)) for _ in range(3)] + [d.random.choice((None, 1, r))]
    return tuple(None if count is None else d.floats(b, count, n) for count in counts)


def dual_lines(d: Draw) -> Arguments:
    b, r, n = d.size(), d.size(), d.size(530)
    return d.floats(b, r, n), *lines(d, b, r, n)


def dual_lines_backward(d: Draw) -> Arguments:
    b, r, n = d.size(), d.size(), d.size(530)
    grads = d.floats(b, r, n), d.floats(b, r), d.floats(b, r)
    return *grads, d.floats(b, r, n), *lines(d, b, r, n), d.flag()


def splits(d: Draw, *size: int) -> Tensor:
    numbers = [d.random.choice((0, 0, 1, -1, 2, 127, -128)) for _ in range(math.prod(size))]
    return torch.tensor(numbers, dtype=torch.int8).reshape(size)


def dual_split(d: Draw) -> Arguments:
    b, r, n = d.size(), d.size(), d.size(530)
    bounds = d.floats(b, n), d.floats(b, n)
    chosen = splits(d, b, r, n), d.maybe(b, r, n), *dual_slopes(d, b, r, n)
    return d.floats(b, r, n), *bounds, *chosen, d.kink(), d.number()


def dual_split_backward(d: Draw) -> Arguments:
    arguments = dual_split(d)
    b, r, n = arguments[0].shape
    return d.floats(b, r, n), d.floats(b, r), *arguments, d.flag(), d.flag()


def scale(d: Draw) -> Arguments:
    b, k, n = d.size(), d.size(), d.size()
    return d.floats(b, k, n), d.floats(b, n)


def scale_backward(d: Draw) -> Arguments:
    b, k, n = d.size(), d.size(), d.size()
    return d.floats(b, k, n), d.floats(b, k, n), d.floats(b, n), d.flag(), d.flag()


def diagonal_linear(d: Draw) -> Arguments:
    b, k, n, m = d.size(), d.size(), d.size(), d.size()
    return d.floats(b, k), d.index(k, n, d.flag()), d.floats(m, n)


def diagonal_linear_backward(d: Draw) -> Arguments:
    b, k, n, m = d.size(), d.size(), d.size(), d.size()
    return d.floats(b, k, m), d.floats(b, k), d.index(k, n, d.flag()), d.floats(m, n), d.flag()


def error_block(d: Draw) -> Arguments:
    b, k, n = d.size(), d.size(), d.size()
    return d.floats(b, k), d.index(k, n, d.flag()), d.length(n)


def error_block_backward(d: Draw) -> Arguments:
    b, k, n = d.size(), d.size(), d.size()
    return d.floats(b, k, n), d.index(k, n, d.flag())


def patches(d: Draw) -> tuple[list[int], list[int]]:
    """Sizes of patches ``[B, K, C, rows, columns]``, and of a map ``[B, C, height, width]``."""
    size = [d.size(3), d.size(), d.size(3), d.size(3), d.size(3)]
    return size, [size[0], size[2], d.size(), d.size()]


def window_radius(d: Draw) -> Arguments:
    size, maps = patches(d)
    return d.floats(*size), d.corners(size[1], 6), d.length(maps[2]), d.length(maps[3])


def window_radius_backward(d: Draw) -> Arguments:
    size, maps = patches(d)
    return d.floats(*maps), d.floats(*size), d.corners(size[1], 6)


def window_scale(d: Draw) -> Arguments:
    size, maps = patches(d)
    return d.floats(*size), d.corners(size[1], 6), d.floats(*maps)


def window_scale_backward(d: Draw) -> Arguments:
    size, maps = patches(d)
    return d.floats(*size), d.floats(*size), d.corners(size[1], 6), d.floats(*maps), d.flag(), d.flag()


def window_dense_backward(d: Draw) -> Arguments:
    size, maps = patches(d)
    grad = d.floats(*size[:3], *maps[2:])
    return grad, d.corners(size[1], 6), d.length(size[3]), d.length(size[4])


def convolution(d: Draw) -> tuple[list[int], Tensor, Arguments]:
    """Coefficients' sizes, the weight, and the sizes of the convolution."""
    groups, group_inputs, group_outputs = d.random.choice((1, 1, 2, 3)), d.size(2) % 4, d.size(2) % 4
    kernel = [1 + d.size(2) % 4, 1 + d.size(2) % 4]
    lists = [[d.length(d.random.randint(least, 4), 0.03) for _ in range(2)] for least in (1, -2, 1, 0)]
    weight = d.floats(groups * group_outputs, group_inputs, *kernel)
    size = [d.length(fits, 0.03) for fits in (groups * group_inputs, 1 + d.size(), 1 + d.size())]
    return [d.size(3), d.size()], weight, (size, *lists[:3], d.length(groups, 0.03), lists[3])


def diagonal_conv(d: Draw) -> Arguments:
    (b, k), weight, (size, *rest) = convolution(d)
    features = max(0, min(size[0] * size[1] * size[2], 1 << 62))
    return d.floats(b, k), d.index(k, features, d.flag()), weight, size, *rest


def diagonal_conv_backward(d: Draw) -> Arguments:
    coefficients, index, weight, size, stride, padding, dilation, groups, output = diagonal_conv(d)
    window = [-(-((weight.shape[2 + a] - 1) * max(1, dilation[a]) + 1) // max(1, stride[a])) for a in range(2)]
    shape = [*coefficients.shape, weight.shape[0], *window]
    fits = all(0 <= size < 1 << 12 for size in window)
    grad = d.floats(*shape) if fits else torch.zeros(0, *shape[1:3], 1, 1, dtype=d.dtype)
    return grad, coefficients, index, weight, size, stride, padding, dilation, groups, output, d.flag()


def im2col_sizes(d: Draw) -> tuple[list[int], list[list[int]]]:
    """The input's sizes, and those of the convolution. What is allocated is small, or refused."""

    def allocated(fits: int) -> int:
        return d.random.choice((-1, 1 << 31, 1 << 62, -(1 << 63))) if d.random.random() < 0.02 else fits

    kernel, output = ([allocated(d.random.randint(least, 3)) for _ in range(3)] for least in (1, 0))
    lists = [[d.length(d.random.randint(least, 3), 0.03) for _ in range(3)] for least in (1, -2, 1)]
    return [allocated(d.random.randint(0, 4)) for _ in range(5)], [kernel, *lists, output]


def im2col(d: Draw) -> Arguments:
    size, lists = im2col_sizes(d)
    return d.floats(*(max(0, n) % 5 for n in size)), *lists


def im2col_backward(d: Draw) -> Arguments:
    size, lists = im2col_sizes(d)
    rows, columns = ([n, *sizes] for n, sizes in ((size[1], lists[0]), (size[0], lists[4])))
    shape = [math.prod(max(0, n) % 5 for n in numbers) for numbers in (rows, columns)]
    return d.floats(*shape), size, *lists


def rule(d: Draw) -> Arguments:
    """The weights of first, last and even."""
    return d.random.choice(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (d.number(), d.number(), d.number())))


def elementary(d: Draw) -> Arguments:
    return d.floats(d.size(), d.size()), d.random.randrange(-2, 29), d.number(), d.random.randrange(-1, 4)


def elementary_backward(d: Draw) -> Arguments:
    size = d.size(), d.size()
    return d.floats(*size), d.floats(*size), d.random.randrange(-2, 29), d.number()


def nonsmooth_relu(d: Draw) -> Arguments:
    return d.floats(d.size(), d.size()), d.number(), d.number()


def nonsmooth_relu_backward(d: Draw) -> Arguments:
    size = d.size(), d.size()
    return d.floats(*size), d.floats(*size), d.number(), d.number()


def nonsmooth_maximum(d: Draw) -> Arguments:
    size = d.size(), d.size()
    return d.floats(*size), d.floats(*size), d.number()


def nonsmooth_maximum_backward(d: Draw) -> Arguments:
    size = d.size(), d.size()
    return d.floats(*size), d.words(*size).to(torch.int8), d.number()


def nonsmooth_max(d: Draw) -> Arguments:
    return d.floats(d.size(), d.size(), d.random.choice((1, d.size(), 300))), *rule(d)


def nonsmooth_max_backward(d: Draw) -> Arguments:
    outer, length, inner = d.size(), d.length(max(1, d.size(70))), d.random.choice((1, d.size(), 300))
    words = max(0, -(-length // 32))
    outer, inner = (outer, inner) if words < 100 else (0, 1)
    return d.floats(outer, inner), d.words(outer, words, inner), length, *rule(d)


def windows(d: Draw) -> tuple[Arguments, list[list[int]]]:
    """Kernel, stride, padding and dilation of a pooling, and the sizes of images and outputs."""
    large = d.random.random() < 0.1
    lists = [[d.random.randint(1, most) for _ in range(2)] for most in (7 if large else 3, 3, 3, 2)]
    lists[2] = [p - 1 for p in lists[2]]
    if d.random.random() < 0.1:
        d.random.choice(lists)[d.random.randrange(2)] = d.random.choice((*INTEGERS, 1 << 19, (1 << 20) - 1))
    return tuple(lists), [[d.size(), d.size()] for _ in range(2)]


def nonsmooth_max_pool2d(d: Draw) -> Arguments:
    lists, (images, outputs) = windows(d)
    x = d.floats(d.size(2), *images, d.random.choice((1, 3, 20)))
    return x, *lists, [d.length(size) for size in outputs], *rule(d)


def nonsmooth_max_pool2d_backward(d: Draw) -> Arguments:
    lists, (images, outputs) = windows(d)
    words = max(0, -(-(lists[0][0] * lists[0][1]) // 32))
    count = d.size(2) if words < 100 else 0
    outer = [count, *outputs, d.random.choice((1, 3, 20))]
    return d.floats(*outer), d.words(words, *outer), [d.length(size) for size in images], *lists, *rule(d)


CALLS: dict[str, Callable[[Draw], Arguments]] = {
    "concretize": concretize,
    "_concretize_backward": concretize_backward,
    "relu": relu,
    "_relu_backward": relu_backward,
    "relu_": relu_tensors,
    "relu_relaxation": relu_relaxation,
    "_relu_relaxation_backward": relu_relaxation_backward,
    "dual_lines": dual_lines,
    "_dual_lines_backward": dual_lines_backward,
    "dual_relu": dual_relu,
    "_dual_relu_backward": dual_relu_backward,
    "dual_split": dual_split,
    "_dual_split_backward": dual_split_backward,
    "scale": scale,
    "_scale_backward": scale_backward,
    "scale_": scale,
    "diagonal_linear": diagonal_linear,
    "_diagonal_linear_backward": diagonal_linear_backward,
    "error_block": error_block,
    "_error_block_backward": error_block_backward,
    "window_radius": window_radius,
    "_window_radius_backward": window_radius_backward,
    "window_scale": window_scale,
    "_window_scale_backward": window_scale_backward,
    "window_scale_": window_scale,
    "window_dense": window_radius,
    "_window_dense_backward": window_dense_backward,
    "diagonal_conv": diagonal_conv,
    "_diagonal_conv_backward": diagonal_conv_backward,
    "im2col": im2col,
    "_im2col_backward": im2col_backward,
    "elementary": elementary,
    "_elementary_backward": elementary_backward,
    "nonsmooth_relu": nonsmooth_relu,
    "_nonsmooth_relu_backward": nonsmooth_relu_backward,
    "nonsmooth_maximum": nonsmooth_maximum,
    "_nonsmooth_maximum_backward": nonsmooth_maximum_backward,
    "nonsmooth_max": nonsmooth_max,
    "_nonsmooth_max_backward": nonsmooth_max_backward,
    "nonsmooth_max_pool2d": nonsmooth_max_pool2d,
    "_nonsmooth_max_pool2d_backward": nonsmooth_max_pool2d_backward,
}


def shown(arguments: Arguments) -> str:
    """The arguments, on one line: of a small tensor its numbers, of another its shape."""

    def text(a: Any) -> str:
        if not isinstance(a, Tensor):
            return str(a)
        return str(a.tolist() if 0 < a.numel() < 20 else list(a.shape))

    return ", ".join(map(text, arguments))


def call_all(seed: int, count: int) -> str:
    """Calls every op ``count`` times; how many calls each answered, and the digest of what they left behind."""
    digest, answered = hashlib.sha256(), dict.fromkeys(CALLS, 0)
    for name, draw in CALLS.items():
        dtypes = [torch.float32, torch.float64, *([torch.float16, torch.bfloat16] if "nonsmooth" in name else [])]
        d = Draw(seed)
        for _ in range(count):
            d.dtype = d.random.choice(dtypes)
            arguments = draw(d)
            print(f"{name}({shown(arguments)})", file=sys.stderr)  # the last line tells what was running
            try:
                outputs = getattr(torch.ops.zonocuda, name)(*arguments)
            except RuntimeError:
                continue
            answered[name] += 1
            for t in (*arguments, *(outputs if isinstance(outputs, (tuple, list)) else (outputs,))):
                if isinstance(t, Tensor):
                    flat = t.reshape(-1)  # an empty tensor may have sizes that numpy refuses
                    ends = torch.cat([flat[:ENDS], flat[-ENDS:]])
                    canonical = ends.double().nan_to_num(nan=12345.678, posinf=1e300, neginf=-1e300)
                    digest.update(f"{name} {list(t.shape)}".encode() + canonical.numpy().tobytes())
    counts = " ".join(f"{name}={number}" for name, number in answered.items())
    return f"{digest.hexdigest()} {counts}"


def main() -> None:
    """Loads the library and prints one line."""
    library, seed, count = sys.argv[1:]
    torch.set_num_threads(1)
    torch.ops.load_library(library)
    print(call_all(int(seed), int(count)))


if __name__ == "__main__":
    main()
