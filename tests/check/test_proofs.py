"""Certificates of every kind of proof are confirmed, and bounds are below every exact value, whatever the slopes."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from tests.check.certificates import KINDS, certified, exact_rows, inline, random_slopes, threshold
from tests.verifier.graphs import NETWORKS, constraint, random_box, region, sample_box, spec
from zonocuda.checker import CertificateError, check_proof, verdict
from zonocuda.checker.arithmetic import precisely
from zonocuda.checker.certificate import FORMATS, OLDEST, region_claim
from zonocuda.checker.claims import RowClaim
from zonocuda.checker.maps import Maps
from zonocuda.checker.region import RegionCheck
from zonocuda.graph import HOPELESS, Graph, Input, Linear, Node
from zonocuda.prove import recording
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import verify


@pytest.mark.parametrize(("name", "seed"), KINDS)
def test_a_proof_with_slopes_for_every_neuron_is_confirmed_with_the_bounds_that_it_claims(name: str, seed: int) -> None:
    graph, property_ = threshold(name, seed, KINDS[name, seed])
    certificate = certified(graph, property_)
    (entry,) = certificate["regions"]
    assert any(relu["refined"] for relu in entry["activations"]), "the property was meant to need refined bounds"
    result = check_proof(certificate, graph, property_)
    assert result.confirmed, result
    assert "0 claimed bounds of neurons not reached" in result.details[-1]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_proof_by_the_plain_passes_is_confirmed(name: str) -> None:
    graph, property_ = threshold(name, 0, -1)
    result = check_proof(certified(graph, property_, effort="fast"), graph, property_)
    assert result.confirmed, result
    assert "0 claimed bounds of neurons not reached" in result.details[-1]


def test_a_certificate_of_the_format_that_named_no_operators_is_confirmed() -> None:
    graph, property_ = threshold("fc", 0, -1)
    certificate = certified(graph, property_, effort="fast")
    (entry,) = certificate["regions"]
    listed = [{key: value for key, value in one.items() if key != "op"} for one in entry["activations"]]
    older = {**{key: value for key, value in entry.items() if key != "activations"}, "relus": listed}
    assert check_proof({**certificate, "format": OLDEST, "regions": [older]}, graph, property_).confirmed
    nameless = check_proof({**certificate, "regions": [{**entry, "activations": listed}]}, graph, property_)
    assert "op: must be there" in nameless.reason
    foreign = [{**one, "op": "Sigmoid"} for one in listed]
    refused = check_proof({**certificate, "regions": [{**entry, "activations": foreign}]}, graph, property_)
    assert "op 'Sigmoid' is not supported" in refused.reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_proof_in_either_precision_is_confirmed(dtype: torch.dtype) -> None:
    graph, property_ = threshold("residual", 2, 12)
    result = verify(graph, property_, effort="max", dtype=dtype, split="none", certificate=True)
    assert result.certificate is not None
    assert check_proof(inline(result.certificate), graph, property_).confirmed


@pytest.mark.parametrize("name", NETWORKS)
def test_bounds_are_below_exact_values_for_any_slopes(name: str) -> None:
    graph, property_ = threshold(name, 0, -1)
    certificate = certified(graph, property_, effort="fast")
    points = sample_box(*(b[0] for b in random_box(graph, width=1.0, seed=0)), 6, seed=2)
    exact = min(values[0] for values in exact_rows(graph, property_, points))
    region_ = property_.regions[0]
    for seed in range(3):
        (entry,) = random_slopes(certificate, seed)["regions"]
        with precisely():
            maps = Maps(graph)
            claim = region_claim(entry, maps.layers, maps.size)
            bound = RegionCheck(maps, region_, claim).row_bound(region_.disjuncts[0][0], RowClaim(0.0, None))
            assert bound.is_finite()
            assert bound <= exact.numerator / bound.__class__(exact.denominator)


def test_several_regions_and_rows_of_inputs_are_confirmed_and_empty_ones_need_nothing() -> None:
    graph, one = threshold("fc", 2, -1)
    (first,) = one.regions
    lower, upper = first.box.lower, first.box.upper
    low = Fraction(float(lower[0]))
    sees_input = LinearConstraint({}, {0: Fraction(1)}, 1 - low)  # X_0 <= lower - 1
    regions = (
        Region(Box.from_tensors(upper + 1, lower), ((),)),  # empty
        first,
        Region(first.box, ()),  # nothing is unsafe
        Region(first.box, ((first.disjuncts[0][0], sees_input), (sees_input,))),
    )
    property_ = Spec(one.inputs, one.outputs, regions)
    certificate = certified(graph, property_, effort="fast")
    assert [entry["region"] for entry in certificate["regions"]] == [1, 3]
    result = check_proof(certificate, graph, property_)
    assert result.confirmed, result
    assert sum("empty" in line for line in result.details) == 1


def test_a_property_without_regions_is_confirmed_by_name() -> None:
    graph, one = threshold("fc", 2, -1)
    property_ = Spec(one.inputs, one.outputs, ())
    result = check_proof(certified(graph, property_), graph, property_)
    assert result.confirmed
    assert result.reason == "the specification has no unsafe region"


def test_slopes_that_would_take_too_much_are_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_BYTES", 10)
    graph, property_ = threshold("residual", 2, KINDS["residual", 2])
    certificate = certified(graph, property_)
    assert not certificate["available"]
    assert certificate["regions"] == []
    with pytest.raises(CertificateError, match="nothing to check: slopes for each neuron would take more than"):
        check_proof(certificate, graph, property_)


def test_a_network_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "MAX_NUMBERS", 10)
    graph, property_ = threshold("fc", 2, -1)
    with pytest.raises(CertificateError, match="more than 10 constants or neurons"):
        check_proof(certified(graph, property_, effort="fast"), graph, property_)


def test_a_conjunction_without_rows_is_never_confirmed() -> None:
    graph, one = threshold("fc", 2, -1)
    certificate = certified(graph, one, effort="fast")
    property_ = Spec(one.inputs, one.outputs, (Region(one.regions[0].box, (one.regions[0].disjuncts[0], ())),))
    assert not check_proof(certificate, graph, property_).confirmed


def test_a_box_without_bounds_is_never_confirmed() -> None:
    graph, one = threshold("fc", 2, -1)
    certificate = certified(graph, one, effort="fast")
    box = one.regions[0].box
    for bad in (float("nan"), float("inf")):
        upper = box.upper.clone()
        upper[1] = bad
        property_ = spec(box.lower, upper, one.regions[0].disjuncts, one.outputs)
        assert not check_proof(certificate, graph, property_).confirmed


def test_a_nan_in_the_network_is_never_confirmed() -> None:
    graph, one = threshold("fc", 2, -1)
    certificate = certified(graph, one, effort="fast")
    for node in graph.nodes:
        weight = getattr(node.op, "weight", None)
        if weight is not None:
            kept = weight[0, 0].clone()
            weight[0, 0] = float("nan")
            assert not check_proof(certificate, graph, one).confirmed
            weight[0, 0] = kept
    assert check_proof(certificate, graph, one).confirmed


def test_rows_that_are_strict_need_a_positive_bound_too() -> None:
    """Y_0 < min is no counterexample of Y_0 - min >= 0, but the bound 0 is not positive."""
    graph = NETWORKS["fc"](0)
    lower, _ = random_box(graph, seed=0)
    value = float(graph(lower).flatten()[0])
    rows = [[constraint({0: 1.0}, -value, strict=True)]]
    property_ = Spec(4, 3, (region(lower[0], lower[0], rows),))
    shifted = Spec(4, 3, (region(lower[0], lower[0], [[constraint({0: 1.0}, -value + 1, strict=True)]]),))
    certificate = certified(graph, shifted, effort="fast")
    assert check_proof(certificate, graph, shifted).confirmed
    exact = exact_rows(graph, property_, lower)[0][0]
    assert check_proof(certificate, graph, property_).confirmed == (exact > 0)


def test_a_constant_about_which_nothing_is_known_is_not_believed_where_it_is_held_as_zero() -> None:
    node = Node("y", Linear(torch.zeros(1, 1), None, roundings=HOPELESS), ("x",), (1,))
    graph = Graph((Node("x", Input(), (), (1,)), node), "y")
    row = LinearConstraint({0: Fraction(1)}, {}, Fraction(1, 2))
    box = Box.from_tensors(-torch.ones(1), torch.ones(1))
    entry = {"region": 0, "second_pass": False, "activations": [], "rows": [{"row": 0, "lower": 0.5, "slopes": None}]}
    certificate = {"format": FORMATS[-1], "available": True, "reason": "", "regions": [entry]}
    assert not check_proof(certificate, graph, Spec(1, 1, (Region(box, ((row,),)),))).confirmed
