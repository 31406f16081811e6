"""Certificates about executed networks: what the check charges for an execution, against machines of every kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from tests.check.certificates import KINDS, threshold
from tests.check.test_forests import above, checked
from tests.soundness.executions import Layers, Machine
from tests.soundness.test_executed import SINGLES, folded, single
from tests.soundness.test_executed_verdicts import BITS, at_least, crossing
from tests.soundness.test_executed_verdicts import spec as property_of
from tests.soundness.test_rounding import random_chain
from tests.verifier.exact import exactly
from tests.verifier.graphs import NETWORKS, Builder, casting, fc, random_box, residual
from tests.verifier.verdicts import chain, matrix
from zonocuda.bounds.rounding.executed import Execution as Charged
from zonocuda.checker import CertificateError, check, check_proof
from zonocuda.checker.arithmetic import balls, precisely
from zonocuda.checker.derive import Derivation
from zonocuda.checker.exact import Sample
from zonocuda.checker.execution import Execution
from zonocuda.checker.maps import Maps, executed_interval
from zonocuda.checker.sets import FloatNet
from zonocuda.graph import Add, Concat, Graph, Relu, Reshape, ScaleShift
from zonocuda.importers import from_module
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, VerifyResult, verify

SEMANTICS = {"float32": torch.float32, "float64": torch.float64}


def exceeded(
    graph: Graph, seed: int, dtype: torch.dtype, counted: bool, ulp: Mapping[str, float] = MappingProxyType({})
) -> int:
    """How many bounds of ReLUs' inputs some machine's values exceed, of those that the check derives on a box."""
    graph = graph.to(torch.float32).to(torch.float64)
    low, high = (b.to(dtype).double() for b in random_box(graph, width=(0.0, 1e-6, 1e-2, 1.0)[seed % 4], seed=seed + 7))
    flat = [end.reshape(1, -1).numpy() for end in (low, high)]
    found: list[dict[str, Any]] = []
    with precisely(), np.errstate(all="ignore"):
        maps = Maps(graph, Execution(graph, dtype, ulp) if counted else None)
        ends = {graph.nodes[0].name: (balls(flat[0][0].tolist()), balls(flat[1][0].tolist()))}
        for node in graph.nodes[1:]:
            ends[node.name] = executed_interval(maps, node, ends)
        found.append({relu.name: ends[relu.inputs[0]] for relu in graph.relus})
        sets = Derivation(FloatNet(maps), flat[0], flat[1], sample=Sample(maps, 1.0, np.inf)).run()
        found.append({name: (relaxed.low[0], relaxed.high[0]) for name, relaxed in sets.relus.items()})
        layers = Layers(graph)
        wrong = 0
        for number in range(4):
            x = low if number % 2 else high
            seen, _ = Machine(dtype, 4 * seed + number).run(layers, exactly(x.flatten()))
            for bounds in found:
                for name, values in ((name, seen[name]) for name in bounds):
                    for value, a, b in zip(values, *bounds[name], strict=True):
                        exact = balls([value.numerator])[0] / value.denominator
                        wrong += not (a <= exact <= b)
    return wrong


@pytest.mark.parametrize("dtype", SEMANTICS.values())
@pytest.mark.parametrize("name", [*(name for name in NETWORKS if name != "pooling"), "folded", "chain"])
def test_no_execution_exceeds_a_bound_of_the_check(name: str, dtype: torch.dtype) -> None:
    for seed in range(6 if name == "chain" else 2):
        graph = {**NETWORKS, "folded": folded, "chain": random_chain}[name](seed)
        assert not exceeded(graph, seed, dtype, counted=True), seed


@pytest.mark.parametrize("kind", SINGLES)
def test_every_operator_that_rounds_needs_to_be_counted_by_the_check_and_is(kind: str) -> None:
    for counted in (False, True):
        wrong = sum(exceeded(single(kind, seed), seed, torch.float32, counted) for seed in range(0, 12, 4))
        assert bool(wrong) != counted


def joined(seed: int) -> Graph:
    """A concatenation of a layer with what a machine holds, and a sum with another layer: either layer may begin with
    the other's sum."""
    b = Builder(6, seed=seed)
    both = b(Concat(0), b(b.linear(6, 5), "x"), "x")
    b(Relu(), b(Add(), both, b(b.linear(6, 11), "x")))
    return b.graph()


@pytest.mark.parametrize("network", [*NETWORKS.values(), folded, random_chain, joined])
def test_both_derivations_count_as_many_roundings(network: Callable[[int], Graph]) -> None:
    for seed in range(3):
        graph = network(seed)
        for dtype in SEMANTICS.values():
            own = {name: (one.first, one.second) for name, one in Execution(graph, dtype).shares.items()}
            assert own == Charged.of(graph, dtype).roundings


def confirmed(graph: Graph, property_: Spec, semantics: Any, path: Path, **how: Any) -> tuple[bool, VerifyResult]:
    """Whether a proof's certificate is confirmed, in floats and in balls; and the proof."""
    result = verify(graph, property_, semantics=semantics, certificate=True, **how)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is not None
    assert result.certificate.semantics == semantics
    assert not result.certificate.reason
    found = [checked(graph, property_, result.certificate, path, exact=exact) for exact in (False, True)]
    assert found[0].confirmed == found[1].confirmed, found
    return found[0].confirmed, result


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("refined", [False, True])
@pytest.mark.parametrize("name", ["fc", "residual", "everything"])
def test_a_proof_about_an_execution_is_confirmed(name: str, refined: bool, semantics: str, tmp_path: Path) -> None:
    seed = 0 if name == "everything" else 2
    graph, property_ = threshold(name, seed, KINDS[name, seed] - 1 if refined else -1)
    how = {"effort": "max" if refined else "fast", "split": "none"}
    assert confirmed(graph.to(torch.float32), property_, semantics, tmp_path / "c.zip", **how)[0]


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("split", ["input", "neuron"])
def test_a_search_about_an_execution_is_confirmed(split: str, semantics: str, tmp_path: Path) -> None:
    graph = residual(3) if split == "input" else fc(3, (4, 12, 12, 12, 2))
    property_ = above(graph, 0.6, 3, 0.1) if split == "input" else above(graph, 1.0, 3, 0.02)
    graph = graph.to(torch.float32)
    found, result = confirmed(graph, property_, semantics, tmp_path / "c.zip", split=split, timeout=100.0)
    assert found
    assert result.splits


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_a_proof_over_the_reals_proves_nothing_about_an_execution_that_violates_it(
    semantics: str, tmp_path: Path
) -> None:
    """In the first order of summation that one thinks of, the output is above; over the reals it is below."""
    graph, x, reached = crossing(semantics, 1)
    true = property_of(x, x, at_least(reached * (1 + Fraction(1000, 2 ** BITS[semantics]))))
    false = property_of(x, x, at_least(reached))
    made_of = graph.to(torch.float32) if semantics == "float32" else graph
    certificate = verify(made_of, true, semantics=semantics, certificate=True).certificate  # type: ignore[arg-type]
    assert certificate is not None
    for claim in ("real", semantics):
        moved = replace(certificate, semantics=claim)
        for exact in (False, True):
            assert checked(graph, false, moved, tmp_path / "c.zip", exact=exact).confirmed is (claim == "real")
    assert checked(graph, true, replace(certificate, semantics=semantics), tmp_path / "c.zip").confirmed


def test_values_that_may_overflow_prove_nothing(tmp_path: Path) -> None:
    graph = chain(matrix([2.0**100]), Relu(), matrix([2.0**-100]), size=1).to(torch.float32)
    property_ = property_of(torch.zeros(1), torch.ones(1), at_least(Fraction(2)))
    certificate = verify(graph, property_, certificate=True).certificate
    assert certificate is not None
    for exact in (False, True):
        assert checked(graph, property_, certificate, tmp_path / "c.zip", exact=exact).confirmed
        as_executed = replace(certificate, semantics="float32")
        result = checked(graph, property_, as_executed, tmp_path / "c.zip", exact=exact)
        assert not result.confirmed
        assert "may overflow" in result.reason
        assert checked(graph, property_, replace(certificate, semantics="float64"), tmp_path / "c.zip").confirmed


def test_what_is_not_known_about_an_execution_is_said() -> None:
    with pytest.raises(CertificateError, match="cast"):
        Execution(casting(1), torch.float32)


@pytest.mark.parametrize(("semantics", "is_confirmed"), [("real", True), ("float32", True), ("float64", False)])
def test_a_counterexample_is_executed_in_the_type_that_the_verdict_is_about(semantics: str, is_confirmed: bool) -> None:
    """(1/4 + 10^8) - 10^8 is 0 in float32, and 1/4 in float64."""
    large = torch.tensor(1e8)
    graph = chain(ScaleShift(None, large), ScaleShift(None, -large), size=1)
    property_ = property_of(torch.zeros(1), torch.ones(1), LinearConstraint({0: Fraction(1)}, {}, Fraction(-1, 10)))
    document = {
        "schema": "zonocuda.verify/1",
        "verdict": "falsified",
        "ran": {"semantics": semantics},
        "counterexample": {"region": 0, "x": [0.25], "y": [0.0]},
    }
    assert check(document, graph, property_).confirmed is is_confirmed


def test_a_counterexample_in_float64_lies_in_the_box_itself() -> None:
    """0.1 is less than the nearest number of float32."""
    graph = chain(matrix([1]), size=1).to(torch.float32)
    box = Box.exact([Fraction(0)], [Fraction(1, 10)])
    property_ = Spec(1, 1, (Region(box, ((LinearConstraint({0: Fraction(-1)}, {}, Fraction(1, 10)),),)),))
    x = [torch.tensor(0.1).item()]
    for semantics, is_confirmed in (("float32", True), ("float64", False)):
        document = {
            "schema": "zonocuda.verify/1",
            "verdict": "falsified",
            "ran": {"semantics": semantics},
            "counterexample": {"region": 0, "x": x, "y": x},
        }
        assert check(document, graph, property_).confirmed is is_confirmed


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("semantics", "is_confirmed"), [("real", True), ("float32", False), ("float64", True)])
def test_an_end_that_a_machine_may_flush_refutes_nothing(semantics: str, is_confirmed: bool, sign: int) -> None:
    """Outputs of at least 2^-130 are 0 where subnormal numbers of float32 are flushed."""
    graph = chain(Reshape((1, 1)), size=1)
    least = Fraction(1, 2**130)
    low, high = sorted([sign * torch.tensor([float(least)], dtype=torch.float64), sign * torch.ones(1).double()])
    for strict, at in ((True, least), (False, least / 2)):
        row = LinearConstraint({0: Fraction(sign)}, {}, -at, strict)
        weight = {"output": 0, "weight": str(sign)}
        one = {"disjunct": 0, "rows": [{"row": 0, "weight": "1"}], "outputs": [weight], "refutes": True}
        regions = [{"region": 0, "combinations": [one]}]
        document = {"format": "zonocuda.certificate/3", "available": True, "regions": regions}
        try:
            found = check_proof(document, graph, property_of(low, high, row), semantics=semantics).confirmed
        except CertificateError:
            found = False
        assert found is is_confirmed


def test_a_network_of_float64_is_not_what_float32_executes() -> None:
    """The limit 0.1 of float64 is less than that of float32."""

    class Limited(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.clamp(x * self.scale, 0.0, 0.1)

    graph = from_module(Limited(), (1,))
    property_ = property_of(torch.zeros(1), torch.ones(1), at_least(Fraction(0.1) + Fraction(1, 10**12)))
    assert graph.to(torch.float32)(torch.ones(1, 1)).item() > 0.1 + 1e-12
    certificate = verify(graph, property_, semantics="float64", certificate=True).to_json()
    assert check(certificate, graph, property_).confirmed
    with pytest.raises(CertificateError, match="as executed in float32, node 'x' is another"):
        check({**certificate, "ran": {"semantics": "float32"}}, graph, property_)
    with pytest.raises(ValueError, match="semantics 'float32': node 'x' holds more digits"):
        verify(graph, property_, semantics="float32")
    bare = Graph(tuple(replace(node, dtype=None) for node in graph.nodes), graph.output)
    assert bare.wider(torch.float32) == "clamp"
