"""What a verdict says: in which arithmetic, on which box, and that rounding was what a proof lacked."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from tests.verifier.graphs import rand
from tests.verifier.verdicts import ALWAYS, IDENTITY, NEVER, chain, run
from zonocuda.graph import Linear
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, verify


@pytest.mark.parametrize("semantics", ["float16", "bfloat16"])
def test_semantics_that_are_not_supported_are_refused_with_the_reason(semantics: str) -> None:
    with pytest.raises(ValueError, match=f"semantics '{semantics}'.*use 'real'"):
        run(IDENTITY, [NEVER], semantics=semantics)


def test_unknown_semantics_are_refused() -> None:
    with pytest.raises(ValueError, match="semantics must be one of real"):
        run(IDENTITY, [NEVER], semantics="exact")


def test_a_proof_and_a_counterexample_say_which_arithmetic_and_which_box_they_are_about() -> None:
    proof, failure = run(IDENTITY, [NEVER]), run(IDENTITY, [ALWAYS])
    assert (proof.verdict, failure.verdict) == (Verdict.VERIFIED, Verdict.FALSIFIED)
    assert proof.ran.semantics == failure.ran.semantics == "real"
    assert "real arithmetic" in proof.meaning
    assert "float32" in failure.meaning


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_proof_that_lacks_nothing_but_rounding_says_so(dtype: torch.dtype) -> None:
    """A sum of one point, whose exact value exceeds the row by more than rounding takes and less than it may take."""
    weight, x = (t.float().double() for t in (rand(1, 50, seed=1), rand(50, seed=2)))
    exact = sum(Fraction(w) * Fraction(v) for w, v in zip(weight.flatten().tolist(), x.tolist(), strict=True))
    row = LinearConstraint({0: Fraction(1)}, {}, -exact + Fraction(torch.finfo(dtype).eps) * 200)
    result = verify(
        chain(Linear(weight), size=50), Spec(50, 1, (Region(Box.from_tensors(x, x), ((row,),)),)), dtype=dtype
    )
    assert result.verdict is Verdict.UNKNOWN
    assert f"rounding of its own computation in {str(dtype).removeprefix('torch.')}" in result.reason
    assert result.margins[0].slack is not None
    assert result.margins[0].slack > 0
