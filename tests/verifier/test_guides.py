"""Slopes are found by bounds that nobody has to believe; what is proven with them counts its rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.soundness.rational import values_before_relus
from tests.verifier.exact import exactly
from tests.verifier.graphs import NETWORKS, Builder, constraint, random_box, region, sample_box
from zonocuda import precision
from zonocuda.bounds.forward.reduced import reduced_bounds
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rows import Rows
from zonocuda.graph import Add, Graph, Relu, windowed_ops
from zonocuda.precision import full_precision
from zonocuda.prove.lemmas import LemmaEffort, find_lemmas
from zonocuda.prove.prover import Prover, Rung
from zonocuda.prove.stages import Arithmetic
from zonocuda.tighten.ascent import Ascent
from zonocuda.tighten.refine import refine

CPU = torch.device("cpu")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@pytest.fixture
def lies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Convolutions whose sums nobody accounts for are wrong, and counted."""
    told: list[int] = []

    def lying(true: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def convolution(*arguments: Any) -> Tensor:
            found = true(*arguments)
            if precision._transforms_are_off():
                return found
            told.append(1)
            return 0.5 * found

        return convolution

    for name in ("convolve", "convolve_transpose"):
        monkeypatch.setattr(windowed_ops, name, lying(getattr(windowed_ops, name)))
    return told


def residual_convolutions(seed: int = 0) -> Graph:
    """A block whose sum is convolved again, so that rows of its neurons pass two paths of convolutions."""
    b = Builder(2, 4, 4, seed=seed)
    first = b(Relu(), b(b.conv(2, 3)))
    inner = b(b.conv(3, 3), b(Relu(), b(b.conv(3, 3), first)))
    b(Add(), inner, b(b.conv(3, 3, kernel=1, pad=0), first))
    b(Relu())
    b.flat()
    b(b.linear(b.shape()[0], 3))
    return b.graph()


def problem(graph: Graph, dtype: torch.dtype, width: float = 0.4) -> tuple[Arithmetic, Bounds, dict[str, Bounds]]:
    """A box, and bounds of the ReLUs' inputs by reduced zonotopes."""
    arithmetic = Arithmetic.of(graph, dtype, CPU)
    low, high = (b.to(dtype) for b in random_box(graph, width=width))
    with precision.summed_products():
        return arithmetic, (low, high), dict(reduced_bounds(arithmetic.graph, (low, high), arithmetic.rounding))


def exact(graph: Graph, x: Tensor) -> tuple[dict[str, list[Fraction]], Sequence[Fraction]]:
    """What a network computes at a point, its ReLUs' inputs by name and its output."""
    with precision.summed_products():
        return values_before_relus(graph, exactly(x))


def violations(graph: Graph, box: Bounds, intermediate: dict[str, Bounds]) -> list[str]:
    """ReLUs whose input leaves its bounds at some points of the box, in exact arithmetic."""
    wrong = []
    for x in sample_box(box[0][0].double(), box[1][0].double(), 4).to(box[0].dtype).clamp(box[0][0], box[1][0]):
        for name, values in exact(graph, x)[0].items():
            lower, upper = (end[0].flatten().tolist() for end in intermediate[name])
            if not all(a <= v <= b for a, v, b in zip(lower, values, upper, strict=True)):
                wrong.append(name)
    return wrong


@DTYPES
@pytest.mark.parametrize("kind", ["residual", "everything"])
def test_refined_bounds_hold_whatever_the_guide_computes(kind: str, dtype: torch.dtype, lies: list[int]) -> None:
    graph = residual_convolutions() if kind == "residual" else NETWORKS[kind](0)
    arithmetic, box, before = problem(graph, dtype)
    with full_precision():
        found = refine(arithmetic.graph, box, before, Ascent(iterations=3), rounding=arithmetic.rounding)
    assert lies
    assert not violations(graph, box, found.intermediate)


@DTYPES
def test_rows_hold_whatever_the_guide_computes(dtype: torch.dtype, lies: list[int]) -> None:
    graph = residual_convolutions()
    arithmetic, box, before = problem(graph, dtype)
    ends = box[0].flatten().double(), box[1].flatten().double()
    part = region(*ends, [[constraint({0: 1.0, 1: -1.0}, -50.0)], [constraint({2: -1.0}, -50.0)]])
    rows = Rows.of(part, ends[0].numel(), 3, box[0])
    prover = Prover(arithmetic.graph, rows, box, before, None, lambda node: None, arithmetic.rounding)
    with full_precision():
        prover.climb(Rung(3, 3))
    assert lies
    assert not violations(graph, box, prover.intermediate)
    low, high = (bound.item() for bound in prover.bounds)
    for x in sample_box(box[0][0].double(), box[1][0].double(), 4).to(dtype).clamp(box[0][0], box[1][0]):
        y = exact(graph, x)[1]
        assert low <= y[0] - y[1] - 50
        assert high <= -y[2] - 50


@DTYPES
def test_lemmas_hold_whatever_the_guide_computes(dtype: torch.dtype, lies: list[int]) -> None:
    graph = residual_convolutions()
    arithmetic, box, before = problem(graph, dtype)

    def costs(intermediate: Any, name: str) -> Tensor:
        return torch.ones(intermediate[name][0].numel())

    with full_precision():
        effort = LemmaEffort(8, 3)
        found = find_lemmas([arithmetic], [box], before, effort, costs, lambda node: None, lambda share: True)
    assert found.finished
    assert lies
    assert not violations(graph, box, found.intermediate)


@DTYPES
@pytest.mark.parametrize("seed", range(3))
def test_what_a_refinement_finds_is_proven_to_the_last_bit(seed: int, dtype: torch.dtype) -> None:
    """Behind active neurons the bound of a row is its value at a corner, but for rounding: exact arithmetic says on
    which side it lies."""
    b = Builder(2, 4, 4, seed=seed)
    first = b.conv(2, 3)
    assert first.bias is not None
    first.bias.add_(10)
    for op in (first, Relu(), b.conv(3, 3), Relu()):
        b(op)
    b.flat()
    b(b.linear(b.shape()[0], 1))
    graph = b.graph()
    arithmetic, box, before = problem(graph, dtype, width=0.1)
    last = graph.relus[1].name
    lower, upper = (end + side for end, side in zip(before[last], (-20.0, 20.0), strict=True))
    with full_precision():
        found = refine(
            arithmetic.graph, box, {**before, last: (lower, upper)}, Ascent(iterations=2), rounding=arithmetic.rounding
        )
    low, high = (end.flatten() for end in found.intermediate[last])
    assert bool((low > lower.flatten()).all())
    x = box[0].double().requires_grad_()
    y = b.nodes[3].op.apply(b.nodes[1].op.apply(x)).flatten()
    for neuron in range(0, len(y), 5):
        (slope,) = torch.autograd.grad(y[neuron], x, retain_graph=True)
        for sign, bound in ((1, low), (-1, -high)):
            corner = torch.where(sign * slope >= 0, *box)
            value = sign * exact(graph, corner)[0][last][neuron]
            assert Fraction(bound[neuron].item()) <= value
            assert value - Fraction(bound[neuron].item()) < Fraction(1, 1000)  # of 20
