"""Piecewise linear operators as affine maps and ReLUs, which compute the same function of real numbers.

    max(a, b) = b + relu(a - b)             |x| = 2 relu(x) - x
    clip(x)   = min(max(x, lo), hi), in this order, so that hi wins where lo > hi
    leaky(x)  = s x + (1 - s) relu(x), for any s

Maxima of many are taken in a tree of pairs, over windows along one dimension after the other. What they compute of the
network's own constants (hi - lo, 1 - s) is enclosed in float64. All nodes of an operator are marked as its parts
(:class:`zonocuda.graph.Part`). As in :mod:`zonocuda.importers.lowering`, the last one carries ``name``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from zonocuda.graph import Cast, Part, ScaleShift
from zonocuda.graph.ops import Op, Pads, Shape
from zonocuda.graph.whole import Absolute, Choice, Clip, Extreme, Extremes, Leaky
from zonocuda.importers.builder import GraphBuilder, Value
from zonocuda.importers.constants import enclosure
from zonocuda.importers.constants.enclosure import Enclosure, Numbers
from zonocuda.importers.errors import refuse
from zonocuda.importers.lowering import (
    add,
    broadcast,
    concat,
    expand,
    feature_constant,
    negate,
    relu,
    reshape,
    scale_shift,
    select,
)

Taps = tuple[tuple[int, ...], ...]
"""Windows along a dimension: the output position i is about the input positions tap[i]."""


def written(builder: GraphBuilder, whole: Op, inputs: Sequence[Value], write: Callable[[], Value]) -> Value:
    """What ``write`` appends, as the parts of one operator."""
    since = builder.count
    out = write()
    builder.written(since, whole, *inputs)
    return replace(out, held=out.dtype)  # even where the last node moves values alone


# ---- of two, of many, of constants -----------------------------------------------------------------------------------


def extreme(builder: GraphBuilder, name: str, values: Sequence[Value], sign: int) -> Value:
    """The largest (``sign`` 1) or least (-1) of values that broadcast against each other."""
    return written(builder, Extreme(sign), values, lambda: _tree(builder, name, values, sign))


def _tree(builder: GraphBuilder, name: str, values: Sequence[Value], sign: int) -> Value:
    level, depth = list(values), 0
    while len(level) > 1:
        depth += 1
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        names = [name if len(pairs) == 1 else f"{name}/{depth}.{i}" for i in range(len(pairs))]
        level = [
            pair[0] if len(pair) == 1 else _of_two(builder, own, pair[0], pair[1], sign)
            for own, pair in zip(names, pairs, strict=True)
        ]
    return level[0]


def _of_two(builder: GraphBuilder, name: str, a: Value, b: Value, sign: int) -> Value:
    """b + relu(a - b), or b - relu(b - a)."""
    first, second = (a, b) if sign == 1 else (b, a)
    difference = add(builder, f"{name}/difference", first, second, -1)
    return add(builder, name, b, relu(builder, f"{name}/positive", difference), sign)


def clip(builder: GraphBuilder, name: str, x: Value, least: Numbers | None, most: Numbers | None) -> Value:
    """min(max(x, least), most), elementwise; constants may expand ``x``, and None and infinite ones are no limits.

    The largest numbers of the type of ``x`` are none either, where ``x`` lies within them. As executed it does, or is
    infinite; a real number may lie beyond, so that ``x`` is first rounded to that type, which has to be proven to hold
    it (:class:`zonocuda.graph.Cast`).
    """
    lower, low_is_largest = (None, False) if least is None else _limit(builder, least, x, 1)
    upper, high_is_largest = (None, False) if most is None else _limit(builder, most, x, -1)
    shape = x.shape
    for limit in (lower, upper):
        if limit is not None:
            shape = broadcast(shape, limit.shape)
    whole = Clip(*(None if limit is None else limit.held() for limit in (lower, upper)))

    def write() -> Value:
        y = x
        if low_is_largest or high_is_largest:
            y = builder.emit(f"{name}/held", Cast(x.dtype), x, dtype=x.dtype)
        y = expand(builder, f"{name}/expand", y, shape)
        if lower is None or upper is None:
            found = _limited(builder, name, y, lower, 1)
            return _limited(builder, name, found, upper, -1)
        if not _is_finite(lower) or not _is_finite(upper):
            return _limited(builder, name, _limited(builder, f"{name}/lower", y, lower, 1), upper, -1)
        above = relu(builder, f"{name}/above", _shifted(builder, f"{name}/below", y, -lower))
        rest = negate(builder, f"{name}/rest", above, enclosure.add(upper, lower, -1))
        return negate(builder, name, relu(builder, f"{name}/left", rest), upper)

    return written(builder, whole, [x], write)


def _limit(builder: GraphBuilder, constant: Numbers, x: Value, sign: int) -> tuple[Enclosure | None, bool]:
    """A limit's numbers, infinite where there is none, or None where there is none anywhere; and whether a finite
    number that the type of ``x`` has nothing beyond was taken for none."""
    limit = _exactly(feature_constant(builder, constant, x))
    value = limit.value.detach()
    none = (value * sign <= -torch.finfo(x.dtype).max) & (limit.error == 0)
    if bool(value.isnan().any()) or bool(((value * sign == math.inf) | ~limit.error.isfinite()).any()):
        refuse("a limit is not a number, or leaves no number")
    is_largest = bool((none & value.isfinite()).any())
    if bool(none.all()) and broadcast(x.shape, limit.shape) == x.shape:
        return None, is_largest
    return limit.of(limit.value.masked_fill(none, -sign * math.inf), limit.error), is_largest


def _is_finite(limit: Enclosure) -> bool:
    return bool(limit.value.isfinite().all())


def _limited(builder: GraphBuilder, name: str, x: Value, limit: Enclosure | None, sign: int) -> Value:
    """max(x, limit), or min for ``sign`` -1, of ``x`` that has the shape of both.

    c + relu(x - c); where some limits are infinite, x + relu(m (c - x)) with m = 0 and c = 0 there and m = 1 elsewhere.
    """
    if limit is None:
        return x
    if _is_finite(limit):
        if sign == -1:
            return negate(
                builder, name, relu(builder, f"{name}/left", negate(builder, f"{name}/rest", x, limit)), limit
            )
        if limit.is_exact and not bool((limit.value != 0).any()):
            return relu(builder, name, x)
        above = relu(builder, f"{name}/above", _shifted(builder, f"{name}/below", x, -limit))
        return scale_shift(builder, name, above, None, limit)
    infinite = ~limit.value.isfinite()
    factor = torch.where(infinite, 0.0, -float(sign)).to(torch.float32)
    signed = limit if sign == 1 else -limit
    shift = signed.of(signed.value.masked_fill(infinite, 0), signed.error.masked_fill(infinite, 0))
    missing = scale_shift(builder, f"{name}/missing", x, factor, shift)
    return add(builder, name, x, relu(builder, f"{name}/needed", missing), sign)


def _shifted(builder: GraphBuilder, name: str, x: Value, shift: Enclosure) -> Value:
    if shift.is_exact and not bool((shift.value != 0).any()):
        return x
    return scale_shift(builder, name, x, None, shift)


def _exactly(constant: Numbers) -> Enclosure:
    """A constant as real numbers: no execution computes with what is derived from it here."""
    if isinstance(constant, Enclosure):
        return replace(constant, executed=False)
    return Enclosure.exact(constant)


# ---- of one ----------------------------------------------------------------------------------------------------------


def leaky_relu(builder: GraphBuilder, name: str, x: Value, slope: Numbers) -> Value:
    """x where x >= 0, else slope x; the slope may expand ``x``."""
    s = _exactly(feature_constant(builder, slope, x))
    shape = broadcast(x.shape, s.shape)

    def write() -> Value:
        y = expand(builder, f"{name}/expand", x, shape)
        if s.is_exact and not bool((s.value != 0).any()):
            return relu(builder, name, y)
        rest = enclosure.add(s.of(torch.ones_like(s.value), torch.zeros_like(s.error)), s, -1)
        positive = scale_shift(builder, f"{name}/rest", relu(builder, f"{name}/positive", y), rest, None)
        scale = ScaleShift(**builder.constants(scale=s, shift=None))
        share = builder.emit(f"{name}/share", scale, y, part=Part(products=1))
        return add(builder, name, share, positive)

    return written(builder, Leaky(s.held()), [x], write)


def absolute(builder: GraphBuilder, name: str, x: Value) -> Value:
    """|x|."""

    def write() -> Value:
        two = torch.tensor(2.0, dtype=torch.float32, device="cpu")
        twice = scale_shift(builder, f"{name}/twice", relu(builder, f"{name}/positive", x), two, None)
        return add(builder, name, twice, x, -1)

    return written(builder, Absolute(), [x], write)


# ---- over windows ----------------------------------------------------------------------------------------------------


def reduce_extreme(builder: GraphBuilder, name: str, x: Value, dims: Shape, sign: int, keepdim: bool) -> Value:
    """The largest or least value over the feature dimensions ``dims``."""
    axes = [(dim, tuple((i,) for i in range(x.shape[dim]))) for dim in sorted(dims, reverse=True)]
    kept = _over(builder, name if keepdim else f"{name}/kept", x, axes, sign, _halves)
    if keepdim:
        return kept
    return reshape(builder, name, kept, tuple(n for dim, n in enumerate(x.shape) if dim not in dims))


def max_pool(
    builder: GraphBuilder, name: str, x: Value, kernel: Shape, stride: Shape, pads: Pads, dilation: Shape, out: Shape
) -> Value:
    """Maxima over windows of features ``[C, *spatial]``, ``out`` of them along each dimension.

    Window i begins at stride i - begin; positions in the padding count for nothing.
    """
    if not 1 <= len(kernel) <= 3 or len(x.shape) != len(kernel) + 1:
        refuse(f"pooling with kernel {kernel} needs features [C, {len(kernel)} extents], got {x.shape}")
    if not len(stride) == len(pads) == len(dilation) == len(kernel) or any(
        n < 1 for n in (*kernel, *stride, *dilation)
    ):
        refuse(f"kernel {kernel}, strides {stride}, pads {pads} and dilations {dilation} do not fit")
    axes = []
    for dim in reversed(range(len(kernel))):  # columns, then rows
        (begin, _), n = pads[dim], x.shape[dim + 1]
        starts = [stride[dim] * i - begin for i in range(out[dim])]
        windows = [range(a, a + dilation[dim] * (kernel[dim] - 1) + 1, dilation[dim]) for a in starts]
        axes.append((dim + 1, _taps(windows, n)))
    return _over(builder, name, x, axes, 1, _along)


def adaptive_max_pool(builder: GraphBuilder, name: str, x: Value, out: Shape) -> Value:
    """Maxima over the parts [floor(i n / m), ceil((i + 1) n / m)) of each spatial dimension of n positions."""
    axes = []
    for dim in reversed(range(len(out))):
        n, m = x.shape[dim + 1], out[dim]
        if m < 1:
            refuse(f"an output of {out} is empty")
        windows = [range(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        axes.append((dim + 1, _taps(windows, n)))
    return _over(builder, name, x, axes, 1, _along)


def _taps(windows: Sequence[range], extent: int) -> Taps:
    """Windows of as many positions each, in 0..extent - 1: a position outside, or missing, takes the nearest one inside
    of the same window."""
    columns = []
    for window in windows:
        before = max(0, -(window.start // window.step))  # positions below 0
        valid = window[before : max(before, -((window.start - extent) // window.step))]
        if not valid:
            refuse("a window lies in the padding entirely")
        columns.append([valid[0]] * min(before, extent) + list(valid))  # a file may say any number of positions
    count = max(map(len, columns))
    columns = [column + [column[-1]] * (count - len(column)) for column in columns]
    taps = tuple(tuple(column[t] for column in columns) for t in range(count))
    return tuple(dict.fromkeys(taps))  # each once


Step = Callable[[GraphBuilder, str, Value, int, Taps, int], Value]


def _over(builder: GraphBuilder, name: str, x: Value, axes: Sequence[tuple[int, Taps]], sign: int, step: Step) -> Value:
    """Over windows along some dimensions in turn; those whose windows are single positions, all of them, are left."""
    used = tuple((dim, taps) for dim, taps in axes if taps != (tuple(range(x.shape[dim])),))

    def write() -> Value:
        y = x
        for position, (dim, taps) in enumerate(used):
            own = name if position == len(used) - 1 else f"{name}/dim{dim}"
            y = step(builder, own, y, dim, taps, sign)
        return y

    return written(builder, Extremes(used, sign), [x], write)


def _along(builder: GraphBuilder, name: str, x: Value, dim: int, taps: Taps, sign: int) -> Value:
    """Over windows along one dimension."""
    if len(taps) == 1:
        return select(builder, name, x, dim, taps[0])
    x, taps = _padded(builder, name, x, dim, taps)
    parts = [select(builder, f"{name}/tap{t}", x, dim, tap) for t, tap in enumerate(taps)]
    return _tree(builder, name, parts, sign)


def _padded(builder: GraphBuilder, name: str, x: Value, dim: int, taps: Taps) -> tuple[Value, Taps]:
    """The first and the last position repeated, where that makes the taps progressions: slices of ``x``, which keep
    generators windows (:mod:`zonocuda.domains.windowed`)."""
    n = x.shape[dim]
    grown = _progressions(taps, n)
    if grown is None:
        return x, taps
    begin, end = max(0, -min(map(min, grown))), max(0, max(map(max, grown)) - n + 1)
    first = [select(builder, f"{name}/first", x, dim, [0] * begin)] if begin else []
    last = [select(builder, f"{name}/last", x, dim, [n - 1] * end)] if end else []
    padded = concat(builder, f"{name}/padded", [*first, x, *last], dim) if begin or end else x
    return padded, tuple(tuple(i + begin for i in tap) for tap in grown)


def _progressions(taps: Taps, n: int) -> Taps | None:
    """Progressions of one step whose positions, put into 0..n - 1, are the taps; None where there are none, or the taps
    are progressions themselves."""
    grown = []
    for tap in taps:
        inner = [(i, p) for i, p in enumerate(tap) if 0 < p < n - 1] or list(enumerate(tap))
        (i, p), (j, q) = inner[0], inner[-1]
        step = (q - p) // (j - i) if j > i else 1
        grown.append(tuple(p + step * (k - i) for k in range(len(tap))))
    if tuple(grown) == taps or any(
        min(max(g, 0), n - 1) != p for tap, own in zip(taps, grown, strict=True) for p, g in zip(tap, own, strict=True)
    ):
        return None
    return tuple(grown)


def _halves(builder: GraphBuilder, name: str, x: Value, dim: int, taps: Taps, sign: int) -> Value:
    """Over all of a dimension: of its two halves, which share the middle position of an odd number."""
    level = 0
    while x.shape[dim] > 1:
        level += 1
        n = x.shape[dim]
        half = (n + 1) // 2
        a = select(builder, f"{name}/first{level}", x, dim, range(half))
        b = select(builder, f"{name}/second{level}", x, dim, range(n - half, n))
        x = _of_two(builder, name if half == 1 else f"{name}/half{level}", a, b, sign)
    return x


# ---- by a constant condition -----------------------------------------------------------------------------------------


def choose(builder: GraphBuilder, name: str, condition: Tensor, x: Value | Numbers, y: Value | Numbers) -> Value:
    """x where a constant ``condition`` holds, y elsewhere; one of them at least depends on the input."""
    values = [value for value in (x, y) if isinstance(value, Value)]
    ranks = [builder.full_rank(value) for value in values]
    given = [c for c in (condition, x, y) if not isinstance(c, Value)]
    if len(set(ranks)) != 1 or any(c.dim() > ranks[0] for c in given):
        refuse("its operands broadcast over the batch dimension")
    mask = feature_constant(builder, condition, values[0])
    assert isinstance(mask, Tensor)
    sides = [v if isinstance(v, Value) else _exactly(feature_constant(builder, v, values[0])) for v in (x, y)]
    shape = broadcast(mask.shape, *(side.shape for side in sides))
    mask = mask.expand(shape)
    fixed = [side.held() if isinstance(side, Enclosure) else None for side in sides]

    def write() -> Value:
        parts, constant = [], None
        for part, side, chosen in zip(("first", "second"), sides, (mask, ~mask), strict=True):
            if isinstance(side, Value):
                wide = expand(builder, f"{name}/{part}/expand", side, shape)
                parts.append((part, wide, chosen.to(torch.float32)))
            else:
                spread = side.expand(*shape)
                constant = spread.of(spread.value.masked_fill(~chosen, 0), spread.error.masked_fill(~chosen, 0))
        if constant is not None:
            return scale_shift(builder, name, parts[0][1], parts[0][2], constant)
        left, right = (scale_shift(builder, f"{name}/{part}", wide, own, None) for part, wide, own in parts)
        return add(builder, name, left, right)

    return written(builder, Choice(mask, *fixed), values, write)
