"""The ReLU of a zonotope: enclosure point by point, external bounds, both code paths, both backends, gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.verifier.graphs import as_dense, generator_matrix, rand
from zonocuda.domains import Diagonal, Symbols, Zonotope, current_backend, use_backend
from zonocuda.domains.backend import kernels
from zonocuda.kink import KINK_RULES, KinkRule
from zonocuda.relaxations.relu import ReluRule

EPS = torch.finfo(torch.float64).eps


@pytest.fixture(params=["native", "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with use_backend(request.param):
        yield request.param


def zonotope(dtype: torch.dtype = torch.float64, seed: int = 0) -> Zonotope:
    """Two elements of twelve neurons on a dense and a diagonal block: dead, active and crossing ones in each."""
    center = 2 * rand(2, 12, seed=seed).to(dtype)
    center[:, 0], center[:, 1] = 30.0, -30.0
    dense = Zonotope.from_generators(center, rand(2, 5, 12, seed=seed + 1).to(dtype) * 0.4)
    return dense + Zonotope.from_ball(torch.zeros_like(center), 0.25)


def slopes(seed: int = 3) -> Tensor:
    """A slope for every neuron, the ends of [0, 1] among them."""
    generator = torch.Generator().manual_seed(seed)
    lam = torch.rand((2, 12), generator=generator, dtype=torch.float64)
    lam[:, 2:4] = torch.tensor([0.0, 1.0])
    return lam


def points(z: Zonotope, n: int = 64) -> tuple[dict[Symbols, Tensor], Tensor]:
    """Noise and the points it gives; the first two for each neuron where that neuron is largest and smallest."""
    noise = z.noise(n + 24, torch.Generator().manual_seed(7))
    for block in z.blocks:
        rows = block.dense(z.features)
        for i, sign in itertools.product(range(12), (1, -1)):
            noise[block.symbols][2 * i + (sign < 0)] = sign * rows[:, :, i].sign()
    return noise, z.at(noise)


def gap(image: Zonotope, noise: dict[Symbols, Tensor], target: Tensor) -> Tensor:
    """How far ``target`` ``[n, B, N]`` lies from the points of ``image`` with this noise, its new symbols free."""
    (new,) = (block for block in image.blocks if block.symbols not in noise)
    assert isinstance(new, Diagonal)
    zeros = {new.symbols: torch.zeros(target.shape[0], target.shape[1], new.symbols.count, dtype=target.dtype)}
    return (target - image.at(noise | zeros)).abs() - new.add_radius(torch.zeros_like(image.center))


@pytest.mark.parametrize("slope", [None, "random"])
@pytest.mark.parametrize("kind", ["dense", "mixed"])
def test_relu_of_every_point_is_a_point_with_the_same_noise(backend: str, slope: str | None, kind: str) -> None:
    z = as_dense(zonotope()) if kind == "dense" else zonotope()
    if kind == "dense":
        z = Zonotope.from_generators(z.center, generator_matrix(z))
    noise, before = points(z)
    image = z.relu(None if slope is None else slopes())
    assert (gap(image, noise, torch.relu(before)) <= 64 * EPS * (1 + before.abs())).all()


def test_the_crossing_neurons_are_enclosed_tightly(backend: str) -> None:
    z = zonotope()
    noise, before = points(z)
    low, high = z.bounds()
    crossing = (low < 0) & (high > 0)
    assert 0 < crossing.sum() < crossing.numel()
    distance = gap(z.relu(), noise, torch.relu(before)).amax(0)
    assert (distance[crossing].abs() <= 64 * EPS * 10).all()  # ReLU touches its band at both ends of [l, u]
    assert distance[~crossing].abs().max() <= 64 * EPS * 40


def test_stable_neurons_are_exact_and_get_no_symbol(backend: str) -> None:
    z = zonotope()
    low, high = z.bounds()
    image = z.relu()
    new = image.blocks[-1]
    assert isinstance(new, Diagonal)
    assert new.index.tolist() == ((low < 0) & (high > 0)).any(0).nonzero().flatten().tolist()
    active, dead = low >= 0, high <= 0
    rows, before = generator_matrix(image)[:, : z.symbols], generator_matrix(z)
    assert torch.equal(image.center[active], z.center[active])
    assert not image.center[dead].any()
    assert torch.equal(rows.transpose(1, 2)[active], before.transpose(1, 2)[active])
    assert not rows.transpose(1, 2)[dead].any()


@pytest.mark.parametrize("slope", [None, "random"])
def test_one_dense_block_takes_the_same_values_as_given_bounds_do(backend: str, slope: str | None) -> None:
    mixed = zonotope()
    z = Zonotope.from_generators(mixed.center, generator_matrix(mixed))
    lam = None if slope is None else slopes()
    fused, parts = z.relu(lam), z.relu(lam, bounds=z.bounds())
    scale = 1 + z.center.abs() + z.radius()
    assert ((fused.center - parts.center).abs() <= 8 * EPS * scale).all()
    assert ((generator_matrix(fused) - generator_matrix(parts)).abs() <= 8 * EPS * scale.unsqueeze(1)).all()
    assert fused.blocks[0].symbols is parts.blocks[0].symbols is z.blocks[0].symbols


def test_external_bounds_enclose_the_points_that_satisfy_them(backend: str) -> None:
    z = zonotope()
    low, high = z.bounds()
    tight = low + 0.3 * (high - low), high - 0.25 * (high - low)
    noise, before = points(z, 4000)
    image = z.relu(bounds=tight)
    inside = (before >= tight[0]) & (before <= tight[1])
    distance = gap(image, noise, torch.relu(before))
    slack = 64 * EPS * (1 + before.abs())
    assert inside.any(0).all()
    assert (distance <= slack)[inside].all()
    assert not (distance <= slack)[~inside].all()  # the others are not promised, and some are indeed left out
    assert image.radius().sum() < z.relu().radius().sum()


def test_a_slope_broadcasts_and_is_clamped(backend: str) -> None:
    z = zonotope()
    wide = torch.full((1, 12), 0.5, dtype=torch.float64)
    assert torch.equal(z.relu(wide).center, z.relu(wide.expand(2, 12)).center)
    for outside, inside in ((-0.5, 0.0), (1.5, 1.0)):
        got, expected = z.relu(wide * 0 + outside), z.relu(wide * 0 + inside)
        assert torch.equal(got.center, expected.center)
        assert torch.equal(got.radius(), expected.radius())


def test_a_nan_is_never_lost(backend: str) -> None:
    for place in ("center", "generators", "slope"):
        mixed = zonotope()
        center, rows, lam = mixed.center.clone(), generator_matrix(mixed).clone(), slopes()
        low, high = mixed.bounds()
        neuron = int(((low < 0) & (high > 0))[0].nonzero()[0])
        {"center": center[0], "generators": rows[0, 2], "slope": lam[0]}[place][neuron] = torch.nan
        for image in (
            Zonotope.from_generators(center, rows).relu(lam),
            (Zonotope.from_generators(center, rows) + Zonotope.from_ball(torch.zeros_like(center), 0.1)).relu(lam),
        ):
            for bound in image.bounds():
                assert bool(bound[0, neuron].isnan()), place
                assert not bound[1].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("slope", [None, "random"])
def test_native_and_reference_agree(dtype: torch.dtype, slope: str | None) -> None:
    z = zonotope(dtype)
    lam = None if slope is None else slopes().to(dtype)
    images = []
    for name in ("native", "reference"):
        with use_backend(name):
            images.append(z.relu(lam))
    native, reference = images
    scale = 1 + z.center.abs() + z.radius()
    eps = torch.finfo(dtype).eps
    assert ((native.center - reference.center).abs() <= 32 * eps * scale).all()
    difference = (generator_matrix(native) - generator_matrix(reference)).abs()
    assert (difference <= 32 * eps * scale.unsqueeze(1)).all()


@pytest.mark.parametrize("kink", KINK_RULES)
@pytest.mark.parametrize("kind", ["dense", "mixed", "bounds"])
def test_native_gradients_are_those_of_autograd_through_the_reference(kind: str, kink: KinkRule) -> None:
    """Half of the slopes lie on the kink, lam = u / (u - l), half beside it."""
    mixed = zonotope()
    low, high = (b.detach() for b in mixed.bounds())
    lam = slopes()
    lam[:, ::2] = ReluRule().initial(low, high)[:, ::2]
    seeds = rand(2, 12, seed=11), rand(2, 12, seed=12)
    gradients = []
    for name in ("native", "reference"):
        leaves = [mixed.center.clone(), generator_matrix(mixed).clone(), lam.clone(), low + 0.125, high - 0.125]
        leaves = [leaf.requires_grad_() for leaf in leaves[: 5 if kind == "bounds" else 3]]
        with use_backend(name):
            z = Zonotope.from_generators(leaves[0], leaves[1])
            if kind == "mixed":
                z = z + Zonotope.from_ball(torch.zeros_like(low), 0.25)
            image = z.relu(leaves[2], bounds=(leaves[3], leaves[4]) if kind == "bounds" else None, kink=kink)
            bounds = image.bounds()
        loss = sum(((seed * bound).sum() for seed, bound in zip(seeds, bounds, strict=True)), torch.zeros(()))
        gradients.append(torch.autograd.grad(loss, leaves))
    for native, reference in zip(*gradients, strict=True):
        assert reference.abs().max() > 0.01
        assert (native - reference).abs().max() <= 1e-12 * reference.abs().max()


def test_tied_slopes_pass_gradcheck(backend: str) -> None:
    mixed = zonotope(seed=5)
    leaves = [t.detach().clone().requires_grad_() for t in (mixed.center, generator_matrix(mixed))]

    def outputs(center: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        low, high = Zonotope.from_generators(center, rows).relu().bounds()
        return low, high

    assert torch.autograd.gradcheck(outputs, leaves)


def test_minimum_area_slopes_give_the_smallest_radius_of_all_slopes(backend: str) -> None:
    z = zonotope()
    best = z.relu().blocks[-1].add_radius(torch.zeros_like(z.center))
    for value in (0.0, 0.2, 0.5, 0.8, 1.0):
        other = z.relu(torch.tensor(value, dtype=torch.float64)).blocks[-1].add_radius(torch.zeros_like(z.center))
        assert (best <= other * (1 + 8 * EPS)).all()


def test_adaptive_slopes_are_zero_or_one_on_crossing_neurons() -> None:
    low = torch.tensor([[-2.0, -1.0, -1.0, 0.5, -3.0]])
    high = torch.tensor([[1.0, 1.0, 2.0, 1.0, -1.0]])
    assert ReluRule().initial(low, high, "adaptive").tolist() == [[0.0, 1.0, 1.0, 1.0, 0.0]]
    area = ReluRule().initial(low, high)
    assert torch.allclose(area, torch.tensor([[1 / 3, 1 / 2, 2 / 3, 1.0, 0.0]]))
    assert ReluRule().project(torch.tensor([-1.0, 0.5, 2.0])).tolist() == [0.0, 0.5, 1.0]


def test_the_backend_is_chosen_for_a_block_of_code() -> None:
    assert current_backend() == "native"
    with use_backend("reference"):
        assert (current_backend(), kernels().__name__) == ("reference", "zonocuda.reference")
        with use_backend("auto"):
            assert kernels().__name__ == "zonocuda.ops"
        assert current_backend() == "reference"
    with pytest.raises(ValueError, match="must be auto, native or reference"), use_backend("cuda"):  # type: ignore[arg-type]
        pass
    assert current_backend() == "native"
