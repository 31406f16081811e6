"""Conjunctions that only a combination of their rows refutes, with weights that the dual pass finds."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

pytest.importorskip("flint", reason="python-flint is not installed")

from tests.check.certificates import inline
from zonocuda.checker import check_proof
from zonocuda.graph import Graph, Input, Linear, Node, Relu
from zonocuda.prove.combine import Combination
from zonocuda.prove.stages import RegionProof
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, verification, verify

INPUTS, HIDDEN = 40, 24
REFUTABLE = {1: ("4.574", "2.809"), 4: ("6.03", "2.908"), 5: ("2.696", "3.338")}
"""Constants, by the network's seed, for which neither a row alone nor the weights of sampled points are enough."""


def network(seed: int) -> Graph:
    """Two outputs that so many inputs reach that samples are far from what is least."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).double()

    nodes = (
        Node("x", Input(), (), (INPUTS,)),
        Node("a", Linear(rand(HIDDEN, INPUTS) / 8, rand(HIDDEN)), ("x",), (HIDDEN,)),
        Node("r", Relu(), ("a",), (HIDDEN,)),
        Node("y", Linear(rand(2, HIDDEN) / 4), ("r",), (2,)),
    )
    return Graph(nodes, "y")


def both(first: Fraction | str, second: Fraction | str, scale: int = 1) -> Spec:
    """Unsafe: Y_0 + first <= 0 and Y_1 + second <= 0, the first row times ``scale``."""
    one = LinearConstraint({0: Fraction(scale)}, {}, scale * Fraction(first), False)
    other = LinearConstraint({1: Fraction(1)}, {}, Fraction(second), False)
    box = Box.from_tensors(-torch.ones(INPUTS), torch.ones(INPUTS))
    return Spec(INPUTS, 2, (Region(box, ((one, other),)),))


@pytest.mark.parametrize("scale", [1, 2**40])
@pytest.mark.parametrize("seed", REFUTABLE)
def test_optimised_weights_prove_what_no_row_and_no_sampled_mixture_does(
    seed: int, scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, property_ = network(seed), both(*REFUTABLE[seed], scale)
    result = verify(graph, property_, split="none", certificate=True)
    assert result.verdict is Verdict.VERIFIED, result.reason
    assert result.certificate is not None
    certificate = inline(result.certificate)
    (combination,) = certificate["regions"][0]["combinations"]
    assert not combination["refutes"]
    assert len(combination["rows"]) == 2
    assert check_proof(certificate, graph, property_).confirmed
    monkeypatch.setattr(verification, "optimised", lambda *arguments: ())
    assert verify(graph, property_, split="none").verdict is Verdict.UNKNOWN


def test_optimised_weights_prove_it_as_executed() -> None:
    result = verify(network(4), both(*REFUTABLE[4]), split="none", semantics="float32")
    assert result.verdict is Verdict.VERIFIED, result.reason


@pytest.mark.parametrize("seed", range(6))
def test_a_conjunction_that_a_point_satisfies_is_never_verified(seed: int) -> None:
    graph = network(seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(INPUTS, generator=generator, dtype=torch.float64).sign()
    for _ in range(20):  # to where the two outputs are small together
        moved = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(graph(moved[None]).sum(), moved)
        x = -gradient.sign()
    planted = [Fraction(-value) for value in graph(x[None])[0].tolist()]
    slack = Fraction(1, 10**9)
    result = verify(graph, both(planted[0] - slack, planted[1] - slack), split="none")
    assert result.verdict is not Verdict.VERIFIED


def test_a_proof_that_goes_on_with_further_rows_keeps_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[float], list[float]]] = []
    extend = RegionProof.extend

    def watched(proof: RegionProof, region: Region) -> None:
        assert proof.prover is not None
        before = proof.prover.bounds.tolist()
        extend(proof, region)
        seen.append((before, proof.prover.bounds.tolist()))

    monkeypatch.setattr(RegionProof, "extend", watched)
    verify(network(4), both(*REFUTABLE[4]), split="none")
    ((before, after),) = seen
    kept = after[:2]
    assert all(new >= old for old, new in zip(before[:2], kept, strict=True))
    assert after[-1] > max(kept)


@pytest.mark.parametrize("weights", [(Fraction(1, 3), Fraction(2, 3)), (Fraction(5), Fraction(1, 7))])
def test_any_weights_leave_a_property_that_is_as_true(
    weights: tuple[Fraction, Fraction], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are a suggestion: a poor one proves nothing wrong."""
    one = Combination(0, dict(enumerate(weights)), {}, refutes=False)
    monkeypatch.setattr(verification, "optimised", lambda *arguments: (one,))
    graph, property_ = network(4), both(*REFUTABLE[4])
    result = verify(graph, property_, split="none", certificate=True)
    if result.verdict is Verdict.VERIFIED:
        assert result.certificate is not None
        assert check_proof(inline(result.certificate), graph, property_).confirmed
    graph = network(0)
    x = torch.zeros(1, INPUTS, dtype=torch.float64)
    planted = [Fraction(-value) - Fraction(1, 10**6) for value in graph(x)[0].tolist()]
    assert verify(graph, both(*planted), split="none").verdict is not Verdict.VERIFIED
