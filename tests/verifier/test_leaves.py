"""Linear and mixed programs of parts: what they propose is proven or executed, and nothing else is taken from them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from tests.verifier.graphs import NETWORKS, constraint, fc, random_box, region, sample_box
from tests.verifier.piecewise import smallest
from tests.verifier.test_neuron_splitting import course, signs_at
from tests.verifier.test_splitting import above, decide
from zonocuda.branch import SignParts, refuted
from zonocuda.graph import Graph
from zonocuda.prove.leaf_program import TINY, LeafOracle
from zonocuda.prove.mixed_program import least_point
from zonocuda.prove.sign_bounds import LAST, ROOT, SignBounds
from zonocuda.prove.sign_forms import SignForms
from zonocuda.specs import Region
from zonocuda.verifier import Verdict

ENDS = torch.ones(3).double()


def bounder_of(graph: Graph, part: Region) -> tuple[SignBounds, SignParts]:
    """The bound method, and the whole box for the first row."""
    search = course(graph, part, torch.float64)
    bounder = search.rows_on(search.intermediate)
    return bounder, search.roots(bounder, ROOT).at(slice(1))


def part_at(graph: Graph, bounder: SignBounds, roots: SignParts, x: Tensor, known: int) -> SignParts:
    """A part that holds a point: the signs of some neurons there."""
    signs = signs_at(bounder.problem.graph, bounder.problem, x).sign()
    order = torch.randperm(bounder.problem.count, generator=torch.Generator().manual_seed(known))
    signs[:, order[known:]] = 0
    return replace(roots, signs=signs.to(torch.int8), bound=torch.full_like(roots.bound, -torch.inf))


@pytest.mark.parametrize("name", NETWORKS)
def test_forms_are_the_network(name: str) -> None:
    graph = NETWORKS[name](0)
    low, high = random_box(graph, width=0.4)
    bounder, _ = bounder_of(graph, region(low[0], high[0], [[constraint({0: 1.0, 1: -0.5})]]))
    forms, points = SignForms(bounder.problem), sample_box(low[0], high[0], 20)
    z = signs_at(bounder.problem.graph, bounder.problem, points).numpy()
    values = np.concatenate([points.flatten(1).numpy(), np.maximum(z, 0)], 1)
    assert np.allclose(values @ forms.weight.T + forms.offset, z, rtol=1e-9, atol=1e-9)
    weight, constant = forms.row(0)
    outputs = graph(points).flatten(1)
    unit = (outputs[:, 0] - 0.5 * outputs[:, 1]).numpy() / (values @ weight + constant)
    assert np.allclose(unit, unit[0])  # rows are scaled by powers of two


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_what_a_program_says_is_proven_and_is_the_best_that_can_be(name: str, share: float) -> None:
    graph = NETWORKS[name](0)
    low, high = random_box(graph, width=0.4)
    bounder, roots = bounder_of(graph, region(low[0], high[0], [[constraint({0: 1.0, 1: -0.5}, 0.1)]]))
    x = sample_box(low[0], high[0], 1, seed=3)
    part = part_at(graph, bounder, roots, x, int(share * bounder.problem.count))
    oracle = LeafOracle(bounder.problem, bounder._units, bounder.as_it_is)
    found = oracle.program(part)
    assert found is not None
    assert found.broken <= TINY
    slopes, multipliers = (torch.from_numpy(t).unsqueeze(0) for t in (found.slopes, found.multipliers))
    proven = float(bounder.as_it_is(replace(part, slopes=slopes, multipliers=multipliers)).parts.bound)
    assert proven == pytest.approx(found.value, rel=1e-6, abs=1e-6)
    weight, constant = SignForms(bounder.problem).row(0)
    z = signs_at(bounder.problem.graph, bounder.problem, x)[0].clamp(min=0)
    assert proven <= float(np.concatenate([x.flatten().numpy(), z.numpy()]) @ weight + constant)
    assert float(bounder.climb(part, LAST).parts.bound) <= proven + 1e-6


def test_a_part_without_a_point_is_refuted() -> None:
    graph = fc(1, (3, 8, 8, 1))
    bounder, roots = bounder_of(graph, region(-ENDS, ENDS, [[constraint({0: 1.0}, -50.0)]]))
    seen = {
        tuple(row)
        for row in signs_at(bounder.problem.graph, bounder.problem, sample_box(-ENDS, ENDS, 20_000)).sign().tolist()
    }
    generator = torch.Generator().manual_seed(2)
    signs = torch.randint(0, 2, (6, bounder.problem.count), generator=generator) * 2 - 1
    assert not any(tuple(row) in seen for row in signs.double().tolist())
    parts = replace(roots.at(torch.zeros(6, dtype=torch.int64)), signs=signs.to(torch.int8))
    oracle = LeafOracle(bounder.problem, bounder._units, bounder.as_it_is)
    found = oracle.improve(bounder.as_it_is(parts), thorough=True).parts
    assert int(refuted(found.bound).sum()) >= 5  # of parts that hold no point, though the row is negative everywhere


@cache
def tight(leaf: str, spare: float, seconds: float = 20.0) -> tuple[Any, float, Any]:
    """A search whose property holds, or not, by ``spare``: what it found, the least value that it saw, statistics."""
    graph = fc(0, (3, 10, 10, 10, 1)).to(torch.float32).to(torch.float64)
    x = sample_box(-ENDS, ENDS, 2000, seed=5)
    for _ in range(100):
        x = x.requires_grad_()
        (slope,) = torch.autograd.grad(graph(x).sum(), x)
        x = (x - 0.02 * slope.sign()).clamp(-1, 1).detach()
    least = float(graph(x).min())
    seen = [float("inf")]

    def attack(points: Tensor) -> Any:
        values = graph(points.clamp(-1, 1))[:, 0] - least + spare
        seen[0] = min(seen[0], float(values.min()))
        return "a point" if seen[0] <= 0 else None

    search = course(graph, region(-ENDS, ENDS, [[constraint({0: 1.0}, spare - least)]]), torch.float64, seconds)
    search.search = replace(search.search, leaf=leaf, attack=attack)
    found, stats = search.run()
    return found, seen[0], stats


def test_programs_spare_parts() -> None:
    (_, _, with_them), (_, _, without) = tight("lp", 0.01), tight("none", 0.01, seconds=4.0)
    assert with_them.is_proven
    assert 4 * with_them.boxes < without.boxes


def test_the_points_of_programs_are_tried() -> None:
    found, seen, _ = tight("lp", -1e-3)
    assert found is not None
    assert seen < 0


def test_two_searches_with_programs_are_one() -> None:
    (_, _, one), (_, _, two) = tight("lp", 0.01), tight.__wrapped__("lp", 0.01)
    assert (one.boxes, one.depth, one.worst) == (two.boxes, two.depth, two.worst)


LIES: dict[str, Any] = {
    "random": lambda shape, generator: generator.standard_normal(shape) * 10,
    "huge": lambda shape, generator: generator.standard_normal(shape) * 1e30,
    "nan": lambda shape, generator: np.full(shape, np.nan),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_solver_that_lies_proves_nothing_and_finds_nothing(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, called = np.random.default_rng(0), []

    def liar(cost: Any, matrix: Any = None, limit: Any = None, **options: Any) -> Any:
        called.append(1)
        sizes = {"ineqlin": 0 if limit is None else len(limit), "lower": len(cost)}
        sides = {name: SimpleNamespace(marginals=LIES[lie](size, generator)) for name, size in sizes.items()}
        return SimpleNamespace(status=0, fun=1.0, x=LIES[lie](len(cost), generator), **sides)

    monkeypatch.setattr(scipy.optimize, "linprog", liar)
    monkeypatch.setattr(scipy.optimize, "milp", liar)
    graph = fc(2, (1, 5, 5, 1))
    _, least = smallest(graph, Fraction(-1), Fraction(1))
    options: Any = {"split": "neuron", "leaf": "milp"}
    assert decide(graph, above(least), timeout=1.0, **options).verdict is not Verdict.VERIFIED
    assert decide(graph, above(least - abs(least) / 1000), **options).verdict is Verdict.VERIFIED
    assert called


@pytest.mark.parametrize("seed", range(3))
def test_a_mixed_program_has_the_least_value(seed: int) -> None:
    graph = fc(seed, (1, 6, 6, 1))
    _, least = smallest(graph, Fraction(-1), Fraction(1))
    for share, sign in ((Fraction(1, 100), 1), (Fraction(-1, 100), -1)):
        part = above(least - share * (1 + abs(least))).regions[0]
        bounder, _ = bounder_of(graph, part)
        point = least_point(SignForms(bounder.problem), [0], 20.0)
        assert point is not None
        value = float(graph(torch.from_numpy(point).unsqueeze(0))) + float(part.disjuncts[0][0].constant)
        assert value * sign > 0


@pytest.mark.parametrize(("leaf", "semantics"), [("lp", "real"), ("lp", "float32"), ("milp", "real")])
def test_every_kind_of_leaf_decides_what_the_exact_minimum_says(leaf: Any, semantics: Any) -> None:
    graph = fc(4, (1, 6, 6, 1)).to(torch.float32).to(torch.float64)
    _, least = smallest(graph, Fraction(-1), Fraction(1))
    size = 1 + abs(least)
    options: Any = {"semantics": semantics, "split": "neuron", "leaf": leaf}
    assert decide(graph, above(least - size / 10_000), **options).verdict is Verdict.VERIFIED
    assert decide(graph, above(least + size / 10_000), **options).verdict is Verdict.FALSIFIED
    if leaf == "lp":  # of which the ascent alone leaves parts open that cannot be split
        assert decide(graph, above(least - size / 10_000), **{**options, "leaf": "none"}).verdict is Verdict.UNKNOWN


def test_an_unknown_kind_of_leaf_is_refused() -> None:
    with pytest.raises(ValueError, match="leaf must be one of"):
        decide(fc(0, (1, 2, 1)), above(Fraction(0)), leaf="oak")
