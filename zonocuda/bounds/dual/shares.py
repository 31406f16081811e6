"""The shares of a softmax sum to 1: what rows may take from it.

For the shares y of one softmax, in real arithmetic, and any number c

    v . y = (v - c) . y + c,

so that a dual pass may take any c off a row there, for nothing. Each share has lines of its own, which know nothing of
the others; what they waste is about sum_i |v_i - c| w_i, with the widths w of the shares' ranges, and least where c is
the weighted median of v.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zonocuda.graph import Node
from zonocuda.graph.whole import Softmax


def softmax_dim(node: Node) -> int | None:
    """Along which feature dimension the values of a node are shares of a softmax; None where they are not."""
    whole = None if node.part is None else node.part.whole
    return whole.dim if isinstance(whole, Softmax) and not whole.log else None


def centred(v: Tensor, width: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Rows ``[M, *features]`` of shares along the feature dimension ``dim`` less what costs nothing, and what that adds
    to each, ``[M]``: v . y is the new rows times y, plus that, up to the rounding of one subtraction.

    Args:
        v: the rows.
        width: of the ranges of the shares, of the shape of ``v``.
        dim: the feature dimension.
    """
    with torch.no_grad():
        index = v.detach().argsort(dim + 1)
        weight = width.gather(dim + 1, index).cumsum(dim + 1)
        half = weight.select(dim + 1, -1).unsqueeze(dim + 1) / 2
        first = (weight >= half).to(torch.uint8).argmax(dim + 1, keepdim=True)
        place = index.gather(dim + 1, first)
    c = v.gather(dim + 1, place)  # it moves with the row
    return v - c, c.flatten(1).sum(1)
