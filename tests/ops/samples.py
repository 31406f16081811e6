"""Inputs of every op, that feed the tests of values, gradients, schemas and fakes.

Random neurons keep away from the discontinuities, by a hundredth of their radius, so that rounding cannot move them
across; neurons that lie *on* a discontinuity have dyadic numbers, whose sums are exact in any order. What happens
between the two has tests of its own. Numbers come from torch's global generator, which the fixture ``seed`` has seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """The arguments of one call of an op, by name, and what is special about them."""

    name: str
    inputs: Mapping[str, Any]

    def leaves(self) -> dict[str, Tensor]:
        """The inputs that want a gradient."""
        return {name: t for name, t in self.inputs.items() if isinstance(t, Tensor) and t.requires_grad}

    def converted(self, convert: Callable[[Tensor], Tensor]) -> Sample:
        """The sample with every floating-point tensor replaced by a new leaf."""

        def leaf(value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return value
            return convert(value.detach()).requires_grad_(value.requires_grad)

        return Sample(self.name, {name: leaf(value) for name, value in self.inputs.items()})

    def to(self, dtype: torch.dtype) -> Sample:
        """The same numbers in another dtype."""
        return self.converted(lambda t: t.to(dtype))


@dataclass(frozen=True)
class Shape:
    """Sizes of a zonotope: center ``[batch, *features]``, generators ``[batch, symbols, *features]``."""

    batch: int
    symbols: int
    features: tuple[int, ...]


SHAPES = {
    "vector": Shape(2, 5, (7,)),
    "matrix": Shape(1, 3, (3, 4)),
    "map": Shape(2, 4, (2, 3, 5)),
    "a number for each batch element": Shape(3, 4, ()),
    "one neuron": Shape(1, 1, (1,)),
    "many symbols": Shape(1, 300, (9,)),
    "several tiles": Shape(2, 9, (700,)),
    "no symbols": Shape(2, 0, (5,)),
    "empty batch": Shape(0, 3, (4,)),
    "no features": Shape(2, 3, (0,)),
}
SMALL = {name: SHAPES[name] for name in ("vector", "map", "one neuron", "no symbols")}
EMPTY = {name: SHAPES[name] for name in ("no symbols", "empty batch", "no features")}
LARGE = {"large": Shape(1, 40, (4100,))}  # enough for several threads, and not a multiple of any tile
_MARGIN = 0.01


def uniform(low: float, high: float, *size: int, dtype: torch.dtype) -> Tensor:
    """Numbers of [low, high)."""
    return low + (high - low) * torch.rand(size, dtype=dtype)


def zonotope(shape: Shape, dtype: torch.dtype, dead: bool = True, active: bool = True) -> tuple[Tensor, Tensor]:
    """Center and generators of dead, active and (most) crossing neurons, away from l = 0, u = 0 and G = 0."""
    size = (shape.batch, shape.symbols, *shape.features)
    generators = uniform(0.1, 1, *size, dtype=dtype) * (2 * torch.randint(0, 2, size, dtype=dtype) - 1)
    radius = generators.abs().sum(1)
    where = uniform(-1 + _MARGIN, 1 - _MARGIN, *radius.shape, dtype=dtype)
    kind = torch.rand(radius.shape)
    where = torch.where(kind < 0.2 * dead, -1.5, where)
    where = torch.where(kind > 1 - 0.2 * active, 1.5, where)
    return where * torch.where(radius > 0, radius, 1.0), generators


def edge_zonotope(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """One neuron for every exact edge: l = u = 0, l = 0, u = 0, l = u > 0, l = u < 0, c = 0, and an exact crossing."""
    center = torch.tensor([[0.0, 1.0, -1.0, 2.0, -2.0, 0.0, 0.5]], dtype=dtype)
    first = torch.tensor([0.0, 0.5, 0.5, 0.0, 0.0, 0.75, -0.25], dtype=dtype)
    second = torch.tensor([0.0, -0.5, -0.5, 0.0, 0.0, 0.0, 1.0], dtype=dtype)
    return center, torch.stack([first, second]).unsqueeze(0)


def off_kink_slopes(lower: Tensor, upper: Tensor) -> Tensor:
    """Slopes in [0, 1], on either side of u / (u - l), at least a hundredth of the way to the end away from it."""
    crossing = (lower < 0) & (upper > 0)
    star = torch.where(crossing, upper, 1.0) / torch.where(crossing, upper - lower, 2.0)
    share = _MARGIN + (1 - 2 * _MARGIN) * torch.rand_like(star)
    return torch.where(torch.rand_like(star) < 0.5, star * share, star + (1 - star) * share)


def _zonotopes(shapes: Mapping[str, Shape], dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
    for name, shape in shapes.items():
        yield (name, *zonotope(shape, dtype))
    if "vector" in shapes:
        yield ("edges", *edge_zonotope(dtype))


def finish(name: str, device: torch.device, requires_grad: bool, /, **inputs: Any) -> Sample:
    """The sample on ``device``; every floating-point tensor of it wants a gradient, or none does."""

    def place(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(device).clone().requires_grad_(requires_grad and value.is_floating_point())

    return Sample(name, {key: place(value) for key, value in inputs.items()})


def concretize_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """Inputs of ``concretize``."""
    for name, center, generators in _zonotopes(shapes, dtype):
        yield finish(name, device, requires_grad, center=center, generators=generators)


def scale_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """Inputs of ``scale``."""
    for name, multiplier, generators in _zonotopes(shapes, dtype):
        yield finish(name, device, requires_grad, generators=generators, multiplier=multiplier)


def relu_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """Inputs of ``relu``: tied, free and shared slopes, own and given bounds, all dead, all active."""
    for name, c, g in _zonotopes(shapes, dtype):
        radius = g.abs().sum(1)
        lower, upper = c - radius, c + radius
        slope = off_kink_slopes(lower, upper)
        tighter = {"lower": lower + 0.25 * radius, "upper": upper - 0.25 * radius}
        inputs = {"center": c, "generators": g}
        yield finish(f"{name}, tied", device, requires_grad, **inputs)
        yield finish(f"{name}, free", device, requires_grad, **inputs, slope=slope)
        if name == "edges":
            continue
        yield finish(f"{name}, tied, bounds", device, requires_grad, **inputs, **tighter)
        slope = off_kink_slopes(tighter["lower"], tighter["upper"])
        yield finish(f"{name}, free, bounds", device, requires_grad, **inputs, **tighter, slope=slope)
        outside = torch.where(slope > 0.5, 1 + slope, -slope)
        yield finish(f"{name}, slopes outside [0, 1]", device, requires_grad, **inputs, slope=outside)
    for name, sign in (("all dead", -1), ("all active", 1)):
        g = zonotope(SHAPES["vector"], dtype)[1]
        c = sign * (g.abs().sum(1) + 0.5)
        slope = torch.rand_like(c)
        yield finish(f"{name}, tied", device, requires_grad, center=c, generators=g)
        yield finish(f"{name}, free", device, requires_grad, center=c, generators=g, slope=slope)
    # One slope for the batch: the neurons of both elements cross, at the same place, so that no slope is on a kink.
    c, g = zonotope(Shape(1, 5, (7,)), dtype, dead=False, active=False)
    radius = g.abs().sum(1)
    slope = off_kink_slopes(c - radius, c + radius)
    c, g = torch.cat([c, 2 * c]), torch.cat([g, 2 * g])
    yield finish("slope [1, N]", device, requires_grad, center=c, generators=g, slope=slope)
    yield finish("slope [N]", device, requires_grad, center=c, generators=g, slope=slope[0])


def relu_relaxation_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """Inputs of ``relu_relaxation``."""
    for name, c, g in _zonotopes(shapes, dtype):
        radius = g.abs().sum(1)
        bounds = {"lower": c - radius, "upper": c + radius}
        slope = off_kink_slopes(**bounds)
        yield finish(f"{name}, tied", device, requires_grad, **bounds)
        yield finish(f"{name}, free", device, requires_grad, **bounds, slope=slope)
        outside = torch.where(slope > 0.5, 1 + slope, -slope)
        yield finish(f"{name}, slopes outside [0, 1]", device, requires_grad, **bounds, slope=outside)


def _index(symbols: int, features: int) -> Tensor:
    """Which neuron each symbol touches: any, and some several times."""
    return torch.randint(0, features, (symbols,)) if features else torch.empty(0, dtype=torch.int64)


def diagonal_linear_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """Inputs of ``diagonal_linear``: ``symbols`` of them, and the features of a shape as the layer's outputs."""
    for name, shape in shapes.items():
        out, width = prod(shape.features), max(1, 2 * shape.symbols // 3)
        yield finish(
            name,
            device,
            requires_grad,
            coefficients=uniform(-1, 1, shape.batch, shape.symbols, dtype=dtype),
            index=_index(shape.symbols, width),
            weight=uniform(-1, 1, out, width, dtype=dtype),
        )
    if "no symbols" in shapes:
        empty = torch.empty(2, 0, dtype=dtype)
        weight = torch.empty(3, 0, dtype=dtype)
        yield finish("no inputs", device, requires_grad, coefficients=empty, index=_index(0, 0), weight=weight)


def error_block_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """Inputs of ``error_block``."""
    for name, shape in shapes.items():
        features = prod(shape.features)
        symbols = shape.symbols if features else 0
        yield finish(
            name,
            device,
            requires_grad,
            coefficients=uniform(-1, 1, shape.batch, symbols, dtype=dtype),
            index=_index(symbols, features),
            shape=shape.features,
        )
