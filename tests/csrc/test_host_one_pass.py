"""The body of the CUDA kernel that sums and scales generators in one pass, run on the CPU: the bits of two passes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from tests.csrc import chains
from tests.csrc.chains import Plan, ReluInputs, TilePlan
from tests.csrc.compare import EACH_DTYPE, Case, assert_within, normal
from tests.csrc.host import HostKernels, Launch, Out
from tests.csrc.test_host_relu import EACH_KINK, check_gradients, check_values, incoming, zonotope
from zonocuda.kink import KinkRule

NAN, INF = torch.nan, torch.inf


@dataclass(frozen=True)
class TileCase:
    """Generators [B, K, N] and how a kernel of one pass is launched on them."""

    batch: int
    symbols: int
    features: int
    plan: TilePlan

    def __str__(self) -> str:
        wide, one_block = "-wide" * self.plan.wide, "-one_block" * self.plan.one_block
        return f"{self.batch}x{self.symbols}x{self.features}-{self.plan.width}{wide}{one_block}"

    @property
    def two_passes(self) -> Case:
        """The same generators and accesses; two blocks share the symbols."""
        return Case(self.batch, self.symbols, self.features, Plan(wide=self.plan.wide, splits=2))


# What each is for: one element; fewer symbols than strips; nothing divides anything, batch elements share a tile; whole
# segments; a rest of a segment, of a strip and of a tile; all widths; more strips than threads; a block for many tiles.
CASES = [
    TileCase(1, 1, 1, TilePlan(32)),
    TileCase(2, 3, 7, TilePlan(64)),
    TileCase(3, 37, 33, TilePlan(32)),
    TileCase(3, 37, 33, TilePlan(128, one_block=True)),
    TileCase(1, 256, 4, TilePlan(32, wide=True)),
    TileCase(3, 37, 36, TilePlan(64, wide=True)),
    TileCase(5, 33, 52, TilePlan(128, wide=True, one_block=True)),
    TileCase(2, 259, 12, TilePlan(128, wide=True)),
    TileCase(2, 515, 9, TilePlan(128)),
    TileCase(2, 9, 150, TilePlan(512)),
    TileCase(1, 20, 136, TilePlan(512, wide=True)),
    TileCase(3, 15, 64, TilePlan(256, wide=True)),
    TileCase(2, 1201, 20, TilePlan(32, wide=True, one_block=True)),
]
EACH_TILE = pytest.mark.parametrize("case", CASES, ids=str)
EACH_SLOPE = pytest.mark.parametrize("free", [False, True], ids=["tied", "free"])


def tile_zonotope(case: TileCase, dtype: torch.dtype, *, free: bool, kink: KinkRule = "envelope") -> ReluInputs:
    """Dead, active and crossing neurons, with bounds of their own."""
    return zonotope(case.two_passes, dtype, free=free, external=False, kink=kink)


def assert_same_bits(actual: list[Tensor], expected: list[Tensor]) -> None:
    """NaN where the other has NaN, and equal numbers elsewhere."""
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@EACH_TILE
@EACH_SLOPE
@EACH_DTYPE
def test_relu(host: HostKernels, case: TileCase, free: bool, dtype: torch.dtype) -> None:
    a = tile_zonotope(case, dtype, free=free)
    actual = chains.relu_in_one_pass(host, case.plan, a)
    check_values(a, actual)
    assert_same_bits(actual, chains.relu(host, case.two_passes.plan, a))


@EACH_TILE
@EACH_SLOPE
@EACH_DTYPE
def test_relu_in_place(host: HostKernels, case: TileCase, free: bool, dtype: torch.dtype) -> None:
    a = tile_zonotope(case, dtype, free=free)
    actual = chains.relu_in_one_pass(host, case.plan, a, in_place=True)
    check_values(a, actual)
    assert_same_bits(actual, chains.relu_in_one_pass(host, case.plan, a))


def check_backward(host: HostKernels, case: TileCase, a: ReluInputs) -> None:
    """Against autograd, and against two passes bit for bit."""
    grads, bounds = incoming(a), chains.relu(host, case.two_passes.plan, a)[3:]
    actual = chains.relu_backward_in_one_pass(host, case.plan, grads, a, bounds)
    check_gradients(a, grads, bounds, actual)
    assert_same_bits(actual, chains.relu_backward(host, case.two_passes.plan, grads, a, bounds))


@EACH_TILE
@EACH_SLOPE
@EACH_DTYPE
def test_relu_backward(host: HostKernels, case: TileCase, free: bool, dtype: torch.dtype) -> None:
    check_backward(host, case, tile_zonotope(case, dtype, free=free))


@EACH_KINK
@EACH_DTYPE
@pytest.mark.parametrize("case", [CASES[2], CASES[5]], ids=str)
def test_relu_backward_under_each_kink_rule(
    host: HostKernels, case: TileCase, kink: KinkRule, dtype: torch.dtype
) -> None:
    check_backward(host, case, tile_zonotope(case, dtype, free=True, kink=kink))


@EACH_DTYPE
def test_relu_backward_with_given_bounds(host: HostKernels, dtype: torch.dtype) -> None:
    case = CASES[5]
    check_backward(host, case, zonotope(case.two_passes, dtype, free=True, external=True))


@EACH_DTYPE
def test_nan_and_infinity_stay_in_their_columns(host: HostKernels, dtype: torch.dtype) -> None:
    case = CASES[7]
    a = tile_zonotope(case, dtype, free=False)
    generators, center = a.generators.clone(), a.center.clone()
    generators[1, 258, 2:6] = torch.tensor([NAN, INF, -INF, -0.0], dtype=dtype)
    center[1, 7:10] = torch.tensor([NAN, INF, -INF], dtype=dtype)
    spoiled = replace(a, generators=generators, center=center)
    actual = chains.relu_in_one_pass(host, case.plan, spoiled)
    assert_same_bits(actual, chains.relu(host, case.two_passes.plan, spoiled))
    assert not actual[3][1, [2, 3, 4, 7, 8, 9]].isfinite().any()
    clean = chains.relu_in_one_pass(host, case.plan, a)
    others = [0, 1, 6, 10, 11]
    assert_same_bits([t[..., others] for t in actual], [t[..., others] for t in clean])
    grads = incoming(a)
    backward = chains.relu_backward_in_one_pass(host, case.plan, grads, spoiled, actual[3:])
    assert_same_bits(backward, chains.relu_backward(host, case.two_passes.plan, grads, spoiled, actual[3:]))
    assert backward[1][1, :, 2].isnan().all()


@EACH_DTYPE
@pytest.mark.parametrize("symbols", [777, 16500])
def test_sums_depend_neither_on_the_batch_nor_on_blocks_and_accesses(
    host: HostKernels, symbols: int, dtype: torch.dtype
) -> None:
    x, center = normal(3, symbols, 4, dtype=dtype), torch.zeros(3, 4, dtype=dtype)
    whole = chains.concretize(host, Plan(), center, x)
    assert_within(whole[1], x.abs().sum(1), x.abs().sum(1), symbols)
    for plan in (Plan(splits=3), Plan(wide=True), Plan(wide=True, splits=2, one_block=True)):
        assert_same_bits(chains.concretize(host, plan, center, x), whole)
        alone = chains.concretize(host, plan, center[1:2], x[1:2])
        assert_same_bits(alone, [t[1:2] for t in whole])


# ---- which way is taken ----------------------------------------------------------------------------------------------

KIB = 1024
A100, RTX, H100 = 163 * KIB, 99 * KIB, 227 * KIB  # bytes of shared memory that a block may have


def tile(
    host: HostKernels,
    sizes: tuple[int, int, int],
    item: int = 4,
    backward: bool = False,
    limit: int = H100,
    launches: int = 0,
) -> tuple[int, int]:
    """The bytes of a row and of all of a tile; (0, 0): two launches. ``launches``: 1 or 2 where they are chosen."""
    count = 2 if backward else 1
    integers = [*sizes, item, count, count, limit, launches]
    (found,) = host.run("tile_width", Launch((1, 1), (1, 1)), [Out(torch.zeros(2, dtype=torch.int64))], integers)
    width, size = found.tolist()
    return width, size


@pytest.mark.parametrize(
    ("symbols", "backward", "limit", "width"),
    [
        # For each of two blocks (227 - 1) / 2 = 113 KiB, 904 rows of 128 bytes: 871 symbols, 32 strips, a factor.
        (871, False, H100, 128),
        (872, False, H100, 64),
        (1751, False, H100, 64),
        (1752, False, H100, 32),
        (3503, False, H100, 32),
        (7039, False, H100, 32),  # 7264 rows of 32 bytes: one tile takes all
        (7040, False, H100, 0),
        (55, False, H100, 512),  # 32 KiB are 64 rows of 512 bytes
        (56, False, H100, 256),
        (119, False, H100, 256),
        (120, False, H100, 128),
        (27, True, A100, 512),
        (28, True, A100, 256),
        (443, True, H100, 128),  # twice the symbols, 16 strips, two factors
        (444, True, H100, 64),
        (3575, True, H100, 32),
        (3576, True, H100, 0),
        (623, False, A100, 128),
        (624, False, A100, 64),
        (5055, False, A100, 32),
        (5056, False, A100, 0),
        (375, False, RTX, 128),
        (376, False, RTX, 64),
        (3071, False, RTX, 32),
        (3072, False, RTX, 0),
    ],
)
def test_the_widest_tile_of_which_two_fit(
    host: HostKernels, symbols: int, backward: bool, limit: int, width: int
) -> None:
    found, size = tile(host, (1, symbols, 10**6), backward=backward, limit=limit)
    assert found == width
    assert size <= limit
    assert 2 * (size + KIB) <= limit + KIB or width in (0, 32)  # of a multiprocessor, which has 1 KiB more
    sources = 2 if backward else 1
    assert size == width * (sources * symbols + 8 * -(-symbols // 256) + sources)


@pytest.mark.parametrize(
    ("sizes", "item", "width"),
    [
        ((1, 100, 8192), 4, 128),  # 256 tiles
        ((1, 100, 16384), 4, 256),
        ((1, 100, 16383), 4, 256),
        ((1, 100, 16320), 4, 128),
        ((1, 10, 8192), 4, 128),
        ((1, 100, 8160), 4, 64),  # 255 of 128 bytes
        ((8, 100, 1024), 4, 128),  # of all the batch
        ((1, 100, 4096), 8, 128),
        ((1, 100, 2048), 4, 32),
        ((1, 100, 10), 4, 32),  # two, but small
        ((1, 3000, 504), 4, 0),  # 63, and tall: the segments are shared out instead
        ((1, 3000, 512), 4, 32),
        ((1, 0, 8192), 4, 0),  # nothing to sum
    ],
)
def test_enough_tiles_for_the_device_or_narrower_ones_or_none(
    host: HostKernels, sizes: tuple[int, int, int], item: int, width: int
) -> None:
    assert tile(host, sizes, item)[0] == width


@pytest.mark.parametrize(
    ("sizes", "backward", "one"),
    [((1, 100, 8192), False, 128), ((1, 3000, 504), True, 32), ((1, 3576, 8192), True, 0), ((1, 0, 8192), False, 0)],
)
def test_a_chosen_number_of_launches_is_taken_where_a_tile_fits(
    host: HostKernels, sizes: tuple[int, int, int], backward: bool, one: int
) -> None:
    assert tile(host, sizes, backward=backward, launches=1)[0] == one
    assert tile(host, sizes, backward=backward, launches=2) == (0, 0)
