"""What is to be proven: input boxes, and linear constraints that describe the unsafe outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from numbers import Integral
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zonocuda.specs.exact import exact, exact_array

Number = float | str | Fraction | Decimal
"""One number; see :func:`zonocuda.specs.exact.exact`."""

Numbers = Number | Tensor | NDArray[Any] | Sequence[Any]
"""Numbers in a tensor, an array, or lists, or a single one."""


@dataclass(frozen=True, eq=False)
class Box:
    """The set {x : lower <= x <= upper} of flattened inputs, as ``[N]`` float64 tensors.

    ``lower`` and ``upper`` enclose the exact (decimal) bounds: rounded down and up where float64 does not hold them.
    ``float32_lower`` and ``float32_upper`` are the exact bounds rounded to the nearest float64 and then to the
    nearest float32, the box in which a float32 counterexample counts (the judgement of VNN-COMP).

    Examples:
        >>> from fractions import Fraction
        >>> box = Box.exact([Fraction(1, 10)], [None])
        >>> box.lower.item() < 0.1, box.upper.item()
        (True, inf)
    """

    lower: Tensor
    upper: Tensor
    float32_lower: Tensor
    float32_upper: Tensor

    @staticmethod
    def exact(lower: Sequence[Fraction | None], upper: Sequence[Fraction | None]) -> Box:
        """The box of exact rational bounds; None is unbounded (-inf or +inf)."""
        lows = [-math.inf if b is None else float(b) for b in lower]
        highs = [math.inf if b is None else float(b) for b in upper]
        down = [
            math.nextafter(f, -math.inf) if b is not None and Fraction(f) > b else f
            for f, b in zip(lows, lower, strict=True)
        ]
        up = [
            math.nextafter(f, math.inf) if b is not None and Fraction(f) < b else f
            for f, b in zip(highs, upper, strict=True)
        ]
        return Box(
            torch.tensor(down, dtype=torch.float64, device="cpu"),
            torch.tensor(up, dtype=torch.float64, device="cpu"),
            torch.tensor(lows, dtype=torch.float64, device="cpu").float(),
            torch.tensor(highs, dtype=torch.float64, device="cpu").float(),
        )

    @staticmethod
    def from_tensors(lower: Tensor, upper: Tensor) -> Box:
        """The box of floating-point bounds of any shape, taken as exact."""
        low, high = (b.detach().cpu().double().flatten() for b in (lower, upper))
        return Box(low, high, low.float(), high.float())

    def __repr__(self) -> str:
        return f"Box({self.lower.numel()} inputs)"

    @property
    def has_nan(self) -> bool:
        """Whether some bound is NaN, so that nothing can be said of the box."""
        bounds = (self.lower, self.upper, self.float32_lower, self.float32_upper)
        return any(bool(bound.isnan().any()) for bound in bounds)

    @property
    def is_empty(self) -> bool:
        """Whether some lower bound exceeds its upper bound; never true of a NaN."""
        return bool((self.lower > self.upper).any())


@dataclass(frozen=True)
class LinearConstraint:
    """sum outputs[i] * Y_i + sum inputs[j] * X_j + constant <= 0 (or < 0 where ``strict``), coefficients exact.

    Examples:
        >>> from fractions import Fraction
        >>> str(LinearConstraint({0: Fraction(1), 4: Fraction(-1)}, {}, Fraction(1, 2)))
        'Y_0 - Y_4 + 1/2 <= 0'
    """

    outputs: Mapping[int, Fraction]
    inputs: Mapping[int, Fraction]
    constant: Fraction
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("outputs", "inputs"):
            kept = {i: c for i, c in sorted(getattr(self, name).items()) if c}
            object.__setattr__(self, name, MappingProxyType(kept))

    def __reduce__(self) -> tuple[Any, ...]:
        return LinearConstraint, (dict(self.outputs), dict(self.inputs), self.constant, self.strict)

    def __hash__(self) -> int:
        return hash((tuple(self.outputs.items()), tuple(self.inputs.items()), self.constant, self.strict))

    def __str__(self) -> str:
        """As in ``Y_0 - Y_4 + 1/2 <= 0``."""
        terms = [(c, f"Y_{i}") for i, c in self.outputs.items()] + [(c, f"X_{j}") for j, c in self.inputs.items()]
        text = ""
        for c, name in [*terms, (self.constant, "")]:
            if c or not (terms or text):
                size = str(abs(c)) if not name else ("" if abs(c) == 1 else f"{abs(c)} ") + name
                text += (" - " if c < 0 else " + ") + size
        text = text.removeprefix(" + ")
        text = "-" + text.removeprefix(" - ") if text.startswith(" - ") else text
        return f"{text} {'<' if self.strict else '<='} 0"

    def value(self, x: Sequence[float], y: Sequence[float]) -> Fraction:
        """The left-hand side, exactly, for flattened finite inputs ``x`` and outputs ``y``."""
        total = self.constant
        for coefficients, values in ((self.outputs, y), (self.inputs, x)):
            for i, c in coefficients.items():
                total += c * Fraction(values[i])
        return total

    def holds(self, x: Sequence[float], y: Sequence[float]) -> bool:
        """Whether the constraint holds, exactly; False where a value it needs is NaN or infinite."""
        needed = [y[i] for i in self.outputs] + [x[j] for j in self.inputs]
        if not all(math.isfinite(v) for v in needed):
            return False
        value = self.value(x, y)
        return value < 0 if self.strict else value <= 0


@dataclass(frozen=True)
class Region:
    """An input box and the outputs that are unsafe on it: a disjunction of conjunctions of linear constraints.

    A counterexample is a point of ``box`` whose output satisfies every constraint of some disjunct. An empty
    conjunction is satisfied by every output, and an empty disjunction by none.

    Examples:
        >>> from fractions import Fraction
        >>> row = LinearConstraint({0: Fraction(1)}, {}, Fraction(-2))  # Y_0 <= 2
        >>> region = Region(Box.from_tensors(torch.zeros(1), torch.ones(1)), ((row,),))
        >>> region.is_unsafe([0.5], [1.0]), region.is_unsafe([0.5], [3.0])
        (True, False)
    """

    box: Box
    disjuncts: tuple[tuple[LinearConstraint, ...], ...]

    def __repr__(self) -> str:
        first = " and ".join(map(str, self.disjuncts[0])) or "true" if self.disjuncts else "false"
        more = f" or {len(self.disjuncts) - 1} more" if len(self.disjuncts) > 1 else ""
        return f"Region({self.box!r}, unsafe: {first if len(first) <= 200 else first[:197] + '...'}{more})"

    def is_unsafe(self, x: Sequence[float], y: Sequence[float]) -> bool:
        """Whether the output ``y`` at the point ``x`` satisfies some disjunct (the box is not looked at)."""
        return any(all(row.holds(x, y) for row in rows) for rows in self.disjuncts)


@dataclass(frozen=True)
class Spec:
    """A property: it holds when no region has a counterexample.

    ``inputs`` and ``outputs`` are the numbers of flattened input and output variables; ``input_shape`` is the feature
    shape of the inputs, where it is known. ``names`` are those that input and output have in the network's file, where
    the property says them: it is about no other tensors.

    Examples:
        >>> spec = Spec.robust(torch.zeros(2), eps='1/10', label=1, outputs=3)
        >>> spec
        Spec(2 inputs, 3 outputs, 1 region(s): Region(Box(2 inputs), unsafe: -Y_0 + Y_1 <= 0 or 1 more))
    """

    inputs: int
    outputs: int
    regions: Sequence[Region]
    input_shape: tuple[int, ...] | None = None
    names: tuple[str | None, str | None] = (None, None)

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs"):
            count_of(getattr(self, name), f"Spec: {name}", least=0)
        if not isinstance(self.regions, Sequence):
            raise TypeError(f"Spec: regions must be a sequence of Region, got {type(self.regions).__name__}")

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.regions[:1])) + (", ..." if len(self.regions) > 1 else "")
        return f"Spec({self.inputs} inputs, {self.outputs} outputs, {len(self.regions)} region(s): {shown})"

    @staticmethod
    def linear(lower: Numbers, upper: Numbers, matrix: Numbers, bound: Numbers) -> Spec:
        """Linear inequalities: matrix y <= bound for the output y of every input between ``lower`` and ``upper``.

        Numbers are exact: floats are taken at their value, strings such as ``"0.1"`` or ``"8/255"``, Fractions and
        Decimals as what they are.

        Args:
            lower, upper: bounds of the inputs, of the input's shape (without the batch), or single numbers beside it.
            matrix: ``[K, outputs]``, or ``[outputs]`` for one inequality.
            bound: ``[K]``, or one number.

        Raises:
            ValueError: shapes that do not fit each other, a bound below another, or something that is no finite number.
        """
        low, high = (exact_array(b, f"Spec.linear: {name}") for b, name in ((lower, "lower"), (upper, "upper")))
        weights, limits = exact_array(matrix, "Spec.linear: matrix"), exact_array(bound, "Spec.linear: bound")
        try:
            low, high = np.broadcast_arrays(low, high)
            weights = np.atleast_2d(weights)
            limits = np.broadcast_to(limits, len(weights))
        except ValueError as error:
            raise ValueError(f"Spec.linear: shapes do not fit each other: {error}") from error
        if weights.ndim != 2 or not weights.size or not low.size:
            raise ValueError("Spec.linear: matrix must have shape [K, outputs], and no side may be empty")
        if bool((low > high).any()):
            raise ValueError("Spec.linear: a lower bound exceeds its upper bound")
        disjuncts = tuple(
            (LinearConstraint({i: -c for i, c in enumerate(row)}, {}, limit, strict=True),)
            for row, limit in zip(weights.tolist(), limits.tolist(), strict=True)
        )
        box = Box.exact(low.reshape(-1).tolist(), high.reshape(-1).tolist())
        return Spec(low.size, weights.shape[1], (Region(box, disjuncts),), tuple(low.shape))

    @staticmethod
    def robust(
        x: Numbers,
        eps: Numbers,
        label: int,
        outputs: int = 10,
        clip: tuple[Number, Number] | None = (0.0, 1.0),
        mean: Sequence[Number] | None = None,
        std: Sequence[Number] | None = None,
        targets: Sequence[int] | None = None,
        norm: float | str = math.inf,
    ) -> Spec:
        """Local robustness: output ``label`` stays above all others for every input within ``eps`` of ``x``.

        Numbers are exact: floats are taken at their value, strings such as ``"8/255"``, Fractions and Decimals as what
        they are.

        Args:
            x: the input, of any shape, without a batch dimension; channels first where ``mean`` is given.
            eps: radius in the L-infinity norm, in the units of ``x``; broadcasts against ``x``.
            label: the output that must stay the largest.
            outputs: number of outputs.
            clip: the range of valid inputs, intersected with the ball; None for no clipping.
            mean, std: per-channel normalisation applied to the clipped box, (box - mean) / std.
            targets: the outputs that ``label`` must exceed; all others by default.
            norm: of the ball: ``inf`` (or ``"inf"``), the only one supported.

        Raises:
            ValueError: a radius, range or normalisation that makes no box around ``x``, a label or target that is no
                output, or another norm.
        """
        if norm not in (math.inf, "inf"):
            raise ValueError(f"Spec.robust: norm {norm!r} is not supported; use norm='inf', the L-infinity ball")
        outputs = count_of(outputs, "Spec.robust: outputs", least=1)
        label = index_of(label, outputs, "Spec.robust: label")
        rivals = [i for i in range(outputs) if i != label]
        if targets is not None:
            _check_list(targets, "targets", "outputs")
            rivals = [index_of(target, outputs, "Spec.robust: a target") for target in targets]
            if label in rivals or not rivals:
                raise ValueError(f"Spec.robust: targets must be outputs other than the label {label}, got {rivals}")
        center = exact_array(x, "Spec.robust: x")
        box = _ball(center, eps, clip, mean, std)
        disjuncts = tuple(
            (LinearConstraint({label: Fraction(1), other: Fraction(-1)}, {}, Fraction(0)),) for other in rivals
        )
        return Spec(center.size, outputs, (Region(box, disjuncts),), tuple(center.shape))

    @staticmethod
    def robust_batch(x: Numbers, eps: Numbers, labels: Sequence[int], **options: Any) -> list[Spec]:
        """``robust`` for every input of a batch ``x`` ``[n, *shape]`` and its label ``[n]``; ``eps`` is that of each.

        Raises:
            ValueError: as ``robust``, or other numbers of inputs and labels.
        """
        batch = exact_array(x, "Spec.robust_batch: x")
        wanted = exact_array(labels, "Spec.robust_batch: labels")
        if batch.ndim == 0 or wanted.ndim != 1:
            raise ValueError("Spec.robust_batch: x must be a batch of inputs [n, *shape], and labels [n]")
        inputs, chosen = list(batch), list(wanted)
        if len(inputs) != len(chosen):
            raise ValueError(f"Spec.robust_batch: {len(inputs)} inputs and {len(chosen)} labels")
        return [Spec.robust(one, eps, label, **options) for one, label in zip(inputs, chosen, strict=True)]


def index_of(value: Any, count: int, what: str) -> int:
    """One of ``count`` outputs, as an int; raises ValueError."""
    number = exact(value, what)
    if number.denominator != 1 or not 0 <= number < count:
        raise ValueError(f"{what} must be one of the {count} outputs, got {value}")
    return int(number)


def count_of(value: Any, what: str, least: int) -> int:
    """A number of something, as an int; raises TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{what} must be an integer, got {value!r}"[:200])
    if value < least:
        raise ValueError(f"{what} must be at least {least}, got {value}")
    return int(value)


def _check_list(values: object, name: str, of: str) -> None:
    """Raises TypeError unless values are a list, an array or a tensor."""
    if isinstance(values, str | bytes) or not hasattr(values, "__len__") or not hasattr(values, "__iter__"):
        raise TypeError(f"Spec.robust: {name} must be a list of {of}, got {type(values).__name__}")


def _ball(
    center: NDArray[np.object_],
    eps: Numbers,
    clip: tuple[Number, Number] | None,
    mean: Sequence[Number] | None,
    std: Sequence[Number] | None,
) -> Box:
    """The box (center +- eps, clipped, - mean) / std of ``Spec.robust``, in exact arithmetic."""
    try:
        radius = exact_array(eps, "Spec.robust: eps")
    except ValueError as error:
        if "NaN" not in str(error):
            raise
        raise ValueError(f"Spec.robust: eps must be finite and nonnegative, got {eps}") from error
    if bool((radius < 0).any()):
        raise ValueError(f"Spec.robust: eps must be finite and nonnegative, got {eps}")
    low, high = center - radius, center + radius
    if low.shape != center.shape:
        raise ValueError(f"Spec.robust: eps of shape {list(radius.shape)} does not fit x of shape {list(center.shape)}")
    if clip is not None:
        _check_list(clip, "clip", "two ends")
        if len(clip) != 2:
            raise ValueError(f"Spec.robust: clip must be a range (low, high), got {clip}")
        least, most = (
            None if end == open_end else exact(end, "Spec.robust: clip")
            for end, open_end in zip(clip, (-math.inf, math.inf), strict=True)
        )
        if least is not None and most is not None and least > most:
            raise ValueError(f"Spec.robust: clip must be a range (low, high), got {clip}")
        if (least is not None and bool((high < least).any())) or (most is not None and bool((low > most).any())):
            raise ValueError(f"Spec.robust: the ball around x lies outside the range {clip}")
        low = low if least is None else np.maximum(low, np.array(least, dtype=object))
        high = high if most is None else np.minimum(high, np.array(most, dtype=object))
    if (mean is None) != (std is None):
        raise ValueError("Spec.robust: mean and std go together")
    if mean is not None and std is not None:
        _check_list(mean, "mean", "numbers")
        _check_list(std, "std", "numbers")
        if not (center.ndim and len(mean) == len(std) == len(center)):
            raise ValueError(
                f"Spec.robust: mean and std need one value for each channel of x {list(center.shape)}, "
                f"got {len(mean)} and {len(std)}"
            )
        shift, scale = exact_array(mean, "Spec.robust: mean"), exact_array(std, "Spec.robust: std")
        if not bool((scale > 0).all()):
            raise ValueError(f"Spec.robust: mean must be finite and std positive, got {list(mean)} and {list(std)}")
        channels = (-1, *[1] * (center.ndim - 1))
        low, high = ((end - shift.reshape(channels)) / scale.reshape(channels) for end in (low, high))
    return Box.exact(np.asarray(low).reshape(-1).tolist(), np.asarray(high).reshape(-1).tolist())
