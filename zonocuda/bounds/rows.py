"""A region's constraints as the rows of matrices."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zonocuda.domains import Zonotope
from zonocuda.specs import LinearConstraint, Region


@dataclass(frozen=True, eq=False)
class Rows:
    """The distinct constraints of a region: row r is output[r] . y + input[r] . x + constant[r] (<= 0 is unsafe).

    For a batch of boxes that have rows of their own (:meth:`stack`) every tensor has the batch as first dimension.

    Attributes:
        output: ``[R, outputs]``.
        input: ``[R, inputs]``.
        constant: ``[R]``.
        unit: ``[R]``, what each row was divided by: 1, or a power of two for coefficients that are very large or small.
        disjuncts: for each disjunct, the rows that it needs.
        labels: a name for every row.
        rounded: ``[R]``, 1 where a number of the row was rounded, else 0; None where none was.
        strict: ``[R]``, whether a row is unsafe only where it is < 0; none is where that is left out.
    """

    output: Tensor
    input: Tensor
    constant: Tensor
    unit: tuple[Fraction, ...]
    disjuncts: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    rounded: Tensor | None = None
    strict: tuple[bool, ...] = ()

    @property
    def count(self) -> int:
        """R."""
        return self.output.shape[-2]

    @cached_property
    def has_input(self) -> bool:
        """Whether some row has a coefficient of the input."""
        return bool(self.input.any())

    @staticmethod
    def of(region: Region, inputs: int, outputs: int, like: Tensor) -> Rows:
        """The rows of ``region``, with the dtype and device of ``like``; coefficients rounded to nearest.

        A row whose coefficients are very large or very small is divided by a power of two first. Where a number still
        does not fit the dtype (it would become 0, subnormal or infinite), the row's constant is NaN: it is never
        refuted.
        """
        position = Rows.places(region)
        distinct = tuple(position)
        output, input_, constant, rounded = (np.zeros((len(distinct), n)) for n in (outputs, inputs, 1, 1))
        units = tuple(_unit(row) for row in distinct)
        for r, (row, unit) in enumerate(zip(distinct, units, strict=True)):
            exact = (row.constant, *row.outputs.values(), *row.inputs.values())
            held = [_held(c if unit == 1 else c / unit, like.dtype) for c in exact]
            values = [one[0] for one in held if one is not None]
            if len(values) < len(held):
                constant[r] = math.nan
                continue
            rounded[r] = not all(one[1] for one in held if one is not None)
            constant[r] = values[0]
            output[r, list(row.outputs)] = values[1 : 1 + len(row.outputs)]
            input_[r, list(row.inputs)] = values[1 + len(row.outputs) :]
        disjuncts = tuple(tuple(position[row] for row in rows) for rows in region.disjuncts)
        labels = tuple(str(row) for row in distinct)
        strict = tuple(row.strict for row in distinct)
        y, x, b, inexact = (torch.from_numpy(a).to(like) for a in (output, input_, constant, rounded))
        return Rows(y, x, b[:, 0], units, disjuncts, labels, inexact[:, 0], strict)

    @staticmethod
    def places(region: Region) -> dict[LinearConstraint, int]:
        """The distinct rows of a region, in their order, and which one each is."""
        distinct = {row: None for rows in region.disjuncts for row in rows}
        return {row: r for r, row in enumerate(distinct)}

    @staticmethod
    def stack(parts: Sequence[Rows]) -> Rows:
        """The rows ``[B, R, ...]`` of a batch of boxes, each with its own, made up to one number by rows that are -1.

        Disjuncts, labels and units remain those of the parts.
        """
        count = max(rows.count for rows in parts)

        def padded(t: Tensor, value: float) -> Tensor:
            return t if len(t) == count else F.pad(t, [0, 0] * (t.dim() - 1) + [0, count - len(t)], value=value)

        output = torch.stack([padded(rows.output, 0) for rows in parts])
        input_ = torch.stack([padded(rows.input, 0) for rows in parts])
        constant = torch.stack([padded(rows.constant, -1) for rows in parts])
        rounded = torch.stack(
            [padded(torch.zeros_like(rows.constant) if rows.rounded is None else rows.rounded, 0) for rows in parts]
        )
        return Rows(output, input_, constant, (), (), (), rounded)

    def values(self, x: Tensor, y: Tensor) -> Tensor:
        """The rows at points: ``[n, R]`` for ``x`` ``[n, *input features]`` and ``y`` ``[n, *output features]``."""
        return y.reshape(len(y), -1) @ self.output.T + x.reshape(len(x), -1) @ self.input.T + self.constant

    def image(self, x: Zonotope, y: Zonotope) -> Zonotope:
        """The rows as a zonotope ``[B, R]``; what ``x`` and ``y`` share cancels exactly."""
        flat = y.reshape(self.output.shape[1]).linear(self.output, self.constant)
        if not self.has_input:
            return flat
        return flat + x.reshape(self.input.shape[1]).linear(self.input)

    def undo_unit(self, row: int, bound: float) -> float:
        """A bound of a row in the units in which the row was written; infinite beyond float64."""
        unit = self.unit[row]
        try:
            return math.ldexp(bound, unit.numerator.bit_length() - unit.denominator.bit_length())
        except OverflowError:
            return math.copysign(math.inf, bound)

    def never(self, lower: Tensor) -> list[bool]:
        """For each row, whether its lower bound says that it never holds: a positive one, or 0 for a strict row.

        NaN and infinity come of an overflow and prove nothing.
        """
        strict = torch.tensor(self.strict or (False,), dtype=torch.bool, device=lower.device)
        result: list[bool] = (((lower > 0) | ((lower == 0) & strict)) & lower.isfinite()).tolist()
        return result

    def refuted(self, lower: Tensor) -> list[bool]:
        """For each disjunct, whether some row of it never holds.

        An empty conjunction is satisfied by every output, so it is never refuted.
        """
        never = self.never(lower)
        return [any(never[r] for r in rows) for rows in self.disjuncts]


def _unit(row: LinearConstraint) -> Fraction:
    """1 where the largest coefficient is of ordinary size, else the power of two just below it."""
    coefficients = [*row.outputs.values(), *row.inputs.values()]
    if all(abs(_exponent(c)) <= 32 for c in coefficients):
        return Fraction(1)
    exponent = _exponent(max(abs(c) for c in coefficients))
    return Fraction(1) if abs(exponent) <= 32 else Fraction(2) ** exponent


def _exponent(value: Fraction) -> int:
    return value.numerator.bit_length() - value.denominator.bit_length()


def _held(value: Fraction, dtype: torch.dtype) -> tuple[float, bool] | None:
    """The float64 nearest to a number, and whether a dtype holds that without rounding; None where the number is
    neither zero nor in the normal range of the dtype."""
    limits = torch.finfo(dtype)
    try:
        wide = float(value)
    except OverflowError:
        return None
    is_inside = (
        2 * limits.tiny < abs(wide) < limits.max / 2
    )  # and away from the ends, or there are fractions to compare
    if not is_inside and value and not Fraction(limits.tiny) <= abs(value) <= Fraction(limits.max):
        return None
    is_wide = wide.as_integer_ratio() == (value.numerator, value.denominator)
    return wide, is_wide and (dtype == torch.float64 or ctypes.c_float(wide).value == wide)
