"""A call of a nonsmooth function, the routing that it took, and its replay along a routing taken before.

The routing is what a forward pass decides: the sign of every argument of a ReLU, the winners of every maximum. With the
routing fixed a network is a smooth function, and the choice on its kinks enters the backward pass alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from zonocuda.nonsmooth.conventions import LINES, Convention, Kind
from zonocuda.ops.library import NATIVE

_WORD = 32  # winners in one word


@dataclass(eq=False)
class Call:
    """One call: of which layer, which kind, its routing, and what was counted.

    Attributes:
        layer: the module's name, and its position where a module has several.
        left: the slope on the left of a line with a kink at 0.
        window: of a pooling: input size, kernel, stride, padding, dilation, output size, each (y, x).
        routing: signs (int8), sides (int8) or winners (int32 ``[words, ...]``).
        value: the maxima (of maxima only), to tell ties at positive values.
        survives: which ties were still ties when the routing was replayed.
        reached: how many ties got a gradient other than zero.
        source: what a certificate needs to know of the call's input.
        restore: turns a tensor of the routing's shape into that of the result of torch's function.
    """

    index: int
    layer: str
    kind: Kind
    left: float = 0.0
    length: int = 0
    window: tuple[tuple[int, int], ...] = ()
    routing: Tensor = field(default_factory=lambda: torch.empty(0))
    value: Tensor | None = None
    survives: Tensor | None = None
    reached: int = 0
    source: Any = None
    restore: Callable[[Tensor], Tensor] = lambda t: t  # the routing's layout, turned into that of torch's function

    def ties(self) -> Tensor:
        """Where the function has no derivative: zeros of a line, ties of a maximum."""
        if self.kind in LINES or self.kind == "maximum":
            return self.routing == 0
        return self.counts() > 1

    def counts(self) -> Tensor:
        """How many winners each maximum has."""
        total = torch.zeros(self.routing.shape[1:], dtype=torch.int64, device=self.routing.device)
        for bit in range(min(_WORD, self.length)):
            total += ((self.routing >> bit) & 1).sum(0)
        return total

    def won(self, element: int) -> Tensor:
        """Where an element is one of the winners."""
        return ((self.routing[element // _WORD] >> (element % _WORD)) & 1).bool()


Choice = Callable[[Call], Convention]


class Line(Function):
    """A line with a kink at 0; its backward asks ``choice`` for the derivative there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, replayed: Call | None, choice: Choice) -> Tensor:
        ctx.call, ctx.choice = call, choice
        if replayed is None:
            call.routing = ((x > 0) | x.isnan()).to(torch.int8) - (x < 0).to(torch.int8)
            y: Tensor = NATIVE.nonsmooth_relu(x, call.left, 0.0)
        else:
            sign = call.routing = replayed.routing
            y = torch.where(sign > 0, x, torch.where(sign < 0, call.left * x, torch.zeros_like(x)))
            call.survives = (sign == 0) & (x == 0)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        call.reached = int(((call.routing == 0) & (grad != 0)).sum())
        alpha = ctx.choice(call).at_zero(call.kind, call.left)
        signs = call.routing.to(grad.dtype)
        return NATIVE._nonsmooth_relu_backward(grad.contiguous(), signs, call.left, alpha), None, None, None


class Larger(Function):
    """The larger of two."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, call: Call, replayed: Call | None, choice: Choice) -> Tensor:
        ctx.call, ctx.choice = call, choice
        if replayed is None:
            values, call.routing = NATIVE.nonsmooth_maximum(a, b, 0.5)
        else:
            call.routing = replayed.routing
            values = torch.where(call.routing < 0, b, a)
            call.survives = (call.routing == 0) & (a == b)
        call.value = values
        return values  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        call.reached = int(((call.routing == 0) & (grad != 0)).sum())
        share = ctx.choice(call).share()
        return *NATIVE._nonsmooth_maximum_backward(grad.contiguous(), call.routing, share), None, None, None


class Largest(Function):
    """The largest along the middle dimension of x ``[outer, length, inner]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, replayed: Call | None, choice: Choice) -> Tensor:
        ctx.call, ctx.choice = call, choice
        call.length = x.shape[1]
        if replayed is None:
            values, winners = NATIVE.nonsmooth_max(x, 1.0, 0.0, 0.0)
            call.routing = winners.movedim(1, 0).contiguous()
        else:
            call.routing = replayed.routing
            values, call.survives = _follow(call, lambda element: x[:, element])
        call.value = values
        return values  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        call.reached = int((call.ties() & (grad != 0)).sum())
        winners = call.routing.movedim(0, 1).contiguous()
        weights = ctx.choice(call).weights(call.kind)
        return NATIVE._nonsmooth_max_backward(grad.contiguous(), winners, call.length, *weights), None, None, None


class LargestOfWindows(Function):
    """Max pooling of x ``[images, height, width, inner]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, replayed: Call | None, choice: Choice) -> Tensor:
        ctx.call, ctx.choice = call, choice
        _, kernel, stride, padding, dilation, output = call.window
        call.length = kernel[0] * kernel[1]
        if replayed is None:
            arguments = (kernel, stride, padding, dilation, output, 1.0, 0.0, 0.0)
            values, call.routing = NATIVE.nonsmooth_max_pool2d(x, *arguments)
        else:
            call.routing = replayed.routing
            values, call.survives = _follow(call, lambda element: window_elements(x, call, element))
        call.value = values
        return values  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        call.reached = int((call.ties() & (grad != 0)).sum())
        size, kernel, stride, padding, dilation, _ = call.window
        arguments = (size, kernel, stride, padding, dilation, *ctx.choice(call).weights(call.kind))
        grad_x = NATIVE._nonsmooth_max_pool2d_backward(grad.contiguous(), call.routing, *arguments)
        return grad_x, None, None, None


RECORDED = frozenset((Line, Larger, Largest, LargestOfWindows))


def window_elements(x: Tensor, call: Call, element: int) -> Tensor:
    """Element ``element`` of every window of x ``[images, height, width, inner]``; padding gives any number."""
    size, kernel, stride, padding, dilation, output = call.window
    where = (element // kernel[1], element % kernel[1])
    axes = [
        (torch.arange(output[i], device=x.device) * stride[i] - padding[i] + where[i] * dilation[i]).clamp(
            0, size[i] - 1
        )
        for i in range(2)
    ]
    return x[:, axes[0]][:, :, axes[1]]


def _follow(call: Call, element: Callable[[int], Tensor]) -> tuple[Tensor, Tensor]:
    """The value of the first recorded winner, and where all recorded winners (of a tie) have that value."""
    values: Tensor | None = None
    done = equal = torch.empty(0)
    for k in range(call.length):
        won, x = call.won(k), element(k)
        if values is None:
            values, done, equal = x.clone(), won, torch.ones_like(won)
            continue
        values = torch.where(won & ~done, x, values)
        equal &= ~(won & done) | (x == values)
        done = done | won
    assert values is not None
    return torch.where(done, values, -torch.inf), equal & call.ties()
