"""What is to be proven: input boxes, and linear constraints that describe the unsafe outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Box:
    """The set {x : lower <= x <= upper} of flattened inputs, as ``[N]`` float64 tensors.

    ``lower`` and ``upper`` enclose the exact (decimal) bounds: rounded down and up where float64 does not hold them.
    ``float32_lower`` and ``float32_upper`` are the exact bounds rounded to the nearest float64 and then to the
    nearest float32, the box in which a float32 counterexample counts (the judgement of VNN-COMP).
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
            torch.tensor(down, dtype=torch.float64),
            torch.tensor(up, dtype=torch.float64),
            torch.tensor(lows, dtype=torch.float64).float(),
            torch.tensor(highs, dtype=torch.float64).float(),
        )

    @staticmethod
    def from_tensors(lower: Tensor, upper: Tensor) -> Box:
        """The box of floating-point bounds of any shape, taken as exact."""
        low, high = (b.detach().cpu().double().flatten() for b in (lower, upper))
        return Box(low, high, low.float(), high.float())

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
    """sum outputs[i] * Y_i + sum inputs[j] * X_j + constant <= 0 (or < 0 where ``strict``), coefficients exact."""

    outputs: Mapping[int, Fraction]
    inputs: Mapping[int, Fraction]
    constant: Fraction
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("outputs", "inputs"):
            kept = {i: c for i, c in sorted(getattr(self, name).items()) if c}
            object.__setattr__(self, name, MappingProxyType(kept))

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
    """

    box: Box
    disjuncts: tuple[tuple[LinearConstraint, ...], ...]

    def is_unsafe(self, x: Sequence[float], y: Sequence[float]) -> bool:
        """Whether the output ``y`` at the point ``x`` satisfies some disjunct (the box is not looked at)."""
        return any(all(row.holds(x, y) for row in rows) for rows in self.disjuncts)


@dataclass(frozen=True)
class Spec:
    """A property: it holds when no region has a counterexample.

    ``inputs`` and ``outputs`` are the numbers of flattened input and output variables; ``input_shape`` is the feature
    shape of the inputs, where it is known.
    """

    inputs: int
    outputs: int
    regions: tuple[Region, ...]
    input_shape: tuple[int, ...] | None = None

    @staticmethod
    def robust(
        x: Tensor,
        eps: float | Tensor,
        label: int,
        outputs: int = 10,
        clip: tuple[float, float] | None = (0.0, 1.0),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Spec:
        """Local robustness: output ``label`` stays the strict maximum for every input within ``eps`` of ``x``.

        Args:
            x: the input, of any shape, without a batch dimension; channels first where ``mean`` is given.
            eps: radius in the L-infinity norm, in the units of ``x``; broadcasts against ``x``.
            label: the output that must stay the largest.
            outputs: number of outputs.
            clip: the range of valid inputs, intersected with the ball; None for no clipping.
            mean, std: per-channel normalisation applied to the clipped box, (box - mean) / std.

        Raises:
            ValueError: a radius, range or normalisation that makes no box around ``x``, or a label that is no output.
        """
        radius = torch.as_tensor(eps, dtype=torch.float64).cpu()
        center = x.detach().cpu().double()
        if not bool((radius >= 0).all()) or not bool(radius.isfinite().all()):
            raise ValueError(f"Spec.robust: eps must be finite and nonnegative, got {eps}")
        if (center + radius).shape != center.shape:
            raise ValueError(f"Spec.robust: eps of shape {list(radius.shape)} does not fit x of shape {list(x.shape)}")
        if not bool(center.isfinite().all()):
            raise ValueError("Spec.robust: x holds a NaN or an infinity")
        if not 0 <= label < outputs:
            raise ValueError(f"Spec.robust: label must be one of the {outputs} outputs, got {label}")
        if clip is not None and not clip[0] <= clip[1]:
            raise ValueError(f"Spec.robust: clip must be a range (low, high), got {clip}")
        if clip is not None and bool(((center + radius < clip[0]) | (center - radius > clip[1])).any()):
            raise ValueError(f"Spec.robust: the ball around x lies outside the range {clip}")
        if (mean is None) != (std is None):
            raise ValueError("Spec.robust: mean and std go together")
        if mean is not None and std is not None:
            if not (x.dim() and len(mean) == len(std) == x.shape[0]):
                raise ValueError(
                    f"Spec.robust: mean and std need one value for each channel of x {list(x.shape)}, "
                    f"got {len(mean)} and {len(std)}"
                )
            if not all(0 < s < math.inf for s in std) or not all(math.isfinite(m) for m in mean):
                raise ValueError(f"Spec.robust: mean must be finite and std positive, got {list(mean)} and {list(std)}")
        box = _ball(center, radius, clip, mean, std)
        disjuncts = tuple(
            (LinearConstraint({label: Fraction(1), other: Fraction(-1)}, {}, Fraction(0)),)
            for other in range(outputs)
            if other != label
        )
        return Spec(x.numel(), outputs, (Region(box, disjuncts),), tuple(x.shape))


def _ball(
    center: Tensor,
    radius: Tensor,
    clip: tuple[float, float] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Box:
    """The box (center +- radius, clipped, - mean) / std of ``Spec.robust``, in exact arithmetic."""
    channels = 1 if mean is None else len(mean)
    shift = [Fraction(m) for m in mean or (0.0,)]
    scale = [Fraction(s) for s in std or (1.0,)]
    low, high = (None, None) if clip is None else (Fraction(clip[0]), Fraction(clip[1])) if _finite(clip) else clip
    lower: list[Fraction | None] = []
    upper: list[Fraction | None] = []
    for i, (c, r) in enumerate(
        zip(center.flatten().tolist(), radius.expand(center.shape).flatten().tolist(), strict=True)
    ):
        channel = i * channels // max(1, center.numel())
        ends = [Fraction(c) - Fraction(r), Fraction(c) + Fraction(r)]
        if low is not None and high is not None:
            ends = [Fraction(min(max(end, low), high)) for end in ends]
        lower.append((ends[0] - shift[channel]) / scale[channel])
        upper.append((ends[1] - shift[channel]) / scale[channel])
    return Box.exact(lower, upper)


def _finite(values: tuple[float, float]) -> bool:
    return all(math.isfinite(v) for v in values)
