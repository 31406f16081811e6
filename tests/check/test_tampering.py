"""No edit of a certificate confirms a property that does not hold, and none makes the check fall over."""

from __future__ import annotations

import base64
import copy
import random
import zlib
from typing import Any

import pytest
import torch

from tests.check.certificates import KINDS, array, certified, exact_rows, random_slopes, threshold
from tests.verifier.graphs import NETWORKS, constraint, random_box, sample_box, spec
from zonocuda.checker import CertificateError, check_proof
from zonocuda.checker import certificate as certificate_module
from zonocuda.graph import Graph
from zonocuda.specs import Region, Spec

SEED = 20260
CASES = [("fc", 2), ("residual", 2)]


def false_property(graph: Graph, property_: Spec) -> Spec:
    """The same constraint, moved so that the worst of some sampled points violates it by little: it is false."""
    (region,) = property_.regions
    shape = graph.input_shape
    points = sample_box(region.box.lower.reshape(shape), region.box.upper.reshape(shape), 40, seed=3)
    least = min(values[0] for values in exact_rows(graph, property_, points))
    (row,) = region.disjuncts[0]
    moved = type(row)(row.outputs, row.inputs, row.constant - least - abs(least) / 10**6)
    return Spec(property_.inputs, property_.outputs, (Region(region.box, ((moved,),)),))


def confirmed(certificate: object, graph: Graph, property_: Spec) -> bool:
    """Whether a certificate is; a refusal is not."""
    try:
        return check_proof(certificate, graph, property_).confirmed
    except CertificateError:
        return False


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every field and element."""
    own = [path] if path else []
    if isinstance(value, dict):
        return own + [p for k, v in value.items() for p in places(v, (*path, k))]
    if isinstance(value, list):
        return own + [p for i, v in enumerate(value) for p in places(v, (*path, i))]
    return own


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """What lies there."""
    for key in path:
        value = value[key]
    return value


def mutated(certificate: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A few random edits: another value, another type, another array, something removed, doubled or exchanged."""
    result = copy.deepcopy(certificate)
    for _ in range(rng.randint(1, 4)):
        paths = places(result)
        path = rng.choice(paths)
        parent, key, old = at(result, path[:-1]), path[-1], at(result, path)
        match rng.randrange(6):
            case 0:
                parent[key] = rng.choice(
                    [None, True, False, 0, 1, -1, 7, 10**400, 1e300, "nan", "", [], {}, [[]], {"x": 1}]
                )
            case 1:
                del parent[key]
            case 2:
                parent[key] = copy.deepcopy(at(result, rng.choice(paths)))
            case 3 if isinstance(parent, list):
                parent.append(copy.deepcopy(old))
            case 4 if isinstance(old, dict) and old.keys() == {"dtype", "shape", "data"}:
                parent[key] = forged_array(old, rng)
            case _:
                if type(old) is bool:
                    parent[key] = not old
                elif isinstance(old, int | float):
                    parent[key] = old + rng.choice([-1, 1, 1000])
    return result


def forged_array(old: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Another array of the same or another shape, with slopes in and out of [0, 1], NaN and infinity."""
    shape = [max(0, n + rng.choice([0, 0, 0, 1, -1])) for n in old["shape"] if type(n) is int]
    values = torch.rand(shape, dtype=torch.float64) * rng.choice([1, 1, 1, 3]) - rng.choice([0, 0, 0, 1])
    if values.numel() and rng.random() < 0.3:
        values.view(-1)[rng.randrange(values.numel())] = rng.choice([float("nan"), float("inf"), -1e-300, 1 + 2.0**-52])
    if old["dtype"] == "uint8":
        return array((values.nan_to_num(0, 0, 0).abs() * 200).to(torch.uint8))
    return array((values.nan_to_num(0, 0, 0) * 8).int() if old["dtype"] == "int32" else values)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_mutation_confirms_a_false_property(case: tuple[str, int]) -> None:
    graph, property_ = threshold(*case, KINDS[case])
    certificate = certified(graph, property_)
    wrong = false_property(graph, property_)
    assert confirmed(certificate, graph, property_)
    assert not confirmed(certificate, graph, wrong)
    rng = random.Random(SEED)
    still = 0
    for trial in range(60):
        edited = mutated(random_slopes(certificate, trial) if trial % 3 == 0 else certificate, rng)
        assert not confirmed(edited, graph, wrong), f"seed {SEED}, trial {trial}"
        still += confirmed(edited, graph, property_)
    assert 0 < still < 60, "some edits should leave the proof whole, and some should not"


def test_each_of_the_edits_one_thinks_of_first_is_seen() -> None:
    graph, property_ = threshold("residual", 2, KINDS["residual", 2])
    certificate = certified(graph, property_)
    assert confirmed(certificate, graph, property_)

    def reason(edit: Any) -> str:
        edited = copy.deepcopy(certificate)
        edit(edited["regions"][0], edited)
        result = check_proof(edited, graph, property_)
        assert not result.confirmed
        return result.reason

    def slopes(value: float, key: str = "area") -> Any:
        def edit(region: Any, _: Any) -> None:
            relu = next(relu for relu in region["activations"] if relu[key]["shape"][0])
            relu[key] = array(torch.full((relu[key]["shape"][0],), value, dtype=torch.float64))

        return edit

    for value in (-1e-9, 1 + 2.0**-52, float("nan"), float("inf")):
        for key in ("area", "negative", "nonnegative"):
            assert "a slope lies outside [0, 1]" in reason(slopes(value, key))
    assert "does not fit" in reason(
        lambda r, _: r["activations"][0].update(area=array(torch.zeros(99, dtype=torch.float64)))
    )
    assert "ascending places" in reason(
        lambda r, _: r["activations"][0].update(
            neurons=array(torch.zeros(r["activations"][0]["neurons"]["shape"], dtype=torch.int32) + 10**6)
        )
    )
    assert "not every one of" in reason(lambda r, _: r["activations"].pop())
    assert "there twice" in reason(lambda r, _: r["activations"].append(r["activations"][0]))
    assert "no slopes for it" in reason(lambda r, c: c.update(regions=[]))
    assert "there twice" in reason(lambda r, c: c["regions"].append(r))
    assert "disjunct 0 is not refuted (bounds found: none)" in reason(lambda r, _: r.update(rows=[]))
    assert "no row of the specification" in reason(lambda r, _: r["rows"][0].update(row=5))
    assert "no row of the specification" in reason(lambda r, _: r["rows"][0].update(row=-1))
    assert "zlib data" in reason(lambda r, _: r["activations"][0]["area"].update(data="AAAA"))


def test_inflated_claims_change_nothing_but_what_is_reported() -> None:
    graph, property_ = threshold("residual", 2, KINDS["residual", 2])
    certificate = certified(graph, property_)
    wrong = false_property(graph, property_)
    for relu in certificate["regions"][0]["activations"]:
        size = relu["neurons"]["shape"][0]
        relu["lower"] = array(torch.full((size,), 1e9, dtype=torch.float64))
        relu["upper"] = array(torch.full((size,), -1e9, dtype=torch.float64))
    certificate["regions"][0]["rows"][0]["lower"] = 1e9
    result = check_proof(certificate, graph, property_)
    assert result.confirmed
    assert "claimed 1e+09" in result.details[-1]
    assert "0 claimed bounds" not in result.details[-1].replace("10 claimed", "ten claimed")
    assert not confirmed(certificate, graph, wrong)


def test_the_rows_are_those_of_the_specification_not_of_the_certificate() -> None:
    """A certificate of one disjunct does not prove two, and one of a larger box or of another region proves nothing."""
    graph, property_ = threshold("fc", 2, -1)
    certificate = certified(graph, property_, effort="fast")
    (region,) = property_.regions
    low = random_box(graph, width=1.0, seed=2)[0]
    never = constraint({1: 1.0}, -float(graph(low).flatten()[1]) - 1)
    more = Spec(property_.inputs, property_.outputs, (Region(region.box, (*region.disjuncts, (never,))),))
    assert not confirmed(certificate, graph, more)
    wide = spec(region.box.lower - 50, region.box.upper + 50, region.disjuncts, property_.outputs)
    assert not confirmed(certificate, graph, wide)
    both = Spec(property_.inputs, property_.outputs, (region, *wide.regions))
    certificate["regions"].append({**certificate["regions"][0], "region": 1})
    assert not confirmed(certificate, graph, both)


def test_arrays_are_not_unpacked_beyond_what_they_should_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, property_ = threshold("residual", 2, KINDS["residual", 2])
    entry = certified(graph, property_)
    packed = base64.b64encode(zlib.compress(bytes(10**7))).decode()
    edited = copy.deepcopy(entry)
    edited["regions"][0]["activations"][0]["area"]["data"] = packed
    assert "holds other than" in check_proof(edited, graph, property_).reason
    monkeypatch.setattr(certificate_module, "MAX_ARRAY_BYTES", 100)
    assert "the arrays of a region have more than 100 bytes" in check_proof(entry, graph, property_).reason


@pytest.mark.parametrize("value", [None, [], {}, "x", {"format": "zonocuda.certificate/4"}, {"format": []}])
def test_what_is_no_certificate_is_refused(value: object) -> None:
    graph, property_ = threshold("fc", 2, -1)
    with pytest.raises(CertificateError, match="holds no certificate of format"):
        check_proof(value, graph, property_)


def test_every_kind_of_network_refuses_a_foreign_certificate() -> None:
    graph, property_ = threshold("fc", 2, -1)
    certificate = certified(graph, property_, effort="fast")
    for name in NETWORKS:
        if name != "fc":
            other, wanted = threshold(name, 0, -1)
            assert not confirmed(certificate, other, wanted)
