"""The choice of a derivative where several elements attain a maximum.

On a tie of n elements with the incoming gradient g, the elements that attain the maximum get

========== ====================================================================================
rule       share
========== ====================================================================================
first      g for the first of them in the order of reading, 0 for the others (torch's pooling)
last       g for the last of them
even       g / n for each: the choice of least norm, and the only one that no reordering changes
========== ====================================================================================

and with ``beta`` the mixture beta even + (1 - beta) first (Boustany 2024, "On the numerical reliability of nonsmooth
autodiff: a MaxPool case study": norms grow with |1 - beta|).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

TieRule = Literal["first", "last", "even"]
TIE_RULES: tuple[TieRule, ...] = get_args(TieRule)
Weights = tuple[float, float, float]
Pair = int | tuple[int, int]


def tie_weights(ties: str, beta: float | None = None) -> Weights:
    """The weights of the first winner, of the last one, and of the even share.

    Raises:
        ValueError: an unknown rule, a ``beta`` that is not finite, or a ``beta`` beside another rule than "first".
    """
    if ties not in TIE_RULES:
        raise ValueError(f"ties must be one of {', '.join(TIE_RULES)}, got {ties!r}")
    if beta is None:
        return float(ties == "first"), float(ties == "last"), float(ties == "even")
    if not math.isfinite(beta):
        raise ValueError(f"beta must be finite, got {beta}")
    if ties != "first":
        raise ValueError(f"beta mixes 'first' and 'even': leave ties at 'first', got {ties!r}")
    return 1 - beta, 0.0, beta


def pair(name: str, value: Pair, least: int) -> tuple[int, int]:
    """``value`` for both axes, or its two values (y, x).

    Raises:
        ValueError: not one or two integers, or one below ``least``.
    """
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or not all(isinstance(v, int) for v in both):
        raise ValueError(f"max_pool2d: {name} must be an integer or two, got {value!r}")
    if min(both) < least:
        raise ValueError(f"max_pool2d: {name} must be at least {least}, got {value!r}")
    return both


def pooled_length(length: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """How many windows fit on an axis, as torch counts them: with ``ceil_mode`` also one that begins inside.

    Raises:
        ValueError: a padding of more than half the window, or no window at all.
    """
    span = dilation * (kernel - 1) + 1
    if padding > span // 2:
        raise ValueError(f"max_pool2d: padding must be at most half of the window ({span}), got {padding}")
    count = (length + 2 * padding - span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= length + padding:
        count -= 1
    if count < 1:
        raise ValueError(f"max_pool2d: a window of {span} does not fit into {length} with padding {padding}")
    return count
