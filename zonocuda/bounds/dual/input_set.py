"""The set of inputs at the end of a dual pass: the least value that linear forms take on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zonocuda.bounds.dual.dual_pass import PASS_BYTES, flatten_positions, flatten_rows
from zonocuda.bounds.interval import Bounds, middle_and_radius
from zonocuda.domains import Diagonal, Symbols, Windowed, Zonotope
from zonocuda.domains.blocks import Block


@dataclass(frozen=True, eq=False)
class InputSet:
    """A batch of boxes or zonotopes.

    Attributes:
        like: ``[B, *input features]``, a point of it.
        least: for rows ``[B, R, N]`` in the order of the pass, the least rows . x, ``[B, R]``; differentiable, with
            the derivative of one of the points that attain it (0 of |.| at 0); NaN wherever a NaN entered.
    """

    like: Tensor
    least: Callable[[Tensor], Tensor]

    @staticmethod
    def of(inputs: Bounds | Zonotope | InputSet) -> InputSet:
        """A box (lower, upper ``[B, *input features]``), or a zonotope: c + sum_k eps_k G_k, for which

            least v . x = v . c - sum_k |v . G_k|,

        block by block. A zonotope that is a box is treated as one.

        Raises:
            ValueError: a zonotope that is shared out over ranks.
        """
        if isinstance(inputs, InputSet):
            return inputs
        if isinstance(inputs, Zonotope):
            if inputs.ranks is not None:
                raise ValueError("a dual pass needs all symbols of its inputs; these are shared out over ranks")
            if len(inputs.blocks) > 1 or any(not isinstance(block, Diagonal) for block in inputs.blocks):
                return InputSet(inputs.center, _zonotope(inputs))
            inputs = inputs.bounds()
        ends = flatten_rows(inputs[0]), flatten_rows(inputs[1])
        return InputSet(inputs[0], lambda rows: least(rows, ends))


def least(rows: Tensor, ends: Bounds) -> Tensor:
    """The least rows . y, ``[B, R]``, for ``rows`` ``[B, R, N]`` and bounds ``[B, N]`` of y."""
    result: Tensor = _Least.apply(rows, *ends)  # type: ignore[no-untyped-call]
    return result


class _Least(torch.autograd.Function):
    """:func:`least`: torch's own backward pass through its four products takes several times as long."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        ctx.save_for_backward(rows, lower, upper)
        positive = rows.clamp(min=0)
        return (positive @ lower.unsqueeze(2) + (rows - positive) @ upper.unsqueeze(2)).squeeze(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, lower, upper = ctx.saved_tensors
        grad = grad.unsqueeze(2)
        grad_rows = grad_lower = grad_upper = None
        if ctx.needs_input_grad[0]:
            middle, radius = (end.unsqueeze(1) for end in middle_and_radius((lower, upper)))
            grad_rows = torch.addcmul(middle, rows.sign(), radius, value=-1).mul_(grad)
        if any(ctx.needs_input_grad[1:]):
            grad_lower = (rows.clamp(min=0) * grad).sum(1)
            grad_upper = (rows.clamp(max=0) * grad).sum(1)
        return grad_rows, grad_lower, grad_upper


def extremes(rows: Tensor, ends: Bounds) -> Bounds:
    """The least and the largest rows . y, ``[B, R]``, for ``rows`` ``[B, R, N]`` and bounds ``[B, N]`` of y."""
    middle, radius = (end.unsqueeze(2) for end in middle_and_radius(ends))
    value, spread = (rows @ middle).squeeze(2), (rows.abs() @ radius).squeeze(2)
    return value - spread, value + spread


def _zonotope(zonotope: Zonotope) -> Callable[[Tensor], Tensor]:
    center = flatten_rows(zonotope.center).unsqueeze(2)
    radii = [_radius(block, zonotope.features) for block in zonotope.blocks]

    def least_of(rows: Tensor) -> Tensor:
        value = (rows @ center).squeeze(2)
        for radius in radii:
            value = value - radius(rows)
        return value

    return least_of


def _radius(block: Block, features: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """sum_k |rows . G_k| ``[B, R]`` over the generators of a block."""
    if isinstance(block, Diagonal):
        place = flatten_positions(features).argsort().to(block.index.device)
        index, size = place[block.index], block.coefficients.abs().unsqueeze(2)
        return lambda rows: (rows[:, :, index].abs() @ size).squeeze(2)
    if not isinstance(block, Windowed):
        matrix = _matrix(block, features)
        return lambda rows: (rows @ matrix.mT).abs().sum(2)
    row_bytes = block.patches.shape[0] * flatten_positions(features).numel() * block.patches.element_size()
    step = max(1, PASS_BYTES // row_bytes)

    def windows(rows: Tensor) -> Tensor:
        total = rows.new_zeros(rows.shape[:2])
        for first in range(0, block.symbols.count, step):
            run = slice(first, first + step)
            part = replace(
                block,
                symbols=Symbols(len(block.corners[run])),
                patches=block.patches[:, run],
                corners=block.corners[run],
            )
            total = total + (rows @ _matrix(part, features).mT).abs().sum(2)
        return total

    return windows


def _matrix(block: Block, features: tuple[int, ...]) -> Tensor:
    """The generators ``[B, K, N]`` in the order of the pass."""
    rows = block.dense(features)
    return flatten_rows(rows.flatten(0, 1)).reshape(*rows.shape[:2], -1)
