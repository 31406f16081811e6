"""Functions with a chosen derivative on their kinks and ties: short names for the native ops.

Each returns what torch's function of the same name returns, in float16, bfloat16, float32 and float64, on CPU and CUDA;
only the derivative where the function has none is a choice. Choices are linear in the incoming gradient. Sources: Bolte
& Pauwels 2020 (what automatic differentiation computes), Bertoin, Bolte, Gerchinovitz & Pauwels 2021 (ReLU'(0)),
Boustany 2024 (max pooling).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from zonocuda import ops
from zonocuda.ties import Pair, TieRule

Share = Literal["even", "first", "second"]
_SHARES = {"even": 0.5, "first": 1.0, "second": 0.0}


def relu(x: Tensor, alpha: float = 0.0) -> Tensor:
    """max(x, 0) with the derivative ``alpha`` at 0 (torch: 0); alpha in [0, 1] is a Clarke subgradient.

    Raises:
        RuntimeError: see :func:`zonocuda.ops.nonsmooth_relu`.

    Examples:
        >>> x = torch.zeros(1, requires_grad=True)
        >>> torch.autograd.grad(relu(x, alpha=0.5).sum(), x)
        (tensor([0.5000]),)
    """
    return ops.nonsmooth_relu(x, 0.0, alpha)


def leaky_relu(x: Tensor, negative_slope: float = 0.01, alpha: float | None = None) -> Tensor:
    """x or ``negative_slope`` x, with the derivative ``alpha`` at 0; by default the slope on the left, as in torch.

    Raises:
        ValueError: a negative slope that is negative, which would make a function with a minimum.

    Examples:
        >>> x = torch.zeros(1, requires_grad=True)
        >>> torch.autograd.grad(leaky_relu(x, 0.1, alpha=1.0).sum(), x)
        (tensor([1.]),)
    """
    if not negative_slope >= 0:
        raise ValueError(f"leaky_relu: negative_slope must be at least 0, got {negative_slope}")
    return ops.nonsmooth_relu(x, negative_slope, negative_slope if alpha is None else alpha)


def abs(x: Tensor, slope0: float = 0.0) -> Tensor:  # the name of torch's function
    """|x| with the derivative ``slope0`` at 0 (torch: 0); slope0 in [-1, 1] is a Clarke subgradient.

    At NaN the derivative is 1 (torch: 0).

    Examples:
        >>> x = torch.zeros(1, requires_grad=True)
        >>> torch.autograd.grad(abs(x, slope0=-1.0).sum(), x)
        (tensor([-1.]),)
    """
    return ops.nonsmooth_relu(x, -1.0, slope0)


def maximum(a: Tensor, b: Tensor, ties: Share | float = "even") -> Tensor:
    """max(a, b) elementwise; on a tie ``a`` gets the share ``ties`` of the gradient: 1/2 ("even", torch), 1, 0, any.

    Raises:
        ValueError: an unknown rule.

    Examples:
        >>> a, b = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
        >>> torch.autograd.grad(maximum(a, b, ties="second").sum(), (a, b))
        (tensor([0.]), tensor([1.]))
    """
    return ops.nonsmooth_maximum(a, b, share_of_first(ties))


def share_of_first(ties: Share | float) -> float:
    """The share that the first argument of ``maximum`` gets on a tie."""
    if isinstance(ties, str):
        if ties not in _SHARES:
            raise ValueError(f"maximum: ties must be one of {', '.join(_SHARES)} or a number, got {ties!r}")
        return _SHARES[ties]
    return float(ties)


def max(x: Tensor, dim: int, ties: TieRule = "first") -> Tensor:
    """The maximum along ``dim``: see :func:`zonocuda.ops.nonsmooth_max`. torch.max is "first", torch.amax "even".

    Examples:
        >>> x = torch.ones(2, requires_grad=True)
        >>> torch.autograd.grad(max(x, 0, ties="even"), x)
        (tensor([0.5000, 0.5000]),)
    """
    return ops.nonsmooth_max(x, dim, ties)


def max_pool2d(
    x: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ties: TieRule = "first",
    beta: float | None = None,
    *,
    ceil_mode: bool = False,
) -> Tensor:
    """Max pooling: see :func:`zonocuda.ops.nonsmooth_max_pool2d`. "first" is torch's, bit for bit.

    Examples:
        >>> x = torch.ones(1, 1, 2, 2, requires_grad=True)
        >>> torch.autograd.grad(max_pool2d(x, 2, ties="last").sum(), x)[0].flatten()
        tensor([0., 0., 0., 1.])
    """
    return ops.nonsmooth_max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode, ties, beta)
