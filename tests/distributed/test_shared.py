"""Symbols shared out over ranks: the same bounds and slopes as in one process, and proven where rounding is counted."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.distributed.threads import on_ranks
from tests.relaxations.ways import both_ends
from tests.soundness.rational import values_before_relus
from tests.verifier.exact import exactly, propagate
from tests.verifier.graphs import NETWORKS, rand, random_box, random_slopes
from tests.verifier.test_adjoint import loss
from tests.verifier.test_exact import NETWORKS as SMALL
from tests.verifier.test_exact import box, exact_box
from zonocuda import Zonotope, compute_bounds, optimize_bounds
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.forward_error import ForwardErrors
from zonocuda.domains import Dense, Diagonal, Symbols, Windowed
from zonocuda.domains.merge import merge_symbols
from zonocuda.graph import Graph
from zonocuda.kink import KinkRule
from zonocuda.ranks import Ranks
from zonocuda.relaxations import use_kink
from zonocuda.relaxations.relu import ReluRule
from zonocuda.tighten.joint import slope_gradients, sweep_to
from zonocuda.verifier import Ascent

SIZES = pytest.mark.parametrize("size", [2, 4])
U = Fraction(1, 2**24)


def several(graph: Graph) -> Zonotope:
    """A batch of two, on symbols of a box, dense ones, and of windows where the input is a map."""
    low, high = random_box(graph, 2, width=0.4, seed=5)
    zonotope = Zonotope.from_box(low, high)
    blocks = [*zonotope.blocks, Dense(Symbols(3), 0.1 * rand(2, 3, *graph.input_shape, seed=2))]
    if len(graph.input_shape) == 3:
        channels, *sides = graph.input_shape
        corners = torch.arange(10).reshape(5, 2) % (min(sides) - 1)
        patches = 0.1 * rand(2, 5, channels, 2, 2, seed=3)
        blocks.append(Windowed(Symbols(5), patches, corners, (sides[0], sides[1])))
    return Zonotope(zonotope.center, tuple(blocks))


# ---- soundness -------------------------------------------------------------------------------------------------------


def test_what_a_sum_over_ranks_rounds_is_charged() -> None:
    """1 and sixty-three times u, each on a rank of its own: the float32 sum is 1, and every addition rounds."""
    parts = [1.0, *[2.0**-24] * 63]
    graph = NETWORKS["fc"](1)
    counted = ForwardErrors(Rounding.of(graph, graph.to(torch.float32), torch.float32))
    zonotope = Zonotope.from_generators(torch.zeros(1, 1), torch.tensor(parts).reshape(1, -1, 1))

    def bounded(ranks: Ranks) -> tuple[Tensor, float]:
        share = zonotope.shared(ranks)
        assert share.blocks[0].symbols.count == 1
        (lower, upper), _ = counted.bounds(share, counted.of_box(share))
        assert torch.equal(lower, -upper)
        return share.radius(), float(upper)

    exact = 1 + 63 * U
    for radius, upper in on_ranks(64, bounded):
        assert float(radius) == 1.0
        assert exact <= Fraction(upper) <= 1 + 500 * U


@SIZES
@pytest.mark.parametrize("name", SMALL)
def test_counted_bounds_enclose_exact_values(name: str, size: int) -> None:
    network = SMALL[name]()
    graph, zonotope = network.to(torch.float32), box(network)
    zonotope = Zonotope.from_ball(zonotope.center.float(), 0.6)
    rounding, rows = Rounding.of(network, graph, torch.float32), both_ends(graph, zonotope.center)

    def bounded(ranks: Ranks) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor, int]:
        share = zonotope.shared(ranks)
        found = sweep(graph, share, rounding=rounding)
        assert found.output is not None
        assert found.errors is not None
        proven = ForwardErrors(rounding).rows(rows, share, found.output, found.errors)
        return dict(found.intermediate), proven, sum(block.symbols.count for block in found.output.blocks)

    alone = sweep(graph, zonotope, rounding=rounding)
    results = on_ranks(size, bounded)
    assert alone.output is not None
    assert sum(count for *_, count in results) == alone.output.symbols, "every symbol is one rank's"
    start, corners = exact_box(zonotope), itertools.product((-1, 1), repeat=zonotope.symbols)
    for signs in itertools.islice(corners, 0, None, 13):
        x = [c + s * r for c, s, r in zip(start.center, signs, start.radius, strict=True)]
        before, y = values_before_relus(network, x)
        for inputs, proven, _ in results:
            for node, values in before.items():
                for value, low, high in zip(values, *(exactly(bound) for bound in inputs[node]), strict=True):
                    assert low <= value <= high
            for value, low in zip([*y, *[-v for v in y]], exactly(proven), strict=True):
                assert low <= value
    for name_, bounds in alone.intermediate.items():  # and are no wider than rounding makes them
        for mine, one in zip(results[0][0][name_], bounds, strict=True):
            torch.testing.assert_close(mine, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_bounds_of_every_node_are_the_exact_ones_but_for_rounding(name: str) -> None:
    graph = SMALL[name]()
    z = box(graph)
    first, *others = on_ranks(4, lambda ranks: sweep(graph, z.shared(ranks), all_layers=True))
    slopes = {name: ReluRule().band(*bounds, None).slope for name, bounds in first.intermediate.items()}
    exact = propagate(graph, exact_box(z), slopes)
    for node in graph.nodes:
        allowed = exact[node.name].rounding()
        for side, true in enumerate(exact[node.name].bounds()):
            for value, reference, tolerance in zip(exactly(first.layers[node.name][side]), true, allowed, strict=True):
                assert abs(value - reference) <= tolerance
            for other in others:
                assert torch.equal(other.layers[node.name][side], first.layers[node.name][side])


def test_all_ranks_take_the_band_of_the_first_one() -> None:
    """Another rank may round otherwise: here it has quite other slopes."""
    graph = NETWORKS["residual"](2)
    zonotope, slopes = several(graph), random_slopes(graph, 2, seed=1)
    expected = sweep(graph, zonotope, slopes=slopes)

    def swept(ranks: Ranks) -> tuple[Tensor, Tensor]:
        own = slopes if ranks.rank == 0 else {name: 1 - slope for name, slope in slopes.items()}
        return sweep(graph, zonotope.shared(ranks), slopes=own).bounds

    for bounds in on_ranks(3, swept):
        for mine, one in zip(bounds, expected.bounds, strict=True):
            torch.testing.assert_close(mine, one, rtol=1e-12, atol=1e-12)


# ---- as in one process -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
def test_any_zonotope_is_bounded_as_in_one_process(kind: str) -> None:
    graph = NETWORKS[kind](1)
    zonotope = several(graph)
    alone = compute_bounds(graph, zonotope, memory_budget=2**40)
    budget = 2**27 + 2**14  # so little that blocks go through layers in parts, and other parts on other ranks
    for found in on_ranks(3, lambda ranks: compute_bounds(graph, zonotope.shared(ranks), memory_budget=budget)):
        assert [layer.symbols for layer in found.stats] != []
        assert [sum(layer.symbols.values()) for layer in found.stats] == [
            sum(layer.symbols.values()) for layer in alone.stats
        ]
        for mine, one in ((found.lower, alone.lower), (found.upper, alone.upper)):
            torch.testing.assert_close(mine, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kink", ["envelope", "min_norm"])
def test_derivatives_in_slopes_are_those_of_one_process(kink: KinkRule) -> None:
    """The second one needs all symbols before it goes on."""
    graph = NETWORKS["residual"](1)
    zonotope = several(graph)
    slopes = sweep_to(graph, zonotope, {}).crossed
    given = {name: crossed.slope for name, crossed in slopes.items()}  # on the kink

    def gradients(share: Zonotope) -> dict[str, Tensor]:
        with use_kink(kink):
            return slope_gradients(graph, sweep_to(graph, share, given), loss, 50_000)

    expected = gradients(zonotope)
    assert any(bool((t != 0).any()) for t in expected.values())
    for found in on_ranks(3, lambda ranks: gradients(zonotope.shared(ranks))):
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-9)


def test_slopes_are_optimised_as_in_one_process() -> None:
    graph = NETWORKS["residual"](1)
    zonotope, rows = several(graph), torch.cat([torch.eye(3), -torch.eye(3)]).double()
    short = Ascent(iterations=3, rate=0.1)
    alone = optimize_bounds(graph, zonotope, rows, mode="forward", ascent=short)
    plain = optimize_bounds(graph, zonotope, rows, mode="forward", ascent=Ascent(iterations=0))
    assert bool((alone.lower > plain.lower + 1e-3).any())
    found = on_ranks(
        3, lambda ranks: optimize_bounds(graph, zonotope.shared(ranks), rows, mode="forward", ascent=short)
    )
    for one in found:
        torch.testing.assert_close(one.lower, alone.lower, rtol=1e-9, atol=1e-9)
        assert [step.worst for step in one.history] == [step.worst for step in found[0].history]
        assert [step.seconds for step in one.history] == [step.seconds for step in found[0].history]


def test_memory_and_symbols_of_a_rank_are_its_share() -> None:
    graph = NETWORKS["conv"](1)
    zonotope = Zonotope.from_box(*random_box(graph, 1, width=3.0, seed=5))
    alone = compute_bounds(graph, zonotope).output
    assert alone is not None

    def held(ranks: Ranks) -> tuple[int, int]:
        output = compute_bounds(graph, zonotope.shared(ranks)).output
        assert output is not None
        numbers = sum(t.numel() for block in output.blocks for t in block.tensors if not isinstance(block, Diagonal))
        return sum(block.symbols.count for block in output.blocks), numbers

    numbers = sum(t.numel() for block in alone.blocks for t in block.tensors if not isinstance(block, Diagonal))
    for symbols, own in on_ranks(4, held):
        assert alone.symbols / 4 - 4 <= symbols <= alone.symbols / 4 + 4
        assert own <= numbers / 4 + 4 * numbers / alone.symbols


def test_one_sum_and_one_band_for_each_activation() -> None:
    graph = NETWORKS["fc"](1)
    zonotope = Zonotope.from_box(*random_box(graph))

    def calls(ranks: Ranks) -> list[int]:
        sweep(graph, zonotope.shared(ranks))
        return ranks.gathered  # type: ignore[attr-defined,no-any-return]

    box_, hidden, last = 4, (8, 6), 3
    band = 4  # bounds, slope, and the middle, which is the radius
    expected = [box_, *(n for width in hidden for n in (width, *[width] * band)), last, last, last]
    assert on_ranks(2, calls) == [expected] * 2


# ---- refused ---------------------------------------------------------------------------------------------------------


def test_what_needs_all_symbols_is_refused() -> None:
    graph = NETWORKS["conv"](1)
    low, high = random_box(graph)
    zonotope = Zonotope.from_box(low, high)
    rows = torch.eye(3)

    def refused(ranks: Ranks) -> None:
        share = zonotope.shared(ranks)
        for direction in ("dual", "auto"):
            with pytest.raises(ValueError, match="pass direction='forward'"):
                compute_bounds(graph, share, direction=direction)
        with pytest.raises(ValueError, match="start more than 2 ranks, or raise it"):
            compute_bounds(graph, share, memory_budget=1000)
        with pytest.raises(ValueError, match="pass mode='forward'"):
            optimize_bounds(graph, share, rows)
        with pytest.raises(ValueError, match="the others would not know"):
            merge_symbols(share, 0)
        with pytest.raises(ValueError, match="shared out over ranks"):
            share.plot()
        with pytest.raises(ValueError, match="is a share of"):
            share.blocks[0].symbols.share(ranks)
        with torch.enable_grad(), pytest.raises(ValueError, match="derivatives are not recorded"):
            compute_bounds(graph, Zonotope(low.requires_grad_(), share.blocks))
        assert share.shared(ranks).blocks == share.blocks

    on_ranks(2, refused)


@pytest.mark.parametrize("what", ["networks", "inputs", "arguments"])
def test_ranks_that_were_given_different_things_are_refused(what: str) -> None:
    graph = NETWORKS["fc"](1)
    box_ = Zonotope.from_box(*random_box(graph))

    def call(ranks: Ranks) -> None:
        odd = ranks.rank == 1
        network = NETWORKS["fc"](2) if odd and what == "networks" else graph
        share = (box_ + 0.5 if odd and what == "inputs" else box_).shared(ranks)
        slopes = random_slopes(graph, seed=1) if odd and what == "arguments" else None
        with pytest.raises(ValueError, match=f"compute_bounds: the ranks were given different {what}"):
            compute_bounds(network, share, slopes=slopes)

    on_ranks(2, call)


def test_symbols_of_different_ranks_do_not_meet() -> None:
    def mixed(ranks: Ranks) -> None:
        other = type(ranks)(ranks.rank, ranks.board, ranks.barrier)  # type: ignore[attr-defined,call-arg]
        a, b = (Zonotope.from_ball(torch.zeros(1, 3), 1.0).shared(each) for each in (ranks, other))
        with pytest.raises(ValueError, match="shared out over different ranks"):
            a + b
        group = Symbols(4)
        assert group.share(ranks) is group.share(ranks)
        assert group.share(other) is not group.share(ranks)

    on_ranks(2, mixed)


def test_a_process_that_is_no_rank_says_how_to_become_one() -> None:
    with pytest.raises(RuntimeError, match="start it with torchrun"):
        Ranks()


def test_the_script_of_the_page_runs_in_a_group_of_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    start = 'dist.init_process_group("gloo")'
    assert start in script
    names: dict[str, Any] = {}
    alone = 'dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)'
    exec(script.replace(start, alone), names)
    assert names["bounds"].output.ranks == names["box"].ranks
    assert bool((names["best"].lower >= names["bounds"].lower - 1e-6).all())
