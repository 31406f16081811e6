"""``nn.MultiheadAttention`` with the batch kept first, for traces.

torch's own forward moves the batch behind the sequence and merges it with the heads, or calls a fused kernel; a graph's
features have no batch. While a module is traced, this one stands in for it where it can: it computes the same function,
which the comparison with the module tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.backends import mha

_own_forward = nn.MultiheadAttention.forward


def _forward(
    self: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    plain = self.batch_first and query.dim() == key.dim() == value.dim() == 3 and self.bias_k is None
    if not plain or self.add_zero_attn or key_padding_mask is not None or (self.training and self.dropout > 0):
        given: Any = (query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal)
        found: tuple[Tensor, Tensor | None] = _own_forward(self, *given)
        return found
    weights: tuple[Tensor, ...] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
    if self.in_proj_weight is not None:
        weights = self.in_proj_weight.chunk(3)
    biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
    heads = [
        F.linear(x, weight, bias).reshape(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)
        for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
    ]
    mask = attn_mask
    if mask is not None and mask.dim() == 3:
        mask = mask.reshape(-1, self.num_heads, *mask.shape[1:])
    if mask is not None and not mask.is_floating_point():
        mask = ~mask  # where it is true, a position is left out
    out = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], mask)
    out = self.out_proj(out.transpose(1, 2).reshape(query.shape[0], query.shape[1], self.embed_dim))
    if not need_weights:
        return out, None
    scores = (heads[0] * self.head_dim**-0.5) @ heads[1].transpose(2, 3)
    if mask is not None:
        scores = scores + mask if mask.is_floating_point() else scores.masked_fill(~mask, float("-inf"))
    shares = scores.softmax(-1)
    return out, shares.mean(1) if average_attn_weights else shares


@contextmanager
def batch_first_attention() -> Iterator[None]:
    """Inside, attention keeps the batch first, and no fused kernel is called. Not for several threads at once."""
    fused = mha.get_fastpath_enabled()
    nn.MultiheadAttention.forward = _forward  # type: ignore[method-assign]
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        nn.MultiheadAttention.forward = _own_forward  # type: ignore[method-assign]
        mha.set_fastpath_enabled(fused)
