"""Proofs are about the network whose constants are computed in real arithmetic, not as its file's precision folds them.

A network scale * x + shift of computed constants is largest at a vertex of its box, where exact arithmetic says by how
much: a property that this value violates is never verified, however small the excess, and one that it satisfies by
little more than the rounding of float64 is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.importers.constant_programs import Program, folded, random_program
from tests.importers.onnx_models import Case, ints, op, save
from tests.verifier.exact import evaluate, exactly
from zonocuda.graph import Affine, Graph, Input, Linear, Node, Op, Relu
from zonocuda.importers import UnsupportedNetworkError, load_onnx
from zonocuda.prove.prover import Effort
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, verify

LOW, HIGH = torch.full((1, 4), -0.5), torch.full((1, 4), 0.5)


def spec(row: dict[int, Fraction], threshold: Fraction) -> Spec:
    """row . y >= threshold is to be excluded on the box."""
    constraint = LinearConstraint({i: -w for i, w in row.items()}, {}, threshold)
    return Spec(4, 4, (Region(Box.from_tensors(LOW, HIGH), ((constraint,),)),))


def verdict(graph: Graph, row: dict[int, Fraction], threshold: Fraction, dtype: torch.dtype) -> Verdict:
    return verify(graph, spec(row, threshold), dtype=dtype, effort="fast").verdict


def largest(program: Program, scale: str, shift: str, row: dict[int, Fraction]) -> tuple[Fraction, Fraction]:
    """The exact maximum of row . y, and the size of its terms."""
    a, b = (np.broadcast_to(program.values[name], (4,)) for name in (scale, shift))
    half = Fraction(1, 2)
    value = sum((abs(w * a[i]) * half + w * b[i] for i, w in row.items()), Fraction(0))
    return value, sum((abs(w) * (abs(a[i]) * half + abs(b[i])) for i, w in row.items()), Fraction(0))


def imported(program: Program, scale: str, shift: str, folder: Path) -> Graph:
    return load_onnx(save(program.model(scale, shift), folder))


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_programs_are_never_verified_beyond_exact_arithmetic(dtype: torch.dtype, tmp_path: Path) -> None:
    """At the exact maximum, where the property is violated, no seed is verified; the constants that the file's own
    precision folds would have it verified often. A little above it most are.
    """
    wrong, proven, programs = 0, 0, 60
    for seed in range(programs):
        program, scale, shift = random_program(seed)
        graph = imported(program, scale, shift, tmp_path)
        row = {i: Fraction(1 + seed % 3) for i in range(seed % 4 + 1)}
        maximum, size = largest(program, scale, shift, row)
        assert verdict(graph, row, maximum, dtype) is not Verdict.VERIFIED, f"seed {seed}"
        wrong += verdict(folded(graph), row, maximum, dtype) is Verdict.VERIFIED
        proven += verdict(graph, row, maximum + size * Fraction(1, 10**12), dtype) is Verdict.VERIFIED
    if dtype == torch.float64:
        assert wrong > programs / 5
        assert proven > programs / 2


def cancelled(large: float) -> tuple[Program, str, str]:
    """(large + 1/4) - large, which float32 folds to zero."""
    program = Program()
    c = program.constant([large] * 4)
    return program, program.constant([1.0] * 4), program("Sub", program("Add", c, program.constant([0.25])), c)


def normalised() -> tuple[Program, str, str]:
    """A batch normalisation written with operators: gamma / sqrt(variance + eps) and beta - mean * scale, which nearly
    cancel.
    """
    program = Program()
    variance, eps = program.constant([1e-3, 2.0, 3e2, 0.7]), program.constant([1e-5])
    gamma, mean = program.constant([1.0, 0.3, 2.0, 5.0]), program.constant([3e3, -7e2, 1e5, 0.1])
    scale = program("Div", gamma, program("Sqrt", program("Add", variance, eps)))
    cancelling = [float(m * s) for m, s in zip(program.values[mean], program.values[scale], strict=True)]
    beta = program.constant(cancelling)
    return program, scale, program("Sub", beta, program("Mul", mean, scale))


def chain() -> tuple[Program, str, str]:
    """A third of a third ..., by multiplication and by division, and their difference: zero in exact arithmetic."""
    program = Program()
    three, one = program.constant([3.0]), program.constant([1.0, 0.7, 5.0, 1e-3])
    divided = multiplied = one
    third = program("Reciprocal", three)
    for _ in range(12):
        divided, multiplied = program("Div", divided, three), program("Mul", multiplied, third)
    return program, divided, program("Sub", divided, multiplied)


CASES = {"cancellation": cancelled(1e8), "batch normalisation": normalised(), "chain": chain()}


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sign", [1, -1])
def test_what_float32_would_have_verified_wrongly_is_not(name: str, sign: int, tmp_path: Path) -> None:
    """At the exact maximum and minimum of each output."""
    program, scale, shift = CASES[name]
    graph = imported(program, scale, shift, tmp_path)
    assert graph.executed
    for i in range(4):
        row = {i: Fraction(sign)}
        maximum, _ = largest(program, scale, shift, row)
        assert verdict(graph, row, maximum, torch.float64) is not Verdict.VERIFIED
        assert verdict(graph, row, maximum, torch.float32) is not Verdict.VERIFIED


def wrongly(program: Program, scale: str, shift: str, graph: Graph, rows: Sequence[dict[int, Fraction]]) -> int:
    """How many of the properties above the constants of the file's own precision prove."""
    own = folded(graph)
    return sum(
        verdict(own, row, largest(program, scale, shift, row)[0], torch.float64) is Verdict.VERIFIED for row in rows
    )


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("name", CASES)
def test_the_constants_of_float32_would_have_it_verified(name: str, tmp_path: Path) -> None:
    program, scale, shift = CASES[name]
    rows = [{i: Fraction(sign)} for i in range(4) for sign in (1, -1)]
    assert wrongly(program, scale, shift, imported(program, scale, shift, tmp_path), rows) > 0


@pytest.mark.usefixtures("prover_only")
def test_what_holds_in_real_arithmetic_alone_is_verified(tmp_path: Path) -> None:
    """x + ((1e8 + 1/4) - 1e8) is at least -1/4 on the box; with the zero that float32 folds it reaches -1/2."""
    program, scale, shift = CASES["cancellation"]
    graph = imported(program, scale, shift, tmp_path)
    row = {2: Fraction(-1)}
    assert verdict(graph, row, Fraction(26, 100), torch.float64) is Verdict.VERIFIED
    assert verdict(folded(graph), row, Fraction(26, 100), torch.float64) is not Verdict.VERIFIED


def test_padding_with_what_rounding_takes_for_zero_is_refused(tmp_path: Path) -> None:
    """(1 + 2^-60) - 1, of which float64 holds nothing, times 2^70 is 1024."""
    nodes = [op("Add", "a b", "t"), op("Sub", "t a", "p"), op("Pad", "x pads p", "z"), op("Gemm", "z w")]
    numbers = {"a": np.array(1, np.float32), "b": np.array(2.0**-60, np.float32)}
    weights = {**numbers, "pads": ints(0, 0, 0, 1), "w": np.array([[0], [2.0**70]], np.float32)}
    with pytest.raises(UnsupportedNetworkError, match="pads with a constant that rounding cannot tell from zero"):
        load_onnx(save(Case(nodes, [1, 1], (1,), weights).model(), tmp_path))


@pytest.mark.usefixtures("prover_only")
def test_what_constants_may_be_off_costs_little(tmp_path: Path) -> None:
    """The proven margins with their roundings counted and not, relative to the size of the terms."""
    for name, (program, scale, shift) in CASES.items():
        counted = imported(program, scale, shift, tmp_path)
        free = Graph(tuple(replace(n, op=_uncounted(n.op)) for n in counted.nodes), counted.output)
        row = {0: Fraction(1), 1: Fraction(1)}
        maximum, size = largest(program, scale, shift, row)
        results = [verify(graph, spec(row, maximum + size), dtype=torch.float64).margin for graph in (counted, free)]
        assert results[0] is not None
        assert results[1] is not None
        off = sum(float(e.sum()) for n in counted.nodes if isinstance(n.op, Affine) for e in n.op.doubt.values())
        assert 0 <= results[1] - results[0] <= 4 * off + 1e-14 * float(size), name
        assert off <= 1e-10 * float(size)


def _uncounted(op: Op) -> Op:
    return replace(op, roundings=0, doubt={}) if isinstance(op, Affine) else op


def doubtful(seed: int) -> tuple[Graph, Graph]:
    """Three linear layers whose constants are in doubt by up to a thousandth, and one of the networks meant."""
    generator = torch.Generator().manual_seed(seed)
    held, meant = [Node("x", Input(), (), (4,))], [Node("x", Input(), (), (4,))]
    for layer, (m, n) in enumerate(((4, 30), (30, 20), (20, 4))):
        source = held[-1].name
        weight, bias = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((n, m), (n,)))
        doubt = {"weight": 1e-3 * torch.rand_like(weight), "bias": 1e-3 * torch.rand_like(bias)}
        off = {name: e * torch.randint(-1, 2, e.shape, generator=generator) for name, e in doubt.items()}
        held.append(Node(f"y{layer}", Linear(weight, bias - 1, doubt=doubt), (source,), (n,)))
        meant.append(Node(f"y{layer}", Linear(weight + off["weight"], bias - 1 + off["bias"]), (source,), (n,)))
        if layer < 2:
            held.append(Node(f"relu{layer}", Relu(), (f"y{layer}",), (n,)))
            meant.append(held[-1])
    return Graph(tuple(held), "y2"), Graph(tuple(meant), "y2")


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("effort", ["fast", "standard"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_proofs_hold_for_every_network_that_is_meant(effort: Effort, dtype: torch.dtype) -> None:
    """On a box of 1e-4, where many neurons are dead, a property that one of them violates is not verified; without the
    doubt it is.
    """
    wrong = 0
    for seed in range(6):
        graph, meant = doubtful(seed)
        low = torch.randn((1, 4), generator=torch.Generator().manual_seed(seed + 50))
        box = Box.from_tensors(low, low + 1e-4)
        exact = evaluate(meant, exactly(low))
        for i in range(4):
            region = Region(box, ((LinearConstraint({i: Fraction(-1)}, {}, exact[i]),),))
            free = Graph(tuple(replace(n, op=_uncounted(n.op)) for n in graph.nodes), graph.output)
            results = [verify(g, Spec(4, 4, (region,)), dtype=dtype, effort=effort).verdict for g in (graph, free)]
            assert results[0] is not Verdict.VERIFIED, f"seed {seed}, output {i}"
            wrong += results[1] is Verdict.VERIFIED
    assert wrong > 3
