"""One trial of the soundness fuzzer: a random network, a random specification, and points that speak against a proof.

Small networks are compared with exact rational arithmetic: every bound that a verdict may rest on, at the corners of
the box and where the dual points; and rows that an exactly evaluated point violates, by a hair or by more, which must
not be verified. Larger ones are sampled, and searched by projected gradient descent, in float64 with a bound of its
error.

A *control* is an unsoundness that is put in on purpose, to see that the fuzzer finds it.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from tests.soundness.random_networks import RandomNetwork
from tests.soundness.rational import claims
from tests.verifier.exact import evaluate, exactly
from tests.verifier.graphs import random_box, sample_box
from zonocuda.bounds.dual.problem import dual_bound
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope
from zonocuda.graph import Cast, Graph, Staircase, interpret
from zonocuda.importers.rounding import Bounded, transfer
from zonocuda.relaxations import relu
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, attack, verification, verify

SMALL, LARGE = 24, 600
"""Features of a value of a small and of a large network."""
MARGINS = ("0", "1e-9", "1e-7", "1e-5", "1e-3", "0.1")
"""By which a row is violated, relative to the size of its terms."""

Bounds = tuple[Tensor, Tensor]


def trial(seed: int, control: str = "") -> tuple[str, str]:
    """What the trial was (for a table), and what is wrong: nothing, if that is empty."""
    rng = random.Random(f"bounds {seed}")
    with CONTROLS[control]():
        return exact_trial(seed, rng) if rng.random() < 0.7 else sampled_trial(seed, rng)


# ---- small networks --------------------------------------------------------------------------------------------------


def exact_trial(seed: int, rng: random.Random) -> tuple[str, str]:
    """Bounds and verdicts of a small network against rationals."""
    graph = RandomNetwork(seed, SMALL).graph()
    dtype = rng.choice((torch.float32, torch.float64))
    box = tuple(b.to(dtype) for b in random_box(graph, width=rng.choice((0.0, 1e-6, 1e-3, 0.1, 1.0)), seed=seed))
    assert len(box) == 2
    rows = [random_row(graph, rng) for _ in range(2)]
    try:
        if rng.random() < 0.5:
            for claim in claims(graph, box, rows, dtype, True):
                if not claim.holds:
                    return "exact bounds", f"{describe(graph)}\n{dtype}: {claim}"
            return "exact bounds, all hold", ""
        return planted_trial(graph, box, rows, rng)
    except OverflowError:
        return "a cast overflows", ""


def planted_trial(
    graph: Graph, box: tuple[Tensor, ...], rows: list[LinearConstraint], rng: random.Random
) -> tuple[str, str]:
    """Rows that an exactly evaluated point violates must not be verified."""
    box = tuple(b.double() for b in box)
    point = worst_point(graph, box, rows[0], rng)
    outputs, inputs = evaluate(graph, exactly(point)), exactly(point)
    margin = Fraction(rng.choice(MARGINS))
    planted = [violated(row, inputs, outputs, margin) for row in rows]
    never = LinearConstraint({0: Fraction(1)}, {}, Fraction(10) ** 30)
    forms = (((planted[0],),), (tuple(planted),), ((never,), (planted[0],)))
    region = Region(Box.from_tensors(*box), rng.choice(forms))
    options = random_options(rng, graph)
    with prover_only():
        result = verify(graph, Spec(point.numel(), len(outputs), (region,)), **options)
    if result.verdict is Verdict.VERIFIED:
        return (
            "planted",
            f"{describe(graph)}\n{options}: {result.verdict} ({result.reason}), violated by {margin} at {point}",
        )
    return "planted, not verified", ""


def random_row(graph: Graph, rng: random.Random) -> LinearConstraint:
    """Weights of some outputs, perhaps of an input, and numbers that no float holds."""
    outputs, inputs = math.prod(graph.output_shape), math.prod(graph.input_shape)
    weights = {i: Fraction(round(64 * rng.gauss(0, 1)) or 1, 64) for i in range(outputs) if rng.random() < 0.8}
    if rng.random() < 0.3:
        weights = {i: w / rng.choice((3, 7, 10**6)) for i, w in weights.items()}
    mixed = {rng.randrange(inputs): Fraction(rng.randint(1, 9), 7)} if rng.random() < 0.2 else {}
    return LinearConstraint(weights or {0: Fraction(1)}, mixed, Fraction(rng.randint(-9, 9), 3))


def worst_point(graph: Graph, box: Bounds, row: LinearConstraint, rng: random.Random) -> Tensor:
    """The corner where the dual's bound is attained, or the best of some points of the box. Both may be far off."""
    rows = Rows.of(Region(Box.from_tensors(*box), ((row,),)), box[0].numel(), math.prod(graph.output_shape), box[0])
    if rng.random() < 0.6 and graph.relus:
        inputs = sweep(graph, Zonotope.from_box(*box)).intermediate
        corner: Tensor = dual_bound(graph, rows, box, inputs).corner.reshape(1, *graph.input_shape)
        if bool(corner.isfinite().all()):
            return corner.clamp(*box)
    points = sample_box(box[0][0], box[1][0], 64, seed=rng.randrange(2**31)).clamp(*box)
    return points[rows.values(points, graph(points)).argmin()].unsqueeze(0)


def violated(row: LinearConstraint, x: list[Fraction], y: list[Fraction], margin: Fraction) -> LinearConstraint:
    """The row with another constant, so that the point violates the property by ``margin`` of the size of its terms."""
    terms = [c * y[i] for i, c in row.outputs.items()] + [c * x[j] for j, c in row.inputs.items()]
    return LinearConstraint(row.outputs, row.inputs, -sum(terms, Fraction(0)) - margin * sum(map(abs, terms)))


# ---- larger networks -------------------------------------------------------------------------------------------------


def sampled_trial(seed: int, rng: random.Random) -> tuple[str, str]:
    """A verdict on a larger network against the smallest values found in the box."""
    graph = RandomNetwork(seed, LARGE).graph()
    box = random_box(graph, width=rng.choice((1e-4, 1e-2, 0.1, 0.5)), seed=seed)
    row = random_row(graph, rng)
    least = least_value(graph, box, row, rng)
    if not math.isfinite(least):
        return "a cast overflows", ""
    spread = abs(least) * rng.choice((-1e-9, 1e-9, 1e-6, 1e-3, 0.1, 1.0, 10.0)) + rng.choice((0.0, 0.0, 1e-3, 1.0))
    shifted = LinearConstraint(row.outputs, row.inputs, row.constant - Fraction(least) + Fraction(spread))
    region = Region(Box.from_tensors(*box), ((shifted,),))
    spec = Spec(box[0].numel(), math.prod(graph.output_shape), (region,))
    options = random_options(rng, graph)
    searching = rng.random() < 0.3
    with (
        contextlib.nullcontext() if searching else prover_only(),
        patch.object(verification.Verification, "restarts", lambda *_: 8),
    ):
        result = verify(graph, spec, **options)
    found = f"sampled, {result.verdict}"
    if result.verdict is Verdict.VERIFIED and spread <= 0:
        return found, f"{describe(graph)}\n{options}: verified, but a point found has {least} below 0 by {-spread}"
    if result.counterexample is not None:
        x, y = result.counterexample.x.flatten(), result.counterexample.y.flatten()
        inside = bool(((x >= region.box.float32_lower) & (x <= region.box.float32_upper)).all())
        if not inside or not shifted.holds(x.tolist(), y.tolist()):
            return found, f"{describe(graph)}\n{options}: the counterexample is none, or lies outside the box"
    return found, ""


def least_value(graph: Graph, box: Bounds, row: LinearConstraint, rng: random.Random) -> float:
    """An upper bound of the row's smallest value, by sampling and projected gradient descent.

    The value of the best point in float64, and what float64 may have lost there.
    """
    low, high = (b[0] for b in box)
    weights = torch.zeros(math.prod(graph.output_shape), dtype=torch.float64)
    mixed = torch.zeros(low.numel(), dtype=torch.float64)
    for i, c in row.outputs.items():
        weights[i] = float(c)
    for j, c in row.inputs.items():
        mixed[j] = float(c)

    def value(x: Tensor) -> Tensor:
        return graph(x).flatten(1) @ weights + x.flatten(1) @ mixed + float(row.constant)

    points = sample_box(low, high, 256, seed=rng.randrange(2**31)).clamp(low, high)
    points = points[value(points).argsort()[:32]]
    for step in range(25):
        points.requires_grad_(True)
        (gradient,) = torch.autograd.grad(value(points).sum(), points)
        rate = 0.3 * 0.85**step
        points = (points.detach() - rate * (high - low) * gradient.sign()).clamp(low, high)
    with torch.no_grad():
        result = interpret(graph, Bounded.exact(points), lambda node, v: transfer(node, v, torch.float64))
        error = result.error.flatten(1) @ weights.abs()
        size = (
            result.value.flatten(1).abs() @ weights.abs()
            + points.flatten(1).abs() @ mixed.abs()
            + abs(float(row.constant))
        )
        return float((value(points) + 2 * error + 1e-14 * (len(weights) + len(mixed)) * size).min())


# ---- shared ----------------------------------------------------------------------------------------------------------


def random_options(rng: random.Random, graph: Graph) -> dict[str, Any]:
    """Any way to prove."""
    split = rng.choice(("none", "auto", "input", "neuron"))
    if split == "neuron" and any(isinstance(node.op, Staircase) for node in graph.nodes):
        split = "auto"
    return {
        "dtype": rng.choice(("auto", torch.float32, torch.float64)),
        "effort": rng.choice(("fast", "fast", "standard", "standard", "max")),
        "direction": rng.choice(("auto", "forward", "dual")),
        "backend": rng.choice(("native", "native", "reference")),
        "split": split,
        "timeout": 60.0 if split == "none" else 2.0,  # a planted violation leaves boxes open for ever
        "device": "cpu",
    }


@contextlib.contextmanager
def prover_only() -> Iterator[None]:
    """``verify`` proves or does not; the search finds nothing."""
    with (
        patch.object(verification, "falsify", lambda *a, **o: None),
        patch.object(verification, "replay", lambda *a, **o: None),
        patch.object(attack, "replay", lambda *a, **o: None),
        patch.object(attack, "falsify", lambda *a, **o: None),
    ):
        yield


def describe(graph: Graph) -> str:
    """The network, for people."""
    return "; ".join(f"{node.name}{list(node.shape)} <- {', '.join(node.inputs)}" for node in graph.nodes)


@contextlib.contextmanager
def _half_of_every_offset() -> Iterator[None]:
    """max(-l lam, u (1 - lam)) of the dual passes, halved."""
    real = relu.kernels

    class Halved:
        def __getattr__(self, name: str) -> Any:
            return getattr(real(), name)

        def dual_relu(self, *arguments: Any, **options: Any) -> Any:
            image, low, high = real().dual_relu(*arguments, **options)
            return image, low / 2, None if high is None else high / 2

    with patch.object(relu, "kernels", Halved):
        yield


CONTROLS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "": contextlib.nullcontext,
    "rounding": lambda: patch.object(Rounding, "gamma", lambda self, n: 0.0),
    "offset": _half_of_every_offset,
    "cast": lambda: patch.object(Cast, "error", lambda self, size: torch.zeros_like(size)),
}
"""What may be broken on purpose: rounding is not counted; the offset of a ReLU is too small; a cast is the identity."""
