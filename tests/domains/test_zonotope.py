"""Zonotopes: constructors, arithmetic on shared symbols, and affine maps."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from torch import Tensor

from tests.verifier.graphs import as_dense, generator_matrix, rand
from zonocuda.domains import Dense, Diagonal, Symbols, Zonotope

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100)
FLOAT64 = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)


def gamma(n: int, dtype: torch.dtype = torch.float64) -> float:
    """n u / (1 - n u): the relative error of a sum of n products."""
    u = torch.finfo(dtype).eps / 2
    return n * u / (1 - n * u)


def box(*features: int, seed: int = 0, batch: int = 2) -> Zonotope:
    """A random box, other radii in every element of the batch, a few of them zero in all."""
    center, radius = rand(batch, *features, seed=seed), rand(batch, *features, seed=seed + 1).abs()
    radius = radius * (rand(*features, seed=seed + 2) < 1)
    return Zonotope.from_box(center - radius, center + radius)


def general(*features: int, seed: int = 0, symbols: int = 4) -> Zonotope:
    """A zonotope with a dense and a diagonal block."""
    dense = Zonotope.from_generators(rand(2, *features, seed=seed), rand(2, symbols, *features, seed=seed + 1))
    return dense + box(*features, seed=seed + 2)


# ---- constructors ----------------------------------------------------------------------------------------------------


@hypothesis_seed(20240612)
@settings(max_examples=300, deadline=None, database=None)
@given(st.data(), st.sampled_from([torch.float32, torch.float64]))
def test_a_box_is_enclosed_exactly(data: st.DataObject, dtype: torch.dtype) -> None:
    number = FLOAT32 if dtype == torch.float32 else FLOAT64
    pairs = [sorted(data.draw(st.tuples(number, number))) for _ in range(3)]
    z = Zonotope.from_box(*(torch.tensor([[p[i] for p in pairs]], dtype=dtype) for i in (0, 1)))
    (block,) = z.blocks
    radius = dict(zip(block.index.tolist(), block.coefficients[0].tolist(), strict=True))
    for i, ((low, high), center) in enumerate(zip(pairs, z.center[0].tolist(), strict=True)):
        c, r = Fraction(center), Fraction(radius.get(i, 0.0))
        assert c - r <= Fraction(low)
        assert c + r >= Fraction(high)
        u = Fraction(torch.finfo(dtype).eps) / 2
        slack = 4 * u * (abs(Fraction(low)) + abs(Fraction(high))) + 2 * Fraction(torch.finfo(dtype).smallest_normal)
        assert r <= (Fraction(high) - Fraction(low)) / 2 + slack


def test_features_without_width_cost_no_symbol() -> None:
    lower = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.5, 2.0]])
    z = Zonotope.from_box(lower, lower + torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]))
    assert z.symbols == 1
    low, high = z.bounds()
    assert torch.equal(low[1], lower[1])
    assert torch.equal(high[1], lower[1])
    assert Zonotope.from_box(lower, lower).symbols == 0


def test_a_ball_takes_one_radius_or_one_for_each_feature_and_element() -> None:
    x = torch.tensor([[0.0, 0.5], [1.0, 0.25]], dtype=torch.float64)
    eps = torch.tensor([[0.125, 0.0], [0.5, 0.25]], dtype=torch.float64)
    for radius, low, high in ((0.125, x - 0.125, x + 0.125), (eps, x - eps, x + eps)):
        got = Zonotope.from_ball(x, radius).bounds()
        for bound, exact in zip(got, (low, high), strict=True):
            assert (bound - exact).abs().max() <= gamma(4)
    low, high = Zonotope.from_ball(x, 0.5, (0.0, 1.0)).bounds()
    assert (low - (x - 0.5).clamp(min=0)).abs().max() <= gamma(4)
    assert (high - (x + 0.5).clamp(max=1)).abs().max() <= gamma(4)


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0.0, 1.0], [1.0, 0.5], "lower <= upper"),
        ([0.0, float("nan")], [1.0, 1.0], "lower <= upper"),
        ([0.0, 0.0], [1.0, float("inf")], "must be finite"),
        ([0.0], [1.0, 1.0], "differ in shape"),
    ],
)
def test_bounds_that_make_no_box_are_an_error(lower: list[float], upper: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Zonotope.from_box(torch.tensor([lower]), torch.tensor([upper]))


@pytest.mark.parametrize(
    ("eps", "clip", "message"),
    [
        (-0.1, None, "lower <= upper"),
        (float("nan"), None, "lower <= upper"),
        (float("inf"), None, "finite"),
        (0.1, (2.0, 3.0), "outside the range"),
        (0.1, (1.0, 0.0), "must be a range"),
        (0.1, (float("nan"), 1.0), "must be a range"),
    ],
)
def test_a_ball_that_is_none_is_an_error(eps: float, clip: tuple[float, float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Zonotope.from_ball(torch.full((1, 2), 0.5), eps, clip)


def test_generators_of_another_shape_are_an_error() -> None:
    for shape in ((2, 3, 4), (1, 3, 5), (5,)):
        with pytest.raises(ValueError, match="from_generators"):
            Zonotope.from_generators(torch.zeros(2, 5), torch.zeros(shape))
    with pytest.raises(ValueError, match="must have shape"):
        Zonotope.from_generators(torch.zeros(2, 5), torch.zeros(2, 3, 5), Symbols(4))


def test_blocks_that_do_not_fit_their_center_are_an_error() -> None:
    symbols = Symbols(2)
    with pytest.raises(ValueError, match="do not fit a center"):
        Zonotope(torch.zeros(2, 5), (Dense(symbols, torch.zeros(2, 2, 4)),))
    with pytest.raises(ValueError, match="do not fit a center"):
        Zonotope(torch.zeros(2, 5), (Diagonal(symbols, torch.zeros(1, 2), torch.arange(2)),))
    with pytest.raises(ValueError, match="same symbols"):
        Zonotope(torch.zeros(2, 5), (Dense(symbols, torch.zeros(2, 2, 5)), Dense(symbols, torch.zeros(2, 2, 5))))


def test_a_shift_or_scale_that_would_add_features_is_an_error() -> None:
    z = Zonotope.from_box(torch.zeros(1, 1), torch.ones(1, 1))
    wide = torch.tensor([1.0, 2.0, 3.0])
    for widen in (
        lambda: z + wide,
        lambda: z - wide,
        lambda: z.scale_shift(None, wide),
        lambda: z.scale_shift(wide, None),
    ):
        with pytest.raises(RuntimeError, match="expanded size"):
            widen()


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def test_a_zonotope_minus_itself_is_a_point() -> None:
    z = general(3, 2)
    for difference in (z - z, z + (-z), z * 2.0 - z - z):
        assert torch.equal(difference.radius(), torch.zeros_like(z.center))
        assert torch.equal(difference.center, torch.zeros_like(z.center))


def test_sums_are_exact_in_shared_symbols_and_independent_in_others() -> None:
    x, y = general(5, seed=1), general(5, seed=9)
    w, v = rand(5, 5, seed=3), rand(5, 5, seed=4)
    total = x.linear(w) + x.linear(v) - y
    assert total.symbols == x.symbols + y.symbols
    together = x.linear(w + v) - y
    scale = as_dense(x).linear(w.abs()).center.abs() + as_dense(x).radius().sum(1, keepdim=True) * 10
    assert ((total.radius() - together.radius()).abs() <= 8 * gamma(16) * (scale + together.radius())).all()
    noise = x.noise(6) | y.noise(6)
    assert torch.allclose(total.at(noise), x.linear(w).at(noise) + x.linear(v).at(noise) - y.at(noise), atol=1e-12)


def test_a_residual_sum_is_tighter_than_one_with_fresh_symbols() -> None:
    x = general(5)
    f = x.linear(rand(5, 5, seed=7) - torch.eye(5, dtype=torch.float64)).relu()
    shared = (x + f).radius()
    fresh = Zonotope.from_generators(f.center, generator_matrix(f))  # the same set, on symbols of its own
    assert torch.allclose(fresh.radius(), f.radius())
    independent = (x + fresh).radius()
    assert (shared <= independent * (1 + gamma(64))).all()
    assert shared.sum() < 0.95 * independent.sum()


def test_translation_negation_and_multiples_move_every_point() -> None:
    z = general(2, 3)
    noise, shift = z.noise(5), rand(2, 3, seed=5)
    points = z.at(noise)
    for image, expected in (
        (z + shift, points + shift),
        (z - 2.5, points - 2.5),
        (-z, -points),
        (z * 0.5, points * 0.5),
        (3.0 * z, points * 3.0),
        (z.scale_shift(shift[:1], shift), points * shift[:1] + shift),
    ):
        assert torch.allclose(image.at(noise), expected, rtol=0, atol=1e-13)


def test_sums_of_different_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match="cannot add shapes"):
        box(3) + box(4)
    with pytest.raises(ValueError, match="cannot add shapes"):
        box(3) + box(3, batch=1)


def test_bounds_are_attained_by_a_vertex_and_enclose_every_sample() -> None:
    z = general(4)
    low, high = z.bounds()
    worst = {b.symbols: b.dense(z.features)[:, :, 0].sign().unsqueeze(0) for b in z.blocks}
    assert torch.allclose(z.at(worst)[0, :, 0], high[:, 0], rtol=0, atol=1e-13)
    points = z.sample(200, torch.Generator().manual_seed(1))
    assert points.shape == (200, 2, 4)
    slack = gamma(16) * (z.center.abs() + z.radius())
    assert (points >= low - slack).all()
    assert (points <= high + slack).all()


# ---- affine maps -----------------------------------------------------------------------------------------------------


def check_image(z: Zonotope, image: Zonotope, apply: Callable[[Tensor], Tensor], terms: int = 64) -> None:
    """The image has the points apply(point), symbol by symbol, and no symbol of its own."""
    assert {id(b.symbols) for b in image.blocks} == {id(b.symbols) for b in z.blocks}
    noise = z.noise(4)
    expected = apply(z.at(noise).flatten(0, 1)).unflatten(0, (4, 2))
    assert image.at(noise).shape == expected.shape
    scale = 100 * (1 + expected.abs().max())
    assert ((image.at(noise) - expected).abs() <= gamma(terms) * scale).all()


def test_a_linear_map_of_a_diagonal_block_equals_that_of_its_dense_form() -> None:
    z, w, b = box(6), rand(4, 6, seed=8), rand(4, seed=9)
    assert isinstance(z.blocks[0], Diagonal)
    image, dense = z.linear(w, b), as_dense(z).linear(w, b)
    assert torch.equal(generator_matrix(image), generator_matrix(dense))  # one product in every sum
    assert torch.equal(image.center, dense.center)
    check_image(z, image, lambda x: F.linear(x, w, b))


def test_a_linear_map_acts_on_the_last_dimension() -> None:
    z, w = general(2, 3), rand(4, 3, seed=8)
    check_image(z, z.linear(w), lambda x: F.linear(x, w))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_moves_every_point(groups: int) -> None:
    z, w, b = general(4, 4, 5), rand(4, 4 // groups, 3, 2, seed=5), rand(4, seed=6)
    image = z.conv2d(w, b, stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=groups)
    check_image(z, image, lambda x: F.conv2d(x, w, b, (2, 1), (1, 0), (1, 2), groups))


@pytest.mark.parametrize(
    ("move", "apply"),
    [
        (lambda z: z.reshape(6), lambda x: x.reshape(-1, 6)),
        (lambda z: z.reshape(3, -1), lambda x: x.reshape(-1, 3, 2)),
        (lambda z: z.permute(1, 0), lambda x: x.transpose(1, 2)),
    ],
    ids=["flatten", "reshape", "permute"],
)
def test_rearrangements_move_every_point_and_keep_diagonal_blocks(
    move: Callable[[Zonotope], Zonotope], apply: Callable[[Tensor], Tensor]
) -> None:
    for z in (box(2, 3), general(2, 3)):
        image = move(z)
        assert [block.kind for block in image.blocks] == [block.kind for block in z.blocks]
        check_image(z, image, apply)


@pytest.mark.parametrize("key", [(0,), (slice(None), slice(1, 3)), (..., 1), ([1, 0, 1],), (slice(None), [2, 2])])
def test_slices_move_every_point(key: tuple[object, ...]) -> None:
    z = general(2, 3)
    image = z[key if len(key) > 1 else key[0]]
    check_image(z, image, lambda x: x[(slice(None), *key)])


@pytest.mark.parametrize("dim", [0, 1])
def test_concatenation_keeps_shared_symbols_shared(dim: int) -> None:
    z = general(2, 3)
    shape = [2, 3]
    shape[dim] = 4
    other = general(*shape, seed=20)
    joined = Zonotope.cat([z, other, -z], dim)
    assert joined.symbols == z.symbols + other.symbols
    noise = z.noise(3) | other.noise(3)
    parts = [z.at(noise), other.at(noise), -z.at(noise)]
    assert torch.equal(joined.at(noise), torch.cat(parts, dim + 2))
    extent = z.features[dim]
    before = (slice(None),) * dim
    first, last = joined[(*before, slice(0, extent))], joined[(*before, slice(-extent, None))]
    assert torch.equal((first + last).radius(), torch.zeros_like(z.center))


def test_concatenating_nothing_or_unequal_parts_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to concatenate"):
        Zonotope.cat([], 0)
    with pytest.raises(ValueError, match="cannot add shapes"):
        Zonotope.cat([box(2, 3), box(2, 4)], 0)


def test_a_point_goes_through_every_map() -> None:
    x = rand(2, 1, 4, 4, seed=1)
    z = Zonotope.from_box(x, x)
    w = rand(3, 1, 3, 3, seed=2)
    image = z.conv2d(w, padding=1).relu().reshape(-1).linear(rand(5, 48, seed=3)).relu()
    exact = torch.relu(F.linear(torch.relu(F.conv2d(x, w, padding=1)).flatten(1), rand(5, 48, seed=3)))
    assert image.symbols == 0
    for bound in image.bounds():
        assert torch.allclose(bound, exact, rtol=0, atol=gamma(64) * 100)


def test_a_zonotope_without_generators_is_sampled_as_often_as_asked() -> None:
    center = rand(2, 3, seed=0)
    assert torch.equal(Zonotope(center, ()).sample(5), center.expand(5, 2, 3))


def test_float32_stays_float32() -> None:
    lower = torch.rand(2, 6)
    z = Zonotope.from_box(lower, lower + 0.1).linear(torch.randn(4, 6), torch.randn(4)).relu()
    tensors: list[Tensor] = [z.center, z.radius(), *z.bounds(), generator_matrix(z), z.sample(2)]
    assert {t.dtype for t in tensors} == {torch.float32}


def test_bounds_have_gradients_with_respect_to_the_box() -> None:
    lower = torch.tensor([[0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    upper = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([[2.0, -3.0]], dtype=torch.float64)
    high = Zonotope.from_box(lower, upper).linear(w).bounds()[1]
    high.sum().backward()  # 2 upper_0 - 3 lower_1
    assert torch.allclose(lower.grad, torch.tensor([[0.0, -3.0]], dtype=torch.float64))
    assert torch.allclose(upper.grad, torch.tensor([[2.0, 0.0]], dtype=torch.float64))
