"""ATen operators that resize maps with linear weights, or take means over windows of unequal size."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from zonocuda.importers import resize
from zonocuda.importers.aten.node import AtenNode
from zonocuda.importers.builder import Value
from zonocuda.importers.errors import refuse
from zonocuda.importers.resize import HALF, Position


def _linear(node: AtenNode) -> Value:
    return _resized(node, is_cubic=False)


def _cubic(node: AtenNode) -> Value:
    return _resized(node, is_cubic=True)


def _resized(node: AtenNode, is_cubic: bool) -> Value:
    """One dimension after the other; torch computes positions in the type of the numbers, float32 or wider."""
    x = node.value("input" if "input" in node.names else "self")
    count = len(x.shape) - 1
    factors = _factors(node, count)
    for dim in range(1, count + 1):
        extent, size = x.shape[dim], int(node.traced.shape[dim + 1])
        positions = _positions(extent, size, bool(node["align_corners"]), factors[dim - 1], clamps=not is_cubic)
        if [p.place for p in positions] == list(range(extent)):
            continue
        name = node.name if dim == count else f"{node.name}/{dim}"
        if is_cubic:
            x = resize.cubic(node.builder, name, x, dim, positions, Fraction(-3, 4))
        else:
            x = resize.linear(node.builder, name, x, dim, positions)
    return x


def _factors(node: AtenNode, count: int) -> list[float | None]:
    """Scale factors of a module's code, where it states them."""
    if "scale_factors" in node.names:
        found = node["scale_factors"]
        return [None] * count if found is None else [float(factor) for factor in found]
    names = ("scales",) if count == 1 else ("scales_d", "scales_h", "scales_w")[-count:]
    return [None if node[name] is None else float(node[name]) for name in names]


def _positions(extent: int, size: int, corners: bool, factor: float | None, clamps: bool) -> list[Position]:
    """scale (i + 1/2) - 1/2, or scale i between aligned corners."""
    doubt = Fraction(0)
    if corners:
        scale = Fraction(extent - 1, size - 1) if size > 1 else Fraction(0)
    elif factor is not None and factor > 0:
        scale = 1 / Fraction(factor)
        if not resize.is_single(scale):  # the number that the code divides 1 by, or its quotient, may be rounded
            doubt = scale * Fraction(1, 2**22)
    else:
        scale = Fraction(extent, size)
    found = []
    for i in range(size):
        if corners:
            found.append(Position(scale * i, (scale,)))
            continue
        place = scale * (i + HALF)
        shifted = max(place - HALF, Fraction(0)) if clamps else place - HALF
        found.append(Position(shifted, (scale, place, place - HALF), doubt * (i + 1)))
    return found


def adaptive_average_pool(node: AtenNode) -> Value:
    """Means over windows from floor(i n / m) to ceil((i + 1) n / m), one dimension after the other."""
    x = node.value("self")
    sizes = node.ints("output_size", len(x.shape) - 1)
    if len(sizes) != len(x.shape) - 1:
        refuse(f"features {x.shape} do not fit an output of {sizes}")
    node.builder.unaccounted(f"node {node.name!r} divides by counts in an order of its own")
    for dim, size in enumerate(sizes, start=1):
        n = x.shape[dim]
        ends = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
        name = node.name if dim == len(sizes) else f"{node.name}/{dim}"
        x = resize.means(node.builder, name, x, dim, [(first, end, end - first) for first, end in ends])
    return x


_FUNCTIONS: dict[Callable[[AtenNode], Value], str] = {
    _linear: "upsample_linear1d.vec upsample_linear1d.default upsample_bilinear2d.vec upsample_bilinear2d.default "
    "upsample_trilinear3d.vec upsample_trilinear3d.default",
    _cubic: "upsample_bicubic2d.vec upsample_bicubic2d.default",
}
RESIZES: dict[str, Callable[[AtenNode], Value]] = {
    f"aten.{name}": function for function, names in _FUNCTIONS.items() for name in names.split()
}
