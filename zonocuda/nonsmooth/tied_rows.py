"""The constraints of Algorithm 1 of Park, Chun & Lee 2024: what a direction of a layer's parameters has to satisfy.

For one channel of a linear layer or convolution with the patches pi_i (the layer's inputs of output i, and 1 for the
bias): s_i <pi_i, x> > 0 for every tied ReLU whose chosen derivative is that of the side s_i; and for every tied
maximum with the chosen winner i*, rho'(i*) <pi_i*, x> > rho'(i) <pi_i, x> for every other winner i that is not
interchangeable with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zonocuda.nonsmooth.conventions import LINES, Convention
from zonocuda.nonsmooth.directions import Row, Vector
from zonocuda.nonsmooth.handlers import Affine
from zonocuda.nonsmooth.routing import Call

LIMIT = 4000  # constraints of a channel, beyond which the certificate gives up
_SIZE = 2_000_000  # their coefficients


class TooManyTiesError(Exception):
    """More ties than the certificate looks at; the message says where."""


class _Patches:
    """Of a layer: the inputs of each output, and 1 for the bias."""

    def __init__(self, layer: str, affine: Affine) -> None:
        x = affine.input.detach()
        self.has_bias = affine.bias is not None
        self.spatial = affine.kind == "conv2d"
        self.is_first = not affine.input.requires_grad
        if not self.spatial:
            self._columns = x.unsqueeze(-1) if x.dim() == 2 else x.flatten(0, -2).unsqueeze(-1)
            return
        assert affine.weight is not None
        options: dict[str, Any] = dict(affine.options)
        if options.pop("groups") != 1 or isinstance(options["padding"], str) or x.dim() != 4:
            raise TooManyTiesError(f"{layer}: a grouped convolution, or one with named padding, is not looked at")
        kernel = (affine.weight.shape[2], affine.weight.shape[3])
        self._columns = F.unfold(x.double(), kernel, **{k: options[k] for k in ("dilation", "padding", "stride")})

    def __call__(self, sample: int, position: int) -> Vector:
        column = self._columns[sample, :, position].double().cpu().numpy()
        return np.append(column, 1.0) if self.has_bias else column


def rows_of_layer(calls: Sequence[Call], convention: Convention) -> dict[int, list[Row]]:
    """The constraints of all tied functions that one layer feeds, by channel.

    Raises:
        TooManyTiesError: more than ``LIMIT`` for a channel, or a layer that is not looked at.
    """
    line = next((c for c in calls if c.kind in LINES), None)
    pools = [c for c in calls if c.kind == "max_pool"]
    for pool in pools:
        line = pool.source if isinstance(pool.source, Call) else line
    affine = line.source if line is not None else calls[0].source
    patches = _Patches(calls[0].layer, affine)
    rows: dict[int, list[Row]] = defaultdict(list)

    def add(channel: int, row: Row) -> None:
        rows[channel].append(row)
        if len(rows[channel]) > LIMIT or len(rows[channel]) * row.plus.size > _SIZE:
            raise TooManyTiesError(f"{calls[0].layer}: more ties in a channel than the certificate looks at")

    if any(c.kind in LINES for c in calls):
        assert line is not None
        alpha = convention.at_zero(line.kind, line.left)
        side = 1.0 if alpha == 1.0 else -1.0
        for sample, channel, position in _places(line.restore(line.ties()), patches.spatial):
            add(channel, Row(patches(sample, position), side))
    for pool in pools:
        slopes = None if line is None else _slopes(line, convention)
        for channel, sample, chosen, other in _pairs(pool, convention):
            weights = [1.0 if slopes is None else float(slopes[sample, channel, at]) for at in (chosen, other)]
            if weights == [0.0, 0.0]:
                continue
            ours, theirs = patches(sample, chosen), patches(sample, other)
            if patches.is_first and weights[0] == weights[1] and np.array_equal(ours, theirs):
                continue
            add(channel, Row(ours, weights[0], theirs, weights[1]))
    return rows


def _places(ties: Tensor, spatial: bool) -> Iterator[tuple[int, int, int]]:
    """Sample, channel and position of every tie."""
    flat = ties.flatten(2) if spatial else ties.flatten(0, -2).unsqueeze(-1)
    yield from flat.nonzero().tolist()


def _slopes(line: Call, convention: Convention) -> Tensor:
    """The derivative of the line that is used, ``[samples, channels, positions]``."""
    sign = line.restore(line.routing).flatten(2)
    at_zero = convention.at_zero(line.kind, line.left)
    return torch.where(sign > 0, 1.0, torch.where(sign < 0, line.left, at_zero)).cpu()


def _pairs(pool: Call, convention: Convention) -> Iterator[tuple[int, int, int, int]]:
    """Channel, sample, the chosen winner's position and another winner's, for every tied window."""
    size, kernel, stride, padding, dilation, _ = pool.window
    won = torch.stack([pool.restore(pool.won(k)) for k in range(pool.length)], dim=-1).cpu()
    takes_first = convention.weights("max_pool")[0] == 1.0
    for sample, channel, row, column in pool.restore(pool.ties()).cpu().nonzero().tolist():
        winners = won[sample, channel, row, column].nonzero().flatten().tolist()
        at = [
            (row * stride[0] - padding[0] + k // kernel[1] * dilation[0]) * size[1]
            + (column * stride[1] - padding[1] + k % kernel[1] * dilation[1])
            for k in winners
        ]
        chosen = at[0 if takes_first else -1]
        for other in at:
            if other != chosen:
                yield channel, sample, chosen, other
