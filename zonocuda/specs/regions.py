"""From a formula over inputs and outputs to the regions of a Spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction

import torch

from zonocuda.specs.formula import Formula, FormulaError, check_size, exceeds_float64
from zonocuda.specs.spec import Box, LinearConstraint, Region, Spec

MAX_COORDINATES = 10_000_000
"""Inputs of all regions together."""

Bounds = tuple[Fraction | None, Fraction | None]
"""Exact lower and upper bound of one input; None where there is none."""


def spec_of(formula: Formula, inputs: int, outputs: int, input_name: Callable[[int], str]) -> Spec:
    """The property whose counterexamples are the points that satisfy ``formula``.

    A row with one input and no output is a bound of that input. The conjunctions of the formula whose input bounds
    agree exactly share a region, in the order of first appearance. A strict bound closes the region's box (which then
    encloses the open one) and also stays as a strict row of the conjunction, so that its boundary is not accepted.

    A region is empty when an *exact* lower bound exceeds its upper bound, be it by less than float64 can tell. Empty
    regions are dropped; where that would leave none, the first one is kept, with a box whose ``is_empty`` is True.
    A formula that is false whatever the bounds are, such as ``(<= 1 0)``, gives a Spec without regions.

    Args:
        inputs, outputs: numbers of flattened variables.
        input_name: how messages call input j.

    Raises:
        FormulaError: a nonempty region leaves an input without a lower or upper bound, a bound exceeds float64, or
            the regions are too many for MAX_COORDINATES or their rows for ``formula.MAX_ROWS``.
    """
    shared, shared_rows = _split(formula.common)
    check_size(len(formula.terms), len(formula.terms) * len(shared_rows) + sum(map(len, formula.terms)))
    base = _intersection({}, shared)
    groups: dict[frozenset[tuple[int, Bounds]], list[tuple[LinearConstraint, ...]]] = {}
    for term in formula.terms:
        bounds, rows = _split(term)
        tightened = _intersection(base, bounds)
        difference = frozenset((j, b) for j, b in tightened.items() if base.get(j) != b)
        groups.setdefault(difference, []).append((*shared_rows, *rows))

    base_is_empty = any(map(_is_empty, base.values()))
    kept = {key: d for key, d in groups.items() if not base_is_empty and not any(_is_empty(b) for _, b in key)}
    if not kept:
        kept = dict(list(groups.items())[:1])
    if len(kept) * inputs > MAX_COORDINATES:
        raise FormulaError(
            f"{len(kept)} input regions of {inputs} inputs have more than {MAX_COORDINATES} bounds; "
            "split the property into several files"
        )
    regions = (Region(_box(base | dict(key), inputs, input_name), tuple(d)) for key, d in kept.items())
    return Spec(inputs, outputs, tuple(regions))


def _split(rows: Iterable[LinearConstraint]) -> tuple[list[tuple[int, Bounds]], tuple[LinearConstraint, ...]]:
    """The input bounds among the rows, and the rows that a closed box does not express."""
    bounds: list[tuple[int, Bounds]] = []
    others = []
    for row in rows:
        if row.outputs or len(row.inputs) != 1:
            others.append(row)
            continue
        ((j, c),) = row.inputs.items()
        bound = -row.constant / c
        bounds.append((j, (None, bound) if c > 0 else (bound, None)))
        if row.strict:
            others.append(row)
    return bounds, tuple(others)


def _intersection(base: dict[int, Bounds], bounds: list[tuple[int, Bounds]]) -> dict[int, Bounds]:
    """The inputs that ``bounds`` mentions, each with its bounds there and in ``base`` intersected."""
    result: dict[int, Bounds] = {}
    for j, (lower, upper) in bounds:
        low, high = result.get(j) or base.get(j, (None, None))
        if lower is not None and (low is None or lower > low):
            low = lower
        if upper is not None and (high is None or upper < high):
            high = upper
        result[j] = (low, high)
    return result


def _is_empty(bounds: Bounds) -> bool:
    lower, upper = bounds
    return lower is not None and upper is not None and lower > upper


def _box(bounds: dict[int, Bounds], inputs: int, input_name: Callable[[int], str]) -> Box:
    """The box of ``bounds``, rounded outward.

    An empty box need not bound every input. Where it is empty the rounding is exchanged, lower bounds up and upper
    bounds down, which keeps lower > upper in float64; in float32 one more step to each side does.
    """
    for j, pair in bounds.items():
        if any(b is not None and exceeds_float64(b) for b in pair):
            raise FormulaError(f"a bound of input {input_name(j)} is beyond the range of float64")
    is_empty = any(map(_is_empty, bounds.values()))
    if not is_empty:
        for j in range(inputs):
            for side, bound in zip(("lower", "upper"), bounds.get(j, (None, None)), strict=True):
                if bound is None:
                    raise FormulaError(f"input {input_name(j)} has no {side} bound")
    pairs = [bounds.get(j, (None, None)) for j in range(inputs)]
    if not is_empty:
        return Box.exact([low for low, _ in pairs], [high for _, high in pairs])

    exchanged = torch.tensor([_is_empty(pair) for pair in pairs], device="cpu")
    ordered = [pair[::-1] if _is_empty(pair) else pair for pair in pairs]
    box = Box.exact([low for low, _ in ordered], [high for _, high in ordered])
    infinity = box.lower.new_tensor(torch.inf).float()
    return Box(
        torch.where(exchanged, box.upper, box.lower),
        torch.where(exchanged, box.lower, box.upper),
        torch.where(exchanged, box.float32_upper.nextafter(infinity), box.float32_lower),
        torch.where(exchanged, box.float32_lower.nextafter(-infinity), box.float32_upper),
    )
