"""Zonotopes: a center, blocks of generators, and the maps that act on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zonocuda.domains.backend import kernels
from zonocuda.domains.blocks import Block, Dense, Diagonal, Symbols, add_blocks, flat_features
from zonocuda.kink import KinkRule, kink_tolerance


@dataclass(frozen=True, eq=False)
class Zonotope:
    """A batch of zonotopes { c + sum_k eps_k G_k : eps in [-1, 1]^K }.

    Attributes:
        center: c, ``[B, *features]``.
        blocks: the generators, one block for each group of symbols. Zonotopes that share a group depend on the same
            symbols, so that their sums and differences cancel what they share.
    """

    center: Tensor
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        if len({id(block.symbols) for block in self.blocks}) != len(self.blocks):
            raise ValueError("Zonotope: two blocks have the same symbols; add them instead")
        for block in self.blocks:
            block.check(self.center)

    # ---- constructors ------------------------------------------------------------------------------------------------

    @staticmethod
    def from_box(lower: Tensor, upper: Tensor) -> Zonotope:
        """The box [lower, upper], ``[B, *features]`` each: one symbol for each feature that is not a single point.

        The radius is rounded up, so that center - radius <= lower and upper <= center + radius hold exactly.

        Raises:
            ValueError: shapes that differ, or a bound that is NaN, infinite or crosses the other.
        """
        if lower.shape != upper.shape:
            raise ValueError(f"from_box: lower {list(lower.shape)} and upper {list(upper.shape)} differ in shape")
        if not bool((lower <= upper).all()) or not bool((lower.isfinite() & upper.isfinite()).all()):
            raise ValueError("from_box: bounds must be finite, with lower <= upper")
        center = lower + (upper - lower) / 2
        infinity = torch.full_like(center, torch.inf)
        above, below = upper - center, center - lower
        radius = torch.maximum(torch.nextafter(above, infinity), torch.nextafter(below, infinity))
        radius = torch.where(lower == upper, torch.zeros_like(radius), radius)
        return Zonotope(center, (Diagonal.of(radius, "input"),))

    @staticmethod
    def from_ball(x: Tensor, eps: float | Tensor, clip: tuple[float, float] | None = None) -> Zonotope:
        """The L-infinity ball of radius ``eps`` around ``x`` ``[B, *features]``, intersected with the range ``clip``.

        Raises:
            ValueError: a negative, NaN or infinite radius, a ball outside the range, or a range that is none.
        """
        lower, upper = x - eps, x + eps
        if clip is not None:
            if not clip[0] <= clip[1]:
                raise ValueError(f"from_ball: clip must be a range (low, high), got {clip}")
            if bool(((lower > clip[1]) | (upper < clip[0])).any()):
                raise ValueError(f"from_ball: a ball lies outside the range {clip}")
            lower, upper = lower.clamp(*clip), upper.clamp(*clip)
        return Zonotope.from_box(lower, upper)

    @staticmethod
    def from_generators(center: Tensor, generators: Tensor, symbols: Symbols | None = None) -> Zonotope:
        """``center`` ``[B, *features]`` and ``generators`` ``[B, K, *features]`` on fresh symbols, or on given ones.

        Raises:
            ValueError: shapes that do not fit.
        """
        if generators.dim() < 2 or (center.shape[:1], center.shape[1:]) != (generators.shape[:1], generators.shape[2:]):
            raise ValueError(
                f"from_generators: generators must have shape [batch, symbols, *features] for a center of shape "
                f"{list(center.shape)}, got {list(generators.shape)}"
            )
        group = Symbols(generators.shape[1], "given") if symbols is None else symbols
        return Zonotope(center, (Dense(group, generators),))

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    def features(self) -> tuple[int, ...]:
        """The feature shape, without the batch."""
        return tuple(self.center.shape[1:])

    @property
    def symbols(self) -> int:
        """How many symbols it depends on."""
        return sum(block.symbols.count for block in self.blocks)

    def radius(self) -> Tensor:
        """r = sum_k |G_k| over all blocks, ``[B, *features]``."""
        radius = torch.zeros_like(self.center)
        for block in self.blocks:
            radius = radius + block.radius(self.center)
        return radius

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The smallest box around it, c - r and c + r, in round to nearest."""
        if len(self.blocks) == 1 and isinstance(self.blocks[0], Dense):
            lower, upper = kernels().concretize(self.center, self.blocks[0].generators)
            return lower, upper
        radius = self.radius()
        return self.center - radius, self.center + radius

    def noise(self, n: int, generator: torch.Generator | None = None) -> dict[Symbols, Tensor]:
        """``n`` random values ``[n, B, K]`` in [-1, 1] for every group of symbols; every second draw is a vertex."""
        batch = self.center.shape[0]
        draws = {}
        for block in self.blocks:
            shape = (n, batch, block.symbols.count)
            eps = torch.rand(shape, dtype=self.center.dtype, device=self.center.device, generator=generator) * 2 - 1
            eps[::2] = torch.where(eps[::2] < 0, -1.0, 1.0).to(eps.dtype)
            draws[block.symbols] = eps
        return draws

    def at(self, noise: Mapping[Symbols, Tensor]) -> Tensor:
        """The points c + sum_k eps_k G_k, ``[n, B, *features]``, for values ``[n, B, K]`` of every group."""
        points = flat_features(self.center)
        for block in self.blocks:
            rows = block.dense(self.features)
            rows = rows.reshape(*rows.shape[:2], points.shape[-1])
            points = points + torch.einsum("nbk,bkf->nbf", noise[block.symbols], rows)
        return points.reshape(-1, *self.center.shape)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` points of each zonotope, ``[n, B, *features]``; every second one is the image of a vertex."""
        return self.at(self.noise(n, generator))

    # ---- arithmetic --------------------------------------------------------------------------------------------------

    def __add__(self, other: Zonotope | Tensor | float) -> Zonotope:
        """Sum with another zonotope (exact in the symbols they share), or translation."""
        if not isinstance(other, Zonotope):
            return Zonotope(self.center + torch.as_tensor(other).expand(self.center.shape), self.blocks)
        if self.center.shape != other.center.shape:
            raise ValueError(f"Zonotope: cannot add shapes {list(self.center.shape)} and {list(other.center.shape)}")
        theirs = {id(block.symbols): block for block in other.blocks}
        blocks: list[Block] = []
        for block in self.blocks:
            match = theirs.pop(id(block.symbols), None)
            blocks.append(block if match is None else add_blocks(block, match, self.features))
        return Zonotope(self.center + other.center, (*blocks, *theirs.values()))

    def __neg__(self) -> Zonotope:
        return self * -1.0

    def __sub__(self, other: Zonotope | Tensor | float) -> Zonotope:
        """Difference with another zonotope (exact in the symbols they share), or translation."""
        return self + (-other)

    def __mul__(self, factor: float) -> Zonotope:
        """Scalar multiple."""
        return self.scale_shift(torch.as_tensor(factor, dtype=self.center.dtype, device=self.center.device), None)

    __rmul__ = __mul__

    # ---- affine maps -------------------------------------------------------------------------------------------------

    def affine(
        self,
        apply: Callable[[Tensor], Tensor],
        linear: Callable[[Tensor], Tensor],
        rearranges: bool = False,
    ) -> Zonotope:
        """The image under y = A x + b, for ``apply(x)`` = A x + b and ``linear(x)`` = A x on ``[B, *features]``.

        ``rearranges`` says that A moves every feature to one place (a reshape, a permutation, padding), which keeps
        diagonal blocks diagonal; other blocks, and diagonal ones under any other map, become dense.
        """
        blocks: list[Block] = []
        for block in self.blocks:
            moved = block.rearrange(linear, self.features) if rearranges and isinstance(block, Diagonal) else None
            if moved is not None:
                blocks.append(moved)
            else:
                blocks.append(Dense(block.symbols, block.dense(self.features)).map_rows(linear))
        return Zonotope(apply(self.center), tuple(blocks))

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Zonotope:
        """W x + b on the last feature dimension; ``weight`` is ``[out, in]``.

        A diagonal block of a zonotope with one feature dimension becomes scaled columns of W, without a product.
        """

        def image(block: Block) -> Block:
            if isinstance(block, Diagonal) and len(self.features) == 1:
                return block.linear(weight)
            return Dense(block.symbols, F.linear(block.dense(self.features), weight))

        return Zonotope(F.linear(self.center, weight, bias), tuple(image(block) for block in self.blocks))

    def conv2d(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
    ) -> Zonotope:
        """2-d convolution of features ``[C, H, W]``, as :func:`torch.nn.functional.conv2d`."""
        return self.affine(
            lambda x: F.conv2d(x, weight, bias, stride, padding, dilation, groups),
            lambda x: F.conv2d(x, weight, None, stride, padding, dilation, groups),
        )

    def scale_shift(self, scale: Tensor | None, shift: Tensor | None) -> Zonotope:
        """scale * x + shift, elementwise; both broadcast against the features."""
        center, blocks = self.center, self.blocks
        if scale is not None:
            factor = scale.expand(self.center.shape)
            center = center * scale
            blocks = tuple(block.scale(factor) for block in blocks)
        return Zonotope(center if shift is None else center + shift.expand(center.shape), blocks)

    def reshape(self, *features: int) -> Zonotope:
        """Row-major reshape of the features; one of them may be -1."""
        shape = self.center.reshape(self.center.shape[0], *features).shape[1:]  # a block without symbols leaves -1 open

        def image(x: Tensor) -> Tensor:
            return x.reshape(x.shape[0], *shape)

        return self.affine(image, image, rearranges=True)

    def permute(self, *dims: int) -> Zonotope:
        """Permutation of the feature dimensions, counted from 0."""

        def image(x: Tensor) -> Tensor:
            return x.permute(0, *(d + 1 for d in dims))

        return self.affine(image, image, rearranges=True)

    def __getitem__(self, key: Any) -> Zonotope:
        """Slicing of the features (not of the batch), as that of a tensor: ``z[0:3]``, ``z[..., 1]``."""
        index = (slice(None), *(key if isinstance(key, tuple) else (key,)))

        def image(x: Tensor) -> Tensor:
            return x[index]

        return self.affine(image, image)

    @staticmethod
    def cat(parts: Sequence[Zonotope], dim: int) -> Zonotope:
        """Concatenation along a feature dimension; symbols that the parts share stay shared."""
        if not parts:
            raise ValueError("Zonotope.cat: nothing to concatenate")
        rank = len(parts[0].features)
        if not -rank <= dim < rank:
            raise ValueError(f"Zonotope.cat: dim {dim} is not one of the {rank} feature dimensions")
        dim %= rank
        total = sum(part.features[dim] for part in parts)
        images: list[Zonotope] = []
        begin = 0
        for part in parts:
            end = total - begin - part.features[dim]
            pads = [0, 0] * (len(part.features) - 1 - dim) + [begin, end]

            def image(x: Tensor, pads: list[int] = pads) -> Tensor:
                return F.pad(x, pads)

            images.append(part.affine(image, image, rearranges=True))
            begin += part.features[dim]
        result = images[0]
        for padded in images[1:]:
            result = result + padded
        return result

    # ---- ReLU --------------------------------------------------------------------------------------------------------

    def relu(
        self,
        slope: Tensor | None = None,
        *,
        bounds: tuple[Tensor, Tensor] | None = None,
        kink: KinkRule = "envelope",
        origin: str = "relu",
    ) -> Zonotope:
        """A zonotope around ReLU of this one: see :func:`zonocuda.ops.relu` for the mathematics and the gradients.

        Args:
            slope: lam in [0, 1], broadcasts to ``[B, *features]``; None for the minimum-area slope u / (u - l), tied to
                the bounds.
            bounds: l and u ``[B, *features]`` in place of this zonotope's own. The result then encloses ReLU of the
                points that satisfy them.
            kink: the derivative where a slope sits on its kink.
            origin: a name for the new symbols, one for each neuron that is unstable in some element of the batch.
        """
        only = self.blocks[0] if len(self.blocks) == 1 else None
        if bounds is None and isinstance(only, Dense):
            center, generators, offset = kernels().relu(self.center, only.generators, slope, kink=kink)
            return Zonotope(center, (Dense(only.symbols, generators), Diagonal.of(offset, origin)))
        lower, upper = self.bounds() if bounds is None else bounds
        tolerance = kink_tolerance(self.center.dtype, self.symbols)
        multiplier, offset = kernels().relu_relaxation(lower, upper, slope, kink=kink, tolerance=tolerance)
        blocks = tuple(block.scale(multiplier) for block in self.blocks)
        return Zonotope(multiplier * self.center + offset, (*blocks, Diagonal.of(offset, origin)))
