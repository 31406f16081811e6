"""Zonotopes: a center, blocks of generators, and the maps that act on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zonocuda.brief import brief_repr
from zonocuda.domains import maps, memory, shares
from zonocuda.domains.arrays import ball, box, check_generators
from zonocuda.domains.backend import kernels
from zonocuda.domains.blocks import Block, Holders, present, sums
from zonocuda.domains.dense import Dense
from zonocuda.domains.diagonal import Diagonal, flat_features
from zonocuda.domains.geometry import Convolution, pads_of, pair
from zonocuda.domains.hosted import Stored, kept, scaled, through
from zonocuda.domains.plot import plot_zonotope
from zonocuda.domains.sampling import draw, values
from zonocuda.domains.symbols import Symbols
from zonocuda.kink import KinkRule, kink_tolerance
from zonocuda.ranks import Ranks
from zonocuda.windows import Pair


@dataclass(frozen=True, eq=False)
class Zonotope:
    """A batch of zonotopes { c + sum_k eps_k G_k : eps in [-1, 1]^K }.

    Attributes:
        center: c, ``[B, *features]``.
        blocks: the generators, one block for each group of symbols. Zonotopes that share a group depend on the same
            symbols, so that their sums and differences cancel what they share. Some may hold one rank's share of
            their group (:meth:`shared`): a radius, and all that follows from it, is then a collective of all ranks.

    Examples:
        >>> z = Zonotope.from_ball(torch.zeros(1, 2), 1.0).linear(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        >>> lower, upper = z.relu().bounds()
        >>> bool((lower <= 0).all()), bool((upper >= 2).all())
        (True, True)
    """

    center: Tensor
    blocks: tuple[Block, ...]

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        if len({id(block.symbols) for block in self.blocks}) != len(self.blocks):
            raise ValueError("Zonotope: two blocks have the same symbols; add them instead")
        for block in self.blocks:
            block.check(self.center)
        shares.ranks_of(self.blocks)

    # ---- constructors ------------------------------------------------------------------------------------------------

    @staticmethod
    def from_box(lower: Tensor, upper: Tensor) -> Zonotope:
        """The box [lower, upper], ``[B, *features]`` each: one symbol for each feature that is not a single point.

        The radius is rounded up, so that center - radius <= lower and upper <= center + radius hold exactly.

        Raises:
            ValueError: shapes that differ, or a bound that is NaN, infinite or crosses the other.
        """
        return Zonotope.around(*box(lower, upper), "input")

    @staticmethod
    def around(lower: Tensor, upper: Tensor, origin: str = "box") -> Zonotope:
        """:meth:`from_box` for bounds that a computation returned: NaN and infinity stay what they are, as NaN."""
        center = lower + (upper - lower) / 2
        infinity = torch.full_like(center, torch.inf)
        above, below = upper - center, center - lower
        radius = torch.maximum(torch.nextafter(above, infinity), torch.nextafter(below, infinity))
        radius = torch.where(lower == upper, torch.zeros_like(radius), radius)
        return Zonotope(center, (Diagonal.of(radius, origin),))

    @staticmethod
    def from_ball(x: Tensor, eps: float | Tensor, clip: tuple[float, float] | None = None) -> Zonotope:
        """The L-infinity ball of radius ``eps`` around ``x`` ``[B, *features]``, intersected with the range ``clip``.

        Raises:
            ValueError: a negative, NaN or infinite radius, a ball outside the range, or a range that is none.
            TypeError: an argument that holds no floats.
        """
        return Zonotope.from_box(*ball(x, eps, clip))

    @staticmethod
    def from_generators(center: Tensor, generators: Tensor, symbols: Symbols | None = None) -> Zonotope:
        """``center`` ``[B, *features]`` and ``generators`` ``[B, K, *features]`` on fresh symbols, or on given ones.

        Raises:
            ValueError: shapes that do not fit.
            TypeError: an argument that is no tensor.
        """
        check_generators(center, generators)
        group = Symbols(generators.shape[1], "given") if symbols is None else symbols
        return Zonotope(center, (Dense(group, generators),))

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    def features(self) -> tuple[int, ...]:
        """The feature shape, without the batch."""
        return tuple(self.center.shape[1:])

    @property
    def ranks(self) -> Ranks | None:
        """The ranks that symbols of it are shared out over, if they are."""
        return shares.ranks_of(self.blocks)

    @property
    def symbols(self) -> int:
        """How many symbols it depends on, all ranks' together."""
        return sum(shares.kinds(self.blocks).values())

    def radius(self) -> Tensor:
        """r = sum_k |G_k| over all blocks, ``[B, *features]``, all ranks' where they have shares."""
        return shares.add_radius(torch.zeros_like(self.center), self.blocks)

    def shared(self, ranks: Ranks) -> Zonotope:
        """The same zonotope, which all ranks have, with its symbols shared out: this one keeps its run of each group.

        What is computed from the result keeps to the share, new symbols too; every rank makes the same calls.
        """
        return Zonotope(self.center, tuple(shares.share_of(block, ranks) for block in self.blocks))

    def fresh(self, values: Tensor, origin: str) -> Block:
        """New symbols of an image (:meth:`Diagonal.of`), this rank's share where it has one; of the same ``values`` on
        all ranks."""
        block, ranks = Diagonal.of(values, origin), self.ranks
        return block if ranks is None else shares.share_of(block, ranks)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The smallest box around it, c - r and c + r, in round to nearest."""
        if len(self.blocks) == 1 and isinstance(self.blocks[0], Dense) and self.ranks is None:
            lower, upper = kernels().concretize(self.center, self.blocks[0].generators)
            return lower, upper
        radius = self.radius()
        return self.center - radius, self.center + radius

    def plot(self, dims: Sequence[int] = (0, 1), *, index: int = 0, axes: Any = None, **style: Any) -> Any:
        """Draws one zonotope's projection onto two features, an exact polygon (:func:`zonocuda.domains.plot.polygon`).

        Args:
            dims: two places in the flattened features.
            index: which zonotope of the batch.
            axes: matplotlib's, to draw on; by default those of a new figure.
            style: of the polygon, as ``matplotlib.axes.Axes.fill`` takes it.

        Returns:
            The axes.

        Raises:
            ImportError: there is no matplotlib (``pip install 'zonocuda[plot]'``).
            ValueError: places or an index that are not there, or a zonotope that is not finite, or shared out.
        """
        if self.ranks is not None:
            raise ValueError("plot: a zonotope that is shared out over ranks has only a share of its symbols here")
        return plot_zonotope(self, dims, index, axes, **style)

    def noise(self, n: int, generator: torch.Generator | None = None) -> dict[Symbols, Tensor]:
        """``n`` random values ``[n, B, K]`` in [-1, 1] for every group of symbols; every second draw is a vertex."""
        return draw(self, n, generator)

    def at(self, noise: Mapping[Symbols, Tensor]) -> Tensor:
        """The points c + sum_k eps_k G_k, ``[n, B, *features]``, for values ``[n, B, K]`` of every group."""
        points = flat_features(self.center)
        for block in self.blocks:
            rows = block.dense(self.features)
            rows = rows.reshape(*rows.shape[:2], points.shape[-1])
            points = points + torch.einsum("nbk,bkf->nbf", values(noise, block.symbols), rows)
        return points.reshape(-1, *self.center.shape)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` points of each zonotope, ``[n, B, *features]``; every second one is the image of a vertex."""
        return self.at(self.noise(n, generator)).expand(n, *self.center.shape)  # one point where there are no symbols

    # ---- arithmetic --------------------------------------------------------------------------------------------------

    def __add__(self, other: Zonotope | Tensor | float) -> Zonotope:
        """Sum with another zonotope (exact in the symbols they share), or translation."""
        if not isinstance(other, Zonotope):
            shift = other if isinstance(other, Tensor) else self.center.new_tensor(other)
            return Zonotope(self.center + shift.expand(self.center.shape), self.blocks)
        return self.add(other)

    def add(self, other: Zonotope, sign: int = 1, in_place: bool = False) -> Zonotope:
        """self + sign * other, exact in the symbols that they share; ``in_place`` may overwrite both.

        Raises:
            ValueError: zonotopes of different shapes.
        """
        if self.center.shape != other.center.shape:
            raise ValueError(f"Zonotope: cannot add shapes {list(self.center.shape)} and {list(other.center.shape)}")
        if sign != 1:
            factor = torch.as_tensor(sign, dtype=self.center.dtype, device=self.center.device)
            other = other.scale_shift(factor, None, in_place=in_place)
        return Zonotope(self.center + other.center, sums(self.blocks, other.blocks, self.features, in_place))

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

    # Where ``consume`` is true, nobody may use this zonotope again: the memory of its generators is given up, block
    # after block, for those of the image.

    def affine(
        self, apply: Callable[[Tensor], Tensor], linear: Callable[[Tensor], Tensor], consume: bool = False
    ) -> Zonotope:
        """The image under y = A x + b, for ``apply(x)`` = A x + b and ``linear(x)`` = A x on ``[B, *features]``.

        Every block becomes dense; the maps below keep what structure they can.
        """
        return self._map(apply, lambda block: maps.generic(block, self.features, linear), consume)

    def _map(
        self, apply: Callable[[Tensor], Tensor], image: Callable[[Stored], Stored], consume: bool = False
    ) -> Zonotope:
        blocks: list[Block] = []
        holders = Holders(self.blocks)
        for block in self.blocks:
            blocks.append(through(block, image))
            if consume:
                holders.release(block)
        return Zonotope(apply(self.center), tuple(blocks))

    def linear(self, weight: Tensor, bias: Tensor | None = None, consume: bool = False) -> Zonotope:
        """W x + b on the last feature dimension; ``weight`` is ``[out, in]``.

        With one feature dimension a diagonal block becomes scaled columns of W, without a product.
        """
        return self._map(
            lambda x: F.linear(x, weight, bias), lambda block: maps.linear(block, self.features, weight), consume
        )

    def conv2d(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Pair = 1,
        padding: int | Pair | tuple[Pair, Pair] = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        consume: bool = False,
    ) -> Zonotope:
        """2-d convolution of features ``[C, H, W]``, as :func:`torch.nn.functional.conv2d`.

        ``padding`` is one number, one for each axis, or (begin, end) for each axis. Diagonal blocks become scaled
        kernels and windows larger windows, dense where they cover more than a third of the map.
        """
        how = Convolution((weight.shape[2], weight.shape[3]), pair(stride), pads_of(padding), pair(dilation), groups)
        rows = sum(block.symbols.count for block in self.blocks if isinstance(present(block), Dense))
        matrix = maps.product_of(weight, how, self.features, len(self.center) * rows)
        return self._map(
            lambda x: maps.convolve_map(x, weight, bias, how),
            lambda block: maps.convolve(block, self.features, weight, how, matrix),
            consume,
        )

    def avg_pool2d(self, kernel: int | Pair, stride: int | Pair | None = None, consume: bool = False) -> Zonotope:
        """Mean over windows of features ``[C, H, W]``, without padding; ``stride`` is the kernel if not given."""
        size, step = pair(kernel), pair(kernel if stride is None else stride)
        return self._map(
            lambda x: F.avg_pool2d(x, size, step),
            lambda block: maps.average_pool(block, self.features, size, step),
            consume,
        )

    def reduce(self, dims: Sequence[int], mean: bool = False, keepdim: bool = False, consume: bool = False) -> Zonotope:
        """Sum, or mean, over feature dimensions counted from 0."""
        chosen, function = tuple(dims), torch.mean if mean else torch.sum
        return self._map(
            lambda x: function(x, dim=[d + 1 for d in chosen], keepdim=keepdim),
            lambda block: maps.reduce(block, self.features, chosen, mean, keepdim),
            consume,
        )

    def scale_shift(self, scale: Tensor | None, shift: Tensor | None, in_place: bool = False) -> Zonotope:
        """scale * x + shift, elementwise; both broadcast against the features; ``in_place`` may overwrite this one."""
        center, blocks = self.center, self.blocks
        if scale is not None:
            center = center * scale
            blocks = tuple(
                scaled(block, lambda b, own: maps.scale(b, self.features, scale, own), in_place) for block in blocks
            )
        return Zonotope(center if shift is None else center + shift.expand(center.shape), blocks)

    def reshape(self, *features: int) -> Zonotope:
        """Row-major reshape of the features; one of them may be -1."""
        center = self.center.reshape(self.center.shape[0], *features)
        shape = tuple(center.shape[1:])  # a block without symbols leaves -1 open
        return Zonotope(center, tuple(maps.reshape(block, shape) for block in self.blocks))

    def permute(self, *dims: int) -> Zonotope:
        """Permutation of the feature dimensions, counted from 0."""
        return self._map(
            lambda x: x.permute(0, *(d + 1 for d in dims)), lambda block: maps.permute(block, self.features, dims)
        )

    def pad(self, pads: maps.Pads, value: float = 0.0) -> Zonotope:
        """(begin, end) constants around every feature dimension; a negative amount crops."""
        return self._map(
            lambda x: F.pad(x, maps.flat_pads(pads), value=value), lambda block: maps.pad(block, self.features, pads)
        )

    def select(self, dim: int, index: Sequence[int]) -> Zonotope:
        """The positions ``index`` (nonnegative) of a feature dimension, which is counted from 0."""
        places = torch.tensor(tuple(index), dtype=torch.int64, device=self.center.device)
        return self._map(
            lambda x: x.index_select(dim + 1, places),
            lambda block: maps.select(block, self.features, dim, tuple(index)),
        )

    def __getitem__(self, key: Any) -> Zonotope:
        """Slicing of the features (not of the batch), as that of a tensor: ``z[0:3]``, ``z[..., 1]``."""
        index = (slice(None), *(key if isinstance(key, tuple) else (key,)))
        return self.affine(lambda x: x[index], lambda x: x[index])

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
            images.append(part.pad(tuple((begin, end) if d == dim else (0, 0) for d in range(rank))))
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
        in_place: bool = False,
    ) -> Zonotope:
        """A zonotope around ReLU of this one: see :func:`zonocuda.ops.relu` for the mathematics and the gradients.

        Args:
            slope: lam in [0, 1], broadcasts to ``[B, *features]``; None for the minimum-area slope u / (u - l), tied to
                the bounds.
            bounds: l and u ``[B, *features]`` in place of this zonotope's own. The result then encloses ReLU of the
                points that satisfy them.
            kink: the derivative where a slope sits on its kink.
            origin: a name for the new symbols, one for each neuron that is unstable in some element of the batch.
            in_place: the result's generators may overwrite those of this zonotope.
        """
        only = self.blocks[0] if len(self.blocks) == 1 else None
        if bounds is None and isinstance(only, Dense) and not memory.keeps_on_host() and self.ranks is None:
            center, generators, offset = kernels().relu(self.center, only.generators, slope, kink=kink)
            return Zonotope(center, (Dense(only.symbols, generators), Diagonal.of(offset, origin)))
        lower, upper = self.bounds() if bounds is None else bounds
        tolerance = kink_tolerance(self.center.dtype, self.symbols)
        multiplier, offset = kernels().relu_relaxation(lower, upper, slope, kink=kink, tolerance=tolerance)
        if self.ranks is not None:
            multiplier, offset = self.ranks.agreed(multiplier, offset)
        return self.within(multiplier, offset, offset, origin, in_place)

    def within(self, slope: Tensor, middle: Tensor, radius: Tensor, origin: str, in_place: bool = False) -> Zonotope:
        """The zonotope of slope x + middle + [-radius, radius], elementwise, each ``[B, *features]``.

        Args:
            slope, middle, radius: the band, the same on all ranks.
            origin: a name for the new symbols, one for each neuron whose radius is not 0 in some element of the batch.
            in_place: the result's generators may overwrite those of this zonotope.
        """
        blocks = tuple(kept(block.scale(slope, in_place)) for block in self.blocks)
        return Zonotope(slope * self.center + middle, (*blocks, self.fresh(radius, origin)))
