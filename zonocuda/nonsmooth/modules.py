"""The functions as modules, and a model's own modules replaced by them."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from zonocuda.nonsmooth import functional
from zonocuda.nonsmooth.functional import Share, share_of_first
from zonocuda.ties import Pair, TieRule, tie_weights


class ReLU(nn.Module):
    """:func:`zonocuda.nonsmooth.relu`.

    Examples:
        >>> x = torch.zeros(1, requires_grad=True)
        >>> torch.autograd.grad(ReLU(0.5)(x).sum(), x)[0].tolist()
        [0.5]
    """

    def __init__(self, alpha: float = 0.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class LeakyReLU(nn.Module):
    """:func:`zonocuda.nonsmooth.leaky_relu`.

    Examples:
        >>> x = torch.zeros(1, requires_grad=True)
        >>> torch.autograd.grad(LeakyReLU(0.25, alpha=0.5)(x).sum(), x)[0].tolist()
        [0.5]
    """

    def __init__(self, negative_slope: float = 0.01, alpha: float | None = None) -> None:
        super().__init__()
        self.negative_slope, self.alpha = negative_slope, alpha

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(x, self.negative_slope, self.alpha)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}, alpha={self.alpha}"


class Abs(nn.Module):
    """:func:`zonocuda.nonsmooth.abs`.

    Examples:
        >>> x = torch.zeros(1, requires_grad=True)
        >>> torch.autograd.grad(Abs(1.0)(x).sum(), x)[0].tolist()
        [1.0]
    """

    def __init__(self, slope0: float = 0.0) -> None:
        super().__init__()
        self.slope0 = slope0

    def forward(self, x: Tensor) -> Tensor:
        return functional.abs(x, self.slope0)

    def extra_repr(self) -> str:
        return f"slope0={self.slope0}"


class Maximum(nn.Module):
    """:func:`zonocuda.nonsmooth.maximum` of two inputs.

    Examples:
        >>> a, b = (torch.ones(1, requires_grad=True) for _ in range(2))
        >>> [grad.tolist() for grad in torch.autograd.grad(Maximum("first")(a, b).sum(), (a, b))]
        [[1.0], [0.0]]
    """

    def __init__(self, ties: Share | float = "even") -> None:
        super().__init__()
        share_of_first(ties)
        self.ties = ties

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return functional.maximum(a, b, self.ties)

    def extra_repr(self) -> str:
        return f"ties={self.ties!r}"


class Max(nn.Module):
    """:func:`zonocuda.nonsmooth.max` along one dimension.

    Examples:
        >>> x = torch.ones(2, requires_grad=True)
        >>> torch.autograd.grad(Max(0, ties="even")(x), x)[0].tolist()
        [0.5, 0.5]
    """

    def __init__(self, dim: int, ties: TieRule = "first") -> None:
        super().__init__()
        tie_weights(ties)
        self.dim, self.ties = dim, ties

    def forward(self, x: Tensor) -> Tensor:
        return functional.max(x, self.dim, self.ties)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, ties={self.ties!r}"


class MaxPool2d(nn.Module):
    """:func:`zonocuda.nonsmooth.max_pool2d`.

    Examples:
        >>> x = torch.ones(1, 1, 1, 2, requires_grad=True)
        >>> torch.autograd.grad(MaxPool2d((1, 2), ties="even")(x).sum(), x)[0].flatten().tolist()
        [0.5, 0.5]
    """

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        dilation: Pair = 1,
        ties: TieRule = "first",
        beta: float | None = None,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        tie_weights(ties, beta)
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.ties, self.beta, self.ceil_mode = ties, beta, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        return functional.max_pool2d(x, *window, self.ties, self.beta, ceil_mode=self.ceil_mode)

    def extra_repr(self) -> str:
        return f"{self.kernel_size}, stride={self.stride}, padding={self.padding}, ties={self.ties!r}, beta={self.beta}"


def replace(
    model: nn.Module,
    *,
    relu: float | None = None,
    max_pool: TieRule | float | None = None,
) -> nn.Module:
    """A copy of ``model`` with chosen derivatives; parameters and buffers are the very same tensors.

    Replaced are the modules nn.ReLU, nn.LeakyReLU (by ``relu``) and nn.MaxPool2d (by ``max_pool``), and those that an
    earlier call put in their place. Functions called in a ``forward`` cannot be replaced;
    :func:`zonocuda.nonsmooth.audit` sees them.

    Args:
        model: any module; it stays as it is.
        relu: ReLU'(0), and the derivative of leaky ReLUs at 0; None leaves them.
        max_pool: a rule, or the number beta; None leaves the poolings.

    Raises:
        ValueError: nothing asked for, or a pooling that returns indices, which only torch's own does.

    Examples:
        >>> chosen = replace(torch.nn.Sequential(torch.nn.ReLU()), relu=1.0)
        >>> x = torch.zeros(1, requires_grad=True)
        >>> torch.autograd.grad(chosen(x).sum(), x)
        (tensor([1.]),)
    """
    if relu is None and max_pool is None:
        raise ValueError("replace: give relu=, max_pool= or both")
    # deepcopy with a memo in which every tensor stands for itself: structure is copied, weights are shared
    memo: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return _replaced("model", copy.deepcopy(model, memo), relu, max_pool)


def _replaced(name: str, module: nn.Module, relu: float | None, max_pool: TieRule | float | None) -> nn.Module:
    """The module's replacement, or itself with its children replaced."""
    if relu is not None and isinstance(module, nn.ReLU | ReLU):
        return ReLU(relu).train(module.training)
    if relu is not None and isinstance(module, nn.LeakyReLU | LeakyReLU):
        return LeakyReLU(module.negative_slope, relu).train(module.training)
    if max_pool is not None and isinstance(module, nn.MaxPool2d | MaxPool2d):
        if getattr(module, "return_indices", False):
            raise ValueError(f"replace: {name} returns indices, which only torch's max pooling does")
        ties: TieRule = max_pool if isinstance(max_pool, str) else "first"
        beta = None if isinstance(max_pool, str) else float(max_pool)
        window = (module.kernel_size, module.stride, module.padding, module.dilation)
        return MaxPool2d(*window, ties, beta, ceil_mode=module.ceil_mode).train(module.training)
    for child_name, child in module.named_children():
        setattr(module, child_name, _replaced(f"{name}.{child_name}", child, relu, max_pool))
    return module
