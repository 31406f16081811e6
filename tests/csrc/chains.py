"""Every op as its .cu file does it: the same kernels in the same order, on the CPU.

A :class:`Plan` takes the place of what csrc/cuda/columns_launch.h decides from the shape, and a :class:`TilePlan` that
of csrc/cuda/column_tiles_launch.h, so that small inputs reach the wide accesses, the splits and the loops that
only large ones reach on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.csrc.host import Argument, HostKernels, Launch, Out
from zonocuda.kink import KinkRule, check_kink

# The constants of the .cuh files.
LANES, STRIPS, SEGMENT, MOST_SEGMENTS, THREADS, TILE, TILE_ROWS = 32, 8, 256, 64, 256, 32, 8


def segment(symbols: int) -> int:
    """The symbols of a segment of a sum over ``symbols``."""
    return SEGMENT * max(1, -(-symbols // (SEGMENT * MOST_SEGMENTS)))


def segments(symbols: int) -> int:
    """The segments of a sum over ``symbols``."""
    return -(-symbols // segment(symbols))


@dataclass(frozen=True)
class Plan:
    """16-byte accesses or single elements; blocks that share the symbols; one block, whose loops do all, or enough.

    ``splits`` is the number of blocks over which the segments of the symbols are divided.
    """

    wide: bool = False
    splits: int = 1
    one_block: bool = False

    def pointwise(self, items: int, block: int = THREADS) -> Launch:
        """The launch of a kernel that gives a thread to each item."""
        return Launch((1 if self.one_block else max(1, -(-items // block)), 1), (block, 1))

    def tiles(self, items: int, block: tuple[int, int]) -> Launch:
        """The launch of a kernel that gives a block to each item."""
        return Launch((1 if self.one_block else items, 1), block)

    def columns(self, batch: int, features: int, dtype: torch.dtype, rows: int) -> Launch:
        """The launch of a kernel of columns.cuh, with ``rows`` blocks in y."""
        vector = 16 // dtype.itemsize if self.wide else 1
        if features % vector:
            raise ValueError(f"{features} features cannot be read {vector} at a time")
        groups = batch * (features // vector)
        return Launch((1 if self.one_block else max(1, -(-groups // LANES)), rows), (LANES, STRIPS), self.wide)


def sum_columns(host: HostKernels, plan: Plan, term: str, *inputs: Tensor) -> Tensor:
    """The partial sums ``[segments, B, N]`` of a term over the symbols of ``inputs`` ``[B, K, N]``."""
    batch, symbols, features = inputs[0].shape
    dtype = inputs[0].dtype
    out = Out.unwritten(segments(symbols), batch, features, dtype=dtype)
    if symbols == 0:
        return out.before
    launch = plan.columns(batch, features, dtype, plan.splits)
    return host.run(f"sum_columns_kernel/{term}", launch, [*inputs, out], [batch, symbols, features], dtype=dtype)[0]


def map_rows(host: HostKernels, plan: Plan, name: str, generators: list[Tensor], factors: list[Tensor]) -> Tensor:
    """A map of ``generators``, each ``[B, K, N]``, and ``factors``, each ``[B, N]``."""
    batch, symbols, features = generators[0].shape
    dtype = generators[0].dtype
    if symbols == 0:
        return torch.empty(batch, symbols, features, dtype=dtype)
    strips = 1 if plan.one_block else -(-symbols // STRIPS)
    launch = plan.columns(batch, features, dtype, strips)
    out = Out.unwritten(batch, symbols, features, dtype=dtype)
    sizes = [batch, symbols, features]
    return host.run(f"map_rows_kernel/{name}", launch, [*generators, *factors, out], sizes, dtype=dtype)[0]


def outputs(count: int, like: Tensor) -> list[Argument]:
    """Arrays to be written, shaped like ``like``."""
    return [Out.unwritten(*like.shape, dtype=like.dtype) for _ in range(count)]


def concretize(host: HostKernels, plan: Plan, center: Tensor, generators: Tensor) -> list[Tensor]:
    """lower and upper."""
    partial = sum_columns(host, plan, "AbsTerm", generators)
    arguments = [center, partial, *outputs(2, center)]
    launch = plan.pointwise(center.numel())
    return host.run("concretize_kernel", launch, arguments, list(generators.shape), dtype=center.dtype)


def concretize_backward(
    host: HostKernels, plan: Plan, grad_lower: Tensor, grad_upper: Tensor, generators: Tensor
) -> list[Tensor]:
    """The gradients of the center and the generators."""
    count = grad_lower.numel()
    arguments = [grad_lower, grad_upper, *outputs(2, grad_lower)]
    launch = plan.pointwise(count)
    center, shift = host.run("concretize_backward_kernel", launch, arguments, [count], dtype=generators.dtype)
    return [center, map_rows(host, plan, "SignMap", [generators], [shift])]


def scale(host: HostKernels, plan: Plan, generators: Tensor, multiplier: Tensor) -> Tensor:
    """The scaled generators."""
    return map_rows(host, plan, "ScaleMap", [generators], [multiplier])


def scale_backward(
    host: HostKernels, plan: Plan, grad: Tensor, generators: Tensor, multiplier: Tensor, needs_multiplier: bool = True
) -> list[Tensor]:
    """The gradients of the generators and the multiplier."""
    partial = sum_columns(host, plan, "ProductTerm", grad, generators) if needs_multiplier else None
    launch = plan.pointwise(multiplier.numel())
    arguments = [partial, *outputs(1, multiplier)]
    (grad_multiplier,) = host.run("scale_backward_kernel", launch, arguments, list(grad.shape), dtype=grad.dtype)
    return [map_rows(host, plan, "ScaleMap", [grad], [multiplier]), grad_multiplier]


@dataclass(frozen=True)
class ReluInputs:
    """The arguments of the op relu."""

    center: Tensor
    generators: Tensor
    slope: Tensor | None = None
    lower: Tensor | None = None
    upper: Tensor | None = None
    kink: KinkRule = "envelope"
    tolerance: float = 0.0


def relu(host: HostKernels, plan: Plan, a: ReluInputs) -> list[Tensor]:
    """The new center, generators and offset, and the bounds."""
    partial = sum_columns(host, plan, "AbsTerm", a.generators) if a.lower is None else None
    arguments = [partial, *outputs(1, a.center), a.center, a.slope, a.lower, a.upper, *outputs(4, a.center)]
    launch, sizes = plan.pointwise(a.center.numel()), list(a.generators.shape)
    multiplier, center, offset, lower, upper = host.run("relu_kernel", launch, arguments, sizes, dtype=a.center.dtype)
    return [center, map_rows(host, plan, "ScaleMap", [a.generators], [multiplier]), offset, lower, upper]


def relu_backward(
    host: HostKernels, plan: Plan, grads: list[Tensor], a: ReluInputs, bounds: list[Tensor], needs_slope: bool = True
) -> list[Tensor]:
    """The gradients of center, generators, slope, lower and upper, from those of center, generators and offset."""
    grad_center, grad_generators, grad_offset = grads
    needs_products = needs_slope or a.slope is None or a.kink == "min_norm"
    partial = sum_columns(host, plan, "ProductTerm", grad_generators, a.generators) if needs_products else None
    neurons = [grad_center, grad_offset, a.center, *bounds, a.slope]
    integers = [*a.generators.shape, check_kink(a.kink), int(a.lower is not None)]
    launch = plan.pointwise(a.center.numel())
    multiplier, shift, center, slope, lower, upper = host.run(
        "relu_backward_kernel",
        launch,
        [partial, *outputs(2, a.center), *neurons, *outputs(4, a.center)],
        integers,
        [a.tolerance],
        dtype=a.center.dtype,
    )
    generators = map_rows(host, plan, "ReluGradMap", [grad_generators, a.generators], [multiplier, shift])
    return [center, generators, slope, lower, upper]


@dataclass(frozen=True)
class TilePlan:
    """One pass by tiles with rows of ``width`` bytes; 16-byte accesses or single elements; one block, or enough."""

    width: int = 128
    wide: bool = False
    one_block: bool = False

    def launch(self, generators: Tensor, sources: int, factors: int) -> tuple[Launch, int]:
        """The launch, with as much shared memory as the tile takes, and the columns of a tile."""
        batch, symbols, features = generators.shape
        columns = self.width // generators.dtype.itemsize
        shared = self.width * (sources * symbols + STRIPS * segments(symbols) + factors)
        blocks = 1 if self.one_block else -(-batch * features // columns)
        return Launch((blocks, 1), (THREADS, 1), self.wide, shared=shared), columns


def relu_in_one_pass(host: HostKernels, plan: TilePlan, a: ReluInputs, *, in_place: bool = False) -> list[Tensor]:
    """What :func:`relu` returns, by one kernel; ``in_place``: center and generators in their own memory."""
    launch, columns = plan.launch(a.generators, sources=1, factors=1)
    rest: list[Argument] = [a.slope, None, None]
    if in_place:
        name = "one_pass_kernel/ReluPass/in_place"
        arguments = [Out(a.generators), Out(a.center), *rest, *outputs(3, a.center)]
    else:
        name = "one_pass_kernel/ReluPass"
        arguments = [a.generators, *outputs(1, a.generators), a.center, *rest, *outputs(4, a.center)]
    sizes = [*a.generators.shape, columns]
    generators, center, *others = host.run(name, launch, arguments, sizes, dtype=a.center.dtype)
    return [center, generators, *others]


def relu_backward_in_one_pass(
    host: HostKernels, plan: TilePlan, grads: list[Tensor], a: ReluInputs, bounds: list[Tensor]
) -> list[Tensor]:
    """What :func:`relu_backward` returns, by one kernel."""
    launch, columns = plan.launch(a.generators, sources=2, factors=2)
    arguments = [grads[1], a.generators, *outputs(1, a.generators)]
    arguments += [grads[0], grads[2], a.center, *bounds, a.slope, *outputs(4, a.center)]
    integers = [*a.generators.shape, check_kink(a.kink), int(a.lower is not None), columns]
    name, dtype = "one_pass_kernel/ReluGradPass", a.center.dtype
    generators, center, *others = host.run(name, launch, arguments, integers, [a.tolerance], dtype)
    return [center, generators, *others]


def relu_relaxation(host: HostKernels, plan: Plan, lower: Tensor, upper: Tensor, slope: Tensor | None) -> list[Tensor]:
    """multiplier and offset."""
    arguments = [lower, upper, slope, *outputs(2, lower)]
    count = lower.numel()
    return host.run("relu_relaxation_kernel", plan.pointwise(count), arguments, [count], dtype=lower.dtype)


def relu_relaxation_backward(
    host: HostKernels,
    plan: Plan,
    grads: list[Tensor],
    bounds: list[Tensor],
    slope: Tensor | None,
    kink: KinkRule,
    tolerance: float,
) -> list[Tensor]:
    """The gradients of slope, lower and upper, from those of multiplier and offset."""
    arguments = [*grads, *bounds, slope, *outputs(3, grads[0])]
    count = grads[0].numel()
    return host.run(
        "relu_relaxation_backward_kernel",
        plan.pointwise(count),
        arguments,
        [count, check_kink(kink)],
        [tolerance],
        dtype=grads[0].dtype,
    )


def diagonal_linear(host: HostKernels, plan: Plan, coefficients: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """The generators ``[B, K, out]``."""
    (batch, symbols), (out, features) = coefficients.shape, weight.shape
    launch = plan.tiles(batch * -(-symbols // TILE) * -(-out // TILE), (TILE, TILE_ROWS))
    result = Out.unwritten(batch, symbols, out, dtype=weight.dtype)
    sizes = [batch, symbols, features, out]
    return host.run("diagonal_linear_kernel", launch, [coefficients, index, weight, result], sizes, dtype=weight.dtype)[
        0
    ]


def diagonal_linear_backward(
    host: HostKernels, plan: Plan, grad: Tensor, coefficients: Tensor, index: Tensor, weight: Tensor
) -> list[Tensor]:
    """The gradients of the coefficients and the weight."""
    (batch, symbols), (out, features) = coefficients.shape, weight.shape
    sizes, dtype = [batch, symbols, features, out], weight.dtype
    grads = [coefficients.clone(), torch.zeros_like(weight)]
    if batch * symbols > 0:
        launch = plan.tiles(batch * symbols, (TILE, 1))
        arguments: list[Argument] = [grad, index, weight, *outputs(1, coefficients)]
        grads[:1] = host.run("diagonal_linear_coefficients_kernel", launch, arguments, sizes, dtype=dtype)
    tiles = -(-symbols // TILE) * -(-out // TILE)
    if features > 0 and tiles > 0:
        untouched = Out(torch.full((features,), -1))
        launch = plan.pointwise(symbols)
        ends = host.run("find_symbols_kernel", launch, [index, untouched, untouched], sizes, dtype=dtype)
        arguments = [grad, coefficients, index, *ends, Out(torch.zeros_like(weight))]
        launch = plan.tiles(tiles, (TILE, TILE_ROWS))
        grads[1:] = host.run("diagonal_linear_weight_kernel", launch, arguments, sizes, dtype=dtype)
    return grads


def error_block(host: HostKernels, plan: Plan, coefficients: Tensor, index: Tensor, features: int) -> Tensor:
    """The generators ``[B, K, N]``."""
    sizes = [*coefficients.shape, features]
    out = Out(coefficients.new_zeros(sizes))
    if out.before.numel() == 0:
        return out.before
    launch = plan.pointwise(coefficients.numel())
    return host.run("error_block_kernel", launch, [coefficients, index, out], sizes, dtype=coefficients.dtype)[0]


def error_block_backward(host: HostKernels, plan: Plan, grad: Tensor, index: Tensor) -> Tensor:
    """The gradient of the coefficients."""
    batch, symbols, _ = grad.shape
    out = Out.unwritten(batch, symbols, dtype=grad.dtype)
    launch = plan.pointwise(batch * symbols)
    arguments: list[Argument] = [grad, index, out]
    return host.run("error_block_backward_kernel", launch, arguments, list(grad.shape), dtype=grad.dtype)[0]
